/* test_path.c - the choice of a path as a table: facts in, carrier, reach and words out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "comm/fabric.h"

#define NEAR .same_host = true, .same_user = true
#define HERE .shm = true, .tcp = true
#define GPUS .here = DJ_MEMORY_CUDA, .there = DJ_MEMORY_CUDA, .device_known = true

typedef struct row {
    dj_path_facts_t facts;
    const char *text; /* or the error's sentence, with `refused` */
    dj_carrier_t carrier;
    dj_reach_t reach;
    bool refused;
} row_t;

static const row_t rows[] = {
    /* What cannot be had. */
    {.facts = {HERE, .same_user = true, .transports = "shm"},
     .text = "shm was asked for, but the peer is on another host: use --transports auto or tcp",
     .refused = true},
    {.facts = {HERE, .same_host = true, .transports = "shm"},
     .text = "shm was asked for, but the peer runs as another user: use --transports auto or tcp",
     .refused = true},
    {.facts = {NEAR, .tcp = true, .transports = "shm"},
     .text = "shm was asked for, but UCX has no shared memory here: use --transports auto or tcp",
     .refused = true},
    {.facts = {.shm = true, .transports = "auto"},
     .text = "nothing carries bytes to the peer: the peer is on another host, and UCX has no tcp "
             "here; look at UCX_TLS and at ucx_info -d",
     .refused = true},
    {.facts = {NEAR, .shm = true, .transports = "tcp"},
     .text = "nothing carries bytes to the peer: tcp was asked for, and UCX has no tcp here; look "
             "at UCX_TLS and at ucx_info -d",
     .refused = true},
    /* Host memory. */
    {.facts = {NEAR, HERE, .transports = "auto"},
     .text = "shm, because same host and user",
     .carrier = DJ_CARRIER_SHM},
    {.facts = {NEAR, HERE, .transports = "shm"},
     .text = "shm, because same host and user",
     .carrier = DJ_CARRIER_SHM},
    {.facts = {NEAR, .shm = true, .transports = "auto"},
     .text = "shm, because same host and user",
     .carrier = DJ_CARRIER_SHM},
    {.facts = {NEAR, HERE, .rdma = true, .transports = "auto"},
     .text = "shm, because same host and user",
     .carrier = DJ_CARRIER_SHM},
    {.facts = {NEAR, HERE, .transports = "tcp"},
     .text = "tcp, because tcp was asked for",
     .carrier = DJ_CARRIER_TCP},
    {.facts = {NEAR, HERE, .rdma = true, .transports = "tcp"},
     .text = "tcp, because tcp was asked for",
     .carrier = DJ_CARRIER_TCP},
    {.facts = {HERE, .same_host = true, .transports = "auto"},
     .text = "tcp, because the peer runs as another user",
     .carrier = DJ_CARRIER_TCP},
    {.facts = {HERE, .same_user = true, .transports = "auto"},
     .text = "tcp, because the peer is on another host",
     .carrier = DJ_CARRIER_TCP},
    {.facts = {NEAR, .tcp = true, .transports = "auto"},
     .text = "tcp, because UCX has no shared memory here",
     .carrier = DJ_CARRIER_TCP},
    {.facts = {HERE, .rdma = true, .transports = "auto"},
     .text = "rdma, because the peer is on another host",
     .carrier = DJ_CARRIER_RDMA},
    {.facts = {HERE, .same_host = true, .rdma = true, .transports = "auto"},
     .text = "rdma, because the peer runs as another user",
     .carrier = DJ_CARRIER_RDMA},
    {.facts = {NEAR, HERE, .rdma = true, .relay = true, .transports = "auto"},
     .text = "relay, because only one port of the server is to be used",
     .carrier = DJ_CARRIER_RELAY},
    {.facts = {.relay = true, .transports = "shm"},
     .text = "relay, because only one port of the server is to be used",
     .carrier = DJ_CARRIER_RELAY},
    /* Device memory. */
    {.facts = {NEAR, HERE, GPUS, .unproven = "the card is asleep", .cuda_ipc = true, .transports = "auto"},
     .text = "shm, because same host and user; device memory by staging, because the card is asleep",
     .carrier = DJ_CARRIER_SHM,
     .reach = DJ_REACH_STAGING},
    {.facts = {NEAR, HERE, GPUS, .checksums = true, .slabs_in_host = true, .cuda_ipc = true, .transports = "auto"},
     .text = "shm, because same host and user; device memory by staging, because the host reads it for checksums",
     .carrier = DJ_CARRIER_SHM,
     .reach = DJ_REACH_STAGING},
    {.facts = {HERE, .here = DJ_MEMORY_CUDA, .slabs_in_host = true, .transports = "auto"},
     .text = "tcp, because the peer is on another host; device memory by mapping, because the device shows the "
             "network host memory",
     .carrier = DJ_CARRIER_TCP,
     .reach = DJ_REACH_MAPPED},
    {.facts = {HERE, .here = DJ_MEMORY_CUDA, .slabs_in_host = true, .unproven = "UCX is tired",
               .transports = "auto"},
     .text = "tcp, because the peer is on another host; device memory by staging, because UCX is tired",
     .carrier = DJ_CARRIER_TCP,
     .reach = DJ_REACH_STAGING},
    {.facts = {NEAR, HERE, GPUS, .cuda_ipc = true, .dma_buf = true, .transports = "auto"},
     .text = "shm, because same host and user; device memory by cuda_ipc, because both ends' "
             "devices can "
             "map each other",
     .carrier = DJ_CARRIER_SHM,
     .reach = DJ_REACH_CUDA_IPC},
    {.facts = {NEAR, HERE, .here = DJ_MEMORY_CUDA, .device_known = true, .cuda_ipc = true,
               .transports = "auto"},
     .text = "shm, because same host and user; device memory by staging, because only one end is "
             "device "
             "memory",
     .carrier = DJ_CARRIER_SHM,
     .reach = DJ_REACH_STAGING},
    {.facts = {NEAR, HERE, GPUS, .transports = "auto"},
     .text = "shm, because same host and user; device memory by staging, because UCX has no "
             "cuda_ipc here",
     .carrier = DJ_CARRIER_SHM,
     .reach = DJ_REACH_STAGING},
    {.facts = {NEAR, HERE, .there = DJ_MEMORY_CUDA, .cuda_ipc = true, .transports = "auto"},
     .text = "shm, because same host and user; device memory by staging, because UCX here knows no "
             "device "
             "memory",
     .carrier = DJ_CARRIER_SHM,
     .reach = DJ_REACH_STAGING},
    {.facts = {HERE, GPUS, .rdma = true, .dma_buf = true, .peermem = true, .transports = "auto"},
     .text =
         "rdma, because the peer is on another host; device memory by dma-buf, because the network "
         "card reads device memory by dma-buf",
     .carrier = DJ_CARRIER_RDMA,
     .reach = DJ_REACH_DMA_BUF},
    {.facts = {HERE, GPUS, .rdma = true, .peermem = true, .cuda_ipc = true, .transports = "auto"},
     .text = "rdma, because the peer is on another host; device memory by peermem, because "
             "nvidia_peermem "
             "is loaded",
     .carrier = DJ_CARRIER_RDMA,
     .reach = DJ_REACH_PEERMEM},
    {.facts = {HERE, GPUS, .rdma = true, .cuda_ipc = true, .transports = "auto"},
     .text = "rdma, because the peer is on another host; device memory by staging, because neither "
             "dma-buf "
             "nor nvidia_peermem is there",
     .carrier = DJ_CARRIER_RDMA,
     .reach = DJ_REACH_STAGING},
    {.facts = {HERE, GPUS, .dma_buf = true, .cuda_ipc = true, .transports = "auto"},
     .text =
         "tcp, because the peer is on another host; device memory by staging, because sockets read "
         "host "
         "memory alone",
     .carrier = DJ_CARRIER_TCP,
     .reach = DJ_REACH_STAGING},
    {.facts = {HERE, GPUS, .dma_buf = true, .relay = true, .transports = "auto"},
     .text = "relay, because only one port of the server is to be used; device memory by staging, "
             "because "
             "sockets read host memory alone",
     .carrier = DJ_CARRIER_RELAY,
     .reach = DJ_REACH_STAGING},
};

