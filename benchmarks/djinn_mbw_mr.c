/* djinn_mbw_mr.c - bandwidth and message rate of several clients at once, each with its rank. */
#include "benchmarks/traffic.h"

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_mbw_mr",
                 .title = "Djinn Multiple Bandwidth / Message Rate Test",
                 .datatype = "uint8",
                 .about = "Bytes and messages of clients that put at once, in windows, by the time "
                          "of the slowest.",
                 .metric = DJ_OSU_RATE,
                 .sized = true,
                 .windowed = true,
                 .processes = true,
                 .devices = true,
                 .first_bytes = 1,
                 .last_bytes = 4 << 20,
                 .least_bytes = 1,
                 .iterations = 100,
                 .warmup = 10,
                 .iterations_large = 20,
                 .warmup_large = 2,
                 .large_from = 8192},
        .least = 1,
        .most = DJ_OSU_PROCESSES_MAX,
        .open = dj_windows_open,
        .close = dj_windows_close,
        .measure = dj_windows_measure};
    return dj_bench_main(&kind, argc, argv);
}
