/* execute.c - runs one operation and catches what it does wrong.
 *
 * While work runs, SIGSEGV and its like are ours: a touch of device memory that is shut opens it (pages.c), anything
 * else ends the work and is the context's fault from then on. The handlers are there only meanwhile, because test
 * frameworks put up their own. Simulated work runs on one thread; a fault of another thread goes to the handler
 * that was there before. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/gpu/simulator/inner.h"

enum { ALT_BYTES = 64 << 10, N_SIGNALS = 4 };

static const int signals[N_SIGNALS] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
static struct sigaction before[N_SIGNALS];
static stack_t stack_before;
static sigset_t mask_before;
static _Alignas(64) char alternative[ALT_BYTES];
static pthread_t worker;
static volatile bool working;
static sigjmp_buf out;
static const sim_op_t *volatile at_work;
enum sim_hang sim_hang_wanted;
static enum sim_hang hang;

static const char *name_of(const sim_op_t *op)
{
    static const char *const names[] = {[SIM_COPY] = "a copy", [SIM_FILL] = "a fill", [SIM_CALL] = "a library's call"};
    if (op->kind == SIM_KERNEL)
        return op->kernel.function->name;
    return op->kind < sizeof names / sizeof names[0] && names[op->kind] ? names[op->kind] : "work";
}

void sim_leave_work(CUresult fault)
{
    sim_say("%s ends", name_of(at_work));
    sim_fault = fault;
    siglongjmp(out, 1);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    if (!working || !pthread_equal(worker, pthread_self())) {
        for (int i = 0; i < N_SIGNALS; ++i) {
            if (signals[i] == number)
                sigaction(number, &before[i], NULL); /* it happens again, there */
        }
        return;
    }
    if (number == SIGSEGV && sim_open((uint64_t)info->si_addr))
        return;
    sim_fault = number == SIGSEGV || number == SIGBUS ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_ERROR_LAUNCH_FAILED;
    sim_say("%s: %s at %p", name_of(at_work), strsignal(number), info->si_addr);
    siglongjmp(out, 1);
}

void sim_work_begin(void)
{
    stack_t stack = {.ss_sp = alternative, .ss_size = sizeof alternative};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigset_t ours; /* a thread may have blocked them, and would be killed */
    sigemptyset(&ours);
    for (int i = 0; i < N_SIGNALS; ++i)
        sigaddset(&ours, signals[i]);
    sigaltstack(&stack, &stack_before);
    for (int i = 0; i < N_SIGNALS; ++i)
        sigaction(signals[i], &action, &before[i]);
    worker = pthread_self();
    pthread_sigmask(SIG_UNBLOCK, &ours, &mask_before);
}

void sim_work_end(void)
{
    pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
    for (int i = 0; i < N_SIGNALS; ++i)
        sigaction(signals[i], &before[i], NULL);
    sigaltstack(&stack_before, NULL);
    sim_close_all();
}

static void fill(const sim_op_t *op)
{
    if (op->fill.width == 1) {
        memset((void *)op->fill.target, (int)op->fill.value, op->fill.count);
        return;
    }
    uint32_t *at = (uint32_t *)op->fill.target;
    for (uint64_t i = 0; i < op->fill.count; ++i)
        at[i] = op->fill.value;
}

static void record(sim_ticket_t *ticket)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    ticket->time_ms = (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
    ticket->done = true;
}

/* What __shared__ variables hold at first. */
static void poison(char *const *shared)
{
    if (shared[0])
        memset(shared[0], SIM_POISON, (size_t)(shared[1] - shared[0]));
}

/* Whether a test wants this launch to go wrong: its file is there, once, and says how. */
static void heed_orders(void)
{
    static const char *path;
    static bool known;
    char order[8] = "";
    if (!known)
        path = getenv("DJ_SIM_FAULT_FILE");
    known = true;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    bool ordered = fd >= 0 && read(fd, order, sizeof order - 1) >= 0 && unlink(path) == 0;
    if (fd >= 0)
        close(fd);
    if (ordered && order[0] == 0)
        sim_leave_work(CUDA_ERROR_ILLEGAL_ADDRESS);
    if (ordered)
        sim_hang_wanted = order[0] == 's' ? SIM_STUCK : SIM_HANGS;
    if (sim_hang_wanted == SIM_RUNS)
        return;
    hang = sim_hang_wanted;
    sim_hang_wanted = SIM_RUNS;
    sim_say("%s never ends", name_of(at_work));
    siglongjmp(out, 1);
}

void sim_perform(sim_op_t *op)
{
    at_work = op;
    switch (op->kind) {
    case SIM_KERNEL:
        ++sim_count.kernel_launches;
        if (op->kernel.function->object.magic != SIM_FUNCTION) {
            sim_say("%s: its module was unloaded", op->kernel.function->name);
            sim_fault = CUDA_ERROR_ILLEGAL_ADDRESS;
            return;
        }
        heed_orders();
        poison(op->kernel.function->shared);
        sim_launch(op->kernel.function->kernel, op->kernel.grid, op->kernel.block, op->kernel.shared, op->data);
        return;
    case SIM_COPY:
        ++sim_count.copies;
        memmove((void *)op->copy.target, op->copy.staged ? op->data : (const void *)op->copy.source, op->copy.bytes);
        return;
    case SIM_FILL:
        ++sim_count.memsets;
        fill(op);
        return;
    case SIM_RECORD:
        record(op->ticket);
        return;
    case SIM_LAUNCH:
        ++sim_count.graph_launches;
        sim_exec_run(op->exec);
        return;
    case SIM_CALL:
        ++sim_count.calls;
        op->call(op->data);
        return;
    case SIM_WAIT:
    case SIM_NOTHING:
        return;
    }
}

enum sim_hang sim_execute(sim_op_t *op)
{
    hang = SIM_RUNS;
    if (sigsetjmp(out, 1) == 0) {
        working = true;
        sim_perform(op);
    }
    working = false;
    return hang;
}
