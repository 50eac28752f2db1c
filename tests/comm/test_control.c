/* test_control.c - the control socket against silence, garbage, lies and half frames, then in
 * order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/control.h"
#include "runtime/base/clock.h"

static const uint8_t token[32] = {1, 2, 3};

static uint64_t in_ms(uint64_t ms)
{
    return dj_clock_ns() + ms * DJ_NS_PER_MS;
}

/* Two ends of one TCP connection: ours behind dj_control_t, the other a plain blocking socket. */
static void make_pair(dj_control_t **control_p, int *raw_p)
{
    int listening;
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    assert_int_equal(dj_control_listen("127.0.0.1:0", &listening, endpoint), DJ_OK);
    assert_int_equal(dj_control_connect(endpoint, in_ms(2000), control_p), DJ_OK);
    struct pollfd entry = {.fd = listening, .events = POLLIN};
    assert_int_equal(poll(&entry, 1, 2000), 1);
    *raw_p = accept(listening, NULL, NULL);
    assert_true(*raw_p >= 0);
    close(listening);
}

static void send_raw(int fd, dj_frame_t frame, const void *body, size_t bytes)
{
    assert_int_equal(send(fd, &frame, sizeof(frame), MSG_NOSIGNAL), sizeof(frame));
    if (bytes > 0)
        assert_int_equal(send(fd, body, bytes, MSG_NOSIGNAL), bytes);
}

static dj_frame_t frame_of(dj_message_t type, uint32_t sequence)
{
    dj_frame_t frame;
    dj_frame_init(&frame, type, dj_message_struct_bytes((uint16_t)type), sequence);
    return frame;
}

/* ---- addresses ---- */

static void test_connect_refuses_bad_addresses(void **state)
{
    static const char *const bad[] = {"", ":", "nowhere", "host:", ":80", "127.0.0.1"};
    dj_control_t *control;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); ++i)
        assert_int_equal(dj_control_connect(bad[i], in_ms(1000), &control), DJ_ERR_INVALID);
    assert_int_equal(dj_control_connect("127.0.0.1:port", in_ms(1000), &control), DJ_ERR_CONNECT);
    assert_int_equal(dj_control_connect("127.0.0.1:99999999", in_ms(1000), &control),
                     DJ_ERR_CONNECT);
    char endless[5000];
    memset(endless, 'a', sizeof(endless));
    memcpy(endless + sizeof(endless) - 4, ":80", 4);
    assert_int_equal(dj_control_connect(endless, in_ms(1000), &control), DJ_ERR_INVALID);
}

static void test_connect_names_a_missing_server(void **state)
{
    int listening;
    dj_control_t *control;
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    assert_int_equal(dj_control_listen("127.0.0.1:0", &listening, endpoint), DJ_OK);
    close(listening);
    assert_int_equal(dj_control_connect(endpoint, in_ms(1000), &control), DJ_ERR_CONNECT);
    assert_non_null(strstr(dj_error_text(), endpoint));
    assert_non_null(strstr(dj_error_text(), "djinn-server"));
}

static void test_listen_refuses(void **state)
{
    int fd, other;
    char endpoint[DJ_ENDPOINT_TEXT_MAX], again[DJ_ENDPOINT_TEXT_MAX];
    assert_int_equal(dj_control_listen("127.0.0.1", &fd, endpoint), DJ_ERR_INVALID);
    assert_int_equal(dj_control_listen("192.0.2.77:0", &fd, endpoint), DJ_ERR_CONNECT);
    assert_int_equal(dj_control_listen("127.0.0.1:0", &fd, endpoint), DJ_OK);
    assert_int_equal(dj_control_listen(endpoint, &other, again), DJ_ERR_CONNECT);
    assert_non_null(strstr(dj_error_text(), endpoint));
    close(fd);
    assert_int_equal(dj_control_endpoint(0, endpoint), DJ_ERR_INVALID);
}

