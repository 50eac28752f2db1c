/* tensor.h - what a tensor is to Djinn: a data type and a strided window on a storage.
 *
 * Sizes and strides count elements, outermost dimension first; strides may be 0 (broadcast) and are
 * never negative. A storage is a plain range of bytes; a view gives it a type and a shape.
 *
 * Threads: pure. */
#ifndef DJ_PLANNER_TENSOR_H
#define DJ_PLANNER_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

#define DJ_RANK_MAX 8
/* No tensor is larger than this many bytes; keeps every size product far from overflow. */
#define DJ_TENSOR_BYTES_MAX (1ull << 46)

/* X(name, value, bytes, text); values cross the wire. */
#define DJ_DTYPE_LIST(X)                                                                           \
    X(BOOL, 0, 1, "bool")                                                                          \
    X(U8, 1, 1, "uint8")                                                                           \
    X(I8, 2, 1, "int8")                                                                            \
    X(I16, 3, 2, "int16")                                                                          \
    X(I32, 4, 4, "int32")                                                                          \
    X(I64, 5, 8, "int64")                                                                          \
    X(F16, 6, 2, "float16")                                                                        \
    X(BF16, 7, 2, "bfloat16")                                                                      \
    X(F32, 8, 4, "float32")                                                                        \
    X(F64, 9, 8, "float64")                                                                        \
    X(C32, 10, 4, "complex32")                                                                     \
    X(C64, 11, 8, "complex64")                                                                     \
    X(C128, 12, 16, "complex128")

typedef enum dj_dtype {
#define X(name, value, bytes, text) DJ_##name = (value),
    DJ_DTYPE_LIST(X)
#undef X
    DJ_DTYPE_COUNT,
    DJ_DTYPE_NONE = 255,
} dj_dtype_t;

uint32_t dj_dtype_bytes(uint8_t dtype);   /* 0 for an unknown value */
const char *dj_dtype_name(uint8_t dtype); /* "float32"; "?" when unknown */
bool dj_dtype_is_float(uint8_t dtype);
bool dj_dtype_is_complex(uint8_t dtype);
/* Between a floating-point type and the complex type of two of it; bfloat16 has none and becomes
 * complex64. Only for types of the right kind. */
uint8_t dj_dtype_to_complex(uint8_t dtype);
uint8_t dj_dtype_to_real(uint8_t dtype);

typedef struct dj_view {
    uint8_t dtype, rank;
    int64_t offset; /* elements from the start of the storage */
    int64_t sizes[DJ_RANK_MAX];
    int64_t strides[DJ_RANK_MAX];
} dj_view_t;

/* Elements of the view. Only for views that passed dj_view_check(). */
int64_t dj_view_count(const dj_view_t *view);
/* Bytes from the view's first element to one past its last (offset not counted); 0 if empty. */
uint64_t dj_view_extent_bytes(const dj_view_t *view);
/* Bytes of its elements laid out densely. */
uint64_t dj_view_dense_bytes(const dj_view_t *view);
/* Row-major and dense; strides of dimensions of size 1 do not matter. */
bool dj_view_is_contiguous(const dj_view_t *view);
/* Every element at its own place and no holes (some permutation of a contiguous view). */
bool dj_view_is_dense(const dj_view_t *view);
/* Every element at its own place, with or without holes: each dimension steps beyond all that the
 * faster ones reach, which is true of every view that slicing, permuting and reshaping can make. */
bool dj_view_is_spread(const dj_view_t *view);
bool dj_view_same_shape(const dj_view_t *a, const dj_view_t *b);
/* Same dtype, rank, sizes, strides (of dimensions above 1) and offset. */
bool dj_view_equal(const dj_view_t *a, const dj_view_t *b);

/* dtype known, rank <= DJ_RANK_MAX, sizes and strides >= 0, offset >= 0, extents and products under
 * DJ_TENSOR_BYTES_MAX (checked without overflow), and, unless storage_bytes is UINT64_MAX, inside a
 * storage of that size. DJ_ERR_DTYPE, DJ_ERR_LIMIT or DJ_ERR_SHAPE with the numbers. */
dj_status_t dj_view_check(const dj_view_t *view, uint64_t storage_bytes);

/* A contiguous view; `sizes` are trusted (check after when they come from outside). */
dj_view_t dj_view_contiguous(uint8_t dtype, uint8_t rank, const int64_t *sizes);

/* "float32[32, 384]" into text (at least 160 bytes for any view); returns text. */
const char *dj_view_format(const dj_view_t *view, char *text, uint32_t size);

/* A scalar operand or attribute. */
typedef struct dj_scalar {
    uint8_t dtype; /* DJ_BOOL, DJ_I64 or DJ_F64 */
    union {
        int64_t integer; /* DJ_BOOL and DJ_I64 */
        double real;     /* DJ_F64 */
    };
} dj_scalar_t;

#endif
