/* log.c - lines of facts.
 *
 * A line is built on the stack and leaves in one write(2), so lines of several threads and ranks on
 * one terminal stay whole. Control bytes in the text become '?': names from peers and files cannot
 * forge a second line. `loudest` answers most questions of dj_log_enabled() with one comparison. */
#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DJ_LOG_MODULE "log"
#define MODULES 32
#define LINE_BYTES 1024

typedef struct module_level {
    char module[20];
    dj_log_level_t level;
} module_level_t;

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static dj_log_level_t general = DJ_LOG_WARN, loudest = DJ_LOG_WARN;
static module_level_t modules[MODULES];
static unsigned module_count;
static char process_name[32];

static bool parse_level(const char *word, size_t length, dj_log_level_t *level_p)
{
    for (unsigned i = 0; i <= DJ_LOG_TRACE; i++) {
        if (strlen(level_names[i]) == length && memcmp(level_names[i], word, length) == 0) {
            *level_p = (dj_log_level_t)i;
            return true;
        }
    }
    return false;
}

/* One word of the specification: "level" or "module=level". */
static bool parse_word(const char *word, size_t length)
{
    const char *equals = memchr(word, '=', length);
    if (!equals)
        return parse_level(word, length, &general);
    size_t name_length = (size_t)(equals - word);
    dj_log_level_t level;
    if (name_length == 0 || name_length >= sizeof modules[0].module || module_count == MODULES ||
        !parse_level(equals + 1, length - name_length - 1, &level))
        return false;
    module_level_t *module = &modules[module_count++];
    memcpy(module->module, word, name_length);
    module->module[name_length] = 0;
    module->level = level;
    return true;
}

void dj_log_init(const char *spec, const char *who)
{
    char unknown[256] = "";
    size_t unknown_length = 0;
    snprintf(process_name, sizeof process_name, "%s", who ? who : "");
    general = DJ_LOG_WARN;
    module_count = 0;
    for (const char *word = spec ? spec : ""; *word; word += strspn(word, ", ")) {
        size_t length = strcspn(word, ", ");
        if (length > 0 && !parse_word(word, length) && unknown_length < sizeof unknown - 1)
            unknown_length +=
                (size_t)snprintf(unknown + unknown_length, sizeof unknown - unknown_length,
                                 " '%.*s'", (int)length, word);
        word += length;
    }
    loudest = general;
    for (unsigned i = 0; i < module_count; i++)
        loudest = modules[i].level > loudest ? modules[i].level : loudest;
    if (unknown_length > 0)
        dj_log(WARN,
               "unknown words in the log setting:%s; give error, warn, info, debug or trace, "
               "then module=level pairs",
               unknown);
}

bool dj_log_enabled(const char *module, dj_log_level_t level)
{
    if (level > loudest)
        return false;
    dj_log_level_t limit = general;
    for (unsigned i = 0; i < module_count; i++) {
        if (strcmp(modules[i].module, module) == 0)
            limit = modules[i].level;
    }
    return level <= limit;
}

/* Time, rank and module; returns the length. */
static size_t put_prefix(char *line, size_t room, const char *module, dj_log_level_t level)
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t length = strftime(line, room, "%Y-%m-%dT%H:%M:%S", &parts);
    length +=
        (size_t)snprintf(line + length, room - length, ".%06ldZ %s%s%.31s %s: ", now.tv_nsec / 1000,
                         process_name, process_name[0] ? " " : "", module, level_names[level]);
    return length;
}

void dj_log_write(const char *module, dj_log_level_t level, const char *format, ...)
{
    char line[LINE_BYTES];
    size_t length = put_prefix(line, sizeof line, module, level);
    va_list arguments;
    va_start(arguments, format);
    int text = vsnprintf(line + length, sizeof line - length, format, arguments);
    va_end(arguments);
    if (text < 0)
        return;
    size_t end = length + (size_t)text;
    if (end > sizeof line - 2)
        end = sizeof line - 2;
    for (size_t i = length; i < end; i++) {
        if ((uint8_t)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    }
    line[end] = '\n';
    if (write(STDERR_FILENO, line, end + 1) < 0)
        return; /* nowhere left to say so */
}
