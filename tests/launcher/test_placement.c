/* Shares of cores: more ranks than cores, slices that cover everything once, tasks bound apart.
 * GPUs, NICs and cores of ranks against every other way to place them, on small random machines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <time.h>

#include "launcher/placement/placement.h"
#include "runtime/base/clock.h"

static dj_topology_t *machine_of(uint32_t cores, uint32_t allowed)
{
    dj_topology_t *machine = calloc(1, sizeof *machine);
    assert_non_null(machine);
    machine->n_cores = cores;
    machine->n_allowed = allowed;
    machine->n_packages = machine->n_nodes = 1;
    machine->distance[0][0] = 10;
    for (uint32_t i = 0; i < cores; i++)
        CPU_SET(i, &machine->core[i].processors);
    return machine;
}

static void more_ranks_than_cores(void **state)
{
    dj_topology_t *machine = machine_of(2, 2);
    dj_share_t share;
    for (uint32_t i = 0; i < 8; i++) {
        dj_share_compute(machine, i, 8, &share);
        assert_false(share.bound);
        assert_int_equal(share.threads, 1);
        assert_string_equal(share.cores, "");
    }
    dj_share_compute(machine, 0, 0, &share);
    assert_false(share.bound);
    dj_share_compute(machine, 2, 2, &share);
    assert_false(share.bound);
    free(machine);
}

static void slices_cover_each_core_once(void **state)
{
    for (uint32_t cores = 1; cores <= 40; cores++) {
        dj_topology_t *machine = machine_of(cores, cores);
        for (uint32_t count = 1; count <= cores; count++) {
            cpu_set_t seen;
            uint32_t threads = 0;
            CPU_ZERO(&seen);
            for (uint32_t i = 0; i < count; i++) {
                dj_share_t share;
                cpu_set_t both;
                dj_share_compute(machine, i, count, &share);
                CPU_AND(&both, &seen, &share.processors);
                assert_int_equal(CPU_COUNT(&both), 0);
                CPU_OR(&seen, &seen, &share.processors);
                assert_in_range(share.threads, cores / count, cores / count + 1);
                threads += share.threads;
            }
            assert_int_equal(threads, cores);
            assert_int_equal(CPU_COUNT(&seen), (int)cores);
        }
        free(machine);
    }
}

static void tasks_bound_apart(void **state)
{
    static const struct {
        uint32_t cores, allowed, count;
        bool apart;
    } cases[] = {
        {16, 16, 1, false}, /* not bound at all */
        {16, 16, 4, false}, {4, 16, 4, true},
        {1, 16, 16, true},  {8, 16, 4, false}, /* two to a socket: they share its cores */
        {4, 16, 5, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dj_topology_t *machine = machine_of(cases[i].cores, cases[i].allowed);
        assert_int_equal(dj_cores_are_apart(machine, cases[i].count), cases[i].apart);
        free(machine);
    }
}

static void lists_of_processors(void **state)
{
    cpu_set_t set;
    char text[16], small[4];
    CPU_ZERO(&set);
    assert_true(dj_processors_format(&set, text, sizeof text));
    assert_string_equal(text, "");
    CPU_SET(0, &set);
    CPU_SET(1, &set);
    CPU_SET(2, &set);
    CPU_SET(8, &set);
    CPU_SET(CPU_SETSIZE - 1, &set);
    assert_true(dj_processors_format(&set, text, sizeof text));
    assert_string_equal(text, "0-2,8,1023");
    assert_false(dj_processors_format(&set, small, sizeof small));
}

static void this_machine(void **state)
{
    dj_topology_t *machine;
    cpu_set_t ours, found;
    assert_int_equal(dj_topology_find(false, &machine), DJ_OK);
    assert_int_equal(sched_getaffinity(0, sizeof ours, &ours), 0);
    CPU_ZERO(&found);
    for (uint32_t i = 0; i < machine->n_cores; i++)
        CPU_OR(&found, &found, &machine->core[i].processors);
    assert_true(CPU_EQUAL(&ours, &found));
    assert_in_range(machine->n_cores, 1, machine->n_allowed);
    free(machine);
}

/* ---- ranks with a GPU ---- */

static uint32_t seed = 1;

static uint32_t below(uint32_t limit)
{
    seed = seed * 1664525 + 1013904223;
    return (uint32_t)(((uint64_t)(seed >> 8) * limit) >> 24);
}

