/* djinn_plan.c - what planning costs, by part, with no server: the planner is a pure library.
 *
 * Rows come in the order in which a rank does these things:
 *
 *   fingerprint  both keys, from the program's bytes
 *   decode       bytes to a checked graph; the keys and every shape are part of it
 *   infer        of that, the shapes: dj_op_infer() for every node
 *   rewrite      graph to graph
 *   schedule     steps, groups, lifetimes
 *   place        an offset for everything that lives in Stack
 *   plan         dj_plan_make(): schedule, place and the plan's own numbers
 *   cold         decode, rewrite and plan: what a program pays that nobody has seen
 *   resize       the same structure with other sizes
 *   encode       the plan as bytes, to be published or kept
 *   prove        a published plan, read and proven against the graph
 *   hit          an entry of the cache found by key and given back: what a known program pays
 *   compare      the same where the structure came along and is compared byte by byte
 *
 * A figure is the median of single runs, or of runs of many where one is short. Inputs are GPTs of
 * the given numbers of ops (transformer.h) and the largest program of each snapshot that is named
 * (planner/snapshot.h); the other sizes of a snapshot's program are those that another one has.
 *
 *     build/release/bin/djinn_plan [-n NODES,...] [-p PART] [-t MS] [-x WARMUP] [--csv FILE]
 *                                  [SNAPSHOT ...]
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/osu.h"
#include "benchmarks/plan_parts.h"
#include "benchmarks/transformer.h"
#include "planner/snapshot.h"

enum { PROGRAMS_MAX = 16, FILES_MAX = 256 };
enum { SAMPLES_LEAST = 5, SAMPLES_MOST = 1000, BATCH_MOST = 1000 };
enum { LENGTH = 32, OTHER_LENGTH = 40, OPTION_CSV = 256 };
#define BATCH_US 50.0 /* what is shorter is run many times for one sample */

typedef struct options {
    uint32_t nodes[PROGRAMS_MAX], n_programs;
    char *const *files;
    uint32_t n_files;
    uint32_t budget_ms, warmup;
    const char *part; /* NULL: all */
    FILE *csv;
} options_t;

/* ---- measuring ---- */

static dj_status_t run_batch(const dj_part_t *part, dj_subject_t *s, uint32_t batch, double *us_p)
{
    dj_status_t status = part->ready ? part->ready(s) : DJ_OK;
    double began = dj_osu_now_us();
    for (uint32_t i = 0; i < batch && status == DJ_OK; i++)
        status = part->run(s);
    *us_p = (dj_osu_now_us() - began) / batch;
    return status;
}

static uint32_t within(double wanted, uint32_t least, uint32_t most)
{
    return wanted < least ? least : wanted > most ? most : (uint32_t)wanted;
}

static void write_samples(const options_t *options, const dj_subject_t *s, const dj_part_t *part,
                          const double *samples, uint32_t count)
{
    for (uint32_t i = 0; options->csv && i < count; i++)
        fprintf(options->csv, "%s,%u,%s,%u,%.4f\n", s->name, s->decoded->n_nodes, part->name, i,
                samples[i]);
}

static void print_row(const dj_subject_t *s, const dj_part_t *part, const dj_osu_summary_t *summary)
{
    uint32_t nodes = s->decoded->n_nodes;
    double goal = part->goal_ns_per_node * nodes / 1e3;
    for (int i = 0; i < 2; i++) {
        /* a transformer ends with its layer, so it has a few ops more than were asked for */
        uint32_t of = part->goals[i].nodes;
        if (part->goals[i].us > 0 && (of == 0 || (nodes >= of && nodes < of + of / 20)))
            goal = part->goals[i].us;
    }
    printf("%-20s%8u  %-12s%14.2f%14.2f%14.2f%10.1f", s->name, nodes, part->name,
           summary->median_us, summary->min_us, summary->p99_us, summary->median_us * 1e3 / nodes);
    if (goal > 0)
        printf("%12.0f %s", goal, summary->median_us <= goal ? "met" : "missed");
    printf("\n");
    fflush(stdout);
}

