/* strided.h - copying elements between two windows of one shape (staged outputs, gathered
 * operands). */
#ifndef DJ_GPU_HOST_STRIDED_H
#define DJ_GPU_HOST_STRIDED_H

#include "planner/tensor.h"

/* Copies the elements of `source`, laid out as source_view, to the window target_view of `target`;
 * no byte between elements is touched. Both pointers are to the first element. Shapes and dtypes
 * equal. */
void dj_host_copy_view(void *target, const dj_view_t *target_view, const void *source,
                       const dj_view_t *source_view);

#endif