static dj_topology_t *random_machine(uint32_t gpus, uint32_t nics, uint32_t cores_a_node)
{
    static const uint32_t speeds[][4] = {
        {0, 0, 0, 0}, {50000, 50000, 50000, 50000}, {0, 25000, 50000, 100000}, {0, 0, 0, 25000}};
    const uint32_t *speed = speeds[below(4)];
    uint32_t packages = 1 + below(2), nodes = packages * (1 + below(2));
    dj_topology_t *machine = machine_of(nodes * cores_a_node, nodes * cores_a_node);
    machine->n_packages = packages;
    machine->n_nodes = nodes;
    machine->n_gpus = gpus;
    machine->n_nics = nics;
    for (uint32_t i = 0; i < nodes; i++) {
        machine->node[i] = (dj_numa_t){.os_index = i, .package = i * packages / nodes};
        for (uint32_t k = 0; k < i; k++)
            machine->distance[i][k] = machine->distance[k][i] = 11 + below(20);
        machine->distance[i][i] = 10;
    }
    for (uint32_t i = 0; i < machine->n_cores; i++) {
        machine->core[i].node = (uint16_t)(i / cores_a_node);
        machine->core[i].package = (uint16_t)machine->node[i / cores_a_node].package;
    }
    for (uint32_t i = 0; i < gpus; i++) {
        int32_t node = (int32_t)below(nodes);
        machine->gpu[i] =
            (dj_gpu_t){.node = node, .package = (int32_t)machine->node[node].package, .cuda = true};
        for (uint32_t k = 0; k < i; k++) {
            machine->gpu_gpu[i][k] = machine->gpu_gpu[k][i] = (uint8_t)below(6);
            machine->nvlink_mbps[i][k] = machine->nvlink_mbps[k][i] = speed[below(4)];
        }
        for (uint32_t k = 0; k < nics; k++)
            machine->gpu_nic[i][k] = (uint8_t)below(6);
    }
    for (uint32_t i = 0; i < nics; i++)
        machine->nic[i] = (dj_nic_t){.rdma = true, .active = below(8) > 0, .port = 1};
    return machine;
}

static bool nic_counts(const dj_topology_t *machine, uint32_t nic)
{
    return machine->nic[nic].rdma && machine->nic[nic].active;
}

/* The sum that placement.h promises to make small. nic -1: none. */
static uint32_t cost_of(const dj_topology_t *machine, const int32_t *gpu, const int32_t *nic,
                        uint32_t n)
{
    uint32_t sum = 0, guests[DJ_NICS_MAX] = {0};
    for (uint32_t i = 0; i < n; i++) {
        if (nic[i] >= 0)
            sum += dj_near_cost((dj_near_t)machine->gpu_nic[gpu[i]][nic[i]]) +
                   DJ_SHARED_NIC_COST * guests[nic[i]]++;
        if (i > 0)
            sum += dj_link_cost(machine, (uint32_t)gpu[i - 1], (uint32_t)gpu[i]);
    }
    return sum;
}

typedef struct search {
    const dj_topology_t *machine;
    uint32_t n, best;
    int32_t gpu[8], nic[8];
} search_t;

/* Every order of every choice of GPUs, with every NIC for each. */
static void try_all(search_t *search, uint32_t at)
{
    const dj_topology_t *machine = search->machine;
    if (at == search->n) {
        uint32_t cost = cost_of(machine, search->gpu, search->nic, at);
        search->best = cost < search->best ? cost : search->best;
        return;
    }
    for (uint32_t g = 0; g < machine->n_gpus; g++) {
        bool taken = false, any = false;
        for (uint32_t i = 0; i < at; i++)
            taken = taken || search->gpu[i] == (int32_t)g;
        search->gpu[at] = (int32_t)g;
        for (uint32_t k = 0; k < machine->n_nics && !taken; k++) {
            if (!nic_counts(machine, k))
                continue;
            any = true;
            search->nic[at] = (int32_t)k;
            try_all(search, at + 1);
        }
        search->nic[at] = -1;
        if (!taken && !any)
            try_all(search, at + 1);
    }
}

static dj_layout_t *layout_of(const dj_topology_t *machine, uint32_t ranks, bool coordinator)
{
    dj_layout_t *layout = NULL;
    dj_layout_request_t request = {
        .n_ranks = ranks, .count = ranks, .coordinator = coordinator, .devices = true};
    assert_int_equal(dj_layout_compute(machine, &request, &layout), DJ_OK);
    assert_int_equal(layout->n, ranks + coordinator);
    return layout;
}

