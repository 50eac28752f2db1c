/* osu.c - parses what OSU's options are, refuses what makes no sense, prints OSU's columns. */
#include "benchmarks/osu.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/config.h"

enum { OPTION_JSON = 256, FIELD_WIDTH = 18, RING_BYTES = 4 << 20 };

/* ---- refusing ---- */

/* A job's processes all read the same words: one answer is enough. */
static bool speaks(void)
{
    static const char *const variables[] = {"PMIX_RANK", "OMPI_COMM_WORLD_RANK"};
    for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++) {
        const char *rank = dj_environment(variables[i]);
        if (rank)
            return strcmp(rank, "0") == 0;
    }
    const char *step = dj_environment("SLURM_STEP_ID"), *rank = dj_environment("SLURM_PROCID");
    return !step || !rank || strcmp(rank, "0") == 0;
}

static bool refuse(const dj_osu_test_t *test, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool refuse(const dj_osu_test_t *test, const char *format, ...)
{
    va_list arguments;
    if (!speaks())
        return false;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", test->program);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "; see %s -h\n", test->program);
    va_end(arguments);
    return false;
}

/* ---- numbers ---- */

/* Decimal digits alone, `length` of them. */
static bool read_number(const dj_osu_test_t *test, const char *what, const char *text,
                        size_t length, uint64_t low, uint64_t high, uint64_t *number_p)
{
    uint64_t number = 0;
    bool digits = length > 0, huge = false;
    for (size_t i = 0; i < length && digits; i++) {
        digits = text[i] >= '0' && text[i] <= '9';
        huge = huge || number > (UINT64_MAX - 9) / 10;
        number = huge || !digits ? number : number * 10 + (uint64_t)(text[i] - '0');
    }
    if (digits && !huge && number >= low && number <= high) {
        *number_p = number;
        return true;
    }
    return refuse(test, "%s is '%.*s' and must be a number from %llu to %llu", what,
                  (int)(length < 64 ? length : 64), text, (unsigned long long)low,
                  (unsigned long long)high);
}

/* MAX, MIN:MAX, MIN: or :MAX. */
static bool read_sizes(const dj_osu_test_t *test, dj_osu_options_t *options, const char *text)
{
    const char *colon = strchr(text, ':'), *last = colon ? colon + 1 : text;
    uint64_t low = test->least_bytes;
    bool ok = true;
    if (colon && colon == text && !*last)
        return refuse(test, "the message size is ':' and must be [MIN:]MAX");
    if (colon && colon > text)
        ok = read_number(test, "the smallest message size", text, (size_t)(colon - text), low,
                         DJ_OSU_BYTES_MAX, &options->min_bytes);
    if (ok && *last)
        ok = read_number(test, "the largest message size", last, strlen(last), low,
                         DJ_OSU_BYTES_MAX, &options->max_bytes);
    else if (ok && !colon)
        ok = read_number(test, "the message size", text, 0, low, DJ_OSU_BYTES_MAX,
                         &options->max_bytes);
    if (ok && (!colon || colon == text))
        options->min_bytes = low;
    if (ok && options->min_bytes > options->max_bytes)
        return refuse(test, "the smallest message size %llu is above the largest, %llu",
                      (unsigned long long)options->min_bytes,
                      (unsigned long long)options->max_bytes);
    if (ok && test->multiple > 1 &&
        (options->min_bytes % test->multiple || options->max_bytes % test->multiple))
        return refuse(test, "message sizes must be multiples of %llu",
                      (unsigned long long)test->multiple);
    return ok;
}

static bool read_percentiles(const dj_osu_test_t *test, dj_osu_options_t *options, const char *text)
{
    options->n_percentiles = 0;
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        uint64_t number;
        if (options->n_percentiles == DJ_OSU_PERCENTILES_MAX)
            return refuse(test, "at most %d percentiles can be printed", DJ_OSU_PERCENTILES_MAX);
        bool prefixed = length > 1 && (*at == 'P' || *at == 'p');
        if (!read_number(test, "a percentile", at + prefixed, length - prefixed, 1, 99, &number))
            return false;
        options->percentiles[options->n_percentiles++] = (uint32_t)number;
        at += length;
        if (!*at)
            return true;
    }
}

