/* Topologies from files and texts, and the layouts that they must give: each GPU with its own NIC,
 * in its own NUMA node, no NIC shared where there is one for each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "launcher/placement/placement.h"
#include "runtime/base/clock.h"

static dj_topology_t *read_file(const char *name)
{
    char path[512];
    dj_topology_t *topology = NULL;
    snprintf(path, sizeof path, "%s/%s.xml", DJ_TOPOLOGIES, name);
    dj_status_t status = dj_topology_read(path, &topology);
    if (status != DJ_OK)
        fail_msg("%s", dj_error_text());
    return topology;
}

static dj_layout_t *lay_out(const dj_topology_t *topology, uint32_t ranks)
{
    dj_layout_t *layout = NULL;
    dj_layout_request_t request = {
        .n_ranks = ranks, .count = ranks, .coordinator = true, .devices = true};
    if (dj_layout_compute(topology, &request, &layout) != DJ_OK)
        fail_msg("%s", dj_error_text());
    return layout;
}

static void counts(void **state)
{
    static const struct {
        const char *name;
        uint32_t packages, nodes, cores, gpus, nics;
    } cases[] = {
        {"dgx-a100", 2, 8, 128, 8, 11},     {"dgx-h100", 2, 2, 112, 8, 10},
        {"16gpu-16nic", 2, 4, 96, 16, 16},  {"cube-mesh", 2, 2, 40, 8, 4},
        {"dgx2", 2, 2, 4, 16, 0},           {"power8-4p100", 2, 2, 8, 4, 0},
        {"xeon-cuda-mlx5", 2, 2, 16, 4, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dj_topology_t *topology = read_file(cases[i].name);
        assert_int_equal(topology->n_packages, cases[i].packages);
        assert_int_equal(topology->n_nodes, cases[i].nodes);
        assert_int_equal(topology->n_cores, cases[i].cores);
        assert_int_equal(topology->n_gpus, cases[i].gpus);
        assert_int_equal(topology->n_nics, cases[i].nics);
        assert_int_equal(topology->n_left_out, 0);
        assert_false(topology->is_this_machine);
        free(topology);
    }
}

/* Which NIC and which NUMA node belong to each GPU of a file, by the numbers of make.py. */
static void own_nic_own_node(const char *name, uint32_t gpus, const char *const *nics,
                             const uint32_t *nodes)
{
    dj_topology_t *topology = read_file(name);
    dj_layout_t *layout = lay_out(topology, gpus);
    uint64_t used = 0;
    assert_true(layout->exact);
    for (uint32_t i = 1; i <= gpus; i++) {
        const dj_layout_rank_t *rank = &layout->rank[i];
        const dj_gpu_t *gpu = &topology->gpu[rank->gpu];
        char node[8];
        assert_in_range(rank->nic, 0, topology->n_nics - 1);
        assert_string_equal(topology->nic[rank->nic].name, nics[rank->gpu]);
        assert_int_equal(topology->gpu_nic[rank->gpu][rank->nic], DJ_NEAR_SWITCH);
        assert_false(used >> rank->nic & 1);
        used |= 1ull << rank->nic;
        snprintf(node, sizeof node, "%u", nodes[rank->gpu]);
        assert_string_equal(rank->share.memory_node, node);
        assert_string_equal(rank->share.gpu, gpu->uuid);
        assert_true(rank->share.bound);
        /* The threads' cores are in the GPU's node: processors are numbered node by node. */
        uint32_t a_node = topology->n_cores / topology->n_nodes;
        assert_int_equal(strtoul(rank->share.progress_cores, NULL, 10) / a_node, nodes[rank->gpu]);
        assert_int_equal(strtoul(rank->share.device_cores, NULL, 10) / a_node, nodes[rank->gpu]);
    }
    free(layout);
    free(topology);
}

static void nodes_with_a_nic_for_each_gpu(void **state)
{
    static const char *const a100[] = {"mlx5_1", "mlx5_0", "mlx5_3", "mlx5_2",
                                       "mlx5_7", "mlx5_6", "mlx5_9", "mlx5_8"};
    static const char *const h100[] = {"mlx5_0", "mlx5_3", "mlx5_4",  "mlx5_5",
                                       "mlx5_6", "mlx5_9", "mlx5_10", "mlx5_11"};
    static const char *const sixteen[] = {
        "mlx5_15", "mlx5_14", "mlx5_13", "mlx5_12", "mlx5_11", "mlx5_10", "mlx5_9", "mlx5_8",
        "mlx5_7",  "mlx5_6",  "mlx5_5",  "mlx5_4",  "mlx5_3",  "mlx5_2",  "mlx5_1", "mlx5_0"};
    static const uint32_t a100_nodes[] = {3, 3, 1, 1, 7, 7, 5, 5};
    static const uint32_t h100_nodes[] = {0, 0, 0, 0, 1, 1, 1, 1};
    static const uint32_t sixteen_nodes[] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    own_nic_own_node("dgx-a100", 8, a100, a100_nodes);
    own_nic_own_node("dgx-h100", 8, h100, h100_nodes);
    own_nic_own_node("16gpu-16nic", 16, sixteen, sixteen_nodes);
}

