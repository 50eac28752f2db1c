/* rows.c - see rows.h. */
#include "launcher/plan/rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LOWER, UPPER, SIZE, KINDS };

static const char *const names[KINDS] = {"lower", "upper", "size"};

typedef struct layout {
    uint32_t n_columns, column[KINDS];
} layout_t;

static dj_status_t read_stream(FILE *file, const char *path, char **text_p, size_t *size_p)
{
    size_t size = 0, max = 1 << 16;
    char *text = malloc(max + 1);
    while (text != NULL && !feof(file) && !ferror(file) && size <= DJ_PLAN_ROWS_BYTES_MAX) {
        if (size == max) {
            char *more = realloc(text, 2 * max + 1);
            if (more == NULL)
                free(text);
            text = more;
            max *= 2;
            continue;
        }
        size += fread(text + size, 1, max - size, file);
    }
    if (text == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %s", path);
    *text_p = text;
    *size_p = size;
    text[size] = '\0';
    if (ferror(file))
        return dj_fail(DJ_ERR_FILE, "cannot read %s: %s", path, strerror(errno));
    if (size > DJ_PLAN_ROWS_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "%s is longer than %u MiB", path,
                       DJ_PLAN_ROWS_BYTES_MAX >> 20);
    return DJ_OK;
}

static dj_status_t read_text(const char *path, char **text_p, size_t *size_p)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    if (file == NULL)
        return dj_fail(DJ_ERR_FILE, "cannot open %s: %s", path, strerror(errno));
    errno = 0;
    dj_status_t status = read_stream(file, path, text_p, size_p);
    if (file != stdin)
        fclose(file);
    return status;
}

/* Cuts the next line off; NULL at the end of the text. */
static char *next_line(char **rest_p)
{
    char *line = *rest_p, *end = strchr(line, '\n');
    if (*line == '\0')
        return NULL;
    *rest_p = end != NULL ? end + 1 : line + strlen(line);
    if (end != NULL)
        *end = '\0';
    size_t length = strlen(line);
    if (length > 0 && line[length - 1] == '\r')
        line[length - 1] = '\0';
    return line;
}

static dj_status_t read_header(const char *path, const char *header, layout_t *layout)
{
    uint32_t column = 0;
    bool found[KINDS] = {false};
    for (const char *at = header;; column++) {
        size_t length = strcspn(at, ",");
        for (uint32_t kind = 0; kind < KINDS; kind++) {
            if (strlen(names[kind]) != length || strncmp(at, names[kind], length) != 0)
                continue;
            if (found[kind])
                return dj_fail(DJ_ERR_CORRUPT, "%s, line 1: two columns are named %s", path,
                               names[kind]);
            found[kind] = true;
            layout->column[kind] = column;
        }
        if (length == strlen("offset") && strncmp(at, "offset", length) == 0)
            return dj_fail(DJ_ERR_CORRUPT, "%s, line 1: there is a column named offset already",
                           path);
        at += length;
        if (*at == '\0')
            break;
        at++;
    }
    layout->n_columns = column + 1;
    for (uint32_t kind = 0; kind < KINDS; kind++)
        if (!found[kind])
            return dj_fail(DJ_ERR_CORRUPT,
                           "%s, line 1: no column is named %s; a file begins with "
                           "id,lower,upper,size",
                           path, names[kind]);
    return DJ_OK;
}

typedef struct place {
    const char *path;
    uint32_t line;
} place_t;

static dj_status_t read_number(const place_t *place, uint32_t column, const char *name,
                               const char *text, size_t length, uint64_t *value_p)
{
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return dj_fail(DJ_ERR_CORRUPT, "%s, line %u, column %u: %s is '%.*s', not a number",
                           place->path, place->line, column + 1, name,
                           (int)(length > 40 ? 40 : length), text);
        if (value > (DJ_PACK_SIZE_MAX - (uint64_t)(text[i] - '0')) / 10)
            return dj_fail(DJ_ERR_LIMIT, "%s, line %u, column %u: %s is above 2^62", place->path,
                           place->line, column + 1, name);
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    if (length == 0)
        return dj_fail(DJ_ERR_CORRUPT, "%s, line %u, column %u: %s is missing", place->path,
                       place->line, column + 1, name);
    *value_p = value;
    return DJ_OK;
}

