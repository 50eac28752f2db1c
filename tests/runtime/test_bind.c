/* Binding of a rank's threads and memory: what is asked happens, what makes no sense changes
 * nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/bind.h"

static cpu_set_t all;
static int first;

static void *affinity_main(void *argument)
{
    sched_getaffinity(0, sizeof(cpu_set_t), argument);
    return NULL;
}

static cpu_set_t affinity_of_new_thread(void)
{
    pthread_t thread;
    cpu_set_t set;
    CPU_ZERO(&set);
    assert_int_equal(pthread_create(&thread, NULL, affinity_main, &set), 0);
    pthread_join(thread, NULL);
    return set;
}

static void *bind_main(void *argument)
{
    static cpu_set_t set;
    dj_bind_thread(argument, "test");
    sched_getaffinity(0, sizeof set, &set);
    return &set;
}

/* A thread's affinity after it was told to be on a list of cores. */
static cpu_set_t bound_to(const char *list)
{
    pthread_t thread;
    void *set;
    assert_int_equal(pthread_create(&thread, NULL, bind_main, (void *)list), 0);
    pthread_join(thread, &set);
    return *(cpu_set_t *)set;
}

static void lists(void **state)
{
    static const char *const wrong[] = {"x",
                                        "-1",
                                        "1-",
                                        "0,",
                                        ",0",
                                        "0-x",
                                        "3-1",
                                        "0 ",
                                        "1024",
                                        "--",
                                        "0x1",
                                        " 0",
                                        "0-99999999999999999999"};
    char text[16];
    snprintf(text, sizeof text, "%d", first);
    cpu_set_t set = bound_to(text), only;
    CPU_ZERO(&only);
    CPU_SET(first, &only);
    assert_true(CPU_EQUAL(&set, &only));
    set = bound_to("0-1023");
    assert_true(CPU_EQUAL(&set, &all));
    set = bound_to("");
    assert_true(CPU_EQUAL(&set, &all));
    set = bound_to("1023"); /* not there */
    assert_true(CPU_EQUAL(&set, &all));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        set = bound_to(wrong[i]);
        assert_true(CPU_EQUAL(&set, &all));
    }
}

static int policy_of_memory(unsigned long *nodes_p)
{
    int policy = -1;
    unsigned long nodes[16] = {0};
    assert_int_equal(syscall(SYS_get_mempolicy, &policy, nodes, 1024ul, NULL, 0ul), 0);
    *nodes_p = nodes[0];
    return policy;
}

static void a_place_in_full(void **state)
{
    dj_config_t config;
    unsigned long nodes;
    assert_int_equal(dj_config_load(&config, 0, NULL, NULL), DJ_OK);
    dj_bind_rank(&config); /* nothing placed: nothing changes */
    assert_null(dj_environment("CUDA_VISIBLE_DEVICES"));
    assert_int_equal(policy_of_memory(&nodes), MPOL_DEFAULT);
    config.memory_node = "no node";
    dj_bind_rank(&config);
    config.memory_node = "1024";
    dj_bind_rank(&config);
    assert_int_equal(policy_of_memory(&nodes), MPOL_DEFAULT);
    config.gpu = "GPU-1234";
    config.memory_node = "0";
    config.progress_cores = "0";
    dj_bind_rank(&config);
    assert_string_equal(dj_environment("CUDA_VISIBLE_DEVICES"), "GPU-1234");
    assert_string_equal(dj_environment("CUDA_DEVICE_ORDER"), "PCI_BUS_ID");
    assert_int_equal(policy_of_memory(&nodes), MPOL_PREFERRED);
    assert_int_equal(nodes, 1);
}

/* After dj_bind_rank(): what the progress thread makes later does not sit on its core. */
static void new_threads_keep_all_cores(void **state)
{
    char text[16];
    snprintf(text, sizeof text, "%d", first);
    dj_bind_thread(text, "progress");
    cpu_set_t set = affinity_of_new_thread();
    assert_true(CPU_EQUAL(&set, &all));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(a_place_in_full),
        cmocka_unit_test(new_threads_keep_all_cores),
    };
    unsetenv("CUDA_VISIBLE_DEVICES");
    sched_getaffinity(0, sizeof all, &all);
    while (first < CPU_SETSIZE && !CPU_ISSET(first, &all))
        first++;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