/* One run says how many make a sample, and how many samples the budget is worth. */
static dj_status_t measure(const options_t *options, dj_subject_t *s, const dj_part_t *part)
{
    static double samples[SAMPLES_MOST];
    static const dj_osu_options_t no_options;
    dj_osu_summary_t summary;
    double us;
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; i <= options->warmup && status == DJ_OK; i++)
        status = run_batch(part, s, 1, &us);
    uint32_t most = part->ready ? 1 : BATCH_MOST;
    uint32_t batch = within(BATCH_US / (us > 0.01 ? us : 0.01), 1, most);
    uint32_t count = within(options->budget_ms * 1e3 / (us * batch + 0.01), SAMPLES_LEAST,
                            SAMPLES_MOST);
    for (uint32_t i = 0; i < count && status == DJ_OK; i++)
        status = run_batch(part, s, batch, &samples[i]);
    if (status != DJ_OK)
        return dj_fail_prefix(status, "%s of %s", part->name, s->name);
    write_samples(options, s, part, samples, count);
    dj_osu_summarise(&no_options, samples, count, 0, &summary);
    print_row(s, part, &summary);
    return DJ_OK;
}

/* Time alone says nothing about a plan. */
static void print_peak(const dj_subject_t *s)
{
    const dj_plan_t *plan = s->plan;
    printf("# %s of %u nodes, %u steps: peak %llu bytes, %.4f of the bound; structure %zu bytes, "
           "sizes %zu\n",
           s->name, s->decoded->n_nodes, plan->n_steps, (unsigned long long)plan->peak_bytes,
           plan->bound_bytes ? (double)plan->peak_bytes / (double)plan->bound_bytes : 1.0,
           s->program.structure_size, s->program.sizes_size);
    fflush(stdout);
}

static dj_status_t measure_subject(const options_t *options, dj_subject_t *s)
{
    dj_status_t status = dj_subject_prepare(s);
    for (uint32_t i = 0; i < DJ_PARTS && status == DJ_OK; i++) {
        bool possible = dj_part_is_possible(&dj_parts[i], s);
        bool wanted = options->part == NULL || strcmp(options->part, dj_parts[i].name) == 0;
        if (possible && wanted)
            status = measure(options, s, &dj_parts[i]);
    }
    if (status == DJ_OK)
        print_peak(s);
    dj_subject_fini(s);
    return status;
}

static dj_status_t measure_transformer(const options_t *options, uint32_t nodes)
{
    dj_program_t program = {0}, other = {0};
    dj_subject_t subject = {.name = "gpt"};
    dj_status_t status = dj_transformer_record(nodes, LENGTH, &program);
    if (status == DJ_OK)
        status = dj_transformer_record(nodes, OTHER_LENGTH, &other);
    subject.program = dj_measured_program(&program);
    subject.other = dj_measured_program(&other);
    if (status == DJ_OK)
        status = measure_subject(options, &subject);
    dj_program_fini(&program);
    dj_program_fini(&other);
    return status;
}

/* ---- snapshots ---- */

static dj_measured_program_t program_of(const dj_snapshot_program_t *program)
{
    return (dj_measured_program_t){
        .structure = program->structure,
        .structure_size = program->structure_size,
        .sizes = program->sizes,
        .sizes_size = program->sizes_size,
        .n_scalars = program->n_scalars,
    };
}

static bool is_resized(const dj_measured_program_t *a, const dj_snapshot_program_t *b)
{
    return a->structure_size == b->structure_size && a->n_scalars == b->n_scalars &&
           memcmp(a->structure, b->structure, a->structure_size) == 0 &&
           (a->sizes_size != b->sizes_size || memcmp(a->sizes, b->sizes, a->sizes_size) != 0);
}

