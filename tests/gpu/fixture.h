/* fixture.h - a host device for a test, and the fault a bad touch must bring. */
#ifndef DJ_TESTS_GPU_FIXTURE_H
#define DJ_TESTS_GPU_FIXTURE_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/device.h"

static inline dj_device_t *fixture_open(uint64_t threads)
{
    dj_config_t config = {.device = "host", .threads = threads, .cores = ""};
    dj_device_t *device = NULL;
    assert_true(dj_hash_setup());
    assert_int_equal(dj_device_open(&config, &device), DJ_OK);
    return device;
}

typedef enum fixture_touch { FIXTURE_READ, FIXTURE_WRITE } fixture_touch_t;

/* Does touching this byte kill a process? Tried in a child, which a sanitizer must not save. */
static inline bool fixture_faults(void *byte, fixture_touch_t touch)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        volatile uint8_t *at = byte;
        if (touch == FIXTURE_READ)
            (void)*at;
        else
            *at = 1;
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

/* Pages of this process in memory. */
static inline uint64_t fixture_resident_bytes(void)
{
    char text[128] = "";
    unsigned long total, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fgets(text, sizeof(text), file))
        sscanf(text, "%lu %lu", &total, &resident);
    if (file)
        fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

#endif
