/* test_endpoint.c - endpoints between real processes, over shared memory and over tcp: damaged
 * addresses and messages first, then refusals and limits, then order and content, eager and
 * rendezvous. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "node.h"

enum { BIG = 16 << 20 };

static void fill(uint8_t *data, uint64_t bytes, uint64_t seed)
{
    uint64_t value = seed * 0x9e3779b97f4a7c15ull + 1;
    for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
        value = value * 6364136223846793005ull + 1442695040888963407ull;
        memcpy(data + i, &value, 8);
    }
    for (uint64_t i = bytes & ~7ull; i < bytes; ++i)
        data[i] = (uint8_t)(seed + i);
}

static bool filled(const uint8_t *data, uint64_t bytes, uint64_t seed)
{
    uint64_t value = seed * 0x9e3779b97f4a7c15ull + 1, there;
    for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
        value = value * 6364136223846793005ull + 1442695040888963407ull;
        memcpy(&there, data + i, 8);
        if (there != value)
            return false;
    }
    for (uint64_t i = bytes & ~7ull; i < bytes; ++i)
        if (data[i] != (uint8_t)(seed + i))
            return false;
    return true;
}

/* What a node has received and sent. */
typedef struct tally {
    uint64_t arrived, eager, rendezvous, asked, failed;
    uint64_t bad_content, out_of_order, unaligned;
    uint64_t last_request[NODES_MAX];
    dj_status_t answer; /* to rendezvous */
    uint64_t sent_ok, sent_failed;
    dj_status_t sent_status;
} tally_t;

static void on_done(void *argument, dj_status_t status)
{
    tally_t *tally = argument;
    tally->sent_ok += status == DJ_OK;
    tally->sent_failed += status != DJ_OK;
    tally->sent_status = status;
}

static dj_status_t count_message(void *context, const dj_incoming_t *incoming, void **memory_p,
                                 void **token_p)
{
    node_t *node = context;
    tally_t *tally = node->state;
    const dj_upload_t *upload = incoming->body;
    tally->unaligned += (uintptr_t)incoming->header % 8 != 0;
    if (incoming->rendezvous && !incoming->payload && !incoming->failed) {
        ++tally->asked;
        if (tally->answer != DJ_OK)
            return tally->answer;
        *memory_p = *token_p = malloc(incoming->payload_bytes);
        return *memory_p ? DJ_OK : DJ_ERR_MEMORY;
    }
    if (incoming->failed) {
        ++tally->failed;
        free(incoming->token);
        return DJ_OK;
    }
    ++tally->arrived;
    tally->eager += !incoming->rendezvous;
    tally->rendezvous += incoming->rendezvous;
    tally->bad_content += incoming->payload_bytes != upload->bytes;
    tally->bad_content +=
        !filled(incoming->payload, incoming->payload_bytes, incoming->header->request);
    uint64_t *last = &tally->last_request[incoming->header->session % NODES_MAX];
    tally->out_of_order += !incoming->rendezvous && incoming->header->request <= *last;
    *last = incoming->header->request;
    free(incoming->token);
    return DJ_OK;
}

static void send_filled(node_t *node, int other, uint64_t request, uint8_t *data, uint64_t bytes,
                        uint32_t n_pieces)
{
    tally_t *tally = node->state;
    test_message_t message = make_message(node, request, bytes);
    dj_piece_t pieces[DJ_PIECES_MAX];
    uint64_t at = 0;
    fill(data, bytes, request);
    for (uint32_t i = 0; i < n_pieces; ++i) {
        uint64_t part = i + 1 == n_pieces ? bytes - at : bytes / n_pieces;
        pieces[i] = (dj_piece_t){data + at, part};
        at += part;
    }
    dj_status_t status = dj_endpoint_send(node->endpoints[other], &message, sizeof(message), pieces,
                                          n_pieces, on_done, tally);
    CHECK(status == DJ_OK || status == DJ_IN_PROGRESS);
    tally->sent_ok += status == DJ_OK;
}