static void find_resized(dj_subject_t *s, dj_snapshot_t *const *snapshots, uint32_t n_snapshots)
{
    for (uint32_t i = 0; i < n_snapshots; i++)
        for (uint32_t j = 0; j < snapshots[i]->n_programs; j++)
            if (is_resized(&s->program, &snapshots[i]->programs[j]))
                s->other = program_of(&snapshots[i]->programs[j]);
}

static dj_status_t measure_snapshot(const options_t *options, const dj_snapshot_t *snapshot,
                                    dj_snapshot_t *const *snapshots)
{
    dj_subject_t subject = {.name = snapshot->name};
    for (uint32_t i = 0; i < snapshot->n_programs; i++)
        if (snapshot->programs[i].structure_size > subject.program.structure_size)
            subject.program = program_of(&snapshot->programs[i]);
    if (subject.program.structure == NULL)
        return DJ_OK; /* nothing was recorded */
    find_resized(&subject, snapshots, options->n_files);
    return measure_subject(options, &subject);
}

static dj_status_t measure_files(const options_t *options)
{
    dj_snapshot_t *snapshots[FILES_MAX] = {NULL};
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; i < options->n_files && status == DJ_OK; i++)
        status = dj_snapshot_read(options->files[i], &snapshots[i]);
    for (uint32_t i = 0; i < options->n_files && status == DJ_OK; i++)
        status = measure_snapshot(options, snapshots[i], snapshots);
    for (uint32_t i = 0; i < options->n_files; i++)
        dj_snapshot_destroy(snapshots[i]);
    return status;
}

/* ---- options ---- */

static void usage(void)
{
    printf("usage: djinn_plan [-n NODES,...] [-p PART] [-t MS] [-x WARMUP] [--csv FILE]\n"
           "                  [SNAPSHOT ...]\n"
           "What planning costs, by part: medians in microseconds, with no server.\n"
           "  -n, --nodes LIST  ops of the transformers to plan, 19 to %d each, at most %d of them\n"
           "                    (default 100,1000,3000,10000,100000, or none with a SNAPSHOT)\n"
           "  -p, --part PART   this row alone\n"
           "  -t, --time MS     for each row, 1 to 60000 (default 200); at least %d samples are taken\n"
           "  -x, --warmup N    runs before counting, 0 to 1000 (default 1)\n"
           "      --csv FILE    every sample as program,nodes,part,sample,us\n"
           "  -h, --help        this text\n"
           "  -v, --version     the version\n",
           DJ_TRANSFORMER_NODES_MAX, PROGRAMS_MAX, SAMPLES_LEAST);
}

static bool refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

static bool refuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "djinn_plan: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "; see djinn_plan -h\n");
    va_end(arguments);
    return false;
}

static bool read_number(const char *what, const char *text, size_t length, uint32_t least,
                        uint32_t most, uint32_t *number_p)
{
    uint64_t number = 0;
    bool good = length > 0 && length < 10;
    for (size_t i = 0; i < length && good; i++) {
        good = text[i] >= '0' && text[i] <= '9';
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    if (!good || number < least || number > most)
        return refuse("%s is '%.*s' and must be a number from %u to %u", what,
                      (int)(length < 64 ? length : 64), text, least, most);
    *number_p = (uint32_t)number;
    return true;
}

static bool read_nodes(const char *text, options_t *options)
{
    options->n_programs = 0;
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        if (options->n_programs == PROGRAMS_MAX)
            return refuse("at most %d numbers of ops can be given", PROGRAMS_MAX);
        if (!read_number("the number of ops", at, length, 19, DJ_TRANSFORMER_NODES_MAX,
                         &options->nodes[options->n_programs++]))
            return false;
        at += length;
        if (!*at)
            return true;
    }
}

static bool read_part(const char *text, options_t *options)
{
    for (uint32_t i = 0; i < DJ_PARTS; i++)
        if (strcmp(text, dj_parts[i].name) == 0)
            options->part = dj_parts[i].name;
    return options->part != NULL || refuse("'%.64s' is no part of planning", text);
}