static void each_row_of_the_table_holds(void **state)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
        dj_path_t path = {.carrier = DJ_CARRIER_RELAY, .text = "untouched"};
        dj_status_t status = dj_path_choose(&rows[i].facts, &path);
        if (rows[i].refused) {
            assert_int_equal(status, DJ_ERR_CONNECT);
            assert_string_equal(dj_error_text(), rows[i].text);
            assert_string_equal(path.text, "untouched");
            continue;
        }
        assert_int_equal(status, DJ_OK);
        assert_string_equal(path.text, rows[i].text);
        assert_int_equal(path.carrier, rows[i].carrier);
        assert_int_equal(path.reach, rows[i].reach);
    }
}

/* Over all facts: never shared memory with a stranger, never a card without RDMA. */
static void no_facts_lead_astray(void **state)
{
    static const char *const asked[] = {"auto", "shm", "tcp"};
    for (unsigned bits = 0; bits < 1 << 15; ++bits) {
        for (unsigned i = 0; i < 3; ++i) {
            const dj_path_facts_t facts = {.same_host = bits & 1,
                                           .same_user = bits & 2,
                                           .relay = bits & 4,
                                           .transports = asked[i],
                                           .shm = bits & 8,
                                           .tcp = bits & 16,
                                           .rdma = bits & 32,
                                           .here = bits & 64 ? DJ_MEMORY_CUDA : DJ_MEMORY_HOST,
                                           .there = bits & 128 ? DJ_MEMORY_CUDA : DJ_MEMORY_HOST,
                                           .device_known = bits & 256,
                                           .dma_buf = bits & 512,
                                           .peermem = bits & 1024,
                                           .cuda_ipc = bits & 2048,
                                           .checksums = bits & 4096,
                                           .slabs_in_host = bits & 8192,
                                           .unproven = bits & 16384 ? "nobody knows" : NULL};
            dj_path_t path;
            if (dj_path_choose(&facts, &path) != DJ_OK)
                continue;
            bool near = facts.same_host && facts.same_user && facts.shm;
            assert_true(path.carrier != DJ_CARRIER_SHM || (near && i != 2 && !facts.relay));
            assert_true(path.carrier != DJ_CARRIER_RDMA || (facts.rdma && i == 0));
            assert_true(path.carrier != DJ_CARRIER_TCP || (facts.tcp && i != 1));
            assert_int_equal(path.carrier == DJ_CARRIER_RELAY, facts.relay);
            assert_int_equal(path.reach == DJ_REACH_HOST, !(bits & 192));
            assert_true(path.reach == DJ_REACH_STAGING || path.reach == DJ_REACH_HOST ||
                        facts.device_known || facts.slabs_in_host);
            bool socket = path.carrier == DJ_CARRIER_TCP || path.carrier == DJ_CARRIER_RELAY;
            assert_false(dj_reach_is_direct(path.reach) && (facts.checksums || facts.unproven));
            assert_false(dj_reach_is_direct(path.reach) && socket && !facts.slabs_in_host);
            assert_true(path.reach != DJ_REACH_CUDA_IPC || facts.here == facts.there);
            assert_true(strlen(path.text) < DJ_PATH_TEXT_MAX - 1);
        }
    }
}

