/* mpi_multi_lat.c - latency of several pairs at once: the twin of djinn_multi_lat. */
#include "benchmarks/mpi/twin.h"

int main(int argc, char **argv)
{
    static const dj_twin_kind_t kind = {
        .test = {.program = "mpi_multi_lat",
                 .title = "Djinn MPI Multi Latency Test",
                 .datatype = "MPI_CHAR",
                 .about = "Half the time of SIZE bytes to the other process of a pair and back, "
                          "all pairs at once.",
                 .sized = true,
                 .first_bytes = 1,
                 .last_bytes = 4 << 20,
                 .least_bytes = 1,
                 .iterations = 10000,
                 .warmup = 100,
                 .iterations_large = 1000,
                 .warmup_large = 10,
                 .large_from = 8192},
        .least = 2,
        .most = DJ_OSU_PROCESSES_MAX,
        .measure = dj_twin_ping_pong};
    return dj_twin_main(&kind, argc, argv);
}
