/* ucx.c - the one place that knows how UCX must be set up to survive its peers.
 *
 * The settings below are facts of UCX 1.13, each met as a failure first: without error handling in
 * shared memory and in CMA, same-host traffic silently runs over tcp; without keepalive a killed
 * peer over shared memory is never noticed. A UCX_* variable of the user wins over ours, and a name
 * that a version does not know is skipped. */
#define DJ_LOG_MODULE "comm"

#include "comm/ucx.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucs/debug/debug.h>
#include <ucs/debug/log_def.h>

#include "runtime/base/config.h"
#include "runtime/base/log.h"

/* Of a transport's setting UCX 1.13 knows only the bare name here, later versions the whole one:
 * both are tried. */
static const struct {
    const char *prefix, *name, *value;
} settings[] = {
    {"MM_", "ERROR_HANDLING", "y"},
    {"CMA_", "MEMORY_INVALIDATE", "y"},
    {"TCP_", "TX_SEG_SIZE", "64K"},
    {"TCP_", "RX_SEG_SIZE", "64K"},
    /* No zero-copy sends: over tcp, one that the peer's death cuts is completed twice, and UCX
     * aborts. Rendezvous by put or get is not concerned. */
    {"", "ZCOPY_THRESH", "inf"},
    /* The control socket tells of deaths; keepalive of a half-made endpoint crashes. */
    {"", "KEEPALIVE_INTERVAL", "inf"},
    {"", "RNDV_PIPELINE_ERROR_HANDLING", "y"},
    {"CUDA_COPY_", "REG_WHOLE_ALLOC", "off"},
};

/* UCX reports the death of a peer as an error of its own; here it is news of the day. */
static ucs_log_func_rc_t take_log(const char *file, unsigned line, const char *function,
                                  ucs_log_level_t level,
                                  const ucs_log_component_config_t *component, const char *format,
                                  va_list arguments)
{
    dj_log_level_t ours = level <= UCS_LOG_LEVEL_FATAL ? DJ_LOG_ERROR : DJ_LOG_DEBUG;
    if (level > UCS_LOG_LEVEL_DIAG)
        ours = DJ_LOG_TRACE;
    if (dj_log_enabled(DJ_LOG_MODULE, ours)) {
        char text[400];
        vsnprintf(text, sizeof(text), format, arguments);
        dj_log_write(DJ_LOG_MODULE, ours, "ucx: %s", text);
    }
    return UCS_LOG_FUNC_RC_STOP;
}

static void setup_once(void)
{
    static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction action;
    ucs_log_push_handler(take_log);
    if (!dj_environment("UCX_HANDLE_ERRORS") && !dj_environment("UCX_ERROR_SIGNALS"))
        for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); ++i)
            ucs_debug_disable_signal(signals[i]);
    /* UCX writes to sockets whose peer may be gone. */
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

void dj_ucx_setup(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, setup_once);
}

static void set(ucp_config_t *config, const char *prefix, const char *name, const char *value)
{
    char variable[64];
    snprintf(variable, sizeof(variable), "UCX_%s%s", prefix, name);
    if (dj_environment(variable))
        return;
    ucs_status_t status = ucp_config_modify(config, variable + strlen("UCX_"), value);
    if (status == UCS_OK && prefix[0] != '\0')
        status = ucp_config_modify(config, name, value);
    if (status != UCS_OK)
        dj_log(DEBUG, "ucx does not take %s=%s: %s", variable, value, ucs_status_string(status));
}

dj_status_t dj_ucx_context_create(const dj_comm_options_t *options, ucp_context_h *context_p)
{
    ucp_config_t *config;
    ucs_status_t status = ucp_config_read(NULL, NULL, &config);
    if (status != UCS_OK)
        return dj_fail(DJ_ERR_UNSUPPORTED,
                       "ucx cannot read its settings: %s; look at the UCX_* "
                       "variables",
                       ucs_status_string(status));
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); ++i)
        set(config, settings[i].prefix, settings[i].name, settings[i].value);
    if (!options->shared_memory)
        set(config, "", "TLS", "^shm");
    if (options->loopback_only)
        set(config, "", "NET_DEVICES", "lo");
    else if (options->net_devices && options->net_devices[0])
        set(config, "", "NET_DEVICES", options->net_devices);
    const ucp_params_t parameters = {
        .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME,
        .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
        .name = "djinn",
    };
    status = ucp_init(&parameters, config, context_p);
    ucp_config_release(config);
    if (status != UCS_OK)
        return dj_fail(DJ_ERR_UNSUPPORTED, "ucx found no transport to use: %s; try ucx_info -d",
                       ucs_status_string(status));
    return DJ_OK;
}

/* A refusal of rendezvous travels as a status of UCX. Only values that UCX does not use for an
 * endpoint's own troubles serve. */
static const struct {
    dj_status_t ours;
    ucs_status_t theirs;
} refusals[] = {
    {DJ_ERR_INVALID, UCS_ERR_INVALID_PARAM},
    {DJ_ERR_MEMORY, UCS_ERR_NO_MEMORY},
    {DJ_ERR_LIMIT, UCS_ERR_EXCEEDS_LIMIT},
    {DJ_ERR_UNSUPPORTED, UCS_ERR_UNSUPPORTED},
    {DJ_ERR_STALE, UCS_ERR_NO_ELEM},
    {DJ_ERR_BUSY, UCS_ERR_BUSY},
    {DJ_ERR_PROTOCOL, UCS_ERR_MESSAGE_TRUNCATED},
    {DJ_ERR_RESOURCE, UCS_ERR_BUFFER_TOO_SMALL},
    {DJ_ERR_CANCELLED, UCS_ERR_ALREADY_EXISTS},
    {DJ_ERR_VERSION, UCS_ERR_NOT_IMPLEMENTED},
};

ucs_status_t dj_ucx_refusal(dj_status_t status)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); ++i)
        if (refusals[i].ours == status)
            return refusals[i].theirs;
    return UCS_ERR_OUT_OF_RANGE;
}

dj_status_t dj_ucx_status(ucs_status_t status)
{
    if (status == UCS_OK)
        return DJ_OK;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); ++i)
        if (refusals[i].theirs == status)
            return dj_fail(refusals[i].ours, "the peer refused the transfer: %s",
                           dj_status_text(refusals[i].ours));
    if (status == UCS_ERR_OUT_OF_RANGE)
        return dj_fail(DJ_ERR_INTERNAL, "the peer refused the transfer");
    return dj_fail(DJ_ERR_PEER_DIED, "the connection to the peer ended: %s",
                   ucs_status_string(status));
}
