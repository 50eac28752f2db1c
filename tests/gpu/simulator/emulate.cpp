/* emulate.cpp - runs a kernel: the threads of a block are fibers, one runs at a time.
 *
 * Block by block, warp by warp. A thread runs until it ends or waits; one that ends leaves its fiber to the next, so
 * a kernel without barriers needs one stack and one switch a warp. Waiting is by generations: a thread notes the
 * generation of the barrier it waits at and is ready when that has moved on. The values of a warp primitive lie in
 * two rows by the generation's parity: a row is written again only when all have arrived at the next primitive,
 * hence have read it.
 *
 * DJ_SIM_SEED other than 0 permutes blocks, warps and lanes of every launch, by a step that shares no factor with
 * their number.
 *
 * A fault in a kernel leaves sim_launch() by siglongjmp (execute.c): the next launch finds `dirty` and makes all
 * fibers anew. Threads: one launch at a time (the executor's lock).
 *
 * Sanitizers do not see through the switch of stacks; the simulator is built without them. */
#include "tests/gpu/simulator/emulate.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#include "tests/gpu/simulator/simulator.h"

enum {
    THREADS_MAX = 1024,
    SHARED_MAX = 227 << 10,
    STACK_BYTES = 256 << 10,
    GUARD_BYTES = 64 << 10,
};

enum wait_kind { UNSTARTED, RUNNING, AT_BLOCK, AT_WARP, DONE };

struct fiber {
    char *stack;
    bool fresh;
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
};

struct thread {
    struct fiber *fiber;
    enum wait_kind state;
    uint64_t awaited; /* generation */
    uint3 index;
};

struct warp {
    unsigned first, lanes, started, live, arrived;
    uint64_t generation;
    const char *kind; /* of those that have arrived */
    uint32_t present[2];
    uint64_t values[2][32];
};

static struct {
    sim_kernel_t kernel;
    const void *params;
    unsigned n, n_warps, live, arrived, votes[2];
    uint64_t generation;
    struct thread threads[THREADS_MAX], *current;
    struct warp warps[THREADS_MAX / 32], *warp;
    struct fiber fibers[THREADS_MAX], *free[THREADS_MAX], *given, main;
    unsigned n_free;
    bool dirty, ready;
    uint64_t seed, random, lane_start, lane_step;
} sim;

extern "C" {
uint3 threadIdx, blockIdx;
struct sim_size3 blockDim, gridDim;
alignas(128) unsigned char sim_shared[SHARED_MAX];
}

void sim_die(const char *what)
{
    Dl_info info;
    const char *name = "?";
    if (dladdr((void *)sim.kernel, &info) && info.dli_sname)
        name = info.dli_sname;
    fprintf(stderr, "simulator: kernel %s, block (%u,%u,%u), thread (%u,%u,%u): %s\n", name, blockIdx.x, blockIdx.y,
            blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, what);
    abort();
}

/* ---- fibers ---- */

static void fiber_main(void);

#ifdef __x86_64__
extern "C" void sim_switch(void **from, void *to);
__asm__(".text\n"
        ".hidden sim_switch\n"
        ".globl sim_switch\n"
        ".type sim_switch, @function\n"
        "sim_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size sim_switch, . - sim_switch\n");

static void fiber_make(struct fiber *fiber)
{
    void **top = (void **)(fiber->stack + GUARD_BYTES + STACK_BYTES) - 8;
    memset(top, 0, 8 * sizeof(void *));
    top[6] = (void *)fiber_main; /* the return address of sim_switch */
    fiber->sp = top;
}

static inline void fiber_switch(struct fiber *from, struct fiber *to)
{
    sim_switch(&from->sp, to->sp);
}
#else
static void fiber_make(struct fiber *fiber)
{
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack + GUARD_BYTES;
    fiber->context.uc_stack.ss_size = STACK_BYTES;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_main, 0);
}

static inline void fiber_switch(struct fiber *from, struct fiber *to)
{
    swapcontext(&from->context, &to->context);
}
#endif

