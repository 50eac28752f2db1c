/* test_comm.c - waiting and waking, many peers at once, and noise on the ports that UCX itself
 * opens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <poll.h>
#include <pthread.h>

#include "node.h"

typedef struct tally {
    uint64_t arrived, rendezvous, bytes, sent;
    uint64_t from[NODES_MAX];
} tally_t;

static void on_done(void *argument, dj_status_t status)
{
    tally_t *tally = argument;
    CHECK(status == DJ_OK);
    ++tally->sent;
}

static dj_status_t count_message(void *context, const dj_incoming_t *incoming, void **memory_p,
                                 void **token_p)
{
    node_t *node = context;
    tally_t *tally = node->state;
    CHECK(!incoming->failed);
    if (incoming->rendezvous && !incoming->payload) {
        *memory_p = *token_p = malloc(incoming->payload_bytes);
        return *memory_p ? DJ_OK : DJ_ERR_MEMORY;
    }
    ++tally->arrived;
    ++tally->from[incoming->header->session % NODES_MAX];
    tally->rendezvous += incoming->rendezvous;
    tally->bytes += incoming->payload_bytes;
    free(incoming->token);
    return DJ_OK;
}

static void send_bytes(node_t *node, int other, const void *data, uint64_t bytes)
{
    tally_t *tally = node->state;
    test_message_t message = make_message(node, 1, bytes);
    dj_piece_t piece = {data, bytes};
    dj_status_t status = dj_endpoint_send(node->endpoints[other], &message, sizeof(message), &piece,
                                          1, on_done, tally);
    CHECK(status == DJ_OK || status == DJ_IN_PROGRESS);
    tally->sent += status == DJ_OK;
}

static void run_all(int count, const node_main_t *mains, transport_t transport)
{
    int statuses[NODES_MAX];
    run_nodes(count, mains, transport, statuses);
    for (int i = 0; i < count; ++i)
        assert_int_equal(statuses[i], 0);
}

/* ---- waiting and waking ---- */

static void *wake_later(void *argument)
{
    usleep(50000);
    dj_comm_wake(argument);
    return NULL;
}

static void main_waits(node_t *node)
{
    tally_t tally = {0};
    pthread_t thread;
    node->state = &tally;
    node_open(node, count_message);
    uint64_t from_ns = dj_clock_ns();
    while (dj_clock_ns() - from_ns < 100 * DJ_NS_PER_MS) { /* a time-out ends it */
        uint64_t at_ns = dj_clock_ns();
        dj_comm_wait(node->comm, 1000, 30);
        CHECK(dj_clock_ns() - at_ns < DJ_NS_PER_S);
    }
    for (int round = 0; round < 5;
         ++round) { /* a wake from another thread does, asleep or spinning */
        bool asleep = round % 2 == 0;
        CHECK(pthread_create(&thread, NULL, wake_later, node->comm) == 0);
        from_ns = dj_clock_ns();
        while (dj_clock_ns() - from_ns < 20 * DJ_NS_PER_MS)
            dj_comm_wait(node->comm, 1000, 5);
        dj_comm_wait(node->comm, asleep ? 1000 : 20 * DJ_NS_PER_S, 20000);
        CHECK(dj_clock_ns() - from_ns < 10 * DJ_NS_PER_S);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    dj_comm_wake(node->comm); /* one that came before the wait is not lost */
    from_ns = dj_clock_ns();
    dj_comm_wait(node->comm, 1000, 20000);
    CHECK(dj_clock_ns() - from_ns < DJ_NS_PER_S);
    node_close(node);
}

static void test_wait_ends_by_timeout_and_by_wake(void **state)
{
    const node_main_t mains[] = {main_waits};
    run_all(1, mains, TRANSPORT_SHM);
    run_all(1, mains, TRANSPORT_TCP);
}

/* Sleeps on the descriptor, as an event loop would. */
static void main_sleeps(node_t *node)
{
    tally_t tally = {0};
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 1);
    while (!dj_endpoint_ready(node->endpoints[1]))
        dj_comm_wait(node->comm, 20000, 5);
    node_meet(node, 1);
    uint64_t from_ns = dj_clock_ns(), longest_ns = 0;
    while (tally.arrived < 20) {
        if (dj_comm_progress(node->comm) > 0 || !dj_comm_arm(node->comm))
            continue;
        struct pollfd entry = {.fd = dj_comm_fd(node->comm), .events = POLLIN};
        uint64_t at_ns = dj_clock_ns();
        CHECK(poll(&entry, 1, 10000) == 1);
        if (dj_clock_ns() - at_ns > longest_ns)
            longest_ns = dj_clock_ns() - at_ns;
        CHECK(dj_clock_ns() - from_ns < 30 * DJ_NS_PER_S);
    }
    CHECK(longest_ns < 5 * DJ_NS_PER_S); /* woken by messages, not by the time-out */
    node_meet(node, 1);
    node_close(node);
}

