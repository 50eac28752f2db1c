/* fuzz_frames.c - the control socket's reader: any bytes, in any pieces, through a real socket.
 *
 * Input: flags:u8 (1 trusted, 2 polite), drip:u8, then the stream (fuzz.h). The stream is written in
 * pieces of `drip` * 8 bytes and read after each. What comes out must be a frame that
 * dj_frame_check() lets through, in sequence, wholly inside the reader's buffer. */
#include <sys/socket.h>
#include <unistd.h>

#include "comm/control.h"
#include "tests/fuzz/fuzz.h"

/* Everything that is here now. False: the stream is broken, which it then stays. */
static bool read_frames(dj_control_t *control, bool trusted, uint32_t *sequence)
{
    dj_frame_t frame;
    const void *body;
    dj_status_t status;
    while ((status = dj_control_try_receive(control, &frame, &body)) == DJ_OK) {
        FUZZ_ASSERT(dj_frame_check(&frame, trusted) == DJ_OK);
        FUZZ_ASSERT(frame.sequence == (*sequence)++);
        FUZZ_ASSERT(frame.length >= dj_message_struct_bytes(frame.type));
        FUZZ_ASSERT(trusted || frame.type <= DJ_MESSAGE_REFUSE);
        FUZZ_ASSERT((uintptr_t)body % 8 == 0);
        fuzz_touch(body, frame.length);
    }
    return status == DJ_IN_PROGRESS;
}

static void feed(dj_control_t *control, int fd, const dj_bytes_t *wire, size_t drip, bool trusted)
{
    uint32_t sequence = 0;
    bool whole = true;
    for (size_t at = 0; whole && at < wire->size;) {
        size_t left = wire->size - at, piece = left < drip ? left : drip;
        ssize_t written = send(fd, wire->data + at, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
        at += written > 0 ? (size_t)written : 0;
        whole = read_frames(control, trusted, &sequence);
    }
    shutdown(fd, SHUT_WR);
    FUZZ_ASSERT(!read_frames(control, trusted, &sequence));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_reader_t reader;
    dj_bytes_t wire = {0};
    dj_control_t *control;
    int fds[2];
    dj_reader_init(&reader, data, size);
    uint8_t flags = dj_reader_u8(&reader);
    size_t drip = dj_reader_u8(&reader) * 8u;
    fuzz_put_stream(&reader, &wire, flags & 2, 0);
    FUZZ_ASSERT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    FUZZ_ASSERT(dj_control_adopt(fds[0], &control) == DJ_OK);
    if (flags & 1)
        dj_control_trust(control);
    feed(control, fds[1], &wire, drip ? drip : 32768, flags & 1);
    dj_control_close(control);
    close(fds[1]);
    dj_bytes_fini(&wire);
    return 0;
}
