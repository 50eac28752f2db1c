/* log.h - one line a fact on standard error: time, rank, module, text.
 *
 * Levels: error, warn, info, debug, trace. `DJINN_LOG=info,comm=debug` sets a level for all modules
 * and then for one. Style: lower case, value after its noun ("rank 3"), the cause in full, and
 * nothing per message at info or above. Each .c file that logs defines DJ_LOG_MODULE first.
 *
 * Threads: dj_log_init() once at start; dj_log() from any thread (one write(2) a line). */
#ifndef DJ_BASE_LOG_H
#define DJ_BASE_LOG_H

#include <stdbool.h>

typedef enum dj_log_level {
    DJ_LOG_ERROR,
    DJ_LOG_WARN,
    DJ_LOG_INFO,
    DJ_LOG_DEBUG,
    DJ_LOG_TRACE,
} dj_log_level_t;

/* `spec` as in DJINN_LOG (NULL: "warn"); unknown words are reported once at warn. `who` is copied
 * (31 bytes), for instance "rank 3". */
void dj_log_init(const char *spec, const char *who);
bool dj_log_enabled(const char *module, dj_log_level_t level);
void dj_log_write(const char *module, dj_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define dj_log(level, ...)                                                                         \
    do {                                                                                           \
        if (dj_log_enabled(DJ_LOG_MODULE, DJ_LOG_##level))                                         \
            dj_log_write(DJ_LOG_MODULE, DJ_LOG_##level, __VA_ARGS__);                              \
    } while (0)

#endif
