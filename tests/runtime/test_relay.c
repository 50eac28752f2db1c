/* test_relay.c - clients that reach the port of rank 0 and no other: their bytes go through it.
 *
 * One server of three ranks. A death must be told within two seconds and leave nothing behind: no session on
 * the worker, no descriptor on rank 0. A process that is stopped or killed is a real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/runtime/server.h"

enum { LARGE = 64 << 20 };

static server_t server;

static djinn_status_t relayed(djinn_t **djinn)
{
    djinn_options_t options = server_options(&server);
    options.flags = DJINN_CONNECT_RELAY;
    return djinn_connect(&options, djinn);
}

static djinn_t *connected(void)
{
    djinn_t *djinn = NULL;
    if (relayed(&djinn) != DJINN_OK)
        print_error("%s\n", djinn_error());
    assert_non_null(djinn);
    return djinn;
}

/* Bytes up, their double back. */
static djinn_status_t round_trip(djinn_t *djinn, size_t bytes, uint8_t seed)
{
    int64_t count = (int64_t)bytes;
    djinn_tensor_t in, out;
    uint8_t *up = malloc(bytes), *down = malloc(bytes);
    assert_true(up && down);
    for (size_t i = 0; i < bytes; i++)
        up[i] = (uint8_t)(i * 2654435761u >> 11) + seed;
    djinn_status_t status = djinn_upload(djinn, DJINN_UINT8, 1, &count, up, 0, &in);
    if (status == DJINN_OK) {
        djinn_arg_t args[] = {{.kind = DJINN_ARG_TENSOR, .value.tensors = &in},
                              {.kind = DJINN_ARG_TENSOR, .value.tensors = &in},
                              {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1}};
        status = djinn_record(djinn, djinn_op("aten::add.Tensor"), args, 3, &out);
        djinn_release(in.storage);
    }
    if (status == DJINN_OK) {
        status = djinn_fetch(djinn, &out, down, bytes);
        djinn_release(out.storage);
    }
    for (size_t i = 0; i < bytes && status == DJINN_OK; i++)
        if (down[i] != (uint8_t)(2 * up[i]))
            status = DJINN_ERR_CORRUPT;
    free(up);
    free(down);
    return status;
}

static void assert_round_trip(djinn_t *djinn, size_t bytes, uint8_t seed)
{
    djinn_status_t status = round_trip(djinn, bytes, seed);
    if (status != DJINN_OK)
        print_error("%zu bytes: %s\n", bytes, djinn_error());
    assert_int_equal(status, DJINN_OK);
}

static int descriptors_of(pid_t pid)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

static void assert_nothing_left(pid_t coordinator, int descriptors)
{
    uint64_t end_ms = now_ms() + 3000;
    assert_true(server_is_empty(&server, 1));
    assert_true(server_is_empty(&server, 2));
    while (descriptors_of(coordinator) > descriptors && now_ms() < end_ms)
        sleep_ms(10);
    assert_true(descriptors_of(coordinator) <= descriptors);
}

/* ---- tests ---- */

static void test_bytes_of_all_sizes(void **state)
{
    static const size_t sizes[] = {1, 100, 65535, 65536, 65537, 300000, 1 << 20, LARGE};
    pid_t coordinator = (pid_t)server_number(&server, 0, "pid");
    int before = descriptors_of(coordinator);
    djinn_t *djinn = connected();
    assert_true(djinn_rank(djinn) > 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        assert_round_trip(djinn, sizes[i], (uint8_t)i);
    djinn_close(djinn);
    assert_nothing_left(coordinator, before);
}

static void test_a_single_rank_needs_no_relay(void **state)
{
    server_t many = server;
    assert_true(server_start(&server, 1, NULL));
    djinn_t *djinn = connected();
    assert_int_equal(djinn_rank(djinn), 0);
    assert_round_trip(djinn, 1 << 20, 3);
    djinn_close(djinn);
    assert_true(server_is_empty(&server, 0));
    server_stop(&server);
    server = many;
}

/* A process that goes on until it is stopped; the byte says that its first round trip is done. */
static pid_t busy_client(void)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        djinn_t *djinn = NULL;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bool well = relayed(&djinn) == DJINN_OK;
        for (int i = 0; well; i++) {
            well = round_trip(djinn, 8 << 20, (uint8_t)i) == DJINN_OK;
            if (i == 0 && (!well || write(ready[1], "", 1) != 1))
                break;
        }
        _exit(1);
    }
    close(ready[1]);
    assert_true(pid > 0);
    struct pollfd poller = {.fd = ready[0], .events = POLLIN};
    assert_int_equal(poll(&poller, 1, 20000), 1);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end_client(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void test_a_client_killed_in_a_transfer(void **state)
{
    pid_t coordinator = (pid_t)server_number(&server, 0, "pid");
    int before = descriptors_of(coordinator);
    djinn_t *witness = connected();
    for (int i = 0; i < 3; i++) {
        pid_t pid = busy_client();
        sleep_ms(3 + 7 * i); /* somewhere in it */
        end_client(pid);
        assert_round_trip(witness, 100000, (uint8_t)i);
    }
    djinn_close(witness);
    assert_nothing_left(coordinator, before);
}

/* A stopped client neither reads nor says anything; the others do not notice, and it is ended. */
static void test_a_client_that_stops_reading(void **state)
{
    djinn_t *others[2] = {connected(), connected()};
    pid_t pid = busy_client();
    kill(pid, SIGSTOP);
    uint64_t slowest_ms = 0;
    for (int i = 0; i < 40; i++) {
        uint64_t began_ms = now_ms();
        assert_round_trip(others[i % 2], 100000, (uint8_t)i);
        slowest_ms = now_ms() - began_ms > slowest_ms ? now_ms() - began_ms : slowest_ms;
    }
    print_message("slowest round trip beside a stopped client: %d ms\n", (int)slowest_ms);
    assert_true(slowest_ms < 5000); /* none waits for the stopped one */
    end_client(pid);
    djinn_close(others[0]);
    djinn_close(others[1]);
    assert_true(server_is_empty(&server, 1));
    assert_true(server_is_empty(&server, 2));
}

static void killed_under(int rank)
{
    djinn_t *djinn = connected();
    int victim = rank ? djinn_rank(djinn) : 0;
    pid_t pid = (pid_t)server_number(&server, victim, "pid");
    assert_round_trip(djinn, 100000, 1);
    pid_t killer = fork();
    if (killer == 0) {
        sleep_ms(30);
        kill(pid, SIGKILL);
        _exit(0);
    }
    djinn_status_t status;
    uint64_t began_ms = now_ms();
    while ((status = round_trip(djinn, 8 << 20, 2)) == DJINN_OK && now_ms() < began_ms + 5000)
        began_ms = now_ms();
    assert_int_equal(status, DJINN_ERR_PEER_DIED);
    assert_true(now_ms() - began_ms < 2000);
    waitpid(killer, NULL, 0);
    djinn_close(djinn);
    djinn = connected(); /* again and again until somebody is there */
    assert_round_trip(djinn, 100000, 3);
    djinn_close(djinn);
}

static void test_a_worker_killed_in_a_transfer(void **state)
{
    killed_under(1);
}

/* Its port is the supervisor's and stays; the next incarnation relays again once workers are back. */
static void test_rank_0_killed_in_a_transfer(void **state)
{
    killed_under(0);
}

/* ---- a slow line ---- */

enum { LINE_BYTES = 64 << 10, LINE_PAUSE_MS = 32 }; /* 2 MiB a second towards the client */

static int dial(const char *address)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), little = LINE_BYTES;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof(little));
    return connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0 ? fd : -1;
}

