/* peer.c - a client in a process of its own, told what to do line by line; for tests that kill, stop or cut.
 *
 * Each line on standard input gets one line back: "ok ..." or "error STATUS sentence". DJINN_ADDRESS and
 * DJINN_TOKEN name the server. Linked with the library's inside for rank, incarnation and session; all else is
 * public.
 *
 *   connect         ok RANK INCARNATION SESSION GENERATION
 *   add COUNT       COUNT checked requests of one small sum: ok MISSES RESIZES HITS
 *   add COUNT SIZE  the same with SIZE elements
 *   work MS         small checked requests for MS milliseconds: ok COUNT
 *   pump MS         4 MiB up and down again for MS milliseconds, then closed: ok COUNT
 *   hold BYTES      a tensor of zeros that stays
 *   load PATH NAME  a weight that stays: ok BYTES
 *   busy PRODUCTS   a long request is sent and not waited for
 *   ask             its last product is asked for, and not waited for
 *   poll            a moment's progress with that
 *   reap            waits for that and checks it
 *   await MS        until the connection is known to be of no use: ok ELAPSED_MS, and then the error
 *   alive           what djinn_alive() says
 *   cut             shuts the control connection down, stays
 *   close           closes the connection */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "client/client.h"

static djinn_t *djinn;
static djinn_storage_t *held[64];
static int n_held;

static void keep(djinn_storage_t *storage)
{
    if (n_held < 64)
        held[n_held++] = storage;
}

/* Storages are let go after the connection, so that closing alone must free them on the rank. */
static void close_now(void)
{
    djinn_close(djinn);
    djinn = NULL;
    while (n_held)
        djinn_release(held[--n_held]);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int failed(int status)
{
    if (status != DJINN_OK)
        printf("error %s %s\n", djinn_status_name(status), djinn_error());
    return status != DJINN_OK;
}

static djinn_arg_t of(const djinn_tensor_t *tensor)
{
    return (djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = tensor};
}

/* a + a, checked. */
static int add(int64_t n)
{
    djinn_tensor_t a, sum;
    float *values = malloc((size_t)n * 4), *back = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)i + 1;
    int status = djinn_upload(djinn, DJINN_FLOAT32, 1, &n, values, 0, &a);
    if (status == DJINN_OK) {
        djinn_arg_t args[] = {of(&a), of(&a), {.kind = DJINN_ARG_INT_SCALAR, .value.integer = 1}};
        status = djinn_record(djinn, djinn_op("aten::add.Tensor"), args, 3, &sum);
        if (status == DJINN_OK) {
            status = djinn_fetch(djinn, &sum, back, (uint64_t)n * 4);
            djinn_release(sum.storage);
        }
        djinn_release(a.storage);
    }
    for (int64_t i = 0; i < n && status == DJINN_OK; i++)
        if (back[i] != 2 * values[i]) {
            printf("error WRONG element %lld is %g\n", (long long)i, back[i]);
            exit(3);
        }
    free(values);
    free(back);
    return status;
}

static void adds(int count, int64_t n)
{
    djinn_stats_t before, after;
    djinn_stats(djinn, &before);
    for (int i = 0; i < count; i++)
        if (failed(add(n)))
            return;
    djinn_stats(djinn, &after);
    printf("ok %llu %llu %llu\n", (unsigned long long)(after.plan_misses - before.plan_misses),
           (unsigned long long)(after.plan_resizes - before.plan_resizes),
           (unsigned long long)(after.plan_hits - before.plan_hits));
}

static void work(int ms)
{
    uint64_t end_ms = now_ms() + (uint64_t)ms;
    int count = 0;
    for (; now_ms() < end_ms; count++)
        if (failed(add(16 + count % 3)))
            return;
    printf("ok %d\n", count);
}

static int pump_once(uint32_t *up, uint32_t *down, int64_t n, uint32_t turn)
{
    djinn_tensor_t t;
    for (int64_t i = 0; i < n; i++)
        up[i] = (uint32_t)i * 2654435761u + turn;
    int status = djinn_upload(djinn, DJINN_INT32, 1, &n, up, 0, &t);
    if (status != DJINN_OK)
        return status;
    status = djinn_fetch(djinn, &t, down, (uint64_t)n * 4);
    if (status == DJINN_OK && memcmp(up, down, (size_t)n * 4) != 0) {
        printf("error WRONG bytes came back\n");
        exit(3);
    }
    djinn_release(t.storage);
    return status;
}

static void pump(int ms)
{
    int64_t n = 1 << 20;
    uint64_t end_ms = now_ms() + (uint64_t)ms;
    uint32_t *up = malloc((size_t)n * 4), *down = malloc((size_t)n * 4), count = 0;
    int status = DJINN_OK;
    for (; now_ms() < end_ms && status == DJINN_OK; count++)
        status = pump_once(up, down, n, count);
    if (!failed(status))
        printf("ok %u\n", count);
    close_now(); /* the buffers were lent to the connection */
    free(up);
    free(down);
}

static void hold(int64_t bytes)
{
    djinn_tensor_t kept;
    void *zeros = calloc(1, (size_t)bytes);
    if (!failed(djinn_upload(djinn, DJINN_UINT8, 1, &bytes, zeros, 0, &kept)) &&
        !failed(djinn_synchronize(djinn))) {
        keep(kept.storage);
        printf("ok\n");
    }
    free(zeros);
}

