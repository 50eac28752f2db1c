/* greet.c - the client's half of the hello, and what tells two processes that they share a host.
 *
 * The server speaks first, with a nonce. The answer proves the token without sending it. A refusal
 * carries a status and a sentence from the other side, which are checked before they are believed
 * or shown. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/control.h"

/* The sentence comes from outside: cut at its end, and nothing in it may steer a terminal. */
dj_status_t dj_control_refused(const dj_control_t *control, const dj_refuse_t *refuse)
{
    char text[DJ_ERROR_TEXT_MAX];
    memcpy(text, refuse->text, sizeof(text));
    text[sizeof(text) - 1] = '\0';
    for (char *at = text; *at; ++at)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    if (refuse->status >= 0 || dj_status_name(refuse->status)[0] == '?')
        return dj_fail(DJ_ERR_PROTOCOL, "%s refused with the unknown status %d: %s",
                       dj_control_peer(control), refuse->status, text);
    return dj_fail((dj_status_t)refuse->status, "%s refused: %s", dj_control_peer(control), text);
}

static dj_status_t read_challenge(const dj_control_t *control, const dj_frame_t *frame,
                                  const void *body, dj_challenge_t *challenge)
{
    if (frame->type == DJ_MESSAGE_REFUSE)
        return dj_control_refused(control, body);
    if (frame->type != DJ_MESSAGE_CHALLENGE)
        return dj_fail(DJ_ERR_PROTOCOL, "%s began with %s instead of CHALLENGE",
                       dj_control_peer(control), dj_message_name(frame->type));
    memcpy(challenge, body, sizeof(*challenge));
    return DJ_OK;
}

static dj_status_t check_answer(dj_control_t *control, const dj_frame_t *frame, const void *body)
{
    const dj_welcome_t *welcome = body;
    const dj_redirect_t *redirect = body;
    switch (frame->type) {
    case DJ_MESSAGE_REFUSE:
        return dj_control_refused(control, body);
    case DJ_MESSAGE_REDIRECT:
        if (!memchr(redirect->endpoint, '\0', sizeof(redirect->endpoint)))
            return dj_fail(DJ_ERR_PROTOCOL, "%s redirects to an address without end",
                           dj_control_peer(control));
        return DJ_OK;
    case DJ_MESSAGE_WELCOME:
        if (welcome->address_bytes != frame->length - sizeof(*welcome))
            return dj_fail(DJ_ERR_PROTOCOL, "%s announces an address of %u bytes and sends %zu",
                           dj_control_peer(control), welcome->address_bytes,
                           frame->length - sizeof(*welcome));
        dj_control_trust(control);
        return DJ_OK;
    default:
        return dj_fail(DJ_ERR_PROTOCOL, "%s answered the hello with %s", dj_control_peer(control),
                       dj_message_name(frame->type));
    }
}

/* From one CHALLENGE, which is here, to the frame that answers our HELLO. */
static dj_status_t answer_challenge(dj_control_t *control, const uint8_t token[32],
                                    dj_hello_t *hello, const void *address, uint64_t deadline_ns,
                                    dj_frame_t *frame, const void **body_p)
{
    dj_challenge_t challenge;
    dj_status_t status = read_challenge(control, frame, *body_p, &challenge);
    if (status != DJ_OK)
        return status;
    dj_hello_prove(hello->proof, token, challenge.nonce, hello, address, hello->address_bytes);
    status = dj_control_send(control, DJ_MESSAGE_HELLO, hello, sizeof(*hello), address,
                             hello->address_bytes, deadline_ns);
    /* A server that has refused and left may still have its sentence here for us to read. */
    if (status != DJ_OK && status != DJ_ERR_PEER_DIED)
        return status;
    return dj_control_receive(control, deadline_ns, frame, body_p);
}

dj_status_t dj_control_greet(dj_control_t *control, const uint8_t token[32], dj_hello_t *hello,
                             const void *address, uint64_t deadline_ns, dj_frame_t *frame,
                             const void **body_p)
{
    if (hello->address_bytes > DJ_ADDRESS_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a worker address of %u bytes, but the limit is %d",
                       hello->address_bytes, DJ_ADDRESS_BYTES_MAX);
    dj_status_t status = dj_control_receive(control, deadline_ns, frame, body_p);
    if (status != DJ_OK)
        return status;
    if (hello->flags & DJ_HELLO_RELAY)
        dj_control_may_restart(control);
    status = answer_challenge(control, token, hello, address, deadline_ns, frame, body_p);
    /* Behind the relay the worker asks for itself: no proof made for rank 0 serves there. */
    if (status == DJ_OK && frame->type == DJ_MESSAGE_CHALLENGE && hello->flags & DJ_HELLO_RELAY)
        status = answer_challenge(control, token, hello, address, deadline_ns, frame, body_p);
    if (status != DJ_OK)
        return status;
    return check_answer(control, frame, *body_p);
}

static size_t read_link_or_file(const char *path, bool link, char *text, size_t size)
{
    ssize_t got;
    if (link) {
        got = readlink(path, text, size);
    } else {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        got = fd < 0 ? -1 : read(fd, text, size);
        if (fd >= 0)
            close(fd);
    }
    return got < 0 ? 0 : (size_t)got;
}

/* UCX attaches through /proc of the peer, so the PID namespace must be shared too. */
uint64_t dj_host_identity(void)
{
    static const struct {
        const char *path;
        bool link;
    } sources[] = {{"/proc/sys/kernel/random/boot_id", false},
                   {"/proc/self/ns/ipc", true},
                   {"/proc/self/ns/pid", true}};
    char text[3][128];
    memset(text, 0, sizeof(text));
    for (int i = 0; i < 3; ++i)
        if (read_link_or_file(sources[i].path, sources[i].link, text[i], sizeof(text[i])) == 0)
            return dj_random_u64(); /* nothing known: share with nobody */
    return dj_hash_of(text, sizeof(text)).word[0];
}