/* ---- receiving ---- */

static void test_receive_has_a_deadline(void **state)
{
    dj_control_t *control;
    int raw;
    dj_frame_t frame;
    const void *body;
    make_pair(&control, &raw);
    assert_int_equal(dj_control_try_receive(control, &frame, &body), DJ_IN_PROGRESS);
    uint64_t from_ns = dj_clock_ns();
    assert_int_equal(dj_control_receive(control, in_ms(100), &frame, &body), DJ_ERR_DEADLINE);
    uint64_t took_ms = (dj_clock_ns() - from_ns) / DJ_NS_PER_MS;
    assert_in_range(took_ms, 99, 1000);
    assert_int_equal(send(raw, "DJN", 3, 0), 3); /* a frame begun is no frame */
    assert_int_equal(dj_control_receive(control, in_ms(50), &frame, &body), DJ_ERR_DEADLINE);
    close(raw);
    dj_control_close(control);
}

static void receive_bad(dj_frame_t bad, dj_status_t wanted)
{
    static const uint8_t zeros[4096];
    dj_control_t *control;
    int raw;
    dj_frame_t frame;
    const void *body;
    make_pair(&control, &raw);
    send_raw(raw, bad, zeros, sizeof(dj_heartbeat_t));
    assert_int_equal(dj_control_receive(control, in_ms(1000), &frame, &body), wanted);
    assert_non_null(strstr(dj_error_text(), dj_control_peer(control)));
    close(raw);
    dj_control_close(control);
}

static void test_receive_refuses_malformed_frames(void **state)
{
    dj_frame_t frame = frame_of(DJ_MESSAGE_CHALLENGE, 0);
    frame.magic ^= 1;
    receive_bad(frame, DJ_ERR_PROTOCOL);
    frame = frame_of(DJ_MESSAGE_CHALLENGE, 0);
    frame.version = DJ_PROTOCOL_VERSION + 1;
    receive_bad(frame, DJ_ERR_VERSION);
    receive_bad(frame_of(DJ_MESSAGE_EXEC, 0), DJ_ERR_PROTOCOL);
    receive_bad(frame_of((dj_message_t)999, 0), DJ_ERR_PROTOCOL);
    receive_bad(frame_of(DJ_MESSAGE_HEARTBEAT, 0), DJ_ERR_PROTOCOL); /* not welcome yet */
    receive_bad(frame_of(DJ_MESSAGE_CHALLENGE, 1), DJ_ERR_PROTOCOL); /* sequence */
    frame = frame_of(DJ_MESSAGE_HELLO, 0);
    frame.length = UINT32_MAX;
    receive_bad(frame, DJ_ERR_LIMIT);
}

static void test_receive_sees_the_end(void **state)
{
    dj_control_t *control;
    int raw;
    dj_frame_t frame = frame_of(DJ_MESSAGE_CHALLENGE, 0);
    const void *body;
    make_pair(&control, &raw);
    send_raw(raw, frame, "half", 4);
    close(raw);
    assert_int_equal(dj_control_receive(control, in_ms(1000), &frame, &body), DJ_ERR_PEER_DIED);
    uint64_t beat = 0;
    assert_int_equal(
        dj_control_send(control, DJ_MESSAGE_HEARTBEAT, &beat, sizeof(beat), NULL, 0, in_ms(100)),
        DJ_ERR_PEER_DIED);
    dj_control_close(control);
}

static void test_receive_byte_by_byte(void **state)
{
    dj_control_t *control;
    int raw;
    const void *body;
    struct {
        dj_frame_t frame;
        dj_challenge_t challenge;
    } message = {frame_of(DJ_MESSAGE_CHALLENGE, 0), {.rank = 7}};
    dj_frame_t frame;
    make_pair(&control, &raw);
    for (size_t i = 0; i < sizeof(message); ++i) {
        assert_int_equal(dj_control_try_receive(control, &frame, &body), DJ_IN_PROGRESS);
        assert_int_equal(send(raw, (uint8_t *)&message + i, 1, 0), 1);
    }
    assert_int_equal(dj_control_receive(control, in_ms(1000), &frame, &body), DJ_OK);
    assert_int_equal(((const dj_challenge_t *)body)->rank, 7);
    close(raw);
    dj_control_close(control);
}