static bool read_device(const dj_osu_test_t *test, const char *text)
{
    if (strcmp(text, "host") == 0)
        return true;
    if (strcmp(text, "cuda") == 0)
        return refuse(test, "this build has no cuda device: only -d host can be measured");
    return refuse(test, "the device is '%.32s' and must be host or cuda", text);
}

/* ---- the options ---- */

static void usage(const dj_osu_test_t *test)
{
    printf("usage: %s%s [-i ITERATIONS] [-x WARMUP]%s%s [-c] [-f] [-z[LIST]]%s [--json]\n%s\n",
           test->program, test->sized ? " [-m [MIN:]MAX]" : "",
           test->windowed ? " [-W WINDOW]" : "", test->processes ? " [-p PROCESSES]" : "",
           test->devices ? " [-d host|cuda]" : "", test->about);
    if (test->sized)
        printf(
            "  -m, --message-size [MIN:]MAX  bytes, %llu to %llu (default %llu:%llu), doubling\n",
            (unsigned long long)test->least_bytes, (unsigned long long)DJ_OSU_BYTES_MAX,
            (unsigned long long)test->first_bytes, (unsigned long long)test->last_bytes);
    printf("  -i, --iterations N    counted iterations (default %llu",
           (unsigned long long)test->iterations);
    if (test->iterations_large)
        printf(", above %llu bytes %llu", (unsigned long long)test->large_from,
               (unsigned long long)test->iterations_large);
    printf(")\n  -x, --warmup N        iterations before counting (default %llu",
           (unsigned long long)test->warmup);
    if (test->iterations_large)
        printf(", above %llu bytes %llu", (unsigned long long)test->large_from,
               (unsigned long long)test->warmup_large);
    printf(")\n");
    if (test->windowed)
        printf("  -W, --window-size N   messages under way before one wait, 1 to %d (default 64)\n",
               DJ_OSU_WINDOW_MAX);
    if (test->processes)
        printf("  -p, --pairs N         processes at work, where no launcher started several\n");
    printf("  -c, --validation      check the data of every iteration, outside the timing\n"
           "  -f, --full            all columns\n"
           "  -z, --tail-lat[=LIST] percentiles as well (default P50,P90,P99)\n");
    if (test->devices)
        printf("  -d, --accelerator D   where the rank's memory is: host or cuda (default host)\n");
    printf("      --json            one JSON document instead of columns\n"
           "  -h, --help            this text\n"
           "  -v, --version         the version\n");
}

static bool take_option(const dj_osu_test_t *test, dj_osu_options_t *options, int letter,
                        const char *value)
{
    size_t length = value ? strlen(value) : 0;
    switch (letter) {
    case 'm':
        return read_sizes(test, options, value);
    case 'i':
        return read_number(test, "the number of iterations", value, length, 1,
                           DJ_OSU_ITERATIONS_MAX, &options->iterations);
    case 'x':
        return read_number(test, "the number of warm-up iterations", value, length, 0,
                           DJ_OSU_ITERATIONS_MAX, &options->warmup);
    case 'W':
        return read_number(test, "the window size", value, length, 1, DJ_OSU_WINDOW_MAX,
                           &options->window);
    case 'p':
        return read_number(test, "the number of processes", value, length, 1, DJ_OSU_PROCESSES_MAX,
                           &options->processes);
    case 'z':
        return read_percentiles(test, options, value ? value : "50,90,99");
    case 'd':
        return read_device(test, value);
    case 'c':
        options->validate = true;
        return true;
    case 'f':
        options->full = true;
        return true;
    default:
        options->json = true;
        return true;
    }
}