static void main_rouses(node_t *node)
{
    tally_t tally = {0};
    static const char data[100];
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 0);
    node_meet(node, 0);
    for (int i = 0; i < 20; ++i) {
        uint64_t until_ns = dj_clock_ns() + 20 * DJ_NS_PER_MS; /* let it fall asleep */
        while (dj_clock_ns() < until_ns)
            dj_comm_wait(node->comm, 1000, 5);
        send_bytes(node, 0, data, sizeof(data));
    }
    node_meet(node, 0);
    node_close(node);
}

static void test_a_message_wakes_a_sleeper(void **state)
{
    const node_main_t mains[] = {main_sleeps, main_rouses};
    run_all(2, mains, TRANSPORT_SHM);
    run_all(2, mains, TRANSPORT_TCP);
}

/* ---- two clients and eight workers ---- */

enum { CLIENTS = 2, WORKERS = 8, ROUNDS = 20, LARGE = 1 << 20 };

static void join_all(node_t *node)
{
    bool client = node->number < CLIENTS;
    for (int other = 0; other < node->count; ++other)
        if (client != (other < CLIENTS))
            node_join(node, other);
}

static void meet_all(node_t *node)
{
    char word;
    bool heard[NODES_MAX] = {false};
    bool client = node->number < CLIENTS;
    for (int other = 0; other < node->count; ++other) {
        if (client == (other < CLIENTS))
            heard[other] = true;
        else
            node_tell(node, other, 'm');
    }
    for (int left = 1; left > 0;) {
        left = 0;
        dj_comm_wait(node->comm, 20000, 10);
        for (int other = 0; other < node->count; ++other) {
            heard[other] = heard[other] || node_heard(node, other, &word);
            left += !heard[other];
        }
    }
}

static void main_client(node_t *node)
{
    tally_t tally = {0};
    char *data = calloc(1, LARGE);
    node->state = &tally;
    node_open(node, count_message);
    join_all(node);
    for (int round = 0; round < ROUNDS; ++round) {
        for (int worker = CLIENTS; worker < node->count; ++worker) {
            send_bytes(node, worker, data, 64);
            send_bytes(node, worker, data, round % 4 == 0 ? LARGE : 4096);
        }
        while (tally.arrived < (uint64_t)(round + 1) * WORKERS)
            dj_comm_wait(node->comm, 20000, 20);
    }
    CHECK(tally.rendezvous == tally.arrived);
    while (tally.sent < 2ull * ROUNDS * WORKERS)
        dj_comm_wait(node->comm, 20000, 20);
    meet_all(node);
    node_close(node);
    free(data);
}

/* Answers every second message of a client with a rendezvous. */
static void main_worker(node_t *node)
{
    tally_t tally = {0};
    uint64_t answered[CLIENTS] = {0};
    char *data = calloc(1, LARGE);
    node->state = &tally;
    node_open(node, count_message);
    join_all(node);
    while (tally.sent < (uint64_t)CLIENTS * ROUNDS) {
        dj_comm_wait(node->comm, 20000, 20);
        for (int client = 0; client < CLIENTS; ++client) {
            while (answered[client] < tally.from[client] / 2) {
                ++answered[client];
                send_bytes(node, client, data, LARGE / 4);
            }
        }
    }
    CHECK(tally.arrived == 2ull * CLIENTS * ROUNDS);
    CHECK(tally.rendezvous == (uint64_t)CLIENTS * ROUNDS / 4);
    meet_all(node);
    node_close(node);
    free(data);
}