/* ---- frames in order ---- */

typedef struct stream {
    dj_control_t *control;
    int count;
    uint32_t tail_bytes;
} stream_t;

static void *send_plans(void *argument)
{
    stream_t *stream = argument;
    uint8_t *tail = malloc(stream->tail_bytes + 1);
    for (int i = 0; i < stream->count; ++i) {
        dj_plan_message_t plan = {.origin_rank = (uint32_t)i,
                                  .plan_bytes = stream->tail_bytes - (uint32_t)(i % 7)};
        memset(tail, i, plan.plan_bytes);
        dj_control_send(stream->control, DJ_MESSAGE_PLAN, &plan, sizeof(plan), tail,
                        plan.plan_bytes, in_ms(10000));
    }
    free(tail);
    return NULL;
}

static void pass_plans(int threads, int count, uint32_t tail_bytes)
{
    dj_control_t *control, *other;
    int raw;
    pthread_t handles[8];
    make_pair(&control, &raw);
    assert_int_equal(dj_control_adopt(raw, &other), DJ_OK);
    dj_control_trust(other);
    stream_t stream = {control, count, tail_bytes};
    for (int i = 0; i < threads; ++i)
        pthread_create(&handles[i], NULL, send_plans, &stream);
    for (int i = 0; i < threads * count; ++i) {
        dj_frame_t frame;
        const void *body;
        assert_int_equal(dj_control_receive(other, in_ms(10000), &frame, &body), DJ_OK);
        const dj_plan_message_t *plan = body;
        const uint8_t *tail = (const uint8_t *)(plan + 1);
        assert_int_equal((uintptr_t)body % 8, 0);
        assert_int_equal(frame.length, sizeof(*plan) + plan->plan_bytes);
        for (uint32_t k = 0; k < plan->plan_bytes; ++k)
            if (tail[k] != (uint8_t)plan->origin_rank)
                fail_msg("frame %d is mixed with another at byte %u", i, k);
    }
    for (int i = 0; i < threads; ++i)
        pthread_join(handles[i], NULL);
    dj_control_close(control);
    dj_control_close(other);
}

static void test_frames_of_many_threads_stay_whole(void **state)
{
    pass_plans(4, 200, 3000);
}

static void test_the_largest_frame_passes(void **state)
{
    pass_plans(1, 2, DJ_FRAME_BYTES_MAX - 4096);
}

static void test_send_refuses_what_a_peer_would(void **state)
{
    dj_control_t *control;
    int raw;
    dj_plan_message_t plan = {0};
    make_pair(&control, &raw);
    assert_int_equal(dj_control_send(control, DJ_MESSAGE_PLAN, &plan, sizeof(plan), &plan,
                                     DJ_FRAME_BYTES_MAX, in_ms(100)),
                     DJ_ERR_LIMIT);
    assert_int_equal(
        dj_control_send(control, DJ_MESSAGE_PLAN, &plan, sizeof(plan) - 8, NULL, 0, in_ms(100)),
        DJ_ERR_PROTOCOL);
    assert_int_equal(
        dj_control_send(control, DJ_MESSAGE_EXEC, &plan, sizeof(plan), NULL, 0, in_ms(100)),
        DJ_ERR_PROTOCOL);
    close(raw);
    dj_control_close(control);
}

