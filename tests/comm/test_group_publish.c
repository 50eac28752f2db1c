/* test_group_publish.c - publications reach every member once, whoever dies on the way; and steps
 * that no member of a group would send change nothing but a counter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "comm/group_state.h"
#include "group_node.h"

enum { MEMBERS = 6, VICTIM = 4, PUBLICATIONS = 12, LARGE = 300000 };

static uint64_t size_of(uint64_t number)
{
    static const uint64_t sizes[] = {0, 1, 5000, 32768, LARGE};
    return sizes[number % 5];
}

/* ---- everyone publishes, everyone reads ---- */

typedef struct reading {
    uint32_t seen[MEMBERS][PUBLICATIONS];
} reading_t;

/* The first byte is its number at the origin; 0 bytes count as number 0. */
static void read_one(member_t *member, uint32_t origin, const void *data, uint64_t bytes)
{
    reading_t *reading = member->state;
    uint32_t number = bytes > 1 ? ((const uint8_t *)data)[0] : bytes == 1 ? 1 : 0;
    CHECK(origin < MEMBERS && origin != (uint32_t)node_number && number < PUBLICATIONS);
    if (bytes > 1) {
        CHECK(bytes == size_of(number));
        check_filled((const uint8_t *)data + 1, bytes - 1, origin);
    }
    ++reading->seen[origin][number];
}

static void publish_one(member_t *member, uint8_t *data, uint32_t number)
{
    uint64_t bytes = size_of(number), until_ns = in_ms(20000);
    dj_status_t status;
    if (bytes > 1)
        fill(data + 1, bytes - 1, (uint64_t)node_number);
    data[0] = (uint8_t)number;
    while ((status = dj_group_publish(member->group, data, bytes)) == DJ_ERR_BUSY) {
        dj_comm_wait(member->node->comm, 0, 1);
        dj_group_progress(member->group);
        CHECK(dj_clock_ns() < until_ns);
    }
    CHECK(status == DJ_OK);
    memset(data, 0xdd, bytes); /* it keeps a copy */
}

static void work_until(member_t *member, uint64_t delivered)
{
    uint64_t until_ns = in_ms(20000);
    bool busy = true;
    while (member->delivered < delivered || busy) {
        dj_comm_wait(member->node->comm, 0, 1);
        busy = dj_group_progress(member->group);
        CHECK(dj_clock_ns() < until_ns);
    }
}

static void main_publishes(node_t *node)
{
    reading_t reading = {0};
    member_t member = {.on_delivery = read_one, .state = &reading};
    dj_group_counters_t counters;
    uint8_t *data = malloc(LARGE);
    member_open(&member, node, 2);
    for (uint32_t i = 0; i < PUBLICATIONS; ++i) {
        publish_one(&member, data, i);
        if (i == 5) /* while members are in a collective */
            CHECK(dj_group_barrier(member.group, in_ms(20000)) == DJ_OK);
    }
    work_until(&member, (MEMBERS - 1) * PUBLICATIONS);
    CHECK(member.delivered == (MEMBERS - 1) * PUBLICATIONS);
    /* Numbers 0, 5, 10 are empty and 1, 6, 11 have one byte: those cannot tell who they are. */
    for (uint32_t origin = 0; origin < MEMBERS; ++origin)
        for (uint32_t i = 2; i < PUBLICATIONS && origin != (uint32_t)node->number; ++i)
            if (size_of(i) > 1)
                CHECK(reading.seen[origin][i] == 1);
    dj_group_counters(member.group, &counters);
    CHECK(counters.published == PUBLICATIONS && counters.abandoned == 0);
    CHECK(dj_group_publish(member.group, data, DJ_GROUP_PUBLISH_BYTES_MAX + 1ull) == DJ_ERR_LIMIT);
    CHECK(dj_group_barrier(member.group, in_ms(20000)) == DJ_OK);
    member_close(&member);
    free(data);
}

static void run_mains(const node_main_t *mains, int signaled)
{
    int statuses[NODES_MAX];
    run_nodes(MEMBERS, mains, TRANSPORT_SHM, statuses);
    for (int i = 0; i < MEMBERS; ++i) {
        if (i == signaled)
            assert_true(WIFSIGNALED(statuses[i]) && WTERMSIG(statuses[i]) == SIGKILL);
        else
            assert_int_equal(statuses[i], 0);
    }
}

static void test_each_reads_each_once(void **state)
{
    const node_main_t mains[MEMBERS] = {main_publishes, main_publishes, main_publishes,
                                        main_publishes, main_publishes, main_publishes};
    run_mains(mains, -1);
}

/* ---- an inner node dies with publications that its child has not got ---- */

