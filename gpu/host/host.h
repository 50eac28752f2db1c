/* host.h - inside the host device: a kernel is prepared once for exact sizes, then run.
 *
 * Kernels live in gpu/host/<family>.c (pointwise, reduce, norm, attention, index, layout, matmul), each
 * op by one prepare function in the slot table of kernels.c. The files are compiled once per
 * instruction set (DJ_ISA is avx512, avx2 or base; symbols carry it as a suffix through DJ_ISA_NAME) and
 * the device picks one set by cpuid at open. matmul.c alone goes to oneDNN, which picks for itself.
 *
 * A prepare function reads the node (views, attributes), fills the kernel: run function, its state in
 * `state` (allocated from the executable's arena with dj_host_arena()), workspace bytes, and the
 * predicted cost. A run function reads operand pointers and scalars and never allocates, logs or fails.
 *
 * Operand pointers are final: base of the storage plus the view's offset. Order: every operand of every
 * tensor argument in call order (absent ones and scalars are NULL; scalars standing in for tensors are
 * read through dj_node_scalar()), then the outputs.
 *
 * Threads inside a kernel: OpenMP, `dj_host_threads(run)` of them; 1 when the step runs on the progress
 * thread. Small loops must not fork (DJ_HOST_FORK_ELEMENTS), and they branch around the parallel
 * region: libgomp allocates a team for a region of one thread or of another size than the last. So a
 * region has run->threads threads or is not entered. */
#ifndef DJ_GPU_HOST_H
#define DJ_GPU_HOST_H

#include "gpu/device.h"
#include "gpu/node.h"
#include "gpu/text.h"

#define DJ_HOST_FORK_ELEMENTS 16384
#define DJ_HOST_OPERANDS_MAX (DJ_LIST_MAX + DJ_OUTS_MAX)

/* The table behind `host`; dj_device_open() hands it out. */
extern const dj_device_ops_t dj_host_device_ops;

#define DJ_ISA_PASTE2(name, isa) name##_##isa
#define DJ_ISA_PASTE(name, isa) DJ_ISA_PASTE2(name, isa)
#define DJ_ISA_NAME(name) DJ_ISA_PASTE(name, DJ_ISA)

typedef struct dj_host_kernel dj_host_kernel_t;

/* What a run function is given. */
typedef struct dj_host_run {
    void *const *operands;   /* see above */
    void *const *outs;       /* the outputs' pointers (the tail of operands) */
    const uint64_t *scalars; /* the request's scalar vector */
    void *workspace;         /* kernel->workspace_bytes, aligned to DJ_ALIGN_BYTES */
    uint32_t threads;
    /* A kernel that meets a bad value (an index out of range) clamps the access and stores 1 here:
     * the replay zeroes it before each step and answers DJ_ERR_INVALID naming the node. Not NULL. */
    uint32_t *fault_p;
} dj_host_run_t;

typedef void (*dj_host_run_fn_t)(const dj_host_kernel_t *kernel, const dj_host_run_t *run);

struct dj_host_kernel {
    const dj_node_t *node;
    dj_host_run_fn_t run;
    void *state;
    uint64_t workspace_bytes;
    /* Optional: called at bind with the Text behind each operand (NULL where it is not Text), to make
     * or find packed forms; may set `packs`. Called again when weights change. */
    dj_status_t (*bind)(dj_host_kernel_t *kernel, dj_executable_t *exe, dj_text_t *const *texts);
    /* Optional: elements [first, end) of output 0, which is contiguous, in one thread and without
     * workspace: what the tiles of a fusion group are made of (group.c). */
    void (*run_part)(const dj_host_kernel_t *kernel, const dj_host_run_t *run, int64_t first,
                     int64_t end);
    /* Optional: gives back what the arena does not hold (library objects). */
    void (*fini)(dj_host_kernel_t *kernel);
    bool threaded; /* keeps mutable state or forks threads: not to be run on two threads at once */
    bool in_place; /* may run when output 0 aliases an operand with the identical view */
};

/* Fills run, state, workspace_bytes, bind, threaded. DJ_ERR_UNSUPPORTED when dtypes or shapes have no
 * kernel (the sentence says which), DJ_ERR_MEMORY. */
typedef dj_status_t (*dj_host_prepare_fn_t)(dj_executable_t *exe, dj_host_kernel_t *kernel);

/* Matrix products (matmul.c): the slots MM, BMM, ADDMM, BADDBMM and LINEAR of every table. */
dj_status_t dj_host_matmul_prepare(dj_executable_t *exe, dj_host_kernel_t *kernel);

/* Zeroed memory that lives as long as the executable; NULL when memory is short. */
void *dj_host_arena(dj_executable_t *exe, size_t bytes);

uint32_t dj_host_device_threads(const dj_executable_t *exe);

/* Slots by op; NULL: not supported. One table per instruction set, all the same shape. */
typedef struct dj_host_kernels {
    const char *isa;
    dj_host_prepare_fn_t prepare[DJ_OP_COUNT];
} dj_host_kernels_t;

extern const dj_host_kernels_t dj_host_kernels_avx512, dj_host_kernels_avx2, dj_host_kernels_base;

#endif
