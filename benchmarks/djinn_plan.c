/* djinn_plan.c - what planning costs, by part, with no server: the planner is a pure library.
 *
 * Rows come in the order in which a rank does these things:
 *
 *   fingerprint  both keys, from the program's bytes
 *   decode       bytes to a checked graph; the keys and every shape are part of it
 *   infer        of that, the shapes: dj_op_infer() for every node
 *   schedule     steps, groups, lifetimes
 *   place        an offset for everything that lives in Stack
 *   plan         dj_plan_make(): schedule, place and the plan's own numbers
 *   cold         decode and plan: what a program pays that nobody has seen
 *   resize       the same structure with other sizes
 *   encode       the plan as bytes, to be published or kept
 *   prove        a published plan, read and proven against the graph
 *   hit          an entry of the cache found by key and given back: what a known program pays
 *   compare      the same where the structure came along and is compared byte by byte
 *
 * A figure is the median of single runs, or of runs of many where one is short. Inputs are GPTs of
 * the given numbers of ops (transformer.h).
 *
 *     build/release/bin/djinn_plan [-n NODES,...] [-p PART] [-t MS] [-x WARMUP] [--csv FILE]
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/osu.h"
#include "benchmarks/transformer.h"
#include "planner/cache.h"
#include "planner/schedule.h"

enum { PROGRAMS_MAX = 16, SAMPLES_LEAST = 5, SAMPLES_MOST = 1000, BATCH_MOST = 1000 };
enum { LENGTH = 32, OTHER_LENGTH = 40, OPTION_CSV = 256 };
#define BATCH_US 50.0 /* what is shorter is run many times for one sample */

/* A device like the one that the host device says it is; figures do not depend on it. */
static const dj_plan_needs_t needs = {
    .device_class = {{1, 1}}, .flops_per_ns = 100, .bytes_per_ns = 20, .step_ns = 1000};

typedef struct options {
    uint32_t nodes[PROGRAMS_MAX], n_programs;
    uint32_t budget_ms, warmup;
    const char *part; /* NULL: all */
    FILE *csv;
} options_t;

/* One program and what the parts make of it. */
typedef struct subject {
    const char *name;
    dj_program_t program, other; /* `other`: the same structure, other sizes */
    dj_graph_t *graph;
    dj_plan_t *plan;
    dj_schedule_t schedule;
    dj_bytes_t encoded;
    dj_cache_t *cache;
    dj_hash_t exact_key;
} subject_t;

/* ---- the parts ---- */

static dj_status_t decode(const dj_program_t *program, dj_graph_t **graph_p)
{
    return dj_graph_decode(program->structure.data, program->structure.size, program->sizes.data,
                           program->sizes.size, (uint32_t)(program->scalars.size / 8), graph_p);
}

static dj_status_t run_fingerprint(subject_t *s)
{
    const dj_bytes_t *structure = &s->program.structure, *sizes = &s->program.sizes;
    dj_hash_t key = dj_program_key(structure->data, structure->size);
    s->exact_key = dj_program_exact_key(key, sizes->data, sizes->size);
    return DJ_OK;
}

static dj_status_t run_decode(subject_t *s)
{
    dj_graph_t *graph;
    dj_status_t status = decode(&s->program, &graph);
    if (status == DJ_OK)
        dj_graph_destroy(graph);
    return status;
}

static dj_status_t run_infer(subject_t *s)
{
    dj_view_t outs[DJ_OUTS_MAX];
    for (uint32_t i = 0; i < s->graph->n_nodes; i++) {
        dj_status_t status = dj_op_infer(&s->graph->nodes[i].call, outs);
        if (status != DJ_OK)
            return status;
    }
    return DJ_OK;
}

static dj_status_t make_schedule(const dj_graph_t *graph, dj_schedule_t *schedule)
{
    dj_status_t status = dj_schedule_init(schedule, graph);
    if (status != DJ_OK)
        return status;
    dj_schedule_group(schedule);
    dj_schedule_lifetimes(schedule);
    return DJ_OK;
}

static dj_status_t run_schedule(subject_t *s)
{
    dj_schedule_t schedule;
    dj_status_t status = make_schedule(s->graph, &schedule);
    if (status == DJ_OK)
        dj_schedule_fini(&schedule);
    return status;
}

static dj_status_t run_place(subject_t *s)
{
    uint64_t end;
    return dj_places_assign(s->schedule.places, s->schedule.n_places, 0, &end);
}

static dj_status_t run_plan(subject_t *s)
{
    dj_plan_t *plan;
    dj_status_t status = dj_plan_make(s->graph, &needs, &plan);
    if (status == DJ_OK)
        dj_plan_destroy(plan);
    return status;
}

static dj_status_t plan_program(const dj_program_t *program)
{
    dj_graph_t *graph;
    dj_plan_t *plan;
    dj_status_t status = decode(program, &graph);
    if (status != DJ_OK)
        return status;
    status = dj_plan_make(graph, &needs, &plan);
    if (status == DJ_OK)
        dj_plan_destroy(plan);
    dj_graph_destroy(graph);
    return status;
}