static void load(const char *path, const char *name)
{
    djinn_tensor_t weight;
    if (!failed(djinn_load(djinn, path, name, &weight))) {
        keep(weight.storage);
        printf("ok %llu\n", (unsigned long long)djinn_storage_bytes(weight.storage));
    }
}

static djinn_tensor_t last_product;

/* Products of a matrix of 1/SIDE with itself: each element stays 1/SIDE. */
static void busy(int products)
{
    enum { SIDE = 1024 };
    djinn_tensor_t m = {0}, out = {0};
    djinn_arg_t full[] = {
        {.kind = DJINN_ARG_INTS, .count = 2, .value.integers = (int64_t[]){SIDE, SIDE}},
        {.kind = DJINN_ARG_REAL_SCALAR, .value.real = 1.0 / SIDE},
        {.kind = DJINN_ARG_INT, .value.integer = DJINN_FLOAT32}};
    int status = djinn_record(djinn, djinn_op("djinn::full"), full, 3, &m);
    for (int i = 0; i < products && status == DJINN_OK; i++) {
        djinn_tensor_t before = i ? out : m;
        djinn_arg_t mm[] = {of(&before), of(&m)};
        status = djinn_record(djinn, djinn_op("aten::mm"), mm, 2, &out);
        if (i)
            djinn_release(before.storage);
    }
    keep(m.storage);
    keep(out.storage);
    last_product = out;
    if (!failed(status) && !failed(djinn_flush(djinn)))
        printf("ok\n");
}

static djinn_request_t *asked;
static float *answer; /* its bytes */
static size_t n_answer;

/* Asks for what busy() computes. */
static void ask(void)
{
    if (n_held < 2 || asked)
        return (void)printf("error INVALID ask follows busy\n");
    n_answer = 1024 * 1024;
    answer = calloc(n_answer, sizeof(float));
    djinn_fetch_t fetch = {last_product, answer, n_answer * sizeof(float)};
    if (!failed(djinn_submit(djinn, &fetch, 1, &asked)))
        printf("ok\n");
}

/* Its message may still have to leave. */
static void poll_request(void)
{
    if (asked)
        djinn_test(asked);
    printf("ok\n");
}

/* What became of it. */
static void reap(void)
{
    int status = asked ? (int)djinn_wait(asked) : DJINN_ERR_INVALID;
    for (size_t i = 0; i < n_answer && status == DJINN_OK; i++)
        if (answer[i] < 0.999f / 1024 || answer[i] > 1.001f / 1024) {
            printf("error WRONG element %zu is %g\n", i, answer[i]);
            exit(3);
        }
    if (!failed(status))
        printf("ok\n");
    djinn_request_free(asked);
    asked = NULL;
    free(answer);
    answer = NULL;
    n_answer = 0;
}

static void await_death(int ms)
{
    uint64_t began_ms = now_ms();
    int status;
    while ((status = djinn_alive(djinn)) == DJINN_OK && now_ms() < began_ms + (uint64_t)ms)
        poll(NULL, 0, 1);
    printf("ok %llu %s %s\n", (unsigned long long)(now_ms() - began_ms), djinn_status_name(status),
           djinn_error());
}

/* The socket whose other end is the rank's control port. */
static void cut(void)
{
    const char *colon = strrchr(djinn->peer, ':');
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_in peer;
        socklen_t size = sizeof(peer);
        if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 && peer.sin_family == AF_INET &&
            colon && ntohs(peer.sin_port) == atoi(colon + 1)) {
            printf(shutdown(fd, SHUT_RDWR) == 0 ? "ok\n" : "error SYSTEM shutdown\n");
            return;
        }
    }
    printf("error SYSTEM no control socket found\n");
}

static void connect_now(void)
{
    if (!failed(djinn_connect(NULL, &djinn)))
        printf("ok %u %u %llu %u\n", djinn->rank, djinn->incarnation,
               (unsigned long long)djinn->session, djinn->generation);
}

static void obey(char *line)
{
    char word[16] = "", text[4096] = "", more[512] = "";
    sscanf(line, "%15s %4095s %511s", word, text, more);
    if (strcmp(word, "connect") == 0)
        connect_now();
    else if (!djinn)
        printf("error INVALID not connected\n");
    else if (strcmp(word, "add") == 0)
        adds(atoi(text), more[0] ? atoi(more) : 16);
    else if (strcmp(word, "work") == 0)
        work(atoi(text));
    else if (strcmp(word, "pump") == 0)
        pump(atoi(text));
    else if (strcmp(word, "hold") == 0)
        hold(atoll(text));
    else if (strcmp(word, "load") == 0)
        load(text, more);
    else if (strcmp(word, "busy") == 0)
        busy(atoi(text));
    else if (strcmp(word, "ask") == 0)
        ask();
    else if (strcmp(word, "poll") == 0)
        poll_request();
    else if (strcmp(word, "reap") == 0)
        reap();
    else if (strcmp(word, "await") == 0)
        await_death(atoi(text));
    else if (strcmp(word, "alive") == 0 && !failed(djinn_alive(djinn)))
        printf("ok\n");
    else if (strcmp(word, "cut") == 0)
        cut();
    else if (strcmp(word, "close") == 0)
        close_now(), printf("ok\n");
}

int main(void)
{
    char line[8192];
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof(line), stdin))
        obey(line);
    close_now();
    return 0;
}
