/* rank_main.c - djinn-rank: one rank, started by the supervisor and by nobody else. */
#define DJ_LOG_MODULE "launcher"

#include <stdio.h>
#include <string.h>

#include "planner/plugin.h"
#include "runtime/base/config.h"
#include "runtime/base/log.h"
#include "runtime/rank.h"

int main(int argc, char **argv)
{
    dj_config_t config;
    char who[32];
    int used;
    if (dj_config_load(&config, argc, argv, &used) != DJ_OK) {
        fprintf(stderr, "djinn-rank: %s\n", dj_error_text());
        return 2;
    }
    if (used < argc && strcmp(argv[used], "--version") == 0) {
        printf("djinn-rank %s\n", DJINN_VERSION);
        return 0;
    }
    if (used < argc || config.listen_fd == 0) {
        fprintf(stderr, "djinn-rank is started by djinn-server; start that instead\n");
        return 2;
    }
    snprintf(who, sizeof who, "rank %llu", (unsigned long long)config.rank);
    dj_log_init(config.log, who);
    if (!dj_hash_setup() || dj_plugins_load(config.plugins) != DJ_OK) {
        fprintf(stderr, "djinn-rank: %s\n", dj_error_text());
        return 2;
    }
    for (uint32_t i = 0; i < dj_plugins_count(); i++)
        dj_log(INFO, "plugin %s %s: %u detectors, %u rewrites", dj_plugins_at(i)->name,
               dj_plugins_at(i)->version, dj_plugins_at(i)->n_detectors,
               dj_plugins_at(i)->n_rewrites);
    return dj_rank_run(&config);
}