static void picks_are_the_best_there_are(void **state)
{
    uint32_t cases = 0;
    for (uint32_t gpus = 1; gpus <= 5; gpus++) {
        for (uint32_t nics = 0; nics <= 4; nics++) {
            for (uint32_t round = 0; round < 12; round++) {
                uint32_t ranks = 1 + below(gpus);
                dj_topology_t *machine = random_machine(gpus, nics, 8);
                search_t search = {.machine = machine, .n = ranks, .best = UINT32_MAX};
                int32_t gpu[8], nic[8];
                uint64_t seen = 0;
                dj_layout_t *layout = layout_of(machine, ranks, false);
                for (uint32_t i = 0; i < ranks; i++) {
                    gpu[i] = layout->rank[i].gpu;
                    nic[i] = layout->rank[i].nic;
                    assert_in_range(gpu[i], 0, gpus - 1);
                    assert_false(seen >> gpu[i] & 1);
                    seen |= 1ull << gpu[i];
                }
                try_all(&search, 0);
                assert_true(layout->exact);
                assert_int_equal(cost_of(machine, gpu, nic, ranks), search.best);
                assert_int_equal(layout->nic_cost + layout->link_cost, search.best);
                cases++;
                free(layout);
                free(machine);
            }
        }
    }
    print_message("placed as well as by trying everything: %u machines\n", cases);
}

/* Sets beyond the sum of their members: eight GPUs, four ranks, every set tried if need be. */
static void sets_of_eight(void **state)
{
    for (uint32_t round = 0; round < 4; round++) {
        dj_topology_t *machine = random_machine(8, 2, 8);
        search_t search = {.machine = machine, .n = 4, .best = UINT32_MAX};
        machine->nvlink_mbps[0][1] = machine->nvlink_mbps[1][0] = 12345; /* not even */
        dj_layout_t *layout = layout_of(machine, 4, false);
        try_all(&search, 0);
        assert_true(layout->exact);
        assert_int_equal(layout->nic_cost + layout->link_cost, search.best);
        free(layout);
        free(machine);
    }
}

/* ---- cores ---- */

static uint32_t cores_in(const dj_topology_t *machine, const cpu_set_t *set, uint32_t node)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < machine->n_cores; i++) {
        cpu_set_t both;
        CPU_AND(&both, set, &machine->core[i].processors);
        count += CPU_COUNT(&both) > 0 && machine->core[i].node == node;
    }
    return count;
}

typedef struct dealing {
    const dj_topology_t *machine;
    const dj_layout_t *layout;
    uint32_t package, each;
    uint32_t left[8], best; /* of each node */
} dealing_t;

/* Every way to give each rank of the package `each` cores, node by node. */
static void deal_all(dealing_t *dealing, uint32_t rank, uint32_t node, uint32_t need, uint32_t sum)
{
    const dj_topology_t *machine = dealing->machine;
    if (sum >= dealing->best)
        return;
    while (rank < dealing->layout->n &&
           machine->gpu[dealing->layout->rank[rank].gpu].package != (int32_t)dealing->package)
        rank++;
    if (rank == dealing->layout->n) {
        dealing->best = sum;
        return;
    }
    if (need == 0) {
        deal_all(dealing, rank + 1, 0, dealing->each, sum);
        return;
    }
    if (node == machine->n_nodes)
        return;
    int32_t home = machine->gpu[dealing->layout->rank[rank].gpu].node;
    uint32_t most = need < dealing->left[node] ? need : dealing->left[node];
    for (uint32_t take = 0; take <= most; take++) {
        dealing->left[node] -= take;
        deal_all(dealing, rank, node + 1, need - take, sum + take * machine->distance[home][node]);
        dealing->left[node] += take;
    }
}

