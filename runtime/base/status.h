/* status.h - every outcome Djinn can report, and the sentence that goes with it.
 *
 * A function that can fail returns dj_status_t: DJ_OK or a negative value. The function that
 * detects an error calls dj_fail(), which keeps the sentence for the calling thread; callers only
 * pass the status up. Values cross the wire and are part of the public ABI (DJINN_* in djinn.h),
 * so a row is never renumbered.
 *
 * Threads: the sentence is thread-local; everything else is pure. */
#ifndef DJ_BASE_STATUS_H
#define DJ_BASE_STATUS_H

/* X(name, value, text) */
#define DJ_STATUS_LIST(X)                                                                          \
    X(OK, 0, "success")                                                                            \
    X(ERR_INVALID, -1, "invalid argument")                                                         \
    X(ERR_MEMORY, -2, "out of memory")                                                             \
    X(ERR_LIMIT, -3, "a limit was exceeded")                                                       \
    X(ERR_UNSUPPORTED, -4, "not supported")                                                        \
    X(ERR_SHAPE, -5, "shapes do not fit")                                                          \
    X(ERR_DTYPE, -6, "data types do not fit")                                                      \
    X(ERR_PROTOCOL, -7, "malformed message")                                                       \
    X(ERR_VERSION, -8, "protocol version mismatch")                                                \
    X(ERR_AUTH, -9, "authentication failed")                                                       \
    X(ERR_CONNECT, -10, "cannot connect")                                                          \
    X(ERR_PEER_DIED, -11, "the peer died")                                                         \
    X(ERR_DEADLINE, -12, "the deadline passed")                                                    \
    X(ERR_STALE, -13, "stale reference or generation")                                             \
    X(ERR_NO_PLAN, -14, "the plan is not known here")                                              \
    X(ERR_CLASS, -15, "made for another device class")                                             \
    X(ERR_CORRUPT, -16, "corrupt data")                                                            \
    X(ERR_FILE, -17, "cannot use the file")                                                        \
    X(ERR_RESOURCE, -18, "not enough resources")                                                   \
    X(ERR_BUSY, -19, "busy")                                                                       \
    X(ERR_CANCELLED, -20, "cancelled")                                                             \
    X(ERR_SYSTEM, -21, "the operating system refused")                                             \
    X(ERR_INTERNAL, -22, "internal error")                                                         \
    X(ERR_DEVICE, -23, "the GPU failed")                                                           \
    X(IN_PROGRESS, 1, "in progress")

typedef enum dj_status {
#define X(name, value, text) DJ_##name = (value),
    DJ_STATUS_LIST(X)
#undef X
} dj_status_t;

/* Name of a status ("ERR_SHAPE") and its text; "?" for a value not in the list (it may have come
 * from the wire). Static storage. */
const char *dj_status_name(int status);
const char *dj_status_text(int status);

/* Stores the formatted sentence (cut at 511 bytes) for this thread and returns `status`. */
dj_status_t dj_fail(dj_status_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before this thread's sentence; returns `status` unchanged. For callers that know
 * a name the detector did not. */
dj_status_t dj_fail_prefix(dj_status_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The last sentence of this thread; "" before the first failure. Valid until the next dj_fail(). */
const char *dj_error_text(void);

#endif
