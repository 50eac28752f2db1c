/* fuzz_greet.c - the client's side of the hello: a server that says anything.
 *
 * Input: flags:u8 (1 polite, 2 the worker address gets its right prefix), then the server's stream
 * (fuzz.h). The client greets as dj_control_greet() does, unwraps the address of a WELCOME, reads on as
 * tools do, and prints an INFO_REPLY. A refusal's sentence must be fit for a terminal. */
#include <sys/socket.h>
#include <unistd.h>

#include "comm/control.h"
#include "comm/ucx.h"
#include "launcher/info.h"
#include "runtime/base/clock.h"
#include "tests/fuzz/fuzz.h"

static FILE *nowhere;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    nowhere = fopen("/dev/null", "w");
    return nowhere && dj_hash_setup() ? 0 : 1;
}

static void take_address(const dj_welcome_t *welcome, bool mend)
{
    uint8_t *wrapped = NULL;
    const void *told = welcome + 1;
    uint32_t bytes = welcome->address_bytes;
    void *address;
    if (mend && dj_address_wrap(told, bytes, &wrapped, &bytes) == DJ_OK)
        told = wrapped;
    if (dj_address_unwrap(told, bytes, &address) == DJ_OK) {
        FUZZ_ASSERT(!mend || welcome->address_bytes >= 8);
        fuzz_touch(address, 8);
        free(address);
    } else {
        fuzz_check_text(dj_error_text());
    }
    free(wrapped);
}

static void print_reply(const dj_frame_t *frame, const dj_info_reply_t *reply)
{
    if (reply->text_bytes > frame->length - sizeof(*reply))
        return;
    char *text = strndup((const char *)(reply + 1), reply->text_bytes);
    if (text)
        dj_info_print(text, nowhere);
    free(text);
}

static void listen_on(dj_control_t *control)
{
    dj_frame_t frame;
    const void *body;
    dj_control_trust(control);
    while (dj_control_try_receive(control, &frame, &body) == DJ_OK)
        if (frame.type == DJ_MESSAGE_INFO_REPLY)
            print_reply(&frame, body);
}

static void greet(dj_control_t *control, bool mend)
{
    static const uint8_t token[32] = {1};
    dj_hello_t hello = {.role = DJ_ROLE_CLIENT};
    dj_frame_t frame;
    const void *body;
    /* All that the server will ever say is here already: nothing to wait for. */
    dj_status_t status = dj_control_greet(control, token, &hello, NULL, dj_clock_ns(), &frame, &body);
    if (status != DJ_OK) {
        FUZZ_ASSERT(status < 0);
        fuzz_check_text(dj_error_text());
        return;
    }
    FUZZ_ASSERT(frame.type == DJ_MESSAGE_WELCOME || frame.type == DJ_MESSAGE_REDIRECT);
    if (frame.type == DJ_MESSAGE_REDIRECT) {
        const dj_redirect_t *redirect = body;
        FUZZ_ASSERT(memchr(redirect->endpoint, 0, sizeof(redirect->endpoint)) != NULL);
        return;
    }
    const dj_welcome_t *welcome = body;
    FUZZ_ASSERT(welcome->address_bytes == frame.length - sizeof(*welcome));
    take_address(welcome, mend);
    listen_on(control);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_reader_t reader;
    dj_bytes_t wire = {0};
    dj_control_t *control;
    int fds[2];
    dj_reader_init(&reader, data, size);
    uint8_t flags = dj_reader_u8(&reader);
    fuzz_put_stream(&reader, &wire, flags & 1, 0);
    FUZZ_ASSERT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    if (wire.size && send(fds[1], wire.data, wire.size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        wire.size = 0;
    FUZZ_ASSERT(dj_control_adopt(fds[0], &control) == DJ_OK);
    greet(control, flags & 2);
    dj_control_close(control);
    close(fds[1]);
    dj_bytes_fini(&wire);
    return 0;
}