/* Of one package: same number for each, nobody's twice, none from elsewhere, least sum. */
static void check_package(const dj_topology_t *machine, const dj_layout_t *layout, uint32_t package)
{
    dealing_t dealing = {.machine = machine, .layout = layout, .package = package};
    uint32_t ranks = 0, cores = 0, sum = 0;
    for (uint32_t i = 0; i < machine->n_cores; i++) {
        dealing.left[machine->core[i].node] += machine->core[i].package == package;
        cores += machine->core[i].package == package;
    }
    for (uint32_t i = 0; i < layout->n; i++)
        ranks += machine->gpu[layout->rank[i].gpu].package == (int32_t)package;
    if (ranks == 0)
        return;
    dealing.each = cores / ranks;
    for (uint32_t i = 0; i < layout->n; i++) {
        const dj_gpu_t *gpu = &machine->gpu[layout->rank[i].gpu];
        uint32_t has = 0;
        if (gpu->package != (int32_t)package)
            continue;
        for (uint32_t node = 0; node < machine->n_nodes; node++) {
            uint32_t here = cores_in(machine, &layout->rank[i].share.processors, node);
            assert_true(here == 0 || machine->node[node].package == package);
            has += here;
            sum += here * machine->distance[gpu->node][node];
        }
        assert_int_equal(has, dealing.each);
    }
    dealing.best = sum + 1;
    deal_all(&dealing, 0, 0, dealing.each, 0);
    assert_int_equal(sum, dealing.best);
}

static void cores_are_the_nearest_there_are(void **state)
{
    for (uint32_t round = 0; round < 150; round++) {
        uint32_t gpus = 1 + below(4);
        dj_topology_t *machine = random_machine(gpus, 0, 4 + below(3));
        dj_layout_t *layout = layout_of(machine, gpus, false);
        cpu_set_t seen;
        CPU_ZERO(&seen);
        for (uint32_t i = 0; i < layout->n; i++) {
            cpu_set_t both;
            CPU_AND(&both, &seen, &layout->rank[i].share.processors);
            assert_int_equal(CPU_COUNT(&both), 0);
            CPU_OR(&seen, &seen, &layout->rank[i].share.processors);
        }
        for (uint32_t package = 0; package < machine->n_packages; package++)
            check_package(machine, layout, package);
        free(layout);
        free(machine);
    }
}

/* Two nodes of a package, GPUs in one of them. */
static dj_topology_t *lopsided(uint32_t gpus, uint32_t cores_a_node)
{
    dj_topology_t *machine = machine_of(2 * cores_a_node, 2 * cores_a_node);
    machine->n_nodes = 2;
    machine->node[1].os_index = 1;
    machine->distance[0][1] = machine->distance[1][0] = 12;
    machine->distance[1][1] = 10;
    machine->n_gpus = gpus;
    for (uint32_t i = 0; i < machine->n_cores; i++)
        machine->core[i].node = (uint16_t)(i / cores_a_node);
    for (uint32_t i = 0; i < gpus; i++)
        machine->gpu[i] = (dj_gpu_t){.node = 0, .package = 0, .cuda = true};
    return machine;
}

static void neighbours_split_the_near_cores_evenly(void **state)
{
    dj_topology_t *machine = lopsided(2, 8);
    dj_layout_t *layout = layout_of(machine, 2, false);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(cores_in(machine, &layout->rank[i].share.processors, 0), 4);
        assert_int_equal(cores_in(machine, &layout->rank[i].share.processors, 1), 4);
        assert_int_equal(layout->rank[i].share.threads, 5);
    }
    /* Threads sit in the GPU's own node. */
    assert_string_equal(layout->rank[0].share.progress_cores, "0");
    assert_string_equal(layout->rank[0].share.device_cores, "1");
    assert_string_equal(layout->rank[0].share.heartbeat_cores, "2");
    assert_string_equal(layout->rank[1].share.progress_cores, "4");
    assert_string_equal(layout->rank[1].share.memory_node, "0");
    free(layout);
    free(machine);
}

static void the_coordinator_sits_away_from_the_gpus(void **state)
{
    dj_topology_t *machine = lopsided(2, 8);
    dj_layout_t *layout = layout_of(machine, 2, true);
    assert_true(layout->rank[0].coordinates);
    assert_int_equal(layout->rank[0].gpu, -1);
    assert_string_equal(layout->rank[0].share.cores, "15");
    for (uint32_t i = 1; i < 3; i++)
        assert_false(CPU_ISSET(15, &layout->rank[i].share.processors));
    free(layout);
    free(machine);
    machine = lopsided(4, 4); /* two cores for each and none over */
    layout = layout_of(machine, 4, true);
    assert_false(layout->rank[0].share.bound);
    assert_int_equal(layout->rank[1].share.threads, 2);
    assert_string_equal(layout->rank[1].share.progress_cores, "");
    free(layout);
    free(machine);
    machine = lopsided(4, 1); /* fewer cores than ranks */
    layout = layout_of(machine, 4, true);
    for (uint32_t i = 0; i < 5; i++) {
        assert_false(layout->rank[i].share.bound);
        assert_int_equal(layout->rank[i].share.threads, 1);
    }
    free(layout);
    free(machine);
}

