/* djinn_move_bw.c - the bandwidth of moves from rank to rank. */
#include "benchmarks/traffic.h"

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_move_bw",
                 .title = "Djinn Move Bandwidth Test",
                 .datatype = "uint8",
                 .about = "Bytes moved from a tensor on rank 1 to a new one on rank 2, one move after another, by\n"
                          "time. Needs a server of two workers: djinn-run -n 3.",
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
        .open = dj_moves_open,
        .close = dj_wholes_close,
        .measure = dj_wholes_measure};
    return dj_bench_main(&kind, argc, argv);
}
