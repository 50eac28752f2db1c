/* Judgements that no machine can be made to show: clocks that differ, versions of UCX. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "launcher/doctor/check.h"

static void expect_clock(bool synchronised, bool has_server, long long skew_ms,
                         dj_verdict_t verdict, const char *text)
{
    dj_finding_t finding = {0};
    assert_int_equal(dj_judge_clock(synchronised, has_server, skew_ms, &finding), verdict);
    assert_non_null(strstr(finding.text, text));
    assert_int_equal(finding.next[0] != '\0', verdict >= DJ_VERDICT_WARN);
}

static void clocks(void **state)
{
    expect_clock(true, true, 600000, DJ_VERDICT_FAIL, "600.0 s before ours: MUNGE refuses");
    expect_clock(true, true, -301000, DJ_VERDICT_FAIL, "301.0 s behind ours");
    expect_clock(true, true, 20000, DJ_VERDICT_WARN, "20.0 s before ours");
    expect_clock(false, true, -12, DJ_VERDICT_OK, "12 ms from ours");
    expect_clock(false, false, 0, DJ_VERDICT_INFO, "nobody keeps");
    expect_clock(true, false, 0, DJ_VERDICT_OK, "synchronised");
}

static void expect_way(const dj_gpu_way_t *way, const char *here, const char *away,
                       const char *next)
{
    dj_finding_t finding = {0};
    char wanted[512];
    assert_int_equal(dj_judge_gpu_memory(way, &finding), next[0] ? DJ_VERDICT_WARN : DJ_VERDICT_OK);
    snprintf(wanted, sizeof wanted, "between ranks of this machine %s", here);
    assert_int_equal(strncmp(finding.text, wanted, strlen(wanted)), 0);
    snprintf(wanted, sizeof wanted, "; to other hosts %s", away);
    assert_non_null(strstr(finding.text, wanted));
    assert_non_null(strstr(finding.next, next));
    assert_int_equal(finding.next[0] != '\0', next[0] != '\0');
}

/* From a UCX without CUDA to a cluster on which all is well. */
static void ways_of_gpu_memory(void **state)
{
    dj_gpu_way_t way = {
        .facts = {.transports = "auto", .shm = true, .tcp = true}, .dma_buf = false, .rdma = true};
    expect_way(&way, "staging", "staging", "--with-cuda");
    way.fabric.cuda = true;
    expect_way(&way, "staging, because UCX has no cuda_ipc", "staging, because sockets",
               "without RDMA");
    way.fabric.cuda_ipc = way.facts.rdma = true;
    expect_way(&way, "cuda_ipc", "staging, because neither", "nvidia_peermem");
    way.rdma = false;
    expect_way(&way, "cuda_ipc", "staging", "does not support GPUDirect");
    way.rdma = way.dma_buf = true;
    expect_way(&way, "cuda_ipc", "staging", "1.15");
    way.fabric.rdma_reads_cuda = true;
    expect_way(&way, "cuda_ipc", "dma-buf", "");
    way.dma_buf = false;
    way.facts.peermem = true;
    expect_way(&way, "cuda_ipc", "peermem", "");
}

static void versions_of_ucx(void **state)
{
    const char *next;
    assert_non_null(strstr(dj_judge_ucx(1, 12, &next), "older"));
    assert_true(next[0]);
    assert_non_null(strstr(dj_judge_ucx(0, 9, &next), "older"));
    assert_non_null(strstr(dj_judge_ucx(1, 13, &next), "abort"));
    assert_true(next[0]);
    assert_non_null(strstr(dj_judge_ucx(1, 20, &next), "loopback"));
    assert_null(dj_judge_ucx(1, 21, &next));
    assert_string_equal(next, "");
    assert_null(dj_judge_ucx(2, 0, &next));
}

static void sentences_are_cut_and_printable(void **state)
{
    dj_finding_t finding;
    char list[16] = "", long_word[4000];
    memset(long_word, 'x', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = '\0';
    dj_find(&finding, DJ_VERDICT_WARN, "do", "%s\x1b[2J", long_word);
    assert_int_equal(strlen(finding.text), DJ_FINDING_MAX - 1);
    dj_find(&finding, DJ_VERDICT_WARN, "do", "a\nb\x1b\x80");
    assert_string_equal(finding.text, "a?b??");
    dj_list_add(list, sizeof list, "one");
    dj_list_add(list, sizeof list, "%s", long_word);
    dj_list_add(list, sizeof list, "two");
    assert_string_equal(list, "one, two");
}

static void shared_file_systems(void **state)
{
    static const char *const shared[] = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "fuse.sshfs"};
    static const char *const local[] = {"ext4", "xfs", "tmpfs", "overlay", "?", "nfsd", "fuseblk"};
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++)
        assert_true(dj_is_shared_file_system(shared[i]));
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        assert_false(dj_is_shared_file_system(local[i]));
}

static void answers_by_key(void **state)
{
    static dj_ask_t ask = {.text =
                               "PropagateResourceLimits = ALL\r\nMpi: x\n\nkey\n  \nlast one\n\n"};
    char value[8];
    assert_true(dj_ask_value(&ask, "PropagateResourceLimits", value, sizeof value));
    assert_string_equal(value, "ALL");
    assert_false(dj_ask_value(&ask, "Propagate", value, sizeof value));
    assert_string_equal(value, "");
    assert_true(dj_ask_value(&ask, "Mpi", value, sizeof value));
    assert_string_equal(value, "x");
    assert_true(dj_ask_value(&ask, "key", value, sizeof value));
    assert_string_equal(value, "");
    assert_string_equal(dj_ask_last_line(&ask, value, sizeof value), "last on");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks),
        cmocka_unit_test(ways_of_gpu_memory),
        cmocka_unit_test(versions_of_ucx),
        cmocka_unit_test(sentences_are_cut_and_printable),
        cmocka_unit_test(shared_file_systems),
        cmocka_unit_test(answers_by_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
