/* translate.h - inside the planner: a program's structure with its ops numbered another way.
 *
 * The grammar is walked (program.h) without storages and shapes: what is not an op's number is
 * copied as it is. */
#ifndef DJ_PLANNER_TRANSLATE_H
#define DJ_PLANNER_TRANSLATE_H

#include "planner/ops.h"
#include "runtime/base/bytes.h"

/* Gives the number to write in place of `from` and, in *op_p, the op of this build's table, whose
 * signature says what follows. */
typedef dj_status_t (*dj_renumber_t)(void *context, uint64_t from, uint64_t *to_p, uint16_t *op_p);

/* Appends to `to`. DJ_ERR_PROTOCOL, DJ_ERR_LIMIT, DJ_ERR_MEMORY, or what `renumber` answers. */
dj_status_t dj_structure_translate(const void *structure, size_t size, dj_renumber_t renumber,
                                   void *context, dj_bytes_t *to);

#endif
