/* probe_alloc_count.c - proves liballoc_count.so on a program linked as djinn-rank is: the weak symbol is
 * found when preloaded, each way to allocate is seen, exempt threads are not.
 *
 * probe_alloc_count absent: runs without the library and expects no symbol.
 * probe_alloc_count:        runs with it. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

extern uint64_t dj_alloc_count(void) __attribute__((weak));

static int failures;
static _Thread_local void *volatile keep; /* so that the compiler drops no pair of malloc and free */

static void expect(const char *what, uint64_t before, uint64_t wanted)
{
    uint64_t got = dj_alloc_count() - before;
    if (got == wanted)
        return;
    failures++;
    fprintf(stderr, "%s: counted %llu, wanted %llu\n", what, (unsigned long long)got,
            (unsigned long long)wanted);
}


static void probe_functions(void)
{
    void *volatile memory;
    uint64_t before = dj_alloc_count();
    expect("nothing", before, 0);
    keep = malloc(10);
    expect("malloc", before, 1);
    keep = realloc(keep, 5000);
    expect("realloc", before, 2);
    free(keep);
    expect("free", before, 2);
    keep = calloc(3, 7);
    free(keep);
    expect("calloc", before, 3);
    keep = aligned_alloc(64, 128);
    if ((uintptr_t)keep % 64)
        failures++;
    free(keep);
    expect("aligned_alloc", before, 4);
    if (posix_memalign((void **)&memory, 4096, 100) != 0 || (uintptr_t)memory % 4096)
        failures++;
    free(memory);
    expect("posix_memalign", before, 5);
    keep = strdup("a string");
    free(keep);
    expect("strdup", before, 6);
    void *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        failures++;
    expect("mmap", before, 7);
    munmap(pages, 8192);
    expect("munmap", before, 7);
}

typedef struct task {
    const char *name;
    uint64_t counted;
} task_t;

static void *allocate(void *argument)
{
    task_t *task = argument;
    if (task->name)
        prctl(PR_SET_NAME, task->name);
    free(malloc(1)); /* libc's own first steps of a thread are behind us now */
    uint64_t before = dj_alloc_count();
    for (int i = 0; i < 5; i++) {
        keep = malloc(100);
        free(keep);
    }
    task->counted = dj_alloc_count() - before;
    return NULL;
}

static void probe_thread(const char *name, uint64_t wanted)
{
    task_t task = {.name = name};
    pthread_t thread;
    if (pthread_create(&thread, NULL, allocate, &task) != 0 || pthread_join(thread, NULL) != 0) {
        failures++;
        return;
    }
    if (task.counted != wanted) {
        failures++;
        fprintf(stderr, "thread %s: counted %llu, wanted %llu\n", name ? name : "without a name",
                (unsigned long long)task.counted, (unsigned long long)wanted);
    }
}

/* The progress thread is known by a rank's name on a process's first thread, and on no other. */
static void probe_first_thread(void)
{
    prctl(PR_SET_NAME, "djinn-rank");
    uint64_t before = dj_alloc_count();
    keep = malloc(100);
    free(keep);
    expect("first thread of a rank", before, 0);
    probe_thread(NULL, 5);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "absent") == 0)
        return dj_alloc_count ? 1 : 0;
    if (!dj_alloc_count) {
        fprintf(stderr, "dj_alloc_count is not there: was the library preloaded?\n");
        return 1;
    }
    probe_functions();
    probe_thread(NULL, 5);
    probe_thread("dj-device", 5);
    probe_thread("dj-control", 0);
    probe_thread("dj-progress", 0);
    probe_thread("async", 0);
    probe_first_thread();
    return failures ? 1 : 0;
}