static bool open_csv(const char *path, options_t *options)
{
    if (options->csv)
        return refuse("--csv is given twice");
    options->csv = fopen(path, "w");
    if (!options->csv)
        return refuse("%.200s cannot be written: %s", path, strerror(errno));
    fprintf(options->csv, "program,nodes,part,sample,us\n");
    return true;
}

static bool take_option(int letter, char **argv, options_t *options)
{
    size_t length = optarg ? strlen(optarg) : 0;
    switch (letter) {
    case 'n':
        return read_nodes(optarg, options);
    case 'p':
        return read_part(optarg, options);
    case 't':
        return read_number("the time of a row", optarg, length, 1, 60000, &options->budget_ms);
    case 'x':
        return read_number("the number of runs before counting", optarg, length, 0, 1000,
                           &options->warmup);
    case OPTION_CSV:
        return open_csv(optarg, options);
    case ':':
        return refuse("%.64s wants a value", argv[optind - 1]);
    default:
        return refuse("%.64s is no option", argv[optind - 1]);
    }
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, options_t *options)
{
    static const struct option names[] = {{"nodes", required_argument, NULL, 'n'},
                                          {"part", required_argument, NULL, 'p'},
                                          {"time", required_argument, NULL, 't'},
                                          {"warmup", required_argument, NULL, 'x'},
                                          {"csv", required_argument, NULL, OPTION_CSV},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'v'},
                                          {NULL, 0, NULL, 0}};
    int letter;
    opterr = 0;
    while ((letter = getopt_long(argc, argv, ":n:p:t:x:hv", names, NULL)) != -1) {
        if (letter == 'h')
            usage();
        else if (letter == 'v')
            printf("djinn_plan %s\n", DJINN_VERSION);
        if (letter == 'h' || letter == 'v')
            return 0;
        if (!take_option(letter, argv, options))
            return 1;
    }
    if (argc - optind > FILES_MAX) {
        refuse("at most %d snapshots can be given", FILES_MAX);
        return 1;
    }
    options->files = argv + optind;
    options->n_files = (uint32_t)(argc - optind);
    return -1;
}

static dj_status_t measure_all(const options_t *options)
{
    dj_status_t status = DJ_OK;
    printf("\n# Djinn Planner Test v%s\n# %-18s%8s  %-12s%14s%14s%14s%10s%12s\n", DJINN_VERSION,
           "Program", "Nodes", "Part", "Median(us)", "Min(us)", "P99(us)", "ns/node", "Goal(us)");
    for (uint32_t i = 0; i < options->n_programs && status == DJ_OK; i++)
        status = measure_transformer(options, options->nodes[i]);
    return status == DJ_OK ? measure_files(options) : status;
}

int main(int argc, char **argv)
{
    static const uint32_t usual[] = {100, 1000, 3000, 10000, 100000};
    options_t options = {.budget_ms = 200, .warmup = 1};
    int exit_status = parse(argc, argv, &options);
    if (options.n_programs == 0 && options.n_files == 0) {
        options.n_programs = sizeof(usual) / sizeof(*usual);
        memcpy(options.nodes, usual, sizeof(usual));
    }
    dj_status_t status = DJ_OK;
    if (exit_status < 0 && !dj_hash_setup())
        status = dj_fail(DJ_ERR_SYSTEM, "the system has no source of random numbers");
    if (exit_status < 0 && status == DJ_OK)
        status = measure_all(&options);
    if (options.csv && fclose(options.csv) != 0 && status == DJ_OK)
        status = dj_fail(DJ_ERR_SYSTEM, "the samples could not be written: %s", strerror(errno));
    if (status != DJ_OK)
        fprintf(stderr, "djinn_plan: %s\n", dj_error_text());
    return exit_status >= 0 ? exit_status : status != DJ_OK;
}
