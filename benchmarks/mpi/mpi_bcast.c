/* mpi_bcast.c - the time of a broadcast from process 0: the twin of djinn_bcast. */
#include "benchmarks/mpi/twin.h"

static void measure(dj_twin_t *twin, uint64_t bytes)
{
    for (uint64_t round = 0; round < dj_twin_rounds(twin); round++) {
        if (twin->options.validate && twin->rank == 0)
            dj_osu_fill(twin->out, bytes, round);
        double began = dj_osu_now_us();
        MPI_Bcast(twin->out, (int)bytes, MPI_CHAR, 0, MPI_COMM_WORLD);
        dj_twin_sample(twin, round, dj_osu_now_us() - began);
        if (twin->options.validate)
            twin->wrong += dj_osu_wrong(twin->out, bytes, round);
        MPI_Barrier(MPI_COMM_WORLD);
    }
}

int main(int argc, char **argv)
{
    static const dj_twin_kind_t kind = {
        .test = {.program = "mpi_bcast",
                 .title = "Djinn MPI Broadcast Latency Test",
                 .datatype = "MPI_CHAR",
                 .about = "The time in a broadcast of SIZE bytes, averaged over the processes.",
                 .sized = true,
                 .first_bytes = 1,
                 .last_bytes = 1 << 20,
                 .least_bytes = 1,
                 .iterations = 1000,
                 .warmup = 200,
                 .iterations_large = 100,
                 .warmup_large = 10,
                 .large_from = 8192},
        .least = 2,
        .most = DJ_OSU_PROCESSES_MAX,
        .collective = true,
        .measure = measure};
    return dj_twin_main(&kind, argc, argv);
}