static void progress_until(node_t *node, const uint64_t *counter, uint64_t wanted)
{
    uint64_t until_ns = dj_clock_ns() + 30 * DJ_NS_PER_S;
    while (*counter < wanted) {
        dj_comm_wait(node->comm, 20000, 20);
        CHECK(dj_clock_ns() < until_ns);
    }
}

static void run_pair(node_main_t a, node_main_t b, transport_t transport)
{
    const node_main_t mains[] = {a, b};
    int statuses[2];
    run_nodes(2, mains, transport, statuses);
    assert_int_equal(statuses[0], 0);
    assert_int_equal(statuses[1], 0);
}

static void run_both_ways(node_main_t a, node_main_t b)
{
    run_pair(a, b, TRANSPORT_SHM);
    run_pair(a, b, TRANSPORT_TCP);
}

/* ---- addresses ---- */

static void main_damaged_addresses(node_t *node)
{
    const void *address;
    uint32_t bytes;
    dj_endpoint_t *endpoint = NULL;
    uint8_t copy[DJ_ADDRESS_BYTES_MAX];
    node_open(node, count_message);
    CHECK(dj_comm_address(node->comm, &address, &bytes) == DJ_OK);
    for (uint32_t cut = 0; cut < bytes; ++cut)
        CHECK(dj_endpoint_create(node->comm, address, cut, &endpoint) == DJ_ERR_PROTOCOL);
    for (uint32_t at = 0; at < bytes; ++at) {
        memcpy(copy, address, bytes);
        copy[at] ^= 0x41;
        dj_status_t status = dj_endpoint_create(node->comm, copy, bytes, &endpoint);
        CHECK(status == DJ_ERR_PROTOCOL || status == DJ_ERR_VERSION || (at == 6 || at == 7));
    }
    CHECK(dj_endpoint_create(node->comm, copy, UINT32_MAX, &endpoint) == DJ_ERR_PROTOCOL);
    for (int round = 0; round < 1000; ++round) {
        dj_random_bytes(copy, sizeof(copy));
        CHECK(dj_endpoint_create(node->comm, copy, sizeof(copy), &endpoint) == DJ_ERR_PROTOCOL);
    }
    node_close(node);
}

static void test_refuses_damaged_addresses(void **state)
{
    const node_main_t mains[] = {main_damaged_addresses};
    int status;
    run_nodes(1, mains, TRANSPORT_SHM, &status);
    assert_int_equal(status, 0);
}

/* ---- malformed messages ---- */

static void send_malformed(node_t *node, uint64_t bytes, uint8_t *data)
{
    tally_t *tally = node->state;
    test_message_t message = make_message(node, 1, bytes);
    dj_piece_t piece = {data, bytes};
    for (int fault = 0; fault < 5; ++fault) {
        test_message_t bad = message;
        uint32_t size = sizeof(bad);
        bad.header.magic ^= fault == 0;
        bad.header.version += fault == 1;
        bad.header.type = fault == 2 ? 999 : fault == 3 ? DJ_MESSAGE_HELLO : bad.header.type;
        size -= fault == 4 ? 8 : 0;
        dj_status_t status =
            dj_endpoint_send(node->endpoints[1], &bad, size, &piece, 1, on_done, tally);
        CHECK(status == DJ_OK || status == DJ_IN_PROGRESS);
        tally->sent_ok += status == DJ_OK;
    }
}

static void main_sends_malformed(node_t *node)
{
    tally_t tally = {0};
    static uint8_t data[100000];
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 1);
    send_malformed(node, 64, data);
    progress_until(node, &tally.sent_ok, 5);
    send_malformed(node, sizeof(data), data);
    progress_until(node, &tally.sent_failed, 5); /* a rendezvous is refused with a status */
    send_filled(node, 1, 9, data, 64, 1);
    node_meet(node, 1);
    node_close(node);
}

