/* mpi_bw.c - windows of messages one way */
#include "benchmarks/mpi/twin.h"

int main(int argc, char **argv)
{
    static const dj_twin_kind_t kind = {
        .test = {.program = "mpi_bw",
                 .title = "Djinn MPI Bandwidth Test",
                 .datatype = "MPI_CHAR",
                 .about = " the twin of djinn_bw.:Bytes in windows of messages and one answer a "
                          "window, by time.",
                 .metric = DJ_OSU_BANDWIDTH,
                 .sized = true,
                 .windowed = true,
                 .first_bytes = 1,
                 .last_bytes = 4 << 20,
                 .least_bytes = 1,
                 .iterations = 100,
                 .warmup = 10,
                 .iterations_large = 20,
                 .warmup_large = 2,
                 .large_from = 8192},
        .least = 2,
        .most = 2,
        .ways = 1,
        .measure = dj_twin_windows};
    return dj_twin_main(&kind, argc, argv);
}
