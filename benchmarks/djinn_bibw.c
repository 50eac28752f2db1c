/* djinn_bibw.c - the bandwidth of puts and fetches at once. */
#include "benchmarks/traffic.h"

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_bibw",
                 .title = "Djinn Bi-Directional Bandwidth Test",
                 .datatype = "uint8",
                 .about = "Bytes put and bytes fetched at once, in windows and one wait a window, "
                          "both by time.",
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
        .ways = 2,
        .open = dj_windows_open,
        .close = dj_windows_close,
        .measure = dj_windows_measure};
    return dj_bench_main(&kind, argc, argv);
}