/* ---- what may be used ---- */

static void visible_lists(void **state)
{
    static const struct {
        const char *list;
        uint64_t gpus;
    } cases[] = {
        {NULL, 0x1b},         {"", 0},        {"0,1", 0x3},      {"2", 0x8},
        {"3,0", 0x11},        {"4", 0},       {"0,9,1", 0x1},    {"-1,0", 0},
        {"0,x", 0x1},         {"GPU-b", 0x2}, {"GPU-", 0},       {"GPU-zz", 0},
        {"GPU-d,GPU-a", 0x9}, {"0, 1", 0x3},  {"NoDevFiles", 0}, {"MIG-1", 0},
        {"0,1,2,3", 0x1b},    {",", 0},       {"00", 0x1},
    };
    dj_topology_t *machine = machine_of(8, 8);
    machine->n_gpus = 5; /* the third is not NVIDIA's */
    for (uint32_t i = 0; i < 5; i++) {
        machine->gpu[i] = (dj_gpu_t){.cuda = i != 2};
        snprintf(machine->gpu[i].uuid, sizeof machine->gpu[i].uuid, "GPU-%c-1234", 'a' + (int)i);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (dj_gpus_visible(machine, cases[i].list) != cases[i].gpus)
            fail_msg("'%s': 0x%llx", cases[i].list ? cases[i].list : "none",
                     (unsigned long long)dj_gpus_visible(machine, cases[i].list));
    }
    free(machine);
}

static void more_ranks_than_gpus(void **state)
{
    dj_topology_t *machine = lopsided(4, 8);
    dj_layout_t *layout = NULL;
    dj_layout_request_t request = {.n_ranks = 5, .count = 5, .devices = true};
    assert_int_equal(dj_layout_compute(machine, &request, &layout), DJ_ERR_INVALID);
    assert_string_equal(dj_error_text(),
                        "5 ranks of this node would need a GPU each, and 4 may be used; start at "
                        "most 4 ranks with a GPU here, or give --device host");
    request = (dj_layout_request_t){.n_ranks = 3, .count = 3, .devices = true, .visible = "0,2"};
    assert_int_equal(dj_layout_compute(machine, &request, &layout), DJ_ERR_INVALID);
    assert_non_null(strstr(dj_error_text(), "3 ranks"));
    assert_non_null(strstr(dj_error_text(), "2 may be used (CUDA_VISIBLE_DEVICES is '0,2')"));
    request.visible = "";
    assert_int_equal(dj_layout_compute(machine, &request, &layout), DJ_ERR_INVALID);
    assert_non_null(strstr(dj_error_text(), "no GPU may be used"));
    assert_null(layout);
    free(machine);
}

/* ---- tasks that share a node ---- */

/* Each computes for itself; together they must not overlap. */
static void tasks_agree(void **state)
{
    dj_topology_t *machine = random_machine(4, 4, 8);
    dj_layout_t *whole = layout_of(machine, 4, true);
    for (uint32_t task = 0; task < 4; task++) {
        dj_layout_t *ours;
        dj_layout_request_t request = {
            .n_ranks = 4, .coordinator = true, .devices = true, .first = task, .count = 1};
        assert_int_equal(dj_layout_compute(machine, &request, &ours), DJ_OK);
        assert_int_equal(ours->rank[1 + task].gpu, whole->rank[1 + task].gpu);
        assert_int_equal(ours->rank[1 + task].nic, whole->rank[1 + task].nic);
        assert_true(CPU_EQUAL(&ours->rank[1 + task].share.processors,
                              &whole->rank[1 + task].share.processors));
        free(ours);
    }
    free(whole);
    free(machine);
}

