/* djinn_bw.c - the bandwidth of puts from a client to a rank. */
#include "benchmarks/traffic.h"

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_bw",
                 .title = "Djinn Bandwidth Test",
                 .datatype = "uint8",
                 .about = "Bytes put into a tensor on a rank, in windows of puts and one wait a "
                          "window, by time.",
                 .metric = DJ_OSU_BANDWIDTH,
                 .sized = true,
                 .windowed = true,
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
        .most = 1,
        .open = dj_windows_open,
        .close = dj_windows_close,
        .measure = dj_windows_measure};
    return dj_bench_main(&kind, argc, argv);
}
