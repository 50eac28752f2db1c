/* djinn_bcast.c - the time of a broadcast from process 0 down the tree of comm/group.h.
 *
 * As in OSU each process times its own part, and a barrier outside the timing separates the rounds.
 */
#include "benchmarks/member.h"

static djinn_status_t measure(dj_bench_t *bench, uint64_t bytes)
{
    dj_member_t *self = bench->own;
    dj_status_t status = DJ_OK;
    for (uint64_t round = 0; round < dj_bench_rounds(bench) && status == DJ_OK; round++) {
        if (bench->options.validate && bench->stage.rank == 0)
            dj_osu_fill(self->data, bytes, round);
        uint64_t deadline_ns = dj_member_deadline_ns();
        double began = dj_osu_now_us();
        status = dj_group_broadcast(self->group, 0, self->data, bytes, deadline_ns);
        dj_bench_sample(bench, round, dj_osu_now_us() - began);
        if (bench->options.validate)
            bench->wrong += dj_osu_wrong(self->data, bytes, round);
        if (status == DJ_OK)
            status = dj_group_barrier(self->group, deadline_ns);
    }
    return (djinn_status_t)status;
}

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_bcast",
                 .title = "Djinn Broadcast Latency Test",
                 .datatype = "uint8",
                 .about = "The time in a broadcast of SIZE bytes, averaged over the processes.",
                 .sized = true,
                 .processes = true,
                 .first_bytes = 1,
                 .last_bytes = 1 << 20,
                 .least_bytes = 1,
                 .iterations = 1000,
                 .warmup = 200,
                 .iterations_large = 100,
                 .warmup_large = 10,
                 .large_from = 8192},
        .members = true,
        .least = 2,
        .most = DJ_OSU_PROCESSES_MAX,
        .open = dj_member_open,
        .close = dj_member_close,
        .idle = dj_member_idle,
        .measure = measure};
    return dj_bench_main(&kind, argc, argv);
}