static dj_status_t read_row(const place_t *place, const layout_t *layout, const char *line,
                            dj_rect_t *rect)
{
    uint64_t values[KINDS] = {0};
    uint32_t column = 0;
    for (const char *at = line;; column++) {
        size_t length = strcspn(at, ",");
        for (uint32_t kind = 0; kind < KINDS; kind++) {
            if (layout->column[kind] != column)
                continue;
            dj_status_t status = read_number(place, column, names[kind], at, length, &values[kind]);
            if (status != DJ_OK)
                return status;
        }
        at += length;
        if (*at == '\0')
            break;
        at++;
    }
    if (column + 1 != layout->n_columns)
        return dj_fail(DJ_ERR_CORRUPT, "%s, line %u: %u columns; the header has %u", place->path,
                       place->line, column + 1, layout->n_columns);
    if (values[LOWER] > values[UPPER])
        return dj_fail(DJ_ERR_CORRUPT, "%s, line %u, column %u: upper %llu is before lower %llu",
                       place->path, place->line, layout->column[UPPER] + 1,
                       (unsigned long long)values[UPPER], (unsigned long long)values[LOWER]);
    *rect = (dj_rect_t){.lower = values[LOWER], .upper = values[UPPER], .size = values[SIZE]};
    return DJ_OK;
}

static uint32_t count_lines(const char *text)
{
    uint32_t lines = 1;
    for (; (text = strchr(text, '\n')) != NULL; text++)
        lines++;
    return lines;
}

static dj_status_t read_rows(dj_plan_rows_t *rows, const char *path)
{
    char *rest = rows->text, *line;
    layout_t layout = {0};
    place_t place = {.path = path, .line = 1};
    uint32_t max = count_lines(rest);
    rows->header = next_line(&rest);
    if (rows->header == NULL)
        return dj_fail(DJ_ERR_CORRUPT, "%s is empty; a file begins with id,lower,upper,size", path);
    dj_status_t status = read_header(path, rows->header, &layout);
    if (status != DJ_OK)
        return status;
    rows->rects = malloc(max * sizeof rows->rects[0]);
    rows->lines = malloc(max * sizeof rows->lines[0]);
    if (rows->rects == NULL || rows->lines == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u rows", max);
    while ((line = next_line(&rest)) != NULL && status == DJ_OK) {
        place.line++;
        if (line[0] == '\0')
            continue;
        if (rows->n == DJ_PACK_RECTS_MAX)
            return dj_fail(DJ_ERR_LIMIT, "%s, line %u: more than %u rows", path, place.line,
                           DJ_PACK_RECTS_MAX);
        status = read_row(&place, &layout, line, &rows->rects[rows->n]);
        rows->lines[rows->n++] = line;
    }
    return status;
}

dj_status_t dj_plan_rows_read(dj_plan_rows_t *rows, const char *path)
{
    size_t size = 0;
    *rows = (dj_plan_rows_t){0};
    dj_status_t status = read_text(path, &rows->text, &size);
    if (status != DJ_OK)
        return status;
    if (strlen(rows->text) != size)
        return dj_fail(DJ_ERR_CORRUPT, "%s is not a text: it has a zero byte", path);
    return read_rows(rows, path);
}

void dj_plan_rows_fini(dj_plan_rows_t *rows)
{
    free(rows->rects);
    free(rows->lines);
    free(rows->text);
    *rows = (dj_plan_rows_t){0};
}

dj_status_t dj_plan_rows_print(const dj_plan_rows_t *rows, const uint64_t *offsets, FILE *out)
{
    fprintf(out, "%s,offset\n", rows->header);
    for (uint32_t i = 0; i < rows->n; i++)
        fprintf(out, "%s,%llu\n", rows->lines[i], (unsigned long long)offsets[i]);
    if (fflush(out) != 0 || ferror(out))
        return dj_fail(DJ_ERR_FILE, "cannot write the rows: %s", strerror(errno));
    return DJ_OK;
}
