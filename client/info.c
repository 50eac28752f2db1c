/* info.c - asks a server to describe itself: one question on a control socket, no session. */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "runtime/base/clock.h"

static dj_status_t ask(dj_control_t *control, uint64_t deadline_ns, char **json_p)
{
    dj_info_t question = {0};
    dj_frame_t frame;
    const void *body;
    dj_control_trust(control);
    dj_status_t status = dj_control_send(control, DJ_MESSAGE_INFO, &question, sizeof(question),
                                         NULL, 0, deadline_ns);
    do
        if (status == DJ_OK)
            status = dj_control_receive(control, deadline_ns, &frame, &body);
    while (status == DJ_OK && frame.type == DJ_MESSAGE_HEARTBEAT);
    if (status != DJ_OK)
        return status;
    const dj_info_reply_t *reply = body;
    if (frame.type != DJ_MESSAGE_INFO_REPLY || reply->text_bytes > frame.length - sizeof(*reply))
        return dj_fail(DJ_ERR_PROTOCOL, "the server answered with %s",
                       dj_message_name(frame.type));
    *json_p = strndup((const char *)(reply + 1), reply->text_bytes);
    return *json_p ? DJ_OK : dj_fail(DJ_ERR_MEMORY, "no memory for the answer");
}

djinn_status_t djinn_info(const djinn_options_t *options, char **json_p)
{
    dj_config_t config;
    dj_control_t *control;
    dj_frame_t frame;
    const void *body;
    dj_hello_t hello = {.flags = DJ_HELLO_DIRECT};
    if (!dj_hash_setup())
        return (djinn_status_t)dj_fail(DJ_ERR_SYSTEM, "no source of random bytes");
    dj_status_t status = dj_config_load(&config, 0, NULL, NULL);
    if (status != DJ_OK)
        return (djinn_status_t)status;
    if (options && options->address)
        config.address = options->address;
    if (options && options->token)
        config.token = options->token;
    uint64_t deadline_ns = dj_clock_ns() + config.connect_ms * DJ_NS_PER_MS;
    status = dj_djinn_connect_control(&config, DJ_ROLE_TOOL, &hello, NULL, deadline_ns, &control,
                                      &frame, &body);
    if (status != DJ_OK)
        return (djinn_status_t)status;
    status = ask(control, deadline_ns, json_p);
    dj_control_close(control);
    return (djinn_status_t)status;
}
