/* djinn_pack.c - how well offsets are placed: perfect packings, quickly and exactly.
 *
 * An instance is a rectangle of time and space cut at random (cuts.h), so its optimum is known and
 * leaves no byte unused. A row tells how far above it the quick mode ends, whether the exact mode
 * reaches it within the time, and how long each took on one core. The grid of the cuts decides how
 * hard an instance is: on a fine one few sums agree by chance, on a coarse one many do. Without
 * options the rows go through several grids; --grid fixes one.
 *
 *     djinn_pack [--seed N] [--count N] [--pieces MIN:MAX] [--time S] [--grid TIMES:HEIGHT]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "benchmarks/cuts.h"
#include "planner/place.h"
#include "runtime/base/clock.h"

enum { PIECES_MAX = 100000, COUNT_MAX = 10000 };
#define GRID_MAX 100000000u

typedef struct grid {
    uint64_t times, height;
} grid_t;

static const grid_t grids[] = {{1000, 1 << 20}, {10000, 1000000}, {200, 1 << 20}, {1000, 1000}};

typedef struct options {
    uint64_t seed, count, least, most, seconds;
    grid_t grid; /* 0: all of `grids` by turns */
} options_t;

typedef struct row {
    double ratio, quick_ms, seconds;
    dj_pack_end_t end;
} row_t;

static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int usage(FILE *out, int status)
{
    fputs("usage: djinn_pack [OPTION]...\n"
          "  --seed N             of the first instance (1)\n"
          "  --count N            instances (24)\n"
          "  --pieces MIN:MAX     pieces of an instance, evenly spread (100:450)\n"
          "  --time S             of the exact mode, each (10)\n"
          "  --grid TIMES:HEIGHT  of the cuts; several by turns without it\n",
          out);
    return status;
}

static bool parse_number(const char *text, const char **end_p, uint64_t least, uint64_t most,
                         uint64_t *value_p)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || value < least || value > most)
        return false;
    *value_p = value;
    *end_p = end;
    return true;
}

static bool parse_pair(const char *text, uint64_t least, uint64_t most, uint64_t *first_p,
                       uint64_t *second_p)
{
    const char *end;
    return parse_number(text, &end, least, most, first_p) && *end == ':' &&
           parse_number(end + 1, &end, least, most, second_p) && *end == '\0';
}

static bool parse_one(const char *text, uint64_t most, uint64_t *value_p)
{
    const char *end;
    return parse_number(text, &end, 1, most, value_p) && *end == '\0';
}

static bool parse(int argc, char **argv, options_t *options)
{
    bool good = true;
    for (int i = 1; i < argc && good; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--seed") == 0)
            good = parse_one(value, UINT32_MAX, &options->seed);
        else if (strcmp(argv[i], "--count") == 0)
            good = parse_one(value, COUNT_MAX, &options->count);
        else if (strcmp(argv[i], "--time") == 0)
            good = parse_one(value, 100000, &options->seconds);
        else if (strcmp(argv[i], "--pieces") == 0)
            good = parse_pair(value, 1, PIECES_MAX, &options->least, &options->most) &&
                   options->least <= options->most;
        else if (strcmp(argv[i], "--grid") == 0)
            good = parse_pair(value, 1, GRID_MAX, &options->grid.times, &options->grid.height);
        else
            good = false;
        if (!good)
            fprintf(stderr, "djinn_pack: no such option or value: %s %s\n", argv[i], value);
    }
    if (good && options->grid.times > 0 &&
        options->grid.times * options->grid.height < 4 * options->most) {
        fprintf(stderr, "djinn_pack: the grid is too coarse for %llu pieces\n",
                (unsigned long long)options->most);
        return false;
    }
    return good;
}

