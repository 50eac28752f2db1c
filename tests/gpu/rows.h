/* rows.h - which op cases a test program runs: those of op_cases.def and bad_cases.def, or of a file.
 *
 *     --rows FILE     lines of "ID arguments" instead
 *     --tries FILE    the same, as random_cases.py writes them: what is refused beforehand is skipped
 *     --only WORD     the rows whose name holds the word
 *     --every N       every Nth row
 *     --dump          what went in and what came out, for kernel_cases.py, instead of a test */
#ifndef DJ_TESTS_GPU_ROWS_H
#define DJ_TESTS_GPU_ROWS_H

#include "tests/gpu/fixture.h"

#define FILE_ROWS_MAX 8192

typedef struct row {
    uint16_t op;
    const char *text;
    bool is_bad; /* must be refused when it runs */
} row_t;

typedef struct rows {
    const char *file, *only; /* NULL: the tables, all */
    size_t every, n;
    bool dumps, tries;
    row_t row[FILE_ROWS_MAX];
    char lines[FILE_ROWS_MAX][256];
} rows_t;

static const row_t table_rows[] = {
#define BAD(id, text) {DJ_OP_##id, text, true},
#include "tests/gpu/bad_cases.def"
#undef BAD
#define CASE(id, text) {DJ_OP_##id, text, false},
#include "tests/gpu/op_cases.def"
#undef CASE
};

#define N_TABLE_ROWS (sizeof(table_rows) / sizeof(*table_rows))

static const char *const op_ids[] = {
#define OP(id, ...) #id,
#include "planner/ops.def"
#undef OP
};

static inline void row_name(const row_t *row, char *name, size_t size)
{
    snprintf(name, size, "%s %s", dj_op_info(row->op)->name, row->text);
}

/* Does op_cases.def have a row of it? */
static inline bool has_a_row(uint16_t op)
{
    bool seen = false;
    for (size_t i = 0; i < N_TABLE_ROWS; i++)
        seen |= table_rows[i].op == op && !table_rows[i].is_bad;
    return seen;
}

static inline void rows_take(rows_t *rows, const row_t *row, size_t number)
{
    char name[320];
    row_name(row, name, sizeof(name));
    if ((!rows->only || strstr(name, rows->only)) && number % rows->every == 0)
        rows->row[rows->n++] = *row;
}

/* False for a line of no op: blank, a remark, or, with a word on stderr, an id that is not in the op table. */
static inline bool row_read(char *line, row_t *row)
{
    char *text = strchr(line, ' ');
    line[strcspn(line, "\n")] = 0;
    if (!text || line[0] == '#')
        return false;
    *text++ = 0;
    for (uint16_t op = 0; op < DJ_OP_COUNT; op++)
        if (strcmp(op_ids[op], line) == 0) {
            *row = (row_t){.op = op, .text = text};
            return true;
        }
    fprintf(stderr, "%s is no op\n", line);
    return false;
}

static inline void rows_read(rows_t *rows)
{
    size_t number = 0, next = 0;
    row_t row;
    FILE *file = fopen(rows->file, "r");
    while (file && next < FILE_ROWS_MAX && fgets(rows->lines[next], sizeof(rows->lines[next]), file))
        if (row_read(rows->lines[next], &row)) {
            rows_take(rows, &row, number++);
            next++;
        }
    if (file)
        fclose(file);
}

/* Fills *rows from the command line; rows->n is 0 when nothing is left, which is a failure. */
static inline void rows_choose(int argc, char **argv, rows_t *rows)
{
    rows->every = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--dump") == 0) {
            rows->dumps = true;
        } else if ((strcmp(argv[i], "--rows") == 0 || strcmp(argv[i], "--tries") == 0) && i + 1 < argc) {
            rows->tries = argv[i][2] == 't';
            rows->file = argv[++i];
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            rows->only = argv[++i];
        } else if (strcmp(argv[i], "--every") == 0 && i + 1 < argc && atoi(argv[i + 1]) > 0) {
            rows->every = (size_t)atoi(argv[++i]);
        }
    }
    if (rows->file)
        rows_read(rows);
    for (size_t i = 0; i < N_TABLE_ROWS && !rows->file; i++)
        rows_take(rows, &table_rows[i], i);
    if (rows->n == 0)
        fprintf(stderr, "no row is left to run\n");
}

/* Are they all of the tables' rows, so that a table's holes may be looked for? */
static inline bool rows_are_all(const rows_t *rows)
{
    return rows->n == N_TABLE_ROWS && !rows->file;
}

#endif