static bool pass_on(int from, int to)
{
    static char bytes[LINE_BYTES];
    ssize_t got = recv(from, bytes, sizeof(bytes), 0), put = 0;
    for (ssize_t now = 0; put < got && now >= 0; put += now)
        now = send(to, bytes + put, (size_t)(got - put), MSG_NOSIGNAL);
    return got > 0;
}

/* Both ways until one side ends: as fast as it goes to the server, slowly to the client. */
static void be_the_line(int client, int rank)
{
    uint64_t next_ms = 0;
    for (bool well = client >= 0 && rank >= 0; well;) {
        bool slow = now_ms() < next_ms;
        struct pollfd ends[2] = {{.fd = client, .events = POLLIN},
                                 {.fd = slow ? -1 : rank, .events = POLLIN}};
        poll(ends, 2, slow ? 1 : 100);
        if (ends[0].revents)
            well = pass_on(client, rank);
        if (well && !slow && ends[1].revents) {
            well = pass_on(rank, client);
            next_ms = now_ms() + LINE_PAUSE_MS;
        }
    }
    _exit(0);
}

/* The process behind `address` from now on. */
static pid_t slow_line(const char *to, char address[64])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    snprintf(address, 64, "127.0.0.1:%u", ntohs(at.sin_port));
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int client = accept(listener, NULL, NULL);
        be_the_line(client, dial(to));
    }
    close(listener);
    assert_true(pid > 0);
    return pid;
}

/* While parts come the rank's heartbeats queue behind them: the client must be heard all the same. */
static void test_a_fetch_longer_than_silence_may_be(void **state)
{
    static const char *const words[] = {"--threads", "1", "--suspect-ms", "1s", NULL};
    server_t many = server;
    char address[64];
    djinn_t *djinn = NULL;
    assert_true(server_start(&server, 1, words));
    pid_t line = slow_line(server.address, address);
    djinn_options_t options = server_options(&server);
    options.flags = DJINN_CONNECT_RELAY;
    options.address = address;
    assert_int_equal(djinn_connect(&options, &djinn), DJINN_OK);
    uint64_t began_ms = now_ms();
    assert_round_trip(djinn, 8 << 20, 5);
    assert_true(now_ms() - began_ms > 3000);
    djinn_close(djinn);
    end_client(line);
    assert_true(server_is_empty(&server, 0));
    server_stop(&server);
    server = many;
}

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", "--suspect-ms", "10s", NULL};
    return server_start(&server, 3, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

int main(void)
{
    setenv("DJINN_SUSPECT_MS", "10s", 1); /* a busy machine is no silence: deaths here are told by an end */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_of_all_sizes),
        cmocka_unit_test(test_a_single_rank_needs_no_relay),
        cmocka_unit_test(test_a_client_killed_in_a_transfer),
        cmocka_unit_test(test_a_client_that_stops_reading),
        cmocka_unit_test(test_a_worker_killed_in_a_transfer),
        cmocka_unit_test(test_rank_0_killed_in_a_transfer),
        cmocka_unit_test(test_a_fetch_longer_than_silence_may_be),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