static void ucx_tls_is_read_as_ucx_reads_it(void **state)
{
    assert_true(dj_path_tls_allows(NULL, "tcp"));
    assert_true(dj_path_tls_allows("all", "tcp"));
    assert_true(dj_path_tls_allows("self,tcp", "tcp"));
    assert_true(dj_path_tls_allows("posix", "shm,posix"));
    assert_false(dj_path_tls_allows("self,tcp2", "tcp"));
    assert_false(dj_path_tls_allows("tc", "tcp"));
    assert_false(dj_path_tls_allows("", "tcp"));
    assert_false(dj_path_tls_allows("^tcp", "tcp"));
    assert_false(dj_path_tls_allows("^shm,tcp", "tcp"));
    assert_true(dj_path_tls_allows("^shm", "tcp"));
    assert_true(dj_path_tls_allows("^", "tcp"));
}

static void the_system_is_read(void **state)
{
    char root[] = "/tmp/djinn-path-XXXXXX", path[128];
    static const char *const made[] = {"class", "class/infiniband", "module",
                                       "module/nvidia_peermem", "class/infiniband/mlx5_0"};
    dj_path_facts_t facts = {.cuda_ipc = true};
    assert_non_null(mkdtemp(root));
    unsetenv("UCX_TLS");
    dj_path_facts_read("/nonexistent", &facts);
    assert_true(facts.shm && facts.tcp && !facts.rdma && !facts.peermem && facts.cuda_ipc);
    for (int i = 0; i < 5; ++i) {
        snprintf(path, sizeof(path), "%s/%s", root, made[i]);
        assert_int_equal(mkdir(path, 0700), 0);
        dj_path_facts_read(root, &facts);
        assert_int_equal(facts.rdma, i == 4);
        assert_int_equal(facts.peermem, i >= 3);
    }
    setenv("UCX_TLS", "tcp", 1);
    dj_path_facts_read(root, &facts);
    assert_true(!facts.shm && facts.tcp && !facts.rdma && facts.peermem);
    unsetenv("UCX_TLS");
    for (int i = 4; i >= 0; --i) {
        static const int order[] = {0, 2, 1, 3, 4};
        snprintf(path, sizeof(path), "%s/%s", root, made[order[i]]);
        assert_int_equal(rmdir(path), 0);
    }
    rmdir(root);
}

