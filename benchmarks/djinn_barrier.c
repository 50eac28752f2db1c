/* djinn_barrier.c - the time in a barrier over the tree of comm/group.h. */
#include "benchmarks/member.h"

static djinn_status_t measure(dj_bench_t *bench, uint64_t bytes)
{
    dj_member_t *self = bench->own;
    dj_status_t status = DJ_OK;
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJ_OK; round++) {
        uint64_t deadline_ns = dj_member_deadline_ns();
        double began = dj_osu_now_us();
        status = dj_group_barrier(self->group, deadline_ns);
        dj_bench_sample(bench, round, dj_osu_now_us() - began);
    }
    return (djinn_status_t)status;
}

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_barrier",
                 .title = "Djinn Barrier Latency Test",
                 .about = "The time in a barrier, averaged over the processes.",
                 .processes = true,
                 .iterations = 1000,
                 .warmup = 200},
        .members = true,
        .least = 2,
        .most = DJ_OSU_PROCESSES_MAX,
        .open = dj_member_open,
        .close = dj_member_close,
        .idle = dj_member_idle,
        .measure = measure};
    return dj_bench_main(&kind, argc, argv);
}
