/* djinn_get_bw.c - the bandwidth of fetches from a rank to a client. */
#include "benchmarks/traffic.h"

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_get_bw",
                 .title = "Djinn Get Bandwidth Test",
                 .datatype = "uint8",
                 .about = "Bytes fetched from a tensor on a rank, one fetch after another, by time.",
                 .metric = DJ_OSU_BANDWIDTH,
                 .sized = true,
                 .devices = true,
                 .first_bytes = 64 << 10,
                 .last_bytes = 64 << 20,
                 .least_bytes = 1,
                 .iterations = 100,
                 .warmup = 10,
                 .iterations_large = 20,
                 .warmup_large = 2,
                 .large_from = 1 << 20},
        .least = 1,
        .most = 1,
        .open = dj_fetches_open,
        .close = dj_wholes_close,
        .measure = dj_wholes_measure};
    return dj_bench_main(&kind, argc, argv);
}
