/* path.c - the path of a connection: chosen from the WELCOME, shown to who asks.
 *
 * A rank of another user on this host must not be reached through shared memory: its segments are
 * refused when they are attached, and UCX does not fall back. The client learns of it only from the
 * WELCOME, so it leaves and comes again with tcp alone. */
#include <string.h>

#include "client/client.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "client"

/* Ends what the WELCOME began; nothing has been sent to the rank's endpoint. */
static void leave(djinn_t *djinn, const dj_welcome_t *welcome)
{
    const dj_close_t close = {welcome->session, welcome->generation, 0};
    dj_control_send(djinn->control, DJ_MESSAGE_CLOSE, &close, sizeof(close), NULL, 0,
                    dj_clock_ns() + 500 * DJ_NS_PER_MS);
    dj_control_close(djinn->control);
    dj_comm_destroy(djinn->comm);
    djinn->control = NULL;
    djinn->comm = NULL;
}

dj_status_t dj_path_take(djinn_t *djinn, const dj_welcome_t *welcome, uint32_t flags)
{
    if (welcome->shared_memory == DJ_SHARED_OTHER_USER && !flags) {
        djinn->other_user = true;
        leave(djinn, welcome);
        return DJ_IN_PROGRESS;
    }
    bool offered = welcome->shared_memory == DJ_SHARED_YES || djinn->other_user;
    dj_path_facts_t facts = {.same_host = welcome->host == dj_host_identity(),
                             .same_user = !djinn->other_user,
                             .relay = flags & DJ_HELLO_RELAY,
                             .transports = djinn->config.transports};
    if (facts.same_host && !offered)
        facts.transports = "tcp"; /* by our mode or by the rank's options */
    dj_path_facts_read("/sys", &facts);
    dj_status_t status = dj_path_choose(&facts, &djinn->path);
    if (status == DJ_OK)
        dj_log(INFO, "path to rank %u: %s", welcome->rank, djinn->path.text);
    return status;
}

int djinn_rank(djinn_t *djinn)
{
    return !djinn || djinn->executor ? -1 : (int)djinn->rank;
}

const char *djinn_path(djinn_t *djinn)
{
    if (!djinn)
        return "";
    return djinn->executor ? "local, because no server is used" : djinn->path.text;
}
