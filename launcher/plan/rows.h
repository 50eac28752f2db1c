/* rows.h - reads and writes rectangles as CSV: `id,lower,upper,size`, a header line first,
 * half-open lifetimes. Other columns may stand between and after; they are handed through.
 *
 * Threads: one. */
#ifndef DJ_LAUNCHER_PLAN_ROWS_H
#define DJ_LAUNCHER_PLAN_ROWS_H

#include <stdio.h>

#include "planner/pack.h"

#define DJ_PLAN_ROWS_BYTES_MAX (64u << 20) /* of a file */

typedef struct dj_plan_rows {
    dj_rect_t *rects;
    char **lines; /* of each rectangle, without its end, in `text` */
    char *header; /* in `text` */
    uint32_t n;
    char *text;
} dj_plan_rows_t;

/* Ends with dj_plan_rows_fini(), also after an error. DJ_ERR_FILE: unreadable; DJ_ERR_LIMIT: too
 * long, too many rows or too large a number; DJ_ERR_CORRUPT names file, line and column;
 * DJ_ERR_MEMORY. */
dj_status_t dj_plan_rows_read(dj_plan_rows_t *rows, const char *path);
void dj_plan_rows_fini(dj_plan_rows_t *rows);

/* Every row as it was, and its offset. DJ_ERR_FILE. */
dj_status_t dj_plan_rows_print(const dj_plan_rows_t *rows, const uint64_t *offsets, FILE *out);

#endif
