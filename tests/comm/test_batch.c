/* test_batch.c - small messages that leave together, and checksums: between real processes over shared
 * memory and tcp; what is damaged or lies first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "comm/ucx.h"
#include "node.h"

enum { ASKED = 200, SMALL = 100, BATCH_BYTES = 1400 };

/* ---- checksums ---- */

static void every_bit_counts(void **state)
{
    _Alignas(8) uint8_t header[96], payload[300];
    const dj_piece_t pieces[] = {{payload, 100}, {payload + 100, 0}, {payload + 100, 200}};
    memset(header, 1, sizeof(header));
    memset(payload, 2, sizeof(payload));
    dj_checksum_put(header, sizeof(header), pieces, 3);
    assert_true(dj_checksum_good(header, sizeof(header), payload, sizeof(payload)));
    for (size_t bit = 0; bit < sizeof(payload) * 8; ++bit) {
        payload[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(dj_checksum_good(header, sizeof(header), payload, sizeof(payload)));
        payload[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t bit = 0; bit < sizeof(header) * 8; ++bit) {
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(dj_checksum_good(header, sizeof(header), payload, sizeof(payload)));
        header[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_false(dj_checksum_good(header, sizeof(header), payload, sizeof(payload) - 1));
    assert_false(dj_checksum_good(header, sizeof(header) - 8, payload, sizeof(payload)));
    dj_checksum_put(header, sizeof(header), NULL, 0);
    assert_true(dj_checksum_good(header, sizeof(header), NULL, 0));
    assert_true(dj_checksum_good(header, sizeof(header), payload, 0));
    memset(header + offsetof(dj_header_t, checksum), 0, 8); /* 0: none was agreed */
    assert_true(dj_checksum_good(header, sizeof(header), payload, sizeof(payload)));
}

/* ---- batches ---- */

static void open_batching(node_t *node, dj_message_fn_t handler)
{
    const dj_comm_options_t options = {.shared_memory = node->transport == TRANSPORT_SHM,
                                       .batch_bytes = BATCH_BYTES,
                                       .on_message = handler,
                                       .context = node};
    CHECK(dj_comm_create(&options, &node->comm) == DJ_OK);
}

static uint64_t size_of(uint64_t request)
{
    return request % 17 == 0 ? 5000 : request * 13 % SMALL; /* now and then one too large to wait */
}

static void send_one(node_t *node, uint64_t request)
{
    static uint8_t payload[5000];
    uint64_t bytes = size_of(request);
    test_message_t message = make_message(node, request, bytes);
    const dj_piece_t pieces[] = {{payload, bytes / 2}, {payload + bytes / 2, bytes - bytes / 2}};
    memset(payload, (int)request, sizeof(payload));
    dj_status_t status = dj_endpoint_send(node->endpoints[1 - node->number], &message,
                                          sizeof(message), pieces, 2, NULL, NULL);
    CHECK(status == DJ_OK || status == DJ_IN_PROGRESS);
    while (status == DJ_IN_PROGRESS && !dj_endpoint_ready(node->endpoints[1 - node->number]))
        dj_comm_progress(node->comm);
}

/* The asked one answers a question with many messages from inside its handler. */
static dj_status_t answer_many(void *context, const dj_incoming_t *incoming, void **memory_p,
                               void **token_p)
{
    for (uint64_t i = 1; i <= ASKED; ++i)
        send_one(context, i);
    return DJ_OK;
}

static dj_status_t count_answers(void *context, const dj_incoming_t *incoming, void **memory_p,
                                 void **token_p)
{
    node_t *node = context;
    uint64_t *last = node->state;
    const uint8_t *payload = incoming->payload;
    CHECK((uintptr_t)incoming->header % 8 == 0);
    CHECK(incoming->header->request == *last + 1); /* in the order they were said */
    CHECK(incoming->payload_bytes == size_of(incoming->header->request));
    CHECK(!incoming->corrupt);
    for (uint64_t i = 0; i < incoming->payload_bytes; ++i)
        CHECK(payload[i] == (uint8_t)incoming->header->request);
    ++*last;
    return DJ_OK;
}

static void wire(node_t *node)
{
    node_join(node, 1 - node->number);
    while (!dj_endpoint_ready(node->endpoints[1 - node->number]))
        dj_comm_wait(node->comm, 20000, 10);
    dj_endpoint_set_checksum(node->endpoints[1 - node->number], true);
    node_meet(node, 1 - node->number);
}

static void asking_main(node_t *node)
{
    uint64_t last = 0, until_ns = dj_clock_ns() + 10 * DJ_NS_PER_S;
    dj_comm_counters_t counters;
    node->state = &last;
    open_batching(node, count_answers);
    wire(node);
    send_one(node, 1);
    while (last < ASKED && dj_clock_ns() < until_ns)
        dj_comm_wait(node->comm, 20000, 10);
    CHECK(last == ASKED);
    dj_comm_counters(node->comm, &counters);
    CHECK(counters.batches_in >= ASKED * SMALL / 2 / BATCH_BYTES / 2);
    CHECK(counters.batches_in + ASKED / 17 + 1 < ASKED / 3); /* far fewer than the messages */
    CHECK(counters.messages_in == ASKED && counters.refused == 0 && counters.corrupt == 0);
    node_meet(node, 1);
    node_close(node);
}

static void asked_main(node_t *node)
{
    open_batching(node, answer_many);
    wire(node);
    node_meet(node, 0);
    node_close(node);
}

/* Outside of progress every message leaves when it is said; between cork and uncork the first does. */
static void lone_main(node_t *node)
{
    dj_comm_counters_t counters;
    open_batching(node, answer_many);
    wire(node);
    for (uint64_t i = 1; i <= 10; ++i)
        send_one(node, i);
    dj_comm_counters(node->comm, &counters);
    CHECK(counters.messages_out == 10 && counters.batches_out == 0);
    dj_comm_cork(node->comm);
    send_one(node, 11);
    dj_comm_counters(node->comm, &counters);
    CHECK(counters.messages_out == 11); /* a lone one is not kept back */
    send_one(node, 12);
    send_one(node, 13);
    dj_comm_counters(node->comm, &counters);
    CHECK(counters.messages_out == 11);
    dj_comm_uncork(node->comm);
    dj_comm_counters(node->comm, &counters);
    CHECK(counters.messages_out == 12 && counters.batches_out == 1);
    dj_comm_cork(node->comm);
    send_one(node, 14);
    send_one(node, 15);
    dj_comm_uncork(node->comm); /* one that waited alone travels without a wrapping */
    dj_comm_counters(node->comm, &counters);
    CHECK(counters.messages_out == 14 && counters.batches_out == 1);
    node_meet(node, 1);
    node_close(node);
}

static void listening_main(node_t *node)
{
    uint64_t last = 0, until_ns = dj_clock_ns() + 10 * DJ_NS_PER_S;
    node->state = &last;
    open_batching(node, count_answers);
    wire(node);
    while (last < 15 && dj_clock_ns() < until_ns)
        dj_comm_wait(node->comm, 20000, 10);
    CHECK(last == 15);
    node_meet(node, 0);
    node_close(node);
}

static void run_both(node_main_t first, node_main_t second)
{
    const node_main_t mains[] = {first, second};
    int statuses[2];
    for (int transport = TRANSPORT_SHM; transport <= TRANSPORT_TCP; ++transport) {
        run_nodes(2, mains, (transport_t)transport, statuses);
        assert_int_equal(statuses[0], 0);
        assert_int_equal(statuses[1], 0);
    }
}

static void many_answers_travel_together(void **state)
{
    run_both(asking_main, asked_main);
}

static void a_lone_message_leaves_at_once(void **state)
{
    run_both(lone_main, listening_main);
}

int main(void)
{
    dj_hash_setup();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(many_answers_travel_together),
        cmocka_unit_test(a_lone_message_leaves_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