/* Cores: in the GPU's package, nobody's twice; the coordinator where no GPU is. */
static void cores_of_an_a100_node(void **state)
{
    dj_topology_t *topology = read_file("dgx-a100");
    dj_layout_t *layout = lay_out(topology, 8);
    cpu_set_t seen;
    CPU_ZERO(&seen);
    for (uint32_t i = 0; i < layout->n; i++) {
        const dj_layout_rank_t *rank = &layout->rank[i];
        cpu_set_t both;
        CPU_AND(&both, &seen, &rank->share.processors);
        assert_int_equal(CPU_COUNT(&both), 0);
        CPU_OR(&seen, &seen, &rank->share.processors);
        for (uint32_t core = 0; core < topology->n_cores && rank->gpu >= 0; core++) {
            CPU_AND(&both, &topology->core[core].processors, &rank->share.processors);
            if (CPU_COUNT(&both) > 0)
                assert_int_equal(topology->core[core].package, topology->gpu[rank->gpu].package);
        }
    }
    for (uint32_t i = 0; i < topology->n_gpus; i++)
        assert_int_not_equal(topology->gpu[i].node, layout->rank[0].node);
    assert_true(layout->rank[0].share.bound);
    free(layout);
    free(topology);
}

static void ports_that_are_down(void **state)
{
    dj_topology_t *topology = read_file("dgx-a100");
    for (uint32_t i = 0; i < topology->n_nics; i++) {
        const dj_nic_t *nic = &topology->nic[i];
        assert_int_equal(nic->active, strcmp(nic->name, "mlx5_5") != 0);
        assert_int_equal(nic->rdma, strcmp(nic->name, "eno1") != 0);
    }
    free(topology);
}