static void main_gets_malformed(node_t *node)
{
    tally_t tally = {0};
    dj_comm_counters_t counters;
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 0);
    progress_until(node, &tally.arrived, 1);
    CHECK(tally.asked == 0 && tally.arrived == 1 && tally.bad_content == 0);
    dj_comm_counters(node->comm, &counters);
    CHECK(counters.refused == 10);
    node_meet(node, 0);
    node_close(node);
}

static void test_drops_malformed_messages(void **state)
{
    run_both_ways(main_sends_malformed, main_gets_malformed);
}

/* ---- limits and refusals ---- */

static void main_breaks_limits(node_t *node)
{
    tally_t tally = {0};
    static uint8_t header[DJ_ENDPOINT_HEADER_MAX + 8];
    dj_piece_t pieces[DJ_PIECES_MAX + 1] = {0};
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 1);
    CHECK(dj_endpoint_send(node->endpoints[1], header, sizeof(header), NULL, 0, NULL, NULL) ==
          DJ_ERR_LIMIT);
    CHECK(dj_endpoint_send(node->endpoints[1], header, 64, pieces, DJ_PIECES_MAX + 1, NULL, NULL) ==
          DJ_ERR_LIMIT);
    node_meet(node, 1);
    node_close(node);
}

static void main_idles(node_t *node)
{
    tally_t tally = {0};
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 1 - node->number);
    node_meet(node, 1 - node->number);
    CHECK(tally.arrived == 0);
    node_close(node);
}

static void test_refuses_what_is_over_a_limit(void **state)
{
    run_both_ways(main_breaks_limits, main_idles);
}

static const dj_status_t refusals[] = {DJ_ERR_RESOURCE, DJ_ERR_LIMIT,       DJ_ERR_STALE,
                                       DJ_ERR_BUSY,     DJ_ERR_UNSUPPORTED, DJ_ERR_MEMORY,
                                       DJ_ERR_PROTOCOL, DJ_ERR_CANCELLED,   DJ_ERR_INVALID};
enum { N_REFUSALS = sizeof(refusals) / sizeof(refusals[0]) };

static void main_is_refused(node_t *node)
{
    tally_t tally = {0};
    uint8_t *data = malloc(1 << 20);
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 1);
    for (uint64_t i = 0; i < N_REFUSALS; ++i) {
        node_meet(node, 1);
        send_filled(node, 1, i + 1, data, 1 << 20, 1);
        progress_until(node, &tally.sent_failed, i + 1);
        CHECK(tally.sent_status == refusals[i]);
        CHECK(!dj_endpoint_failed(node->endpoints[1]));
    }
    node_meet(node, 1);
    send_filled(node, 1, 100, data, 1 << 20, 1); /* the connection lives on */
    progress_until(node, &tally.sent_ok, 1);
    node_meet(node, 1);
    node_close(node);
    free(data);
}

static void main_refuses(node_t *node)
{
    tally_t tally = {0};
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, 0);
    for (uint64_t i = 0; i < N_REFUSALS; ++i) {
        tally.answer = refusals[i];
        node_meet(node, 0);
        progress_until(node, &tally.asked, i + 1);
    }
    tally.answer = DJ_OK;
    node_meet(node, 0);
    progress_until(node, &tally.arrived, 1);
    CHECK(tally.bad_content == 0 && tally.failed == 0);
    node_meet(node, 0);
    node_close(node);
}

static void test_a_refusal_reaches_the_sender(void **state)
{
    run_both_ways(main_is_refused, main_refuses);
}

/* ---- order and content ---- */

enum { SMALL_COUNT = 5000 };