static void main_reads(node_t *node)
{
    reading_t reading = {0};
    member_t member = {.on_delivery = read_one, .state = &reading};
    uint8_t *data = malloc(LARGE);
    uint64_t expected = node->number == 0 ? 0 : PUBLICATIONS;
    member_open(&member, node, 2);
    for (uint32_t i = 0; i < PUBLICATIONS && node->number == 0; ++i)
        publish_one(&member, data, i);
    uint64_t until_ns = in_ms(20000);
    bool busy = true;
    while (member.delivered < expected || busy) {
        dj_endpoint_t *endpoint;
        dj_comm_wait(node->comm, 0, 1);
        if (member_reach(&member, VICTIM, &endpoint) != DJ_OK)
            dj_group_lost(member.group, VICTIM);
        busy = dj_group_progress(member.group);
        CHECK(dj_clock_ns() < until_ns);
    }
    CHECK(member.delivered == expected);
    member_close(&member);
    free(data);
}

/* Dies at the fifth delivery, before it has passed that on: node 5 hangs on it. */
static void die_at_fifth(member_t *member, uint32_t origin, const void *data, uint64_t bytes)
{
    if (member->delivered == 5)
        kill(getpid(), SIGKILL);
}

static void main_reads_and_dies(node_t *node)
{
    member_t member = {.on_delivery = die_at_fifth};
    member_open(&member, node, 2);
    work_until(&member, UINT64_MAX);
}

static void test_readers_of_a_dead_member(void **state)
{
    const node_main_t mains[MEMBERS] = {main_reads, main_reads,          main_reads,
                                        main_reads, main_reads_and_dies, main_reads};
    for (int i = 0; i < 3; ++i)
        run_mains(mains, VICTIM);
}

/* ---- nonsense ---- */

static dj_status_t never_reached(void *context, uint32_t member, dj_endpoint_t **endpoint_p)
{
    return DJ_IN_PROGRESS;
}

typedef struct message {
    dj_header_t header;
    dj_group_step_t step;
} message_t;

static dj_status_t hand(dj_group_t *group, dj_group_step_t step, uint64_t payload_bytes,
                        bool rendezvous)
{
    static uint8_t payload[1 << 20];
    void *memory = NULL, *token = NULL;
    message_t message = {
        {.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION, .type = DJ_MESSAGE_GROUP}, step};
    const dj_incoming_t incoming = {.header = &message.header,
                                    .body = &message.step,
                                    .payload = rendezvous ? NULL : payload,
                                    .payload_bytes = payload_bytes,
                                    .rendezvous = rendezvous};
    return dj_group_message(group, &incoming, &memory, &token);
}

/* Nothing is sent by it, so any address serves as its comm. */
static dj_group_t *lonely_group(void)
{
    static int nothing;
    const dj_group_options_t options = {
        .comm = (dj_comm_t *)&nothing, .members = 4, .me = 2, .reach = never_reached};
    dj_group_t *group;
    assert_int_equal(dj_group_create(&options, &group), DJ_OK);
    return group;
}

static void test_nonsense_is_refused(void **state)
{
    dj_group_t *group = lonely_group();
    const dj_group_step_t good = {
        .round = 1, .bytes = 1000, .kind = DJ_GROUP_BROADCAST, .step = DJ_STEP_ASK, .from = 1};
    assert_int_equal(hand(group, good, 0, false), DJ_OK);
    dj_group_step_t bad[16];
    for (int i = 0; i < 16; ++i)
        bad[i] = good;
    bad[0].kind = 0;
    bad[1].kind = 5;
    bad[2].step = 0;
    bad[3].step = 8;
    bad[4].from = 4;
    bad[5].from = 2; /* this member itself */
    bad[6].root = 4;
    bad[7].round = 0;
    bad[8].bytes = DJ_GROUP_BYTES_MAX + 1ull;
    bad[9].kind = DJ_GROUP_BARRIER; /* with bytes */
    bad[10].kind = DJ_GROUP_GATHER;
    bad[10].bytes = DJ_GROUP_BYTES_MAX / 4 + 1;
    bad[11].step = DJ_STEP_OFFER;
    bad[12].step = DJ_STEP_SEND;
    bad[13].round = UINT64_MAX;
    bad[14].kind = DJ_GROUP_PUBLISH;
    bad[14].step = DJ_STEP_OFFER;
    bad[14].bytes = DJ_GROUP_PUBLISH_BYTES_MAX + 1ull;
    bad[15].kind = UINT32_MAX;
    for (int i = 0; i < 16; ++i)
        if (hand(group, bad[i], 0, false) == DJ_OK)
            fail_msg("bad step %d was taken", i);
    assert_int_not_equal(hand(group, good, 1, false), DJ_OK); /* a payload where none belongs */
    assert_int_not_equal(hand(group, good, 1, true), DJ_OK);
    dj_group_counters_t counters;
    dj_group_counters(group, &counters);
    assert_int_equal(counters.refused, 18);
    dj_group_destroy(group);
}