static void switches_join_every_gpu(void **state)
{
    static const struct {
        const char *name;
        uint32_t mbps;
    } cases[] = {{"dgx2", 150000}, {"dgx-a100", 300000}, {"dgx-h100", 450000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dj_topology_t *topology = read_file(cases[i].name);
        for (uint32_t a = 0; a < topology->n_gpus; a++) {
            for (uint32_t b = 0; b < topology->n_gpus; b++) {
                if (a != b)
                    assert_int_equal(topology->nvlink_mbps[a][b], cases[i].mbps);
            }
        }
        free(topology);
    }
}

/* GPUs 0 and 1, 2 and 3 are joined by NVLink (and to their processors, which does not count). */
static void pairs_of_a_power8_node(void **state)
{
    dj_topology_t *topology = read_file("power8-4p100");
    for (uint32_t a = 0; a < 4; a++) {
        for (uint32_t b = 0; b < 4; b++)
            assert_int_equal(topology->nvlink_mbps[a][b], a != b && a / 2 == b / 2 ? 40000 : 0);
    }
    assert_string_equal(topology->gpu[0].name, "cuda0");
    assert_string_equal(topology->gpu[3].bus_id, "000b:01:00.0");
    dj_layout_t *layout = lay_out(topology, 4);
    assert_int_equal(layout->rank[1].gpu / 2, layout->rank[2].gpu / 2);
    assert_int_equal(layout->rank[3].gpu / 2, layout->rank[4].gpu / 2);
    free(layout);
    /* Of four, the two that are joined. */
    layout = lay_out(topology, 2);
    assert_int_equal(layout->rank[1].gpu / 2, layout->rank[2].gpu / 2);
    free(layout);
    free(topology);
}

/* Two NVLinks join a ring of GPUs in another order than their numbers; the ranks follow it. */
static void ranks_follow_the_double_links(void **state)
{
    dj_topology_t *topology = read_file("cube-mesh");
    for (uint32_t ranks = 2; ranks <= 8; ranks++) {
        dj_layout_t *layout = lay_out(topology, ranks);
        assert_true(layout->exact);
        assert_int_equal(layout->link_cost, 0);
        for (uint32_t i = 1; i < ranks; i++)
            assert_int_equal(topology->nvlink_mbps[layout->rank[i].gpu][layout->rank[i + 1].gpu],
                             50000);
        /* Four NICs: a rank of its own for each while there are no more ranks. */
        if (ranks == 8)
            assert_int_equal(layout->nic_cost, 4 * DJ_SHARED_NIC_COST);
        free(layout);
    }
    free(topology);
}

static void a_node_with_a_single_nic(void **state)
{
    dj_topology_t *topology = read_file("xeon-cuda-mlx5");
    uint32_t cuda = 0;
    for (uint32_t i = 0; i < topology->n_gpus; i++)
        cuda += topology->gpu[i].cuda;
    assert_int_equal(cuda, 3); /* beside them a GPU of AMD, and a console's */
    dj_layout_t *layout = lay_out(topology, 1);
    assert_string_equal(layout->rank[1].gpu_name, "cuda0");
    assert_string_equal(layout->rank[1].share.nic, "mlx5_0:1");
    assert_string_equal(layout->rank[1].share.gpu, "2"); /* no UUID: the third of NVIDIA's */
    free(layout);
    free(topology);
}

static void texts(void **state)
{
    static const char *const wrong[] = {
        "",
        "nonsense",
        "pack:0 core:1 pu:1",
        "core:2 pu:1 gpu:",
        "core:2 pu:1 gpu:65",
        "core:2 pu:1 gpu:x",
        "core:2 pu:1 nic:-1",
        "core:2 pu:1 nvlink:1e9",
        "core:",
        "pu:1 pu:1",
        "core:4294967295 pu:1",
        "gpu:8",
    };
    dj_topology_t *topology = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        dj_status_t status = dj_topology_parse(wrong[i], &topology);
        if (status == DJ_OK)
            fail_msg("'%s' was taken", wrong[i]);
        assert_true(strlen(dj_error_text()) > 10);
        assert_null(topology);
    }
    assert_int_equal(
        dj_topology_parse("gpu:8 pack:2 numa:4 core:16 pu:2 nic:8 nvlink:300", &topology), DJ_OK);
    assert_int_equal(topology->n_nodes, 8);
    assert_int_equal(topology->n_packages, 2);
    assert_int_equal(topology->n_gpus, 8);
    assert_int_equal(topology->nvlink_mbps[0][7], 300000);
    dj_layout_t *layout = lay_out(topology, 8);
    for (uint32_t i = 1; i <= 8; i++) {
        assert_int_equal(layout->rank[i].gpu, i - 1);
        assert_int_equal(layout->rank[i].nic, i - 1);
        assert_int_equal(layout->rank[i].node, i - 1);
    }
    free(layout);
    free(topology);
}

/* More of everything than this program takes ends with a smaller topology, not with a crash. */
static void too_much(void **state)
{
    dj_topology_t *topology = NULL;
    if (dj_topology_parse("pack:70 numa:1 core:20 pu:1 gpu:64 nic:64", &topology) != DJ_OK)
        fail_msg("%s", dj_error_text());
    assert_in_range(topology->n_cores, 1, DJ_CORES_MAX);
    assert_in_range(topology->n_nodes, 1, DJ_NODES_MAX);
    assert_true(topology->n_left_out > 0);
    dj_layout_t *layout = lay_out(topology, 64);
    assert_int_equal(layout->n, 65);
    free(layout);
    free(topology);
}

static void this_machine(void **state)
{
    dj_topology_t *quick, *whole;
    uint64_t start = dj_clock_ns();
    assert_int_equal(dj_topology_find(false, &quick), DJ_OK);
    uint64_t middle = dj_clock_ns();
    assert_int_equal(dj_topology_find(true, &whole), DJ_OK);
    uint64_t end = dj_clock_ns();
    print_message("this machine: cores in %.1f ms, devices too in %.1f ms\n",
                  (double)(middle - start) / 1e6, (double)(end - middle) / 1e6);
    assert_int_equal(quick->n_cores, whole->n_cores);
    assert_int_equal(quick->n_allowed, whole->n_allowed);
    for (uint32_t i = 0; i < quick->n_cores; i++)
        assert_true(CPU_EQUAL(&quick->core[i].processors, &whole->core[i].processors));
    assert_true(whole->n_nodes >= 1);
    assert_true(whole->is_this_machine);
    free(quick);
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(nodes_with_a_nic_for_each_gpu),
        cmocka_unit_test(cores_of_an_a100_node),
        cmocka_unit_test(ports_that_are_down),
        cmocka_unit_test(switches_join_every_gpu),
        cmocka_unit_test(pairs_of_a_power8_node),
        cmocka_unit_test(ranks_follow_the_double_links),
        cmocka_unit_test(a_node_with_a_single_nic),
        cmocka_unit_test(texts),
        cmocka_unit_test(too_much),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