/* The letters a test knows, as getopt wants them. */
static void letters_of(const dj_osu_test_t *test, char text[32])
{
    snprintf(text, 32, ":%s%s%s%si:x:cfz::hv", test->sized ? "m:" : "", test->windowed ? "W:" : "",
             test->processes ? "p:" : "", test->devices ? "d:" : "");
}

static const struct option long_options[] = {{"message-size", required_argument, NULL, 'm'},
                                             {"iterations", required_argument, NULL, 'i'},
                                             {"warmup", required_argument, NULL, 'x'},
                                             {"window-size", required_argument, NULL, 'W'},
                                             {"pairs", required_argument, NULL, 'p'},
                                             {"validation", no_argument, NULL, 'c'},
                                             {"full", no_argument, NULL, 'f'},
                                             {"tail-lat", optional_argument, NULL, 'z'},
                                             {"accelerator", required_argument, NULL, 'd'},
                                             {"json", no_argument, NULL, OPTION_JSON},
                                             {"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, 'v'},
                                             {NULL, 0, NULL, 0}};

int dj_osu_parse(const dj_osu_test_t *test, int argc, char **argv, dj_osu_options_t *options)
{
    dj_osu_options_t parsed = {.min_bytes = test->first_bytes,
                               .max_bytes = test->last_bytes,
                               .iterations = UINT64_MAX,
                               .warmup = UINT64_MAX,
                               .window = test->windowed ? 64 : 1};
    char letters[32];
    int letter;
    letters_of(test, letters);
    opterr = 0;
    optind = 0;
    while ((letter = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
        bool known = letter >= OPTION_JSON || strchr(letters + 1, letter);
        if (letter == 'h' || letter == 'v') {
            if (speaks() && letter == 'h')
                usage(test);
            else if (speaks())
                printf("%s %s\n", test->program, DJINN_VERSION);
            return 0;
        }
        bool taken = false;
        if (letter == ':')
            refuse(test, "%.64s wants a value", argv[optind - 1]);
        else if (letter == '?' || !known)
            refuse(test, "%.64s is no option of this test", argv[optind - 1]);
        else
            taken = take_option(test, &parsed, letter, optarg);
        if (!taken)
            return speaks() ? 1 : 0;
    }
    if (optind < argc) {
        refuse(test, "'%.64s' is one word too many", argv[optind]);
        return speaks() ? 1 : 0;
    }
    *options = parsed;
    return -1;
}

uint64_t dj_osu_iterations(const dj_osu_test_t *test, const dj_osu_options_t *options,
                           uint64_t bytes)
{
    if (options->iterations != UINT64_MAX)
        return options->iterations;
    return test->iterations_large && bytes > test->large_from ? test->iterations_large
                                                              : test->iterations;
}

uint64_t dj_osu_warmup(const dj_osu_test_t *test, const dj_osu_options_t *options, uint64_t bytes)
{
    if (options->warmup != UINT64_MAX)
        return options->warmup;
    return test->iterations_large && bytes > test->large_from ? test->warmup_large : test->warmup;
}

uint64_t dj_osu_slots(const dj_osu_options_t *options, uint64_t bytes)
{
    uint64_t slots = RING_BYTES / bytes;
    slots = slots < options->window ? slots : options->window;
    return slots > 1 ? slots : 1;
}

uint64_t dj_osu_ring_bytes(const dj_osu_options_t *options)
{
    return options->max_bytes > RING_BYTES ? options->max_bytes : RING_BYTES;
}

/* ---- samples ---- */

double dj_osu_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void dj_osu_summarise(const dj_osu_options_t *options, double *samples_us, uint64_t count,
                      uint64_t wrong, dj_osu_summary_t *summary)
{
    *summary = (dj_osu_summary_t){.iterations = count, .wrong = wrong};
    for (uint64_t i = 0; i < count; i++)
        summary->total_us += samples_us[i];
    qsort(samples_us, count, sizeof(*samples_us), by_value);
    summary->average_us = summary->total_us / (double)count;
    summary->min_us = samples_us[0];
    summary->max_us = samples_us[count - 1];
    summary->median_us = samples_us[count / 2];
    summary->p99_us = samples_us[count * 99 / 100];
    for (uint32_t i = 0; i < options->n_percentiles; i++)
        summary->percentiles_us[i] = samples_us[count * options->percentiles[i] / 100];
}

void dj_osu_merge(const dj_osu_summary_t *summaries, uint32_t count, dj_osu_summary_t *merged)
{
    *merged = summaries[0];
    if (count == 1)
        return;
    dj_osu_summary_t sum = {.min_us = summaries[0].average_us,
                            .iterations = summaries[0].iterations};
    for (uint32_t i = 0; i < count; i++) {
        const dj_osu_summary_t *one = &summaries[i];
        sum.average_us += one->average_us / count;
        sum.median_us += one->median_us / count;
        sum.p99_us += one->p99_us / count;
        for (int p = 0; p < DJ_OSU_PERCENTILES_MAX; p++)
            sum.percentiles_us[p] += one->percentiles_us[p] / count;
        sum.min_us = one->average_us < sum.min_us ? one->average_us : sum.min_us;
        sum.max_us = one->average_us > sum.max_us ? one->average_us : sum.max_us;
        sum.total_us = one->total_us > sum.total_us ? one->total_us : sum.total_us;
        sum.wrong += one->wrong;
    }
    *merged = sum;
}

void dj_osu_fill(void *data, uint64_t bytes, uint64_t round)
{
    uint8_t *byte = data;
    for (uint64_t i = 0; i < bytes; i++)
        byte[i] = dj_osu_pattern(i, round);
}

uint64_t dj_osu_wrong(const void *data, uint64_t bytes, uint64_t round)
{
    const uint8_t *byte = data;
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < bytes; i++)
        wrong += byte[i] != dj_osu_pattern(i, round);
    return wrong;
}

/* ---- columns ---- */

static const char *unit_of(const dj_osu_test_t *test)
{
    static const char *const units[] = {[DJ_OSU_LATENCY] = "Avg Latency(us)",
                                        [DJ_OSU_BANDWIDTH] = "Bandwidth (MB/s)",
                                        [DJ_OSU_RATE] = "MB/s"};
    return test->named ? "Avg Time(us)" : units[test->metric];
}

static void print_percentile_names(const dj_osu_test_t *test, const dj_osu_options_t *options)
{
    for (uint32_t i = 0; i < options->n_percentiles; i++) {
        char name[32];
        snprintf(name, sizeof(name), "P%u Tail %s", options->percentiles[i],
                 test->metric == DJ_OSU_LATENCY ? "Lat(us)" : "BW(MB/s)");
        printf("%*s", FIELD_WIDTH, name);
    }
}

void dj_osu_begin(const dj_osu_test_t *test, const dj_osu_options_t *options, const char *note)
{
    if (options->json) {
        printf("{\"benchmark\": \"%s\", \"version\": \"%s\", \"title\": \"%s\", "
               "\"device\": \"host\", \"rows\": [",
               test->program, DJINN_VERSION, test->title);
        fflush(stdout);
        return;
    }
    printf("\n# %s v%s\n", test->title, DJINN_VERSION);
    if (note)
        printf("# %s\n", note);
    if (test->datatype)
        printf("# Datatype: %s.\n", test->datatype);
    if (test->sized)
        printf("# %-8s%*s", test->named ? "Request" : "Size", FIELD_WIDTH, unit_of(test));
    else
        printf("# %s", unit_of(test));
    if (test->metric == DJ_OSU_RATE)
        printf("%*s", FIELD_WIDTH, "Messages/s");
    if (options->full && test->named)
        printf("%*s%*s%*s", FIELD_WIDTH, "Min(us)", FIELD_WIDTH, "P50(us)", FIELD_WIDTH, "P99(us)");
    else if (options->full)
        printf("%*s%*s%12s", FIELD_WIDTH, "Min Latency(us)", FIELD_WIDTH, "Max Latency(us)",
               "Iterations");
    if (options->validate)
        printf("%*s", FIELD_WIDTH, "Validation");
    print_percentile_names(test, options);
    printf("\n");
    fflush(stdout);
}

/* Bandwidth's tail is its slow end: P99 is what all but one in a hundred windows reached. */
static double percentile(const dj_osu_test_t *test, const dj_osu_row_t *row, uint32_t i)
{
    const dj_osu_summary_t *summary = row->summary;
    if (test->metric == DJ_OSU_LATENCY)
        return summary->percentiles_us[i];
    return row->mb_per_s * (summary->total_us / (double)summary->iterations) /
           summary->percentiles_us[i];
}

static void print_json(const dj_osu_test_t *test, const dj_osu_options_t *options,
                       const dj_osu_row_t *row)
{
    const dj_osu_summary_t *summary = row->summary;
    static bool again;
    printf("%s\n  {", again ? "," : "");
    again = true;
    if (row->name)
        printf("\"request\": \"%s\", ", row->name);
    else if (test->sized)
        printf("\"size\": %llu, ", (unsigned long long)row->bytes);
    if (test->metric != DJ_OSU_LATENCY)
        printf("\"mb_per_s\": %.9g, ", row->mb_per_s);
    if (test->metric == DJ_OSU_RATE)
        printf("\"messages_per_s\": %.9g, ", row->rate_per_s);
    printf("\"average_us\": %.9g, \"min_us\": %.9g, \"median_us\": %.9g, \"p99_us\": %.9g, "
           "\"max_us\": %.9g, \"iterations\": %llu",
           summary->average_us, summary->min_us, summary->median_us, summary->p99_us,
           summary->max_us, (unsigned long long)summary->iterations);
    for (uint32_t i = 0; i < options->n_percentiles; i++)
        printf(", \"tail_p%u\": %.9g", options->percentiles[i], percentile(test, row, i));
    if (options->validate)
        printf(", \"wrong_bytes\": %llu", (unsigned long long)summary->wrong);
    printf("}");
    fflush(stdout);
}

void dj_osu_print(const dj_osu_test_t *test, const dj_osu_options_t *options,
                  const dj_osu_row_t *row)
{
    const dj_osu_summary_t *summary = row->summary;
    if (options->json) {
        print_json(test, options, row);
        return;
    }
    if (row->name)
        printf("%-10s", row->name);
    else if (test->sized)
        printf("%-10llu", (unsigned long long)row->bytes);
    printf("%*.2f", test->sized ? FIELD_WIDTH : FIELD_WIDTH - 1,
           test->metric == DJ_OSU_LATENCY ? summary->average_us : row->mb_per_s);
    if (test->metric == DJ_OSU_RATE)
        printf("%*.2f", FIELD_WIDTH, row->rate_per_s);
    if (options->full && test->named)
        printf("%*.2f%*.2f%*.2f", FIELD_WIDTH, summary->min_us, FIELD_WIDTH, summary->median_us,
               FIELD_WIDTH, summary->p99_us);
    else if (options->full)
        printf("%*.2f%*.2f%12llu", FIELD_WIDTH, summary->min_us, FIELD_WIDTH, summary->max_us,
               (unsigned long long)summary->iterations);
    if (options->validate)
        printf("%*s", FIELD_WIDTH, summary->wrong ? "Fail" : "Pass");
    for (uint32_t i = 0; i < options->n_percentiles; i++)
        printf("%*.2f", FIELD_WIDTH, percentile(test, row, i));
    printf("\n");
    fflush(stdout);
}

void dj_osu_end(const dj_osu_test_t *test, const dj_osu_options_t *options)
{
    if (options->json)
        printf("\n]}\n");
    fflush(stdout);
}