static void test_two_clients_and_eight_workers(void **state)
{
    node_main_t mains[CLIENTS + WORKERS];
    for (int i = 0; i < CLIENTS + WORKERS; ++i)
        mains[i] = i < CLIENTS ? main_client : main_worker;
    run_all(CLIENTS + WORKERS, mains, TRANSPORT_SHM);
    run_all(CLIENTS + WORKERS, mains, TRANSPORT_LOOPBACK);
}

/* ---- noise on UCX's own ports ---- */

static bool owns_inode(unsigned long inode)
{
    char wanted[64], path[320], target[64];
    struct dirent *entry;
    bool found = false;
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder != NULL);
    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    while (!found && (entry = readdir(folder))) {
        snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
        ssize_t size = readlink(path, target, sizeof(target) - 1);
        if (size > 0) {
            target[size] = '\0';
            found = strcmp(target, wanted) == 0;
        }
    }
    closedir(folder);
    return found;
}

/* IPv4 sockets on which this process listens. */
static int listening_ports(struct sockaddr_in *ports, int room)
{
    char line[512];
    int count = 0;
    FILE *file = fopen("/proc/net/tcp", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof(line), file) && count < room) {
        unsigned address, port, connection_state;
        unsigned long inode;
        if (sscanf(line, " %*d: %x:%x %*x:%*x %x %*x:%*x %*x:%*x %*x %*u %*u %lu", &address, &port,
                   &connection_state, &inode) == 4 &&
            connection_state == 10 && owns_inode(inode))
            ports[count++] = (struct sockaddr_in){
                .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {address}};
    }
    fclose(file);
    return count;
}

static void make_noise(const struct sockaddr_in *address, unsigned seed)
{
    uint8_t bytes[2048];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
        dj_random_bytes(bytes, sizeof(bytes));
        if (seed % 2 == 0)
            memset(bytes, 0xff, 64);
        send(fd, bytes, seed * 131 % sizeof(bytes), MSG_NOSIGNAL);
    }
    close(fd);
}

static void main_hears_noise(node_t *node)
{
    tally_t tally = {0};
    struct sockaddr_in ports[8];
    node->state = &tally;
    node_open(node, count_message);
    int count = listening_ports(ports, 8);
    CHECK(count > 0);
    for (unsigned i = 0; i < 300; ++i) {
        make_noise(&ports[i % (unsigned)count], i);
        dj_comm_wait(node->comm, 1000, 0);
    }
    node_join(node, 1);
    while (tally.arrived < 2)
        dj_comm_wait(node->comm, 20000, 5);
    for (unsigned i = 0; i < 300; ++i) {
        make_noise(&ports[i % (unsigned)count], i);
        dj_comm_wait(node->comm, 1000, 0);
    }
    while (tally.arrived < 3)
        dj_comm_wait(node->comm, 20000, 5);
    node_meet(node, 1);
    node_close(node);
}

static void main_speaks_through_noise(node_t *node)
{
    tally_t tally = {0};
    char *data = calloc(1, LARGE);
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 0);
    send_bytes(node, 0, data, 100);
    send_bytes(node, 0, data, LARGE);
    while (tally.sent < 2)
        dj_comm_wait(node->comm, 20000, 5);
    send_bytes(node, 0, data, LARGE);
    node_meet(node, 0);
    node_close(node);
    free(data);
}

static void test_data_ports_survive_noise(void **state)
{
    const node_main_t mains[] = {main_hears_noise, main_speaks_through_noise};
    run_all(2, mains, TRANSPORT_LOOPBACK);
    run_all(2, mains, TRANSPORT_SHM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait_ends_by_timeout_and_by_wake),
        cmocka_unit_test(test_a_message_wakes_a_sleeper),
        cmocka_unit_test(test_two_clients_and_eight_workers),
        cmocka_unit_test(test_data_ports_survive_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