static void test_send_to_one_who_does_not_read(void **state)
{
    dj_control_t *control;
    int raw;
    dj_plan_message_t plan = {0};
    uint8_t *tail = calloc(1, 16 << 20);
    make_pair(&control, &raw);
    assert_int_equal(
        dj_control_send(control, DJ_MESSAGE_PLAN, &plan, sizeof(plan), tail, 16 << 20, in_ms(200)),
        DJ_ERR_DEADLINE);
    /* Half a frame is out: the stream cannot be resumed. */
    assert_int_equal(
        dj_control_send(control, DJ_MESSAGE_PLAN, &plan, sizeof(plan), NULL, 0, in_ms(200)),
        DJ_ERR_PEER_DIED);
    free(tail);
    close(raw);
    dj_control_close(control);
}

/* ---- the hello ---- */

typedef struct script {
    int listening;
    dj_frame_t frames[2];                /* sent at once after accept */
    _Alignas(8) uint8_t bodies[2][1024]; /* structs lie in them */
    int count;
} script_t;

static void *serve_script(void *argument)
{
    script_t *script = argument;
    struct pollfd entry = {.fd = script->listening, .events = POLLIN};
    uint8_t sink[8192];
    poll(&entry, 1, 5000);
    int fd = accept(script->listening, NULL, NULL);
    for (int i = 0; i < script->count; ++i) {
        send(fd, &script->frames[i], sizeof(script->frames[i]), MSG_NOSIGNAL);
        send(fd, script->bodies[i], script->frames[i].length, MSG_NOSIGNAL);
    }
    shutdown(fd, SHUT_WR);
    while (recv(fd, sink, sizeof(sink), 0) > 0)
        ;
    close(fd);
    return NULL;
}

static dj_status_t greet_script(script_t *script)
{
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    pthread_t thread;
    dj_control_t *control;
    dj_hello_t hello = {.role = DJ_ROLE_CLIENT, .address_bytes = 5};
    dj_frame_t frame;
    const void *body;
    assert_int_equal(dj_control_listen("127.0.0.1:0", &script->listening, endpoint), DJ_OK);
    pthread_create(&thread, NULL, serve_script, script);
    assert_int_equal(dj_control_connect(endpoint, in_ms(2000), &control), DJ_OK);
    dj_status_t status =
        dj_control_greet(control, token, &hello, "12345", in_ms(2000), &frame, &body);
    dj_control_close(control);
    pthread_join(thread, NULL);
    close(script->listening);
    return status;
}

static script_t script_with(dj_message_t answer)
{
    script_t script = {.count = 2};
    script.frames[0] = frame_of(DJ_MESSAGE_CHALLENGE, 0);
    script.frames[1] = frame_of(answer, 1);
    return script;
}

static void test_greet_refuses_a_server_out_of_order(void **state)
{
    script_t script = {0};
    assert_int_equal(greet_script(&script), DJ_ERR_PEER_DIED); /* says nothing and leaves */
    script = script_with(DJ_MESSAGE_WELCOME);
    script.count = 1;
    assert_int_equal(greet_script(&script), DJ_ERR_PEER_DIED);
    script = script_with(DJ_MESSAGE_CHALLENGE);
    assert_int_equal(greet_script(&script), DJ_ERR_PROTOCOL);
    script = script_with(DJ_MESSAGE_HELLO);
    script.frames[0] = frame_of(DJ_MESSAGE_WELCOME, 0);
    assert_int_equal(greet_script(&script), DJ_ERR_PROTOCOL);
    script = script_with(DJ_MESSAGE_WELCOME);
    script.frames[0].version = DJ_PROTOCOL_VERSION + 1;
    assert_int_equal(greet_script(&script), DJ_ERR_VERSION);
}