static struct fiber *fiber_take(void)
{
    struct fiber *fiber = sim.free[--sim.n_free];
    if (!fiber->stack) {
        void *stack = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED || mprotect(stack, GUARD_BYTES, PROT_NONE))
            sim_die("no memory for a thread's stack");
        fiber->stack = (char *)stack;
    }
    if (fiber->fresh) {
        fiber_make(fiber);
        fiber->fresh = false;
    }
    return fiber;
}

static void fibers_reset(void)
{
    for (unsigned i = 0; i < THREADS_MAX; ++i) {
        sim.fibers[i].fresh = true;
        sim.free[i] = &sim.fibers[THREADS_MAX - 1 - i];
    }
    sim.n_free = THREADS_MAX;
}

/* ---- waiting ---- */

static void warp_complete(struct warp *warp)
{
    ++warp->generation;
    warp->arrived = 0;
    warp->kind = nullptr;
    warp->present[warp->generation & 1] = 0;
}

static void block_complete(void)
{
    ++sim.generation;
    sim.arrived = 0;
    sim.votes[sim.generation & 1] = 0;
}

static void wait_at(enum wait_kind kind, uint64_t awaited)
{
    struct thread *thread = sim.current;
    thread->state = kind;
    thread->awaited = awaited;
    fiber_switch(thread->fiber, &sim.main);
    thread->state = RUNNING;
}

unsigned sim_block_barrier(int predicate)
{
    uint64_t generation = sim.generation;
    sim.votes[generation & 1] += predicate != 0;
    if (++sim.arrived == sim.live)
        block_complete();
    else
        wait_at(AT_BLOCK, generation);
    return sim.votes[generation & 1];
}

unsigned sim_lane(void)
{
    return (unsigned)(sim.current - sim.threads) % 32;
}

const uint64_t *sim_warp_exchange(unsigned mask, uint64_t value, const char *kind, uint32_t *present)
{
    struct warp *warp = sim.warp;
    uint64_t generation = warp->generation;
    unsigned lane = sim_lane(), row = generation & 1;
    if (mask != 0xffffffffu)
        sim_die("a warp primitive with a mask other than 0xffffffff");
    if (warp->kind && warp->kind != kind && strcmp(warp->kind, kind))
        sim_die("lanes of one warp are at different primitives");
    warp->kind = kind;
    warp->values[row][lane] = value;
    warp->present[row] |= 1u << lane;
    if (++warp->arrived == warp->live)
        warp_complete(warp);
    else
        wait_at(AT_WARP, generation);
    *present = warp->present[row];
    return warp->values[row];
}

/* Exited threads take no part: what the others wait for may be complete now. */
static void thread_end(void)
{
    struct warp *warp = sim.warp;
    sim.current->state = DONE;
    --warp->live;
    --sim.live;
    if (warp->live && warp->arrived == warp->live)
        warp_complete(warp);
    if (sim.live && sim.arrived == sim.live)
        block_complete();
}

/* ---- the order of things ---- */

static uint64_t draw(void)
{
    sim.random = sim.random * 6364136223846793005ull + 1442695040888963407ull;
    return sim.random >> 33;
}

static void permutation(uint64_t n, uint64_t *start, uint64_t *step)
{
    *start = 0;
    *step = 1;
    if (sim.seed == 0 || n < 2)
        return;
    *start = draw() % n;
    for (;;) {
        uint64_t a = *step = 1 + draw() % (n - 1), b = n;
        while (a) {
            uint64_t rest = b % a;
            b = a;
            a = rest;
        }
        if (b == 1)
            return;
    }
}

static struct thread *next_thread(struct warp *warp)
{
    uint64_t i = (sim.lane_start + warp->started++ * sim.lane_step) % 32;
    return i < warp->lanes ? &sim.threads[warp->first + i] : nullptr;
}

static void set_current(struct thread *thread)
{
    sim.current = thread;
    threadIdx = thread->index;
}

static void fiber_main(void)
{
    for (;;) {
        struct fiber *self = sim.given;
        while (sim.warp->started < 32) {
            struct thread *thread = next_thread(sim.warp);
            if (!thread)
                continue;
            thread->fiber = self;
            thread->state = RUNNING;
            set_current(thread);
            sim.kernel(sim.params);
            thread_end();
        }
        sim.free[sim.n_free++] = self;
        fiber_switch(self, &sim.main);
    }
}