/* In units of one byte the places would all be padded: a unit is one alignment. */
static dj_status_t measure_quick(const dj_rect_t *rects, uint32_t n, uint64_t height, row_t *row)
{
    dj_place_t *places = calloc(n, sizeof places[0]);
    uint64_t end;
    if (places == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u places", n);
    for (uint32_t i = 0; i < n; i++) {
        places[i].bytes = rects[i].size * DJ_ALIGN_BYTES;
        places[i].first = places[i].from = (uint32_t)rects[i].lower;
        places[i].last = (uint32_t)rects[i].upper - 1;
    }
    double began = cpu_ms();
    dj_status_t status = dj_places_assign(places, n, 0, &end);
    row->quick_ms = cpu_ms() - began;
    row->ratio = (double)end / (double)DJ_ALIGN_BYTES / (double)height;
    if (status == DJ_OK)
        status = dj_places_check(places, n, 0);
    free(places);
    return status;
}

static dj_status_t measure_exact(const dj_rect_t *rects, uint32_t n, uint64_t height,
                                 uint64_t seconds, uint64_t *offsets, row_t *row)
{
    uint64_t began = dj_clock_ns();
    dj_pack_limits_t limits = {.deadline_ns = began + seconds * DJ_NS_PER_S, .seed = 1};
    dj_pack_result_t result;
    dj_status_t status = dj_pack_solve(rects, n, height, &limits, offsets, &result);
    row->seconds = (double)(dj_clock_ns() - began) / (double)DJ_NS_PER_S;
    row->end = result.end;
    if (status == DJ_OK && result.end == DJ_PACK_FOUND)
        status = dj_pack_check(rects, n, height, offsets);
    return status;
}

static dj_cuts_t describe(const options_t *options, uint64_t number)
{
    uint64_t more = options->most - options->least;
    grid_t grid =
        options->grid.times > 0 ? options->grid : grids[number % (sizeof grids / sizeof grids[0])];
    return (dj_cuts_t){
        .seed = options->seed + number,
        .times = grid.times,
        .height = grid.height,
        .count = (uint32_t)(options->least +
                            (options->count > 1 ? more * number / (options->count - 1) : 0)),
        .pinwheels = number / 4 % 2 == 0 ? 0 : 20,
        .by_area = number / 2 % 2 == 0,
    };
}

static dj_status_t run(const options_t *options, uint64_t number, row_t *row)
{
    dj_cuts_t cuts = describe(options, number);
    dj_rect_t *rects = malloc(cuts.count * sizeof rects[0]);
    uint64_t *offsets = malloc(cuts.count * sizeof offsets[0]);
    dj_status_t status = DJ_ERR_MEMORY;
    if (rects != NULL && offsets != NULL) {
        dj_cuts_make(&cuts, rects, offsets);
        status = measure_quick(rects, cuts.count, cuts.height, row);
        if (status == DJ_OK)
            status = measure_exact(rects, cuts.count, cuts.height, options->seconds, offsets, row);
    } else {
        dj_fail(status, "no memory for %u pieces", cuts.count);
    }
    free(rects);
    free(offsets);
    if (status != DJ_OK)
        return status;
    printf("%-10llu%8u%8llu%10llu%11s%9s%9.4f%12.2f%10s%11.3f\n", (unsigned long long)cuts.seed,
           cuts.count, (unsigned long long)cuts.times, (unsigned long long)cuts.height,
           cuts.pinwheels > 0 ? "pinwheels" : "straight", cuts.by_area ? "area" : "all", row->ratio,
           row->quick_ms, row->end == DJ_PACK_FOUND ? "optimal" : "ended", row->seconds);
    fflush(stdout);
    return DJ_OK;
}

int main(int argc, char **argv)
{
    options_t options = {.seed = 1, .count = 24, .least = 100, .most = 450, .seconds = 10};
    if (argc == 2 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0))
        return usage(stdout, 0);
    if (!parse(argc, argv, &options))
        return usage(stderr, 1);
    double ratios = 0, worst = 0;
    uint64_t optimal = 0;
    printf("\n# Djinn Placement Test v%s\n# Perfect packings; %llu s each.\n"
           "%-10s%8s%8s%10s%11s%9s%9s%12s%10s%11s\n",
           DJINN_VERSION, (unsigned long long)options.seconds, "# Seed", "Pieces", "Times",
           "Height", "Cuts", "Drawn", "Quick", "Quick(ms)", "Exact", "Exact(s)");
    for (uint64_t i = 0; i < options.count; i++) {
        row_t row = {0};
        if (run(&options, i, &row) != DJ_OK) {
            fprintf(stderr, "djinn_pack: %s\n", dj_error_text());
            return 1;
        }
        ratios += row.ratio;
        worst = row.ratio > worst ? row.ratio : worst;
        optimal += row.end == DJ_PACK_FOUND;
    }
    printf("# Quick: mean %.4f, worst %.4f of the optimum. Exact: %llu of %llu at the optimum.\n",
           ratios / (double)options.count, worst, (unsigned long long)optimal,
           (unsigned long long)options.count);
    return 0;
}