/* Parts are refused unless they are exactly what was asked for, and once. */
static void test_parts_out_of_place(void **state)
{
    dj_group_t *group = lonely_group();
    enum { BYTES = DJ_GROUP_PART_BYTES * 2 + 5 };
    uint8_t *data = malloc(BYTES);
    dj_group_step_t part = {.round = 1,
                            .bytes = BYTES,
                            .offset = 0,
                            .kind = DJ_GROUP_BROADCAST,
                            .step = DJ_STEP_PART,
                            .from = 0};
    assert_int_not_equal(hand(group, part, DJ_GROUP_PART_BYTES, true), DJ_OK); /* no round */
    dj_group_round_state_t *round = &group->round;
    *round = (dj_group_round_state_t){.open = true,
                                      .asked = true,
                                      .kind = DJ_GROUP_BROADCAST,
                                      .place = 2,
                                      .next_source = DJ_GROUP_NOBODY,
                                      .number = 1,
                                      .bytes = BYTES,
                                      .data = data,
                                      .part_bytes = DJ_GROUP_PART_BYTES,
                                      .parts = 3};
    group->next_round = 2;
    static const struct {
        uint64_t round, bytes, offset, payload;
        uint32_t from, root;
    } bad[] = {
        {2, BYTES, 0, DJ_GROUP_PART_BYTES, 0, 0},
        {1, BYTES - 1, 0, DJ_GROUP_PART_BYTES, 0, 0},
        {1, BYTES, 1, DJ_GROUP_PART_BYTES, 0, 0},
        {1, BYTES, 0, DJ_GROUP_PART_BYTES - 1, 0, 0},
        {1, BYTES, BYTES - 4, 5, 0, 0},
        {1, BYTES, UINT64_MAX - 1, 5, 0, 0},
        {1, BYTES, DJ_GROUP_PART_BYTES * 2, 6, 0, 0},
        {1, BYTES, BYTES, 0, 0, 0},
        {1, BYTES, 0, DJ_GROUP_PART_BYTES, 1, 0},
        {1, BYTES, 0, DJ_GROUP_PART_BYTES, 0, 3},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); ++i) {
        dj_group_step_t step = part;
        step.round = bad[i].round;
        step.bytes = bad[i].bytes;
        step.offset = bad[i].offset;
        step.from = bad[i].from;
        step.root = bad[i].root;
        if (hand(group, step, bad[i].payload, true) == DJ_OK)
            fail_msg("bad part %zu was taken", i);
    }
    assert_int_equal(hand(group, part, DJ_GROUP_PART_BYTES, true), DJ_OK);
    assert_int_not_equal(hand(group, part, DJ_GROUP_PART_BYTES, true), DJ_OK); /* twice */
    part.offset = DJ_GROUP_PART_BYTES * 2;
    assert_int_equal(hand(group, part, 5, false), DJ_OK);
    assert_int_equal(round->have, 0); /* not the first */
    dj_group_destroy(group);
    free(data);
}

/* What a peer offers is bounded, and a publication is taken once. */
static void test_offers_are_bounded(void **state)
{
    dj_group_t *group = lonely_group();
    dj_group_step_t offer = {.bytes = DJ_GROUP_PUBLISH_BYTES_MAX,
                             .kind = DJ_GROUP_PUBLISH,
                             .step = DJ_STEP_OFFER,
                             .from = 0};
    for (offer.round = 1; offer.round < 1000; ++offer.round)
        assert_int_equal(hand(group, offer, 0, false), DJ_OK);
    assert_true(group->publication_bytes <= 64u << 20);
    offer.bytes = 10;
    for (; offer.round < 2000; ++offer.round)
        assert_int_equal(hand(group, offer, 0, false), DJ_OK);
    assert_true(group->n_publications <= 4);
    for (offer.root = 0; offer.root < 4; ++offer.root)
        hand(group, offer, 0, false);
    assert_true(group->n_publications <= 16);
    offer.root = 0;
    offer.step = DJ_STEP_PART;
    offer.round = 1000;
    assert_int_not_equal(hand(group, offer, 10, false), DJ_OK); /* not asked for yet */
    dj_group_destroy(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_parts_out_of_place),
        cmocka_unit_test(test_offers_are_bounded),
        cmocka_unit_test(test_each_reads_each_once),
        cmocka_unit_test(test_readers_of_a_dead_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
