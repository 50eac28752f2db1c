/* mpi_mbw_mr.c - windows of several pairs at once */
#include "benchmarks/mpi/twin.h"

int main(int argc, char **argv)
{
    static const dj_twin_kind_t kind = {
        .test = {.program = "mpi_mbw_mr",
                 .title = "Djinn MPI Multiple Bandwidth / Message Rate Test",
                 .datatype = "MPI_CHAR",
                 .about = " the twin of djinn_mbw_mr.:Bytes and messages of all pairs at once, by "
                          "the time of the slowest.",
                 .metric = DJ_OSU_RATE,
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
        .most = DJ_OSU_PROCESSES_MAX,
        .ways = 1,
        .measure = dj_twin_windows};
    return dj_twin_main(&kind, argc, argv);
}