/* From the first moment on, while the endpoint is still being wired. */
static void main_streams_small(node_t *node)
{
    tally_t tally = {0};
    int other = 1 - node->number;
    static uint8_t data[SMALL_COUNT][256];
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, other);
    for (uint64_t i = 0; i < SMALL_COUNT; ++i)
        send_filled(node, other, i + 1, data[i], i % 256, i % 256 == 0 ? 0 : i % 4 + 1);
    progress_until(node, &tally.sent_ok, SMALL_COUNT);
    progress_until(node, &tally.arrived, SMALL_COUNT);
    CHECK(tally.bad_content == 0 && tally.out_of_order == 0 && tally.unaligned == 0);
    CHECK(tally.rendezvous == 0 && tally.sent_failed == 0);
    node_meet(node, other);
    node_close(node);
}

static void test_small_messages_keep_their_order(void **state)
{
    run_both_ways(main_streams_small, main_streams_small);
    run_pair(main_streams_small, main_streams_small, TRANSPORT_LOOPBACK);
}

/* Sizes around every threshold, in one piece and in many. */
static const uint64_t sizes[] = {0,     1,     1023,  1024,   1025,   8191,          8192,   32767,
                                 32768, 32769, 65536, 100001, 262144, (1 << 20) + 1, 3 << 20};
enum { N_SIZES = sizeof(sizes) / sizeof(sizes[0]), N_PIECES = 4 };

static void main_sends_all_sizes(node_t *node)
{
    tally_t tally = {0};
    int other = 1 - node->number;
    static const uint32_t pieces[N_PIECES] = {1, 2, 7, DJ_PIECES_MAX};
    uint8_t *data[N_SIZES * N_PIECES];
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, other);
    for (uint64_t i = 0; i < N_SIZES * N_PIECES; ++i) {
        data[i] = malloc(sizes[i / N_PIECES] + 1);
        send_filled(node, other, i + 1, data[i], sizes[i / N_PIECES], pieces[i % N_PIECES]);
    }
    progress_until(node, &tally.sent_ok, N_SIZES * N_PIECES);
    progress_until(node, &tally.arrived, N_SIZES * N_PIECES);
    CHECK(tally.bad_content == 0 && tally.sent_failed == 0 && tally.failed == 0);
    CHECK(tally.rendezvous == 7 * N_PIECES);
    node_meet(node, other);
    node_close(node);
}

static void test_every_size_arrives_whole(void **state)
{
    run_both_ways(main_sends_all_sizes, main_sends_all_sizes);
}

static void main_sends_big(node_t *node)
{
    tally_t tally = {0};
    int other = 1 - node->number;
    uint8_t *data[4];
    dj_comm_counters_t counters;
    node->state = &tally;
    node_open(node, count_message);
    node_join(node, other);
    for (uint64_t i = 0; i < 4; ++i) {
        data[i] = malloc(BIG);
        send_filled(node, other, i + 1, data[i], BIG, i == 3 ? 5 : 1);
    }
    progress_until(node, &tally.sent_ok, 4);
    progress_until(node, &tally.arrived, 4);
    CHECK(tally.bad_content == 0 && tally.rendezvous == 4);
    dj_comm_counters(node->comm, &counters);
    CHECK(counters.bytes_in == 4ull * BIG && counters.bytes_out == 4ull * BIG);
    CHECK(counters.messages_in == 4 && counters.rendezvous_out == 4 && counters.refused == 0);
    node_meet(node, other);
    node_close(node);
}

static void test_rendezvous_of_16_mib_both_ways_at_once(void **state)
{
    run_both_ways(main_sends_big, main_sends_big);
    run_pair(main_sends_big, main_sends_big, TRANSPORT_LOOPBACK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_damaged_addresses),
        cmocka_unit_test(test_drops_malformed_messages),
        cmocka_unit_test(test_refuses_what_is_over_a_limit),
        cmocka_unit_test(test_a_refusal_reaches_the_sender),
        cmocka_unit_test(test_small_messages_keep_their_order),
        cmocka_unit_test(test_every_size_arrives_whole),
        cmocka_unit_test(test_rendezvous_of_16_mib_both_ways_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
