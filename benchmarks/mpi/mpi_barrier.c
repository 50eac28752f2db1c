/* mpi_barrier.c - the time in a barrier: the twin of djinn_barrier. */
#include "benchmarks/mpi/twin.h"

static void measure(dj_twin_t *twin, uint64_t bytes)
{
    for (uint64_t round = 0; round < dj_twin_rounds(twin); round++) {
        double began = dj_osu_now_us();
        MPI_Barrier(MPI_COMM_WORLD);
        dj_twin_sample(twin, round, dj_osu_now_us() - began);
    }
}

int main(int argc, char **argv)
{
    static const dj_twin_kind_t kind = {
        .test = {.program = "mpi_barrier",
                 .title = "Djinn MPI Barrier Latency Test",
                 .datatype = NULL,
                 .about = "The time in a barrier, averaged over the processes.",
                 .iterations = 1000,
                 .warmup = 200},
        .least = 2,
        .most = DJ_OSU_PROCESSES_MAX,
        .collective = true,
        .measure = measure};
    return dj_twin_main(&kind, argc, argv);
}
