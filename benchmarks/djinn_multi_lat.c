/* djinn_multi_lat.c - the latency of several clients at once, each with its rank. */
#include "benchmarks/traffic.h"

int main(int argc, char **argv)
{
    static const dj_bench_kind_t kind = {
        .test = {.program = "djinn_multi_lat",
                 .title = "Djinn Multi Latency Test",
                 .datatype = "uint8",
                 .about = "Half the time from sending SIZE bytes to a rank until they are back, "
                          "averaged over clients that\n"
                          "all do so at once.",
                 .sized = true,
                 .processes = true,
                 .devices = true,
                 .first_bytes = 1,
                 .last_bytes = 4 << 20,
                 .least_bytes = 1,
                 .iterations = 10000,
                 .warmup = 100,
                 .iterations_large = 1000,
                 .warmup_large = 10,
                 .large_from = 8192},
        .least = 1,
        .most = DJ_OSU_PROCESSES_MAX,
        .open = dj_echo_open,
        .close = dj_echo_close,
        .measure = dj_echo_measure};
    return dj_bench_main(&kind, argc, argv);
}
