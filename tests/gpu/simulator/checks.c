/* checks.c - what the compiler checks in device code, -fsanitize=alignment,bounds, ends the kernel here: a GPU faults
 * at misaligned addresses, and would write beside an array in silence. */
#include "tests/gpu/simulator/inner.h"

typedef struct place { /* the first member of what either check hands over */
    const char *file;
    uint32_t line, column;
} place_t;

void __ubsan_handle_type_mismatch_v1_abort(place_t *place, uintptr_t address)
{
    sim_say("%s:%u:%u: address %#lx is not aligned", place->file, place->line, place->column, (unsigned long)address);
    sim_leave_work(CUDA_ERROR_MISALIGNED_ADDRESS);
}

void __ubsan_handle_out_of_bounds_abort(place_t *place, uintptr_t index)
{
    sim_say("%s:%u:%u: index %ld is outside its array", place->file, place->line, place->column, (long)index);
    sim_leave_work(CUDA_ERROR_LAUNCH_FAILED);
}
