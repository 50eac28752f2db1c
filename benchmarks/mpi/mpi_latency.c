/* mpi_latency.c - half the round trip of a message between two processes: the twin of
 * djinn_latency. */
#include "benchmarks/mpi/twin.h"

int main(int argc, char **argv)
{
    static const dj_twin_kind_t kind = {
        .test = {.program = "mpi_latency",
                 .title = "Djinn MPI Latency Test",
                 .datatype = "MPI_CHAR",
                 .about = "Half the time of SIZE bytes to the other process and back.",
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
        .most = 2,
        .measure = dj_twin_ping_pong};
    return dj_twin_main(&kind, argc, argv);
}