static bool thread_ready(const struct thread *thread)
{
    return (thread->state == AT_BLOCK && thread->awaited != sim.generation) ||
           (thread->state == AT_WARP && thread->awaited != sim.warp->generation);
}

/* Runs the warp until it cannot go on by itself; false when nothing moved. */
static bool warp_run(struct warp *warp)
{
    bool moved = false, again = true;
    sim.warp = warp;
    while (warp->started < 32) {
        sim.given = fiber_take();
        fiber_switch(&sim.main, sim.given);
        moved = true;
    }
    while (again && warp->live) {
        again = false;
        for (unsigned k = 0; k < 32; ++k) {
            uint64_t i = (sim.lane_start + k * sim.lane_step) % 32;
            struct thread *thread = &sim.threads[warp->first + i];
            if (i >= warp->lanes || !thread_ready(thread))
                continue;
            set_current(thread);
            fiber_switch(&sim.main, thread->fiber);
            again = moved = true;
        }
    }
    return moved;
}

static void block_die(void)
{
    for (unsigned i = 0; i < sim.n; ++i) {
        if (sim.threads[i].state == AT_BLOCK || sim.threads[i].state == AT_WARP) {
            sim.warp = &sim.warps[i / 32];
            set_current(&sim.threads[i]);
            sim_die(sim.threads[i].state == AT_BLOCK ? "waits for ever at a block's barrier"
                                                     : "waits for ever at a warp primitive");
        }
    }
    sim_die("no thread can go on");
}

static void block_run(unsigned shared_bytes)
{
    uint64_t start, step;
    sim.live = sim.n;
    sim.arrived = 0;
    sim.votes[0] = sim.votes[1] = 0;
    for (unsigned i = 0; i < sim.n; ++i)
        sim.threads[i].state = UNSTARTED;
    for (unsigned w = 0; w < sim.n_warps; ++w) {
        struct warp *warp = &sim.warps[w];
        warp->first = w * 32;
        warp->lanes = warp->live = sim.n - w * 32 < 32 ? sim.n - w * 32 : 32;
        warp->started = warp->arrived = 0;
        warp->kind = nullptr;
        warp->present[0] = warp->present[1] = 0;
    }
    memset(sim_shared, 0x7f, shared_bytes);
    permutation(sim.n_warps, &start, &step);
    permutation(32, &sim.lane_start, &sim.lane_step);
    while (sim.live) {
        bool moved = false;
        for (unsigned k = 0; k < sim.n_warps; ++k)
            moved |= warp_run(&sim.warps[(start + k * step) % sim.n_warps]);
        if (!moved && sim.live)
            block_die();
    }
}

static void begin(sim_kernel_t kernel, const unsigned grid[3], const unsigned block[3], const void *params)
{
    if (!sim.ready) {
        const char *seed = getenv("DJ_SIM_SEED");
        sim.seed = seed ? strtoull(seed, nullptr, 10) : 0;
        sim.random = sim.seed * 0x9e3779b97f4a7c15ull;
        sim.ready = sim.dirty = true;
    }
    if (sim.dirty)
        fibers_reset();
    sim.dirty = true;
    sim.kernel = kernel;
    sim.params = params;
    sim.n = block[0] * block[1] * block[2];
    sim.n_warps = (sim.n + 31) / 32;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (unsigned i = 0; i < sim.n; ++i)
        sim.threads[i].index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
}

void sim_launch(sim_kernel_t kernel, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes,
                const void *params)
{
    uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2], start, step;
    if ((uint64_t)block[0] * block[1] * block[2] > THREADS_MAX || shared_bytes > SHARED_MAX)
        sim_die("more threads or shared memory than a block can have");
    begin(kernel, grid, block, params);
    permutation(blocks, &start, &step);
    for (uint64_t k = 0; k < blocks; ++k) {
        uint64_t i = (uint64_t)((start + (unsigned __int128)k * step) % blocks);
        blockIdx = {(unsigned)(i % grid[0]), (unsigned)(i / grid[0] % grid[1]),
                    (unsigned)(i / grid[0] / grid[1])};
        block_run(shared_bytes);
    }
    sim.dirty = false;
}
