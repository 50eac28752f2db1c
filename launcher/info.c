/* info.c - one line a rank, one line for all. */
#include "launcher/info.h"

#include <ctype.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CELL_BYTES 64

typedef void (*fill_t)(const json_t *rank, const char *name, char cell[CELL_BYTES]);

static bool number(const json_t *rank, const char *name, uint64_t *number_p)
{
    const json_t *value = json_object_get(rank, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *number_p = (uint64_t)json_integer_value(value);
    return true;
}

static void put_count(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    uint64_t count;
    if (number(rank, name, &count))
        snprintf(cell, CELL_BYTES, "%llu", (unsigned long long)count);
}

static void write_bytes(uint64_t bytes, char *text, size_t room)
{
    static const char units[] = "BKMGTPE";
    unsigned unit = 0;
    double scaled = (double)bytes;
    for (; scaled >= 1024; unit++)
        scaled /= 1024;
    snprintf(text, room, unit ? "%.1f%c" : "%.0f%c", scaled, units[unit]);
}

static void put_bytes(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    uint64_t bytes;
    if (number(rank, name, &bytes))
        write_bytes(bytes, cell, CELL_BYTES);
}

/* Takes out whatever a terminal would obey. */
static void make_plain(char *text)
{
    for (char *at = text; *at; at++)
        *at = isprint((unsigned char)*at) ? *at : '?';
}

static void put_text(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    const char *text = json_string_value(json_object_get(rank, name));
    if (!text || !text[0])
        return;
    snprintf(cell, CELL_BYTES, "%s", text);
    make_plain(cell);
}

static void put_role(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    const char *state = json_string_value(json_object_get(rank, "state"));
    put_text(rank, state && strcmp(state, "serving") != 0 ? "state" : name, cell);
}

/* Plans found, of all that were asked for. */
static void put_hits(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    uint64_t hits, resizes = 0, misses = 0;
    if (!number(rank, name, &hits))
        return;
    number(rank, "plan_resizes", &resizes);
    number(rank, "plan_misses", &misses);
    double all = (double)hits + (double)resizes + (double)misses;
    if (all > 0)
        snprintf(cell, CELL_BYTES, "%.1f%%", 100 * (double)hits / all);
}

/* ---- a GPU, as it sees itself ---- */

static void put_percent(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    uint64_t percent;
    if (number(rank, name, &percent))
        snprintf(cell, CELL_BYTES, "%llu%%", (unsigned long long)percent);
}

static void put_celsius(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    uint64_t celsius;
    if (number(rank, name, &celsius))
        snprintf(cell, CELL_BYTES, "%lluC", (unsigned long long)celsius);
}

/* Used, of all. */
static void put_memory(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    uint64_t used, total;
    char used_text[16], total_text[16];
    if (!number(rank, name, &used) || !number(rank, "gpu_memory_total_bytes", &total))
        return;
    write_bytes(used, used_text, sizeof(used_text));
    write_bytes(total, total_text, sizeof(total_text));
    snprintf(cell, CELL_BYTES, "%s/%s", used_text, total_text);
}

/* Errors that ECC corrected, and those it could not. */
static void put_ecc(const json_t *rank, const char *name, char cell[CELL_BYTES])
{
    uint64_t corrected, uncorrected;
    if (number(rank, name, &corrected) && number(rank, "gpu_ecc_uncorrected", &uncorrected))
        snprintf(cell, CELL_BYTES, "%llu+%llu", (unsigned long long)corrected,
                 (unsigned long long)uncorrected);
}

static const struct {
    const char *title, *name;
    fill_t fill;
    int width; /* negative: to the left */
} columns[] = {
    {"rank", "rank", put_count, 4},
    {"role", "role", put_role, -11},
    {"device", "device", put_text, -24},
    {"GPU", "gpu_utilization_percent", put_percent, 4},
    {"GPU memory", "gpu_memory_used_bytes", put_memory, 13},
    {"temp", "gpu_temperature_c", put_celsius, 4},
    {"ECC", "gpu_ecc_corrected", put_ecc, 5},
    {"Xid", "gpu_xid", put_count, 3},
    {"threads", "threads", put_count, 7},
    {"sessions", "sessions", put_count, 8},
    {"requests", "requests", put_count, 8},
    {"Text", "text_bytes", put_bytes, 8},
    {"Data", "data_bytes", put_bytes, 8},
    {"Stack", "stack_peak_bytes", put_bytes, 8},
    {"plans", "plan_bytes", put_bytes, 8},
    {"plan hits", "plan_hits", put_hits, 9},
    {"misses", "plan_misses", put_count, 6},
    {"restarts", "incarnation", put_count, 8},
    {"endpoint", "endpoint", put_text, -1},
};
#define COLUMNS (sizeof columns / sizeof columns[0])

/* What a GPU says of itself: where a rank has one. */
static bool is_shown(const json_t *ranks, const char *name)
{
    bool optional = strncmp(name, "gpu_", 4) == 0;
    for (size_t i = 0; optional && i < json_array_size(ranks); i++)
        if (json_object_get(json_array_get(ranks, i), name))
            return true;
    return !optional;
}

static void print_rank(const json_t *rank, const bool shown[COLUMNS], FILE *out)
{
    for (size_t i = 0; i < COLUMNS; i++) {
        if (!shown[i])
            continue;
        char cell[CELL_BYTES] = "-";
        columns[i].fill(rank, columns[i].name, cell);
        int width = columns[i].width, widest = width < -1 ? -width : CELL_BYTES;
        fprintf(out, "%s%*.*s", i ? "  " : "", width, widest, cell);
    }
    fputc('\n', out);
}

static void print_ranks(const json_t *ranks, FILE *out)
{
    bool shown[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++)
        if ((shown[i] = is_shown(ranks, columns[i].name)))
            fprintf(out, "%s%*s", i ? "  " : "", columns[i].width, columns[i].title);
    fputc('\n', out);
    for (size_t i = 0; i < json_array_size(ranks); i++)
        print_rank(json_array_get(ranks, i), shown, out);
}

static void print_title(const json_t *root, const json_t *ranks, FILE *out)
{
    char version[CELL_BYTES] = "?", endpoint[CELL_BYTES] = "?";
    uint64_t count = json_array_size(ranks), expected = count;
    put_text(root, "version", version);
    put_text(json_array_get(ranks, 0), "endpoint", endpoint);
    number(root, "ranks_expected", &expected);
    fprintf(out, "djinn %s at %s, ", version, endpoint);
    if (count < expected)
        fprintf(out, "%llu of ", (unsigned long long)count);
    fprintf(out, "%llu rank%s\n\n", (unsigned long long)expected, expected == 1 ? "" : "s");
}

dj_status_t dj_info_print(const char *json, FILE *out)
{
    json_error_t error;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        make_plain(error.text); /* it quotes the answer */
        return dj_fail(DJ_ERR_PROTOCOL, "the server's answer is no JSON: %s", error.text);
    }
    const json_t *ranks = json_object_get(root, "ranks");
    dj_status_t status = DJ_OK;
    if (json_is_array(ranks)) {
        print_title(root, ranks, out);
        print_ranks(ranks, out);
    } else {
        status = dj_fail(DJ_ERR_PROTOCOL, "the server's answer has no list of ranks");
    }
    json_decref(root);
    return status;
}
