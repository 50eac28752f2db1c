/* status.c - the last failure of each thread.
 *
 * A sentence is formatted into a local buffer before it is stored, because callers may pass
 * dj_error_text() itself as an argument. */
#include "runtime/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SENTENCE_BYTES 512

static _Thread_local char sentence[SENTENCE_BYTES];

const char *dj_status_name(int status)
{
    switch (status) {
#define X(name, value, text)                                                                       \
    case value:                                                                                    \
        return #name;
        DJ_STATUS_LIST(X)
#undef X
    }
    return "?";
}

const char *dj_status_text(int status)
{
    switch (status) {
#define X(name, value, text)                                                                       \
    case value:                                                                                    \
        return text;
        DJ_STATUS_LIST(X)
#undef X
    }
    return "?";
}

dj_status_t dj_fail(dj_status_t status, const char *format, ...)
{
    char fresh[SENTENCE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(fresh, sizeof fresh, format, arguments);
    va_end(arguments);
    memcpy(sentence, length < 0 ? "" : fresh, length < 0 ? 1 : strlen(fresh) + 1);
    return status;
}

dj_status_t dj_fail_prefix(dj_status_t status, const char *format, ...)
{
    char prefix[SENTENCE_BYTES], fresh[2 * SENTENCE_BYTES + 2];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(prefix, sizeof prefix, format, arguments);
    va_end(arguments);
    if (length <= 0)
        return status;
    snprintf(fresh, sizeof fresh, "%s: %s", prefix, sentence);
    fresh[SENTENCE_BYTES - 1] = 0;
    memcpy(sentence, fresh, strlen(fresh) + 1);
    return status;
}

const char *dj_error_text(void)
{
    return sentence;
}
