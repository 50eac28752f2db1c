/* client.c - a client for campaigns: large transfers whose every byte is checked, through the public
 * interface alone.
 *
 * Each line on standard input gets one line back, "ok ..." or "error STATUS sentence". DJINN_ADDRESS and
 * DJINN_TOKEN name the server. Commands:
 *   connect               ok RANK
 *   pump TURNS BYTES      TURNS times: upload, fetch, compare, put over it, fetch, compare: ok TURNS
 *   work MS               small checked requests for so long: ok COUNT MEDIAN_US P99_US MAX_US
 *   ask COUNT BYTES       COUNT fetches of BYTES are sent and not waited for: ok
 *   collect               waits for them and compares: ok COUNT
 *   await MS              until the connection is known to be lost: ok ELAPSED_MS STATUS sentence
 *   close                 ok
 * A wrong byte is "error WRONG ..." and the end of the process. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/djinn.h"

enum { ASKED_MAX = 1024, LATENCIES_MAX = 1 << 18 };

static djinn_t *djinn;
static djinn_request_t *asked[ASKED_MAX];
static void *answers[ASKED_MAX];
static int n_asked;
static uint64_t asked_words;
static djinn_tensor_t asked_tensor;

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int failed(int status)
{
    if (status != DJINN_OK)
        printf("error %s %s\n", djinn_status_name(status), djinn_error());
    return status != DJINN_OK;
}

/* Every word says where it belongs and whose it is. */
static void fill(uint64_t *words, uint64_t count, uint64_t turn)
{
    for (uint64_t i = 0; i < count; i++)
        words[i] = (i + 1) * 0x9e3779b97f4a7c15u ^ turn;
}

static void compare(const uint64_t *words, uint64_t count, uint64_t turn, const char *what)
{
    for (uint64_t i = 0; i < count; i++)
        if (words[i] != ((i + 1) * 0x9e3779b97f4a7c15u ^ turn)) {
            printf("error WRONG %s: word %llu of turn %llu is %llx\n", what, (unsigned long long)i,
                   (unsigned long long)turn, (unsigned long long)words[i]);
            exit(3);
        }
}

static int make(const uint64_t *words, uint64_t count, djinn_tensor_t *tensor)
{
    int64_t size = (int64_t)count;
    return djinn_upload(djinn, DJINN_INT64, 1, &size, words, 0, tensor);
}

static int pump_once(uint64_t *up, uint64_t *down, uint64_t count, uint64_t turn)
{
    djinn_tensor_t tensor;
    djinn_request_t *request = NULL;
    fill(up, count, turn);
    int status = make(up, count, &tensor);
    if (status != DJINN_OK)
        return status;
    memset(down, 0, count * 8);
    status = djinn_fetch(djinn, &tensor, down, count * 8);
    if (status == DJINN_OK) {
        compare(down, count, turn, "upload");
        fill(up, count, ~turn);
        status = djinn_put(djinn, &tensor, up, count * 8, &request);
    }
    if (status == DJINN_OK) {
        status = djinn_wait(request);
        djinn_request_free(request);
    }
    if (status == DJINN_OK)
        status = djinn_fetch(djinn, &tensor, down, count * 8);
    if (status == DJINN_OK)
        compare(down, count, ~turn, "put");
    djinn_release(tensor.storage);
    return status;
}

static void pump(int turns, uint64_t bytes)
{
    uint64_t *up = malloc(bytes), *down = malloc(bytes);
    int status = DJINN_OK, done = 0;
    for (; done < turns && status == DJINN_OK; done++)
        status = pump_once(up, down, bytes / 8, (uint64_t)done + now_us());
    if (!failed(status))
        printf("ok %d\n", done);
    djinn_close(djinn); /* the buffers were lent to the connection */
    djinn = NULL;
    free(up);
    free(down);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void work(int ms)
{
    static uint32_t latencies[LATENCIES_MAX];
    uint64_t words[64], back[64], end_us = now_us() + (uint64_t)ms * 1000;
    uint32_t count = 0;
    for (uint64_t began_us; (began_us = now_us()) < end_us; count++) {
        djinn_tensor_t tensor;
        fill(words, 64, began_us);
        int status = make(words, 64, &tensor);
        if (failed(status))
            return;
        status = djinn_fetch(djinn, &tensor, back, sizeof(back));
        djinn_release(tensor.storage);
        if (failed(status))
            return;
        compare(back, 64, began_us, "small upload");
        latencies[count % LATENCIES_MAX] = (uint32_t)(now_us() - began_us);
    }
    uint32_t n = count < LATENCIES_MAX ? count : LATENCIES_MAX;
    qsort(latencies, n, sizeof(*latencies), by_size);
    printf("ok %u %u %u %u\n", count, latencies[n / 2], latencies[n - 1 - n / 100],
           latencies[n - 1]);
}

static void ask(int count, uint64_t bytes)
{
    uint64_t *words = malloc(bytes);
    asked_words = bytes / 8;
    fill(words, asked_words, 7);
    int status = make(words, asked_words, &asked_tensor);
    if (status == DJINN_OK)
        status = djinn_synchronize(djinn);
    for (n_asked = 0; n_asked < count && n_asked < ASKED_MAX && status == DJINN_OK; n_asked++) {
        answers[n_asked] = calloc(1, bytes);
        djinn_fetch_t fetch = {asked_tensor, answers[n_asked], bytes};
        status = djinn_submit(djinn, &fetch, 1, &asked[n_asked]);
    }
    free(words);
    if (!failed(status))
        printf("ok %d\n", n_asked);
}

static void collect(void)
{
    int status = DJINN_OK, good = 0;
    for (int i = 0; i < n_asked; i++) {
        int one = djinn_wait(asked[i]);
        djinn_request_free(asked[i]);
        if (one == DJINN_OK) {
            compare(answers[i], asked_words, 7, "answer");
            good++;
        } else {
            status = one;
        }
    }
    if (!failed(status))
        printf("ok %d\n", good);
}

static void await_loss(int ms)
{
    uint64_t began_us = now_us();
    int status;
    while ((status = djinn_alive(djinn)) == DJINN_OK &&
           now_us() < began_us + (uint64_t)ms * 1000)
        poll(NULL, 0, 1);
    printf("ok %llu %s %s\n", (unsigned long long)((now_us() - began_us) / 1000),
           djinn_status_name(status), djinn_error());
}

static void obey(const char *line)
{
    char word[16] = "";
    long long a = 0, b = 0;
    sscanf(line, "%15s %lld %lld", word, &a, &b);
    if (strcmp(word, "connect") == 0) {
        if (!failed(djinn_connect(NULL, &djinn)))
            printf("ok %d\n", 0);
    } else if (!djinn) {
        printf("error INVALID not connected\n");
    } else if (strcmp(word, "pump") == 0) {
        pump((int)a, (uint64_t)b);
    } else if (strcmp(word, "work") == 0) {
        work((int)a);
    } else if (strcmp(word, "ask") == 0) {
        ask((int)a, (uint64_t)b);
    } else if (strcmp(word, "collect") == 0) {
        collect();
    } else if (strcmp(word, "await") == 0) {
        await_loss((int)a);
    } else {
        djinn_close(djinn);
        djinn = NULL;
        printf("ok\n");
    }
}

int main(void)
{
    char line[256];
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof(line), stdin))
        obey(line);
    if (djinn)
        djinn_close(djinn);
    return 0;
}