static void a_task_with_cores_and_gpus_of_its_own(void **state)
{
    dj_topology_t *machine = lopsided(4, 8);
    dj_layout_t *layout;
    dj_layout_request_t request = {.n_ranks = 4,
                                   .devices = true,
                                   .first = 2,
                                   .count = 1,
                                   .visible = "3",
                                   .gpus_apart = true,
                                   .cores_apart = true};
    assert_int_equal(dj_layout_compute(machine, &request, &layout), DJ_OK);
    assert_int_equal(layout->rank[2].gpu, 3);
    assert_string_equal(layout->rank[2].share.gpu, "3");
    assert_string_equal(layout->rank[2].share.cores, "0-15");
    assert_int_equal(layout->rank[1].gpu, -1);
    free(layout);
    /* GPUs for all, cores for us alone: ordered as tasks are, and only we are bound. */
    request.visible = NULL;
    request.gpus_apart = false;
    assert_int_equal(dj_layout_compute(machine, &request, &layout), DJ_OK);
    assert_int_equal(layout->rank[2].gpu, 2);
    assert_true(layout->rank[2].share.bound);
    assert_false(layout->rank[1].share.bound);
    free(layout);
    request.devices = false;
    assert_int_equal(dj_layout_compute(machine, &request, &layout), DJ_OK);
    assert_int_equal(layout->rank[2].share.threads, 16);
    assert_false(layout->rank[1].share.bound);
    free(layout);
    free(machine);
}

static void the_host_device_is_shared_in_slices(void **state)
{
    dj_topology_t *machine = machine_of(9, 9);
    dj_layout_t *layout;
    dj_layout_request_t request = {.n_ranks = 4, .count = 4, .coordinator = true};
    assert_int_equal(dj_layout_compute(machine, &request, &layout), DJ_OK);
    assert_false(layout->rank[0].share.bound);
    for (uint32_t i = 0; i < 4; i++) {
        dj_share_t share;
        dj_share_compute(machine, i, 4, &share);
        assert_string_equal(layout->rank[1 + i].share.cores, share.cores);
        assert_int_equal(layout->rank[1 + i].share.threads, share.threads);
    }
    free(layout);
    free(machine);
}

/* ---- time ---- */

static int by_size(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Of this thread's own: others use the machine, too. */
static uint64_t processor_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * DJ_NS_PER_S + (uint64_t)now.tv_nsec;
}

static void time_of(const char *what, uint32_t ranks, bool even)
{
    uint64_t taken[15];
    for (uint32_t i = 0; i < 15; i++) {
        dj_topology_t *machine = random_machine(16, 16, 48);
        machine->nvlink_mbps[0][1] = machine->nvlink_mbps[1][0] = 12345;
        for (uint32_t k = 0; k < 256 && even; k++)
            machine->nvlink_mbps[k / 16][k % 16] = 300000;
        uint64_t start = processor_ns();
        dj_layout_t *layout = layout_of(machine, ranks, true);
        taken[i] = processor_ns() - start;
        free(layout);
        free(machine);
    }
    qsort(taken, 15, sizeof taken[0], by_size);
    print_message("16 GPUs, 16 NICs, %s, %u ranks: p50 %.2f ms, max %.2f ms\n", what, ranks,
                  (double)taken[7] / 1e6, (double)taken[14] / 1e6);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__OPTIMIZE__)
    assert_true(taken[7] < 5 * DJ_NS_PER_MS);
#endif
}

static void sixteen_in_five_milliseconds(void **state)
{
    time_of("all joined alike", 16, true);
    time_of("links that differ", 16, false);
    time_of("links that differ", 12, false);
    time_of("links that differ", 8, false);
    time_of("links that differ", 4, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_ranks_than_cores),
        cmocka_unit_test(slices_cover_each_core_once),
        cmocka_unit_test(tasks_bound_apart),
        cmocka_unit_test(lists_of_processors),
        cmocka_unit_test(this_machine),
        cmocka_unit_test(visible_lists),
        cmocka_unit_test(more_ranks_than_gpus),
        cmocka_unit_test(picks_are_the_best_there_are),
        cmocka_unit_test(sets_of_eight),
        cmocka_unit_test(cores_are_the_nearest_there_are),
        cmocka_unit_test(neighbours_split_the_near_cores_evenly),
        cmocka_unit_test(the_coordinator_sits_away_from_the_gpus),
        cmocka_unit_test(tasks_agree),
        cmocka_unit_test(a_task_with_cores_and_gpus_of_its_own),
        cmocka_unit_test(the_host_device_is_shared_in_slices),
        cmocka_unit_test(sixteen_in_five_milliseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