static void test_greet_refuses_lies(void **state)
{
    script_t script = script_with(DJ_MESSAGE_WELCOME);
    ((dj_welcome_t *)script.bodies[1])->address_bytes = 4;
    assert_int_equal(greet_script(&script), DJ_ERR_PROTOCOL);
    script = script_with(DJ_MESSAGE_REDIRECT);
    memset(((dj_redirect_t *)script.bodies[1])->endpoint, 'x', DJ_ENDPOINT_TEXT_MAX);
    assert_int_equal(greet_script(&script), DJ_ERR_PROTOCOL);
    script = script_with(DJ_MESSAGE_REFUSE);
    dj_refuse_t *refuse = (dj_refuse_t *)script.bodies[1];
    static const int32_t unknown[] = {0, 1, 7, -1000, INT32_MIN};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); ++i) {
        refuse->status = unknown[i];
        assert_int_equal(greet_script(&script), DJ_ERR_PROTOCOL);
    }
}

static void test_greet_shows_a_refusal(void **state)
{
    script_t script = script_with(DJ_MESSAGE_REFUSE);
    dj_refuse_t *refuse = (dj_refuse_t *)script.bodies[1];
    refuse->status = DJ_ERR_AUTH;
    memset(refuse->text, 'a', sizeof(refuse->text)); /* no end */
    memcpy(refuse->text, "no\x1b[2J", 6);
    assert_int_equal(greet_script(&script), DJ_ERR_AUTH);
    assert_non_null(strstr(dj_error_text(), "no?[2J"));
    script.frames[0] = frame_of(DJ_MESSAGE_REFUSE, 0); /* before any challenge */
    memcpy(script.bodies[0], script.bodies[1], sizeof(*refuse));
    script.count = 1;
    assert_int_equal(greet_script(&script), DJ_ERR_AUTH);
}

/* ---- a server of many connections, in a process of its own ---- */

typedef struct guest {
    dj_control_t *control;
    dj_challenge_t challenge;
} guest_t;

static void answer(guest_t *guest, const dj_frame_t *frame, const void *body)
{
    const dj_hello_t *hello = body;
    uint8_t proof[DJ_PROOF_BYTES];
    if (frame->type != DJ_MESSAGE_HELLO)
        return;
    dj_hello_prove(proof, token, guest->challenge.nonce, hello, hello + 1,
                   frame->length - (uint32_t)sizeof(*hello));
    if (dj_proof_equal(proof, hello->proof)) {
        dj_welcome_t welcome = {.session = 42};
        dj_control_trust(guest->control);
        dj_control_send(guest->control, DJ_MESSAGE_WELCOME, &welcome, sizeof(welcome), NULL, 0,
                        in_ms(100));
    } else {
        dj_refuse_t refuse = {.status = DJ_ERR_AUTH, .text = "wrong token"};
        dj_control_send(guest->control, DJ_MESSAGE_REFUSE, &refuse, sizeof(refuse), NULL, 0,
                        in_ms(100));
    }
}

static void admit(int listening, guest_t *guests, int count)
{
    int fd = accept(listening, NULL, NULL);
    for (int i = 0; fd >= 0 && i < count; ++i) {
        if (guests[i].control)
            continue;
        if (dj_control_adopt(fd, &guests[i].control) != DJ_OK)
            break;
        dj_random_bytes(guests[i].challenge.nonce, 32);
        dj_control_send(guests[i].control, DJ_MESSAGE_CHALLENGE, &guests[i].challenge,
                        sizeof(dj_challenge_t), NULL, 0, in_ms(100));
        return;
    }
    if (fd >= 0)
        close(fd);
}

static void serve(int listening)
{
    enum { GUESTS = 64 };
    guest_t guests[GUESTS] = {0};
    for (;;) {
        struct pollfd entries[GUESTS + 1] = {{.fd = listening, .events = POLLIN}};
        for (int i = 0; i < GUESTS; ++i)
            entries[i + 1] = (struct pollfd){
                .fd = guests[i].control ? dj_control_fd(guests[i].control) : -1, .events = POLLIN};
        poll(entries, GUESTS + 1, 1000);
        for (int i = 0; i < GUESTS; ++i) {
            dj_frame_t frame;
            const void *body;
            if (entries[i + 1].revents == 0)
                continue;
            dj_status_t status = dj_control_try_receive(guests[i].control, &frame, &body);
            if (status == DJ_OK)
                answer(&guests[i], &frame, body);
            else if (status < 0) {
                dj_control_close(guests[i].control);
                guests[i].control = NULL;
            }
        }
        if (entries[0].revents)
            admit(listening, guests, GUESTS);
    }
}

