/* fuzz_door.c - the server's control port: hello, proof, roles and every frame behind them.
 *
 * Two whole ranks run in this process, a coordinator without workers and a rank that serves; each input
 * is one connection to one of them over TCP. Input: flags:u8 (1 to the one that serves, 2 polite, 4 the
 * proof is made right, 8 the op table too), then the client's stream (fuzz.h), in which a first HELLO
 * gets its proof. Afterwards the door must have ended the connection, and soon. */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/control.h"
#include "planner/ops.h"
#include "runtime/base/log.h"
#include "runtime/rank.h"
#include "tests/fuzz/fuzz.h"

enum { PATIENCE_S = 10 };

static const char token_text[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static uint8_t token[32];
static dj_config_t configs[2];
static struct sockaddr_in places[2];

static void *rank_main(void *config)
{
    dj_rank_run(config);
    return NULL;
}

static void start_rank(int which)
{
    char *words[] = {"fuzz", "--threads", "1", "--transports", "tcp", "--data-bytes", "16M",
                     "--stack-bytes", "1M", "--lease-grace-ms", "0", "--sessions", "4", NULL};
    char endpoint[DJ_ENDPOINT_TEXT_MAX], line[8];
    socklen_t size = sizeof(places[which]);
    int used, listen_fd, ready[2];
    pthread_t thread;
    dj_config_t *config = &configs[which];
    FUZZ_ASSERT(dj_config_load(config, 13, words, &used) == DJ_OK && pipe(ready) == 0);
    FUZZ_ASSERT(dj_control_listen("127.0.0.1:0", &listen_fd, endpoint) == DJ_OK);
    FUZZ_ASSERT(getsockname(listen_fd, (struct sockaddr *)&places[which], &size) == 0);
    config->ranks = which ? 1 : 2;
    config->listen_fd = (uint64_t)listen_fd;
    config->ready_fd = (uint64_t)ready[1];
    config->token = token_text;
    FUZZ_ASSERT(pthread_create(&thread, NULL, rank_main, config) == 0);
    FUZZ_ASSERT(read(ready[0], line, 6) == 6);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    FUZZ_ASSERT(dj_hash_setup() && dj_token_parse(token_text, token) == DJ_OK);
    dj_log_init("error", "fuzz");
    start_rank(0);
    start_rank(1);
    return 0;
}

/* libFuzzer's alarm interrupts calls that have a time limit. */
static ssize_t receive(int fd, void *target, size_t bytes)
{
    ssize_t got;
    do
        got = recv(fd, target, bytes, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

static bool receive_all(int fd, void *target, size_t bytes)
{
    for (ssize_t got; bytes > 0; bytes -= (size_t)got) {
        if ((got = receive(fd, target, bytes)) <= 0)
            return false;
        target = (uint8_t *)target + got;
    }
    return true;
}

static void connect_to(int fd, const struct sockaddr_in *place)
{
    int failed;
    do
        failed = connect(fd, (const struct sockaddr *)place, sizeof(*place));
    while (failed && (errno == EINTR || errno == EALREADY));
    if (failed && errno != EISCONN) {
        perror("the door is shut");
        abort();
    }
}

/* A connection whose challenge was read; a reset at its end leaves no port behind in TIME_WAIT. */
static int enter(int which, uint8_t nonce[32])
{
    struct {
        dj_frame_t frame;
        dj_challenge_t challenge;
    } first;
    struct timeval patience = {.tv_sec = PATIENCE_S};
    struct linger reset = {1, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    connect_to(fd, &places[which]);
    if (!receive_all(fd, &first, sizeof(first))) {
        perror("no challenge");
        abort();
    }
    memcpy(nonce, first.challenge.nonce, 32);
    return fd;
}

/* The end must come; before it frames in order, each of a kind and size a server may send. */
static void read_to_the_end(int fd)
{
    static uint8_t bytes[1 << 16];
    ssize_t got;
    while ((got = receive(fd, bytes, sizeof(bytes))) > 0)
        ;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        fprintf(stderr, "the door keeps a connection whose client has left\n");
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_reader_t reader;
    dj_bytes_t wire = {0};
    uint8_t nonce[32];
    dj_reader_init(&reader, data, size);
    uint8_t flags = dj_reader_u8(&reader);
    fuzz_put_stream(&reader, &wire, flags & 2, 0);
    int fd = enter(flags & 1, nonce);
    dj_hash_t table = dj_op_table_hash();
    if (flags & 4)
        fuzz_prove(&wire, token, nonce, flags & 8 ? &table : NULL);
    if (wire.size) /* at most a few KiB: the socket takes them at once */
        send(fd, wire.data, wire.size, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    read_to_the_end(fd);
    close(fd);
    dj_bytes_fini(&wire);
    return 0;
}