/* From what UCX and the driver say to what would be taken, near and far. */
static void what_ucx_says_becomes_facts(void **state)
{
    static const struct {
        dj_fabric_t fabric;
        bool dma_buf, peermem;
        dj_reach_t near, far;
    } says[] = {
        {{.cuda = false}, true, true, DJ_REACH_STAGING, DJ_REACH_STAGING},
        {{.cuda = true}, true, true, DJ_REACH_STAGING, DJ_REACH_STAGING},
        {{.cuda = true, .cuda_ipc = true}, true, true, DJ_REACH_CUDA_IPC, DJ_REACH_STAGING},
        {{.cuda = true, .rdma_reads_cuda = true}, true, true, DJ_REACH_STAGING, DJ_REACH_DMA_BUF},
        {{.cuda = true, .rdma_reads_cuda = true}, false, true, DJ_REACH_STAGING, DJ_REACH_PEERMEM},
        {{.cuda = true, .rdma_reads_cuda = true}, false, false, DJ_REACH_STAGING, DJ_REACH_STAGING},
    };
    for (size_t i = 0; i < sizeof(says) / sizeof(says[0]); ++i)
        for (int near = 0; near < 2; ++near) {
            dj_path_facts_t facts = {HERE, GPUS, .rdma = true, .transports = "auto", .same_host = near,
                                     .same_user = near, .peermem = says[i].peermem};
            dj_path_t path;
            facts.device_known = false;
            dj_fabric_facts(&says[i].fabric, says[i].dma_buf, &facts);
            assert_int_equal(dj_path_choose(&facts, &path), DJ_OK);
            assert_int_equal(path.reach, near ? says[i].near : says[i].far);
        }
}

static void names_are_names(void **state)
{
    assert_string_equal(dj_carrier_name(DJ_CARRIER_RELAY), "relay");
    assert_string_equal(dj_reach_name(DJ_REACH_DMA_BUF), "dma-buf");
    assert_string_equal(dj_carrier_name((dj_carrier_t)9), "?");
    assert_string_equal(dj_reach_name((dj_reach_t)-1), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row_of_the_table_holds),
        cmocka_unit_test(no_facts_lead_astray),
        cmocka_unit_test(ucx_tls_is_read_as_ucx_reads_it),
        cmocka_unit_test(the_system_is_read),
        cmocka_unit_test(what_ucx_says_becomes_facts),
        cmocka_unit_test(names_are_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