static dj_status_t greet(const char *endpoint, const uint8_t key[32])
{
    dj_control_t *control;
    dj_frame_t frame;
    const void *body;
    dj_hello_t hello = {.role = DJ_ROLE_CLIENT, .address_bytes = 7};
    dj_status_t status = dj_control_connect(endpoint, in_ms(3000), &control);
    if (status != DJ_OK)
        return status;
    status = dj_control_greet(control, key, &hello, "address", in_ms(3000), &frame, &body);
    if (status == DJ_OK)
        assert_int_equal(((const dj_welcome_t *)body)->session, 42);
    dj_control_close(control);
    return status;
}

static void throw_garbage(const char *endpoint, unsigned seed)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(strrchr(endpoint, ':') + 1)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint8_t bytes[3000];
    size_t size = seed * 7919 % sizeof(bytes);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    dj_random_bytes(bytes, sizeof(bytes));
    if (seed % 4 == 1)
        memset(bytes, 0xff, 64);
    if (seed % 4 == 2) { /* a fine header, then noise */
        dj_frame_t frame = frame_of(DJ_MESSAGE_HELLO, 0);
        frame.length += seed % 64;
        memcpy(bytes, &frame, sizeof(frame));
    }
    if (size > 0)
        send(fd, bytes, size, MSG_NOSIGNAL);
    if (seed % 3 == 0) {
        struct linger reset = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    }
    close(fd);
}

static void test_server_survives_a_thousand_strangers(void **state)
{
    int listening, ended;
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    uint8_t wrong[32] = {9};
    assert_int_equal(dj_control_listen("127.0.0.1:0", &listening, endpoint), DJ_OK);
    pid_t server = fork();
    if (server == 0) {
        alarm(60);
        serve(listening);
    }
    close(listening);
    assert_int_equal(greet(endpoint, wrong), DJ_ERR_AUTH);
    assert_non_null(strstr(dj_error_text(), "wrong token"));
    assert_int_equal(greet(endpoint, token), DJ_OK);
    for (unsigned i = 0; i < 1000; ++i)
        throw_garbage(endpoint, i);
    assert_int_equal(waitpid(server, &ended, WNOHANG), 0);
    assert_int_equal(greet(endpoint, token), DJ_OK);
    kill(server, SIGKILL);
    waitpid(server, &ended, 0);
}

static void test_host_identity_is_stable(void **state)
{
    assert_true(dj_host_identity() != 0);
    assert_true(dj_host_identity() == dj_host_identity());
}

int main(void)
{
    dj_hash_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connect_refuses_bad_addresses),
        cmocka_unit_test(test_connect_names_a_missing_server),
        cmocka_unit_test(test_listen_refuses),
        cmocka_unit_test(test_receive_has_a_deadline),
        cmocka_unit_test(test_receive_refuses_malformed_frames),
        cmocka_unit_test(test_receive_sees_the_end),
        cmocka_unit_test(test_receive_byte_by_byte),
        cmocka_unit_test(test_frames_of_many_threads_stay_whole),
        cmocka_unit_test(test_the_largest_frame_passes),
        cmocka_unit_test(test_send_refuses_what_a_peer_would),
        cmocka_unit_test(test_send_to_one_who_does_not_read),
        cmocka_unit_test(test_greet_refuses_a_server_out_of_order),
        cmocka_unit_test(test_greet_refuses_lies),
        cmocka_unit_test(test_greet_shows_a_refusal),
        cmocka_unit_test(test_server_survives_a_thousand_strangers),
        cmocka_unit_test(test_host_identity_is_stable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