static dj_status_t run_cold(subject_t *s)
{
    return plan_program(&s->program);
}

/* As a rank does it: other sizes are decoded and planned like a new program. */
static dj_status_t run_resize(subject_t *s)
{
    return plan_program(&s->other);
}

static dj_status_t run_encode(subject_t *s)
{
    dj_bytes_clear(&s->encoded);
    return dj_plan_encode(s->plan, &s->encoded);
}

static dj_status_t run_prove(subject_t *s)
{
    dj_plan_t *plan;
    dj_status_t status = dj_plan_decode(s->encoded.data, s->encoded.size, s->graph, &needs, &plan);
    if (status == DJ_OK)
        dj_plan_destroy(plan);
    return status;
}

static dj_status_t run_hit(subject_t *s)
{
    dj_cache_entry_t *entry = dj_cache_find(s->cache, s->exact_key);
    if (entry == NULL)
        return dj_fail(DJ_ERR_NO_PLAN, "the entry is gone");
    dj_cache_release(s->cache, entry);
    return DJ_OK;
}

static dj_status_t run_compare(subject_t *s)
{
    const dj_bytes_t *structure = &s->program.structure, *sizes = &s->program.sizes;
    dj_cache_entry_t *entry = dj_cache_find(s->cache, s->exact_key);
    if (entry == NULL)
        return dj_fail(DJ_ERR_NO_PLAN, "the entry is gone");
    dj_status_t status = dj_cache_compare(entry, structure->data, structure->size, sizes->data,
                                          sizes->size);
    dj_cache_release(s->cache, entry);
    return status;
}

/* Goals are of the design: microseconds for a program of so many ops; ns_per_node: for any. */
typedef struct part {
    const char *name;
    dj_status_t (*run)(subject_t *subject);
    struct {
        uint32_t nodes; /* 0: any number */
        double us;
    } goals[2];
    double goal_ns_per_node;
} part_t;

static const part_t parts[] = {
    {"fingerprint", run_fingerprint, {{0}}, 100},
    {"decode", run_decode, {{0}}, 0},
    {"infer", run_infer, {{0}}, 0},
    {"schedule", run_schedule, {{0}}, 0},
    {"place", run_place, {{0}}, 0},
    {"plan", run_plan, {{0}}, 0},
    {"cold", run_cold, {{3000, 5000}, {100000, 300000}}, 0},
    {"resize", run_resize, {{1000, 50}}, 0},
    {"encode", run_encode, {{0}}, 0},
    {"prove", run_prove, {{0}}, 0},
    {"hit", run_hit, {{0, 1}}, 0},
    {"compare", run_compare, {{0}}, 0},
};
enum { N_PARTS = sizeof(parts) / sizeof(*parts) };

/* ---- a subject ---- */

static dj_status_t keep(subject_t *s, const dj_program_t *program)
{
    dj_graph_t *graph = NULL;
    dj_plan_t *plan = NULL;
    dj_cache_entry_t *entry;
    dj_status_t status = decode(program, &graph);
    if (status == DJ_OK)
        status = dj_plan_make(graph, &needs, &plan);
    if (status != DJ_OK) {
        dj_graph_destroy(graph);
        return status;
    }
    status = dj_cache_insert(s->cache, graph, plan, NULL, program->structure.data,
                             program->structure.size, program->sizes.data, program->sizes.size,
                             false, false, &entry);
    if (status == DJ_OK)
        dj_cache_release(s->cache, entry);
    return status;
}

/* The cache holds other programs too, as a rank's does. */
static dj_status_t fill_cache(subject_t *s)
{
    enum { OTHERS = 63 };
    dj_program_t small = {0};
    dj_cache_options_t options = {.limit = OTHERS + 1};
    dj_status_t status = dj_cache_create(&options, &s->cache);
    for (int64_t length = 1; length <= OTHERS && status == DJ_OK; length++) {
        status = dj_transformer_record(19, length, &small);
        if (status == DJ_OK)
            status = keep(s, &small);
    }
    dj_program_fini(&small);
    return status == DJ_OK ? keep(s, &s->program) : status;
}

static dj_status_t prepare(subject_t *s)
{
    dj_status_t status = decode(&s->program, &s->graph);
    if (status == DJ_OK)
        status = dj_plan_make(s->graph, &needs, &s->plan);
    if (status == DJ_OK)
        status = make_schedule(s->graph, &s->schedule);
    if (status == DJ_OK)
        status = run_encode(s);
    if (status == DJ_OK)
        status = run_fingerprint(s);
    return status == DJ_OK ? fill_cache(s) : status;
}

static void discard(subject_t *s)
{
    dj_cache_destroy(s->cache);
    dj_schedule_fini(&s->schedule);
    dj_plan_destroy(s->plan);
    dj_graph_destroy(s->graph);
    dj_bytes_fini(&s->encoded);
    dj_program_fini(&s->program);
    dj_program_fini(&s->other);
}

