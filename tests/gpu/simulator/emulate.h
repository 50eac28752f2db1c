/* emulate.h - CUDA's device language for the host's C++ compiler.
 *
 * gpu/cuda/kernels/kernel.cuh includes this where neither nvcc nor NVRTC compiles. A kernel becomes an extern "C"
 * function of one `const void *`; its threads are fibers (emulate.cpp), one block at a time and one thread at a time,
 * so __shared__ is a static variable and an atomic a plain one. Threads change only at barriers and warp primitives.
 *
 * A warp primitive takes all living lanes of the warp, with mask 0xffffffff. Reading a lane that has exited, lanes
 * of one warp at different primitives, and a barrier that never completes end the process with the kernel's name. */
#ifndef DJ_TESTS_SIMULATOR_EMULATE_H
#define DJ_TESTS_SIMULATOR_EMULATE_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tests/gpu/simulator/emulate_math.h"

#define DJ_KERNEL(name, type)                                                                      \
    static void name##_body(const type &p);                                                        \
    extern "C" {                                                                                   \
    __attribute__((visibility("default"))) extern const uint64_t name##_params_bytes;              \
    const uint64_t name##_params_bytes = sizeof(type);                                             \
    __attribute__((visibility("default"))) extern char *const name##_shared[2];                    \
    char *const name##_shared[2] = {__start_sim_statics, __stop_sim_statics};                      \
    __attribute__((visibility("default"))) void name(const void *params)                           \
    {                                                                                              \
        name##_body(*static_cast<const type *>(params));                                           \
    }                                                                                              \
    }                                                                                              \
    static void name##_body(const type &p)
#define DJ_DEVICE static inline
#define DJ_SHARED(type, name) type *name = reinterpret_cast<type *>(sim_shared)

#define __global__
#define __device__
#define __host__
#define __constant__ static const
/* All of an object's lie together, so that a launch can poison them. */
#define __shared__ static __attribute__((section("sim_statics")))
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

/* ---- where a thread is ---- */

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

extern "C" {
extern uint3 threadIdx, blockIdx;
extern struct sim_size3 {
    unsigned x, y, z;
} blockDim, gridDim;
extern unsigned char sim_shared[];
extern __attribute__((weak, visibility("hidden"))) char __start_sim_statics[], __stop_sim_statics[];

/* Waits for the block's living threads; how many of them passed a true predicate. */
unsigned sim_block_barrier(int predicate);
/* Waits for the warp's living lanes. The 32 values they brought, valid until the next primitive; present[i] is the
 * lane's. `kind` must be the same string in all. */
const uint64_t *sim_warp_exchange(unsigned mask, uint64_t value, const char *kind, uint32_t *present);
unsigned sim_lane(void);
[[noreturn]] void sim_die(const char *what);
}
static const int warpSize = 32;

/* ---- barriers and votes ---- */

static inline void __syncthreads(void)
{
    sim_block_barrier(0);
}
static inline int __syncthreads_count(int predicate)
{
    return (int)sim_block_barrier(predicate);
}
static inline int __syncthreads_or(int predicate)
{
    return sim_block_barrier(predicate) > 0;
}
static inline int __syncthreads_and(int predicate)
{
    return sim_block_barrier(!predicate) == 0;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    uint32_t present;
    sim_warp_exchange(mask, 0, "__syncwarp", &present);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    uint32_t present, votes = 0;
    const uint64_t *all = sim_warp_exchange(mask, predicate != 0, "vote", &present);
    for (int lane = 0; lane < 32; ++lane)
        votes |= (uint32_t)(present >> lane & 1u & all[lane]) << lane;
    return votes;
}
static inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, !predicate) == 0;
}
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}
static inline void __threadfence_system(void) {}
[[noreturn]] static inline void __trap(void)
{
    __builtin_trap();
}

/* ---- shuffles ---- */

template <typename T> static inline T sim_shuffle(unsigned mask, T value, int source, const char *kind)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    uint64_t bits = 0;
    uint32_t present;
    memcpy(&bits, &value, sizeof(T));
    const uint64_t *all = sim_warp_exchange(mask, bits, kind, &present);
    if (!(present >> source & 1u))
        sim_die("a shuffle reads a lane that has exited or never was");
    memcpy(&value, &all[source], sizeof(T));
    return value;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32)
{
    int lane = (int)sim_lane();
    return sim_shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), "shuffle");
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32)
{
    int lane = (int)sim_lane(), source = lane ^ bits;
    return sim_shuffle(mask, value, source < (lane | (width - 1)) + 1 ? source : lane, "shuffle");
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32)
{
    int lane = (int)sim_lane(), source = lane + (int)delta;
    return sim_shuffle(mask, value, source <= (lane | (width - 1)) ? source : lane, "shuffle");
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32)
{
    int lane = (int)sim_lane(), source = lane - (int)delta;
    return sim_shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : lane, "shuffle");
}

/* ---- atomics: one thread runs at a time ---- */

#define SIM_ATOMIC(name, T, result)                                                                \
    static inline T name(T *at, T value)                                                           \
    {                                                                                              \
        T old = *at;                                                                               \
        *at = result;                                                                              \
        return old;                                                                                \
    }
#define SIM_ATOMIC_OF(T)                                                                           \
    SIM_ATOMIC(atomicMin, T, value < old ? value : old)                                            \
    SIM_ATOMIC(atomicMax, T, value > old ? value : old)                                            \
    SIM_ATOMIC(atomicAnd, T, old &value)                                                           \
    SIM_ATOMIC(atomicOr, T, old | value)                                                           \
    SIM_ATOMIC(atomicXor, T, old ^ value)
#define SIM_ATOMIC_CAS(T)                                                                          \
    static inline T atomicCAS(T *at, T compare, T value)                                           \
    {                                                                                              \
        T old = *at;                                                                               \
        if (old == compare)                                                                        \
            *at = value;                                                                           \
        return old;                                                                                \
    }
SIM_ATOMIC_OF(int)
SIM_ATOMIC_OF(unsigned)
SIM_ATOMIC_OF(long long)
SIM_ATOMIC_OF(unsigned long long)
SIM_ATOMIC_CAS(int)
SIM_ATOMIC_CAS(unsigned)
SIM_ATOMIC_CAS(unsigned long long)
SIM_ATOMIC_CAS(unsigned short)
SIM_ATOMIC(atomicAdd, int, (int)((unsigned)old + (unsigned)value))
SIM_ATOMIC(atomicAdd, unsigned, old + value)
SIM_ATOMIC(atomicAdd, unsigned long long, old + value)
SIM_ATOMIC(atomicAdd, float, old + value)
SIM_ATOMIC(atomicAdd, double, old + value)
SIM_ATOMIC(atomicSub, int, (int)((unsigned)old - (unsigned)value))
SIM_ATOMIC(atomicSub, unsigned, old - value)
SIM_ATOMIC(atomicExch, int, value)
SIM_ATOMIC(atomicExch, unsigned, value)
SIM_ATOMIC(atomicExch, unsigned long long, value)
SIM_ATOMIC(atomicExch, float, value)
SIM_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1u)
SIM_ATOMIC(atomicDec, unsigned, old == 0u || old > value ? value : old - 1u)

#endif