/* ---- measuring ---- */

static dj_status_t run_batch(const part_t *part, subject_t *s, uint32_t batch, double *us_p)
{
    dj_status_t status = DJ_OK;
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

static void write_samples(const options_t *options, const subject_t *s, const part_t *part,
                          const double *samples, uint32_t count)
{
    for (uint32_t i = 0; options->csv && i < count; i++)
        fprintf(options->csv, "%s,%u,%s,%u,%.4f\n", s->name, s->graph->n_nodes, part->name, i,
                samples[i]);
}

static void print_row(const subject_t *s, const part_t *part, const dj_osu_summary_t *summary)
{
    uint32_t nodes = s->graph->n_nodes;
    double goal = part->goal_ns_per_node * nodes / 1e3;
    for (int i = 0; i < 2; i++) {
        /* a transformer ends with its layer, so it has a few ops more than were asked for */
        uint32_t of = part->goals[i].nodes;
        if (part->goals[i].us > 0 && (of == 0 || (nodes >= of && nodes < of + of / 20)))
            goal = part->goals[i].us;
    }
    printf("%-12s%8u  %-12s%14.2f%14.2f%14.2f%10.1f", s->name, nodes, part->name,
           summary->median_us, summary->min_us, summary->p99_us, summary->median_us * 1e3 / nodes);
    if (goal > 0)
        printf("%12.0f %s", goal, summary->median_us <= goal ? "met" : "missed");
    printf("\n");
    fflush(stdout);
}

/* One run says how many make a sample, and how many samples the budget is worth. */
static dj_status_t measure(const options_t *options, subject_t *s, const part_t *part)
{
    static double samples[SAMPLES_MOST];
    static const dj_osu_options_t no_options;
    dj_osu_summary_t summary;
    double us;
    dj_status_t status = DJ_OK;
    for (uint32_t i = 0; i <= options->warmup && status == DJ_OK; i++)
        status = run_batch(part, s, 1, &us);
    uint32_t batch = within(BATCH_US / (us > 0.01 ? us : 0.01), 1, BATCH_MOST);
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
static void print_peak(const subject_t *s)
{
    const dj_plan_t *plan = s->plan;
    printf("# %s of %u nodes: peak %llu bytes, %.4f of the bound; structure %zu bytes, sizes %zu\n",
           s->name, s->graph->n_nodes, (unsigned long long)plan->peak_bytes,
           plan->bound_bytes ? (double)plan->peak_bytes / (double)plan->bound_bytes : 1.0,
           s->program.structure.size, s->program.sizes.size);
    fflush(stdout);
}

static dj_status_t measure_transformer(const options_t *options, uint32_t nodes)
{
    subject_t subject = {.name = "gpt"};
    dj_status_t status = dj_transformer_record(nodes, LENGTH, &subject.program);
    if (status == DJ_OK)
        status = dj_transformer_record(nodes, OTHER_LENGTH, &subject.other);
    if (status == DJ_OK)
        status = prepare(&subject);
    for (uint32_t i = 0; i < N_PARTS && status == DJ_OK; i++) {
        if (options->part == NULL || strcmp(options->part, parts[i].name) == 0)
            status = measure(options, &subject, &parts[i]);
    }
    if (status == DJ_OK)
        print_peak(&subject);
    discard(&subject);
    return status;
}

/* ---- options ---- */

static void usage(void)
{
    printf("usage: djinn_plan [-n NODES,...] [-p PART] [-t MS] [-x WARMUP] [--csv FILE]\n"
           "What planning costs, by part: medians in microseconds, with no server.\n"
           "  -n, --nodes LIST  ops of the transformers to plan, 19 to %d each, at most %d of them\n"
           "                    (default 100,1000,3000,10000,100000)\n"
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
    for (uint32_t i = 0; i < N_PARTS; i++)
        if (strcmp(text, parts[i].name) == 0)
            options->part = parts[i].name;
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
    if (optind == argc)
        return -1;
    refuse("'%.64s' is one word too many", argv[optind]);
    return 1;
}

static dj_status_t measure_all(const options_t *options)
{
    dj_status_t status = DJ_OK;
    printf("\n# Djinn Planner Test v%s\n# %-10s%8s  %-12s%14s%14s%14s%10s%12s\n", DJINN_VERSION,
           "Program", "Nodes", "Part", "Median(us)", "Min(us)", "P99(us)", "ns/node", "Goal(us)");
    for (uint32_t i = 0; i < options->n_programs && status == DJ_OK; i++)
        status = measure_transformer(options, options->nodes[i]);
    return status;
}

int main(int argc, char **argv)
{
    options_t options = {.nodes = {100, 1000, 3000, 10000, 100000},
                         .n_programs = 5,
                         .budget_ms = 200,
                         .warmup = 1};
    int exit_status = parse(argc, argv, &options);
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
