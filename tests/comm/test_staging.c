/* test_staging.c - the staging ring over a fake device whose copies end late, in any order, or
 * badly, and over a network that the test plays itself. What happens is written down as words
 * (C2: the copy of part 2 starts, E2: it ends, S2: it is sent, R2: its slot comes back, D: done),
 * and order is asserted of the words, never of time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "comm/staging.h"
#include "fake_device.h"

#include "../gpu/allocations.h"

enum { PART = 64, SLOTS = 4, PARTS_MAX = 16 };

static uint8_t device[PART * PARTS_MAX];
static char words[1024];

static void say(char what, uint64_t part)
{
    size_t at = strlen(words);
    snprintf(words + at, sizeof(words) - at, "%s%c%llu", at ? " " : "", what,
             (unsigned long long)part);
}

static void say_start(unsigned number, const void *source, size_t size)
{
    (void)number;
    (void)size;
    say('C', (uint64_t)((const uint8_t *)source - device) / PART);
}

/* A network that keeps what it is given until released. */
typedef struct wire {
    dj_staging_t *ring;
    uint64_t base;      /* where in `device` its transfers begin */
    dj_status_t answer; /* to the next parts */
    uint32_t slots[PARTS_MAX];
    unsigned sent, done;
    dj_status_t status;
} wire_t;

static dj_status_t on_send(void *argument, uint32_t slot, const void *host, uint64_t bytes,
                           uint64_t offset)
{
    wire_t *wire = argument;
    say('S', offset / PART);
    if (wire->answer != DJ_IN_PROGRESS)
        return wire->answer;
    assert_memory_equal(host, device + wire->base + offset, bytes);
    wire->slots[offset / PART] = slot;
    ++wire->sent;
    return DJ_IN_PROGRESS;
}

static void on_done(void *argument, dj_status_t status)
{
    wire_t *wire = argument;
    size_t at = strlen(words);
    snprintf(words + at, sizeof(words) - at, " D");
    ++wire->done;
    wire->status = status;
}

static void release(wire_t *wire, unsigned part, dj_status_t status)
{
    say('R', part);
    dj_staging_release(wire->ring, wire->slots[part], status);
}

static void end_copy(unsigned part, dj_status_t status)
{
    fake_copy_t *copy = fake_find(device + part * PART);
    assert_non_null(copy);
    say('E', part);
    fake_end(copy, status);
}

static void begin(wire_t *wire, uint32_t slots)
{
    fake_reset();
    fake.patience = FAKE_NEVER;
    fake.on_start = say_start;
    words[0] = '\0';
    for (size_t i = 0; i < sizeof(device); ++i)
        device[i] = (uint8_t)(i * 7 + i / PART);
    *wire = (wire_t){.answer = DJ_IN_PROGRESS};
    assert_int_equal(dj_staging_create(&fake_ops, slots, PART, &wire->ring), DJ_OK);
    assert_true(dj_staging_idle(wire->ring));
}

static void send_out(wire_t *wire, uint64_t bytes)
{
    assert_int_equal(dj_staging_out(wire->ring, device, bytes, on_send, on_done, wire),
                     DJ_IN_PROGRESS);
}

static void end(wire_t *wire)
{
    assert_true(dj_staging_idle(wire->ring));
    assert_false(dj_staging_restless(wire->ring));
    dj_staging_destroy(wire->ring);
    assert_int_equal(fake.pinned, 0);
    assert_int_equal(fake_prepared(), 0);
    assert_int_equal(fake.waited, 0);
}

/* ---- creation ---- */

static void bad_sizes_are_refused(void **state)
{
    static const struct {
        uint32_t slots;
        uint64_t bytes;
    } bad[] = {{0, PART},
               {SLOTS, 0},
               {DJ_STAGING_SLOTS_MAX + 1, PART},
               {UINT32_MAX, PART},
               {SLOTS, DJ_STAGING_SLOT_BYTES_MAX + 1},
               {SLOTS, UINT64_MAX}};
    dj_staging_t *ring = NULL;
    fake_reset();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); ++i)
        assert_int_equal(dj_staging_create(&fake_ops, bad[i].slots, bad[i].bytes, &ring),
                         DJ_ERR_INVALID);
    assert_null(ring);
    dj_staging_destroy(NULL);
}

static void a_device_that_gives_nothing_leaves_nothing(void **state)
{
    dj_staging_t *ring = NULL;
    fake_reset();
    fake.fail_pin = true;
    assert_int_equal(dj_staging_create(&fake_ops, SLOTS, PART, &ring), DJ_ERR_MEMORY);
    fake.fail_pin = false;
    for (unsigned nth = 1; nth <= 2 * SLOTS; ++nth) {
        fake.fail_prepare = nth;
        assert_int_equal(dj_staging_create(&fake_ops, SLOTS, PART, &ring), DJ_ERR_RESOURCE);
        assert_int_equal(fake_prepared(), 0);
        assert_int_equal(fake.pinned, 0);
    }
    assert_null(ring);
}

/* ---- order ---- */

static void the_next_part_is_copied_while_one_is_on_the_wire(void **state)
{
    wire_t wire;
    begin(&wire, 2);
    send_out(&wire, 4 * PART);
    end_copy(0, DJ_OK);
    assert_int_equal(dj_staging_progress(wire.ring), 1);
    end_copy(1, DJ_OK);
    dj_staging_progress(wire.ring);
    assert_false(dj_staging_restless(wire.ring));
    assert_int_equal(dj_staging_progress(wire.ring), 0);
    release(&wire, 0, DJ_OK);
    assert_true(dj_staging_restless(wire.ring));
    end_copy(2, DJ_OK);
    release(&wire, 1, DJ_OK);
    dj_staging_progress(wire.ring);
    end_copy(3, DJ_OK);
    dj_staging_progress(wire.ring);
    release(&wire, 2, DJ_OK);
    dj_staging_progress(wire.ring);
    release(&wire, 3, DJ_OK);
    assert_true(dj_staging_restless(wire.ring));
    dj_staging_progress(wire.ring);
    /* Between S0 and R0 part 1 is copied from C1 to E1; the same of 1 and 2, of 2 and 3. */
    assert_string_equal(words, "C0 C1 E0 S0 E1 S1 R0 C2 E2 R1 C3 S2 E3 S3 R2 R3 D");
    assert_int_equal(wire.status, DJ_OK);
    end(&wire);
}

static void parts_leave_in_order_however_copies_end(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    send_out(&wire, 5 * PART - 3);
    end_copy(3, DJ_OK);
    dj_staging_progress(wire.ring);
    end_copy(1, DJ_OK);
    assert_int_equal(dj_staging_progress(wire.ring), 0);
    end_copy(0, DJ_OK);
    assert_int_equal(dj_staging_progress(wire.ring), 2);
    end_copy(2, DJ_OK);
    dj_staging_progress(wire.ring);
    release(&wire, 2, DJ_OK);
    end_copy(4, DJ_OK);
    dj_staging_progress(wire.ring);
    for (unsigned part = 0; part < 5; ++part)
        if (part != 2)
            release(&wire, part, DJ_OK);
    assert_int_equal(wire.done, 0); /* callbacks come from progress alone */
    dj_staging_progress(wire.ring);
    assert_string_equal(words, "C0 C1 C2 C3 E3 E1 E0 S0 S1 E2 S2 S3 R2 C4 E4 S4 R0 R1 R3 R4 D");
    end(&wire);
}

static void transfers_leave_in_the_order_they_came(void **state)
{
    wire_t first, second;
    begin(&first, SLOTS);
    second = first;
    second.base = 2 * PART;
    fake.patience = 0;
    send_out(&first, 2 * PART);
    assert_int_equal(dj_staging_out(first.ring, device + 2 * PART, PART, on_send, on_done, &second),
                     DJ_IN_PROGRESS);
    dj_staging_progress(first.ring);
    dj_staging_release(first.ring, second.slots[0], DJ_OK);
    dj_staging_progress(first.ring);
    assert_int_equal(second.done, 1); /* it need not wait for its elder */
    assert_int_equal(first.done, 0);
    release(&first, 0, DJ_OK);
    release(&first, 1, DJ_OK);
    dj_staging_progress(first.ring);
    assert_string_equal(words, "C0 C1 C2 S0 S1 S0 D R0 R1 D");
    end(&first);
}

/* ---- back-pressure ---- */

static void a_full_ring_waits(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    fake.patience = 0;
    send_out(&wire, PARTS_MAX * PART);
    for (int round = 0; round < 10; ++round)
        dj_staging_progress(wire.ring);
    assert_string_equal(words, "C0 C1 C2 C3 S0 S1 S2 S3");
    assert_false(dj_staging_restless(wire.ring));
    for (unsigned part = 0; part < PARTS_MAX; ++part) {
        assert_true(wire.sent - part <= SLOTS);
        release(&wire, part, DJ_OK);
        dj_staging_progress(wire.ring);
    }
    assert_int_equal(wire.done, 1);
    assert_int_equal(wire.sent, PARTS_MAX);
    end(&wire);
}

static void a_part_refused_is_offered_again(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    fake.patience = 0;
    wire.answer = DJ_ERR_BUSY;
    send_out(&wire, 2 * PART);
    assert_true(dj_staging_restless(wire.ring));
    dj_staging_progress(wire.ring);
    assert_false(dj_staging_restless(wire.ring)); /* the peer's credit wakes us */
    dj_staging_progress(wire.ring);
    wire.answer = DJ_OK; /* sent at once: no release follows */
    dj_staging_progress(wire.ring);
    assert_string_equal(words, "C0 C1 S0 S0 S0 S1 D");
    assert_int_equal(wire.status, DJ_OK);
    end(&wire);
}

static void a_ring_takes_so_many_transfers(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    fake.patience = 0;
    wire.answer = DJ_OK;
    assert_int_equal(dj_staging_out(wire.ring, device, 0, on_send, on_done, &wire), DJ_OK);
    for (unsigned i = 0; i < DJ_STAGING_TRANSFERS_MAX; ++i)
        send_out(&wire, 1);
    assert_int_equal(dj_staging_out(wire.ring, device, 1, on_send, on_done, &wire), DJ_ERR_BUSY);
    while (!dj_staging_idle(wire.ring))
        dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, DJ_STAGING_TRANSFERS_MAX);
    send_out(&wire, 1);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, DJ_STAGING_TRANSFERS_MAX + 1);
    end(&wire);
}

/* ---- incoming ---- */

static void incoming_parts_land_in_any_order(void **state)
{
    wire_t wire;
    uint32_t slots[SLOTS], more;
    void *host[SLOTS], *none;
    uint8_t target[SLOTS * PART] = {0};
    begin(&wire, SLOTS);
    fake.on_start = NULL;
    for (unsigned i = 0; i < SLOTS; ++i) {
        assert_int_equal(dj_staging_in(wire.ring, &slots[i], &host[i]), DJ_OK);
        memset(host[i], (int)i + 1, PART);
    }
    assert_int_equal(dj_staging_in(wire.ring, &more, &none), DJ_ERR_BUSY);
    for (unsigned i = 0; i < SLOTS; ++i)
        assert_int_equal(
            dj_staging_land(wire.ring, slots[i], target + i * PART, PART, on_done, &wire),
            DJ_IN_PROGRESS);
    assert_int_equal(dj_staging_in(wire.ring, &more, &none), DJ_ERR_BUSY); /* until they landed */
    for (unsigned i = SLOTS; i-- > 0;) {
        assert_int_equal(wire.done, SLOTS - 1 - i);
        assert_int_equal(target[i * PART], 0);
        fake_end(fake_find(target + i * PART), DJ_OK);
        dj_staging_progress(wire.ring);
        assert_int_equal(target[i * PART + PART - 1], i + 1);
    }
    assert_int_equal(wire.done, SLOTS);
    assert_int_equal(dj_staging_in(wire.ring, &more, &none), DJ_OK);
    dj_staging_release(wire.ring, more, DJ_ERR_PEER_DIED); /* it did not come */
    end(&wire);
}

static void incoming_parts_can_fail(void **state)
{
    wire_t wire;
    uint32_t slot;
    void *host;
    uint8_t target[PART];
    begin(&wire, 1);
    fake.on_start = NULL;
    assert_int_equal(dj_staging_in(wire.ring, &slot, &host), DJ_OK);
    assert_int_equal(dj_staging_land(wire.ring, slot, target, PART + 1, on_done, &wire),
                     DJ_ERR_INVALID);
    assert_int_equal(dj_staging_in(wire.ring, &slot, &host), DJ_OK);
    fake.fail_start = 1;
    assert_int_equal(dj_staging_land(wire.ring, slot, target, PART, on_done, &wire), DJ_ERR_SYSTEM);
    assert_int_equal(dj_staging_in(wire.ring, &slot, &host), DJ_OK);
    assert_int_equal(dj_staging_land(wire.ring, slot, target, PART, on_done, &wire),
                     DJ_IN_PROGRESS);
    assert_int_equal(wire.done, 0);
    fake_end(fake_find(target), DJ_ERR_RESOURCE);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 1);
    assert_int_equal(wire.status, DJ_ERR_RESOURCE);
    end(&wire);
}

static void the_directions_do_not_share_slots(void **state)
{
    wire_t wire;
    uint32_t slot;
    void *host;
    begin(&wire, 1);
    fake.patience = 0;
    send_out(&wire, PART);
    dj_staging_progress(wire.ring);
    assert_int_equal(dj_staging_in(wire.ring, &slot, &host), DJ_OK);
    assert_int_equal(dj_staging_land(wire.ring, slot, device + PART, PART, on_done, &wire),
                     DJ_IN_PROGRESS);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 1);
    release(&wire, 0, DJ_OK);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 2);
    end(&wire);
}

/* ---- failure ---- */

static void a_copy_that_fails_ends_its_transfer_alone(void **state)
{
    wire_t wire, next;
    begin(&wire, SLOTS);
    next = wire;
    next.base = 8 * PART;
    send_out(&wire, 8 * PART);
    assert_int_equal(dj_staging_out(wire.ring, device + 8 * PART, PART, on_send, on_done, &next),
                     DJ_IN_PROGRESS);
    end_copy(0, DJ_OK);
    dj_staging_progress(wire.ring);
    end_copy(1, DJ_ERR_SYSTEM);
    end_copy(2, DJ_OK);
    dj_staging_progress(wire.ring); /* 1 is lost, 2 is not sent, 3 is still being copied */
    assert_int_equal(wire.done, 0);
    end_copy(8, DJ_OK);
    end_copy(3, DJ_OK);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 0); /* 0 is on the wire */
    release(&wire, 0, DJ_OK);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 1);
    assert_int_equal(wire.status, DJ_ERR_SYSTEM);
    assert_int_equal(next.done, 0);
    dj_staging_release(wire.ring, next.slots[0], DJ_OK);
    dj_staging_progress(wire.ring);
    assert_int_equal(next.status, DJ_OK);
    assert_int_equal(next.done, 1);
    assert_string_equal(words, "C0 C1 C2 C3 E0 S0 E1 E2 C8 E8 E3 S0 R0 D D");
    end(&wire);
}

static void a_copy_that_does_not_start_fails(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    fake.patience = 0;
    fake.fail_start = 2;
    send_out(&wire, 8 * PART);
    assert_int_equal(fake.started, 2); /* and no third */
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 1);
    assert_int_equal(wire.status, DJ_ERR_SYSTEM);
    assert_int_equal(wire.sent, 0);
    end(&wire);
}

static void a_send_that_fails_ends_its_transfer(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    fake.patience = 0;
    wire.answer = DJ_ERR_PEER_DIED;
    send_out(&wire, 8 * PART);
    dj_staging_progress(wire.ring);
    assert_string_equal(words, "C0 C1 C2 C3 S0 D");
    assert_int_equal(wire.status, DJ_ERR_PEER_DIED);
    /* Late: the network says so when it gives the slot back. */
    wire.answer = DJ_IN_PROGRESS;
    send_out(&wire, 6 * PART);
    dj_staging_progress(wire.ring);
    release(&wire, 1, DJ_ERR_LIMIT);
    release(&wire, 0, DJ_ERR_PEER_DIED);
    release(&wire, 3, DJ_OK);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 1);
    release(&wire, 2, DJ_OK);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 2);
    assert_int_equal(wire.status, DJ_ERR_LIMIT); /* the first cause */
    assert_int_equal(wire.sent, SLOTS);
    end(&wire);
}

static void a_lost_peer_ends_all(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    send_out(&wire, 2 * PART);
    send_out(&wire, 2 * PART);
    send_out(&wire, 2 * PART);
    fake_end(fake_find(device), DJ_OK);
    dj_staging_progress(wire.ring);
    wire.answer = DJ_ERR_BUSY;
    dj_staging_fail(wire.ring, DJ_ERR_PEER_DIED);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 1); /* the third had no slot yet */
    for (unsigned i = 0; i < FAKE_COPIES_MAX; ++i)
        fake_end(&fake.copies[i], DJ_OK);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 2);
    release(&wire, 0, DJ_ERR_CANCELLED);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.done, 3);
    assert_int_equal(wire.status, DJ_ERR_PEER_DIED);
    end(&wire);
}

static void a_refused_part_of_a_lost_peer_is_not_forgotten(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    fake.patience = 0;
    wire.answer = DJ_ERR_BUSY;
    send_out(&wire, PART);
    dj_staging_progress(wire.ring);
    assert_false(dj_staging_restless(wire.ring));
    dj_staging_fail(wire.ring, DJ_ERR_PEER_DIED);
    assert_true(dj_staging_restless(wire.ring));
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.status, DJ_ERR_PEER_DIED);
    end(&wire);
}

/* ---- the end of a ring ---- */

static void the_end_waits_for_copies_and_not_for_the_network(void **state)
{
    wire_t wire, landing;
    uint32_t slot;
    void *host;
    uint8_t target[PART];
    begin(&wire, SLOTS);
    landing = wire;
    assert_int_equal(dj_staging_in(wire.ring, &slot, &host), DJ_OK);
    assert_int_equal(dj_staging_land(wire.ring, slot, target, PART, on_done, &landing),
                     DJ_IN_PROGRESS);
    assert_int_equal(dj_staging_in(wire.ring, &slot, &host), DJ_OK);
    send_out(&wire, 8 * PART);
    send_out(&wire, PART);
    end_copy(0, DJ_OK);
    dj_staging_progress(wire.ring);
    dj_staging_destroy(wire.ring);
    assert_int_equal(fake.waited, 4); /* parts 1 to 3, and the one that lands */
    assert_int_equal(wire.done, 2);
    assert_int_equal(wire.status, DJ_ERR_CANCELLED);
    assert_int_equal(landing.status, DJ_ERR_CANCELLED);
    assert_int_not_equal(fake.pinned, 0);
    memset(host, 1, PART); /* the network still writes to one slot and reads another */
    dj_staging_release(wire.ring, slot, DJ_OK);
    assert_int_not_equal(fake.pinned, 0);
    release(&wire, 0, DJ_OK);
    assert_int_equal(fake.pinned, 0);
    assert_int_equal(fake_prepared(), 0);
}

static void release_in_done(void *argument, dj_status_t status)
{
    wire_t *wire = argument;
    ++wire->done;
    assert_int_equal(status, DJ_ERR_CANCELLED);
    assert_int_equal(dj_staging_out(wire->ring, device, 1, on_send, on_done, wire),
                     DJ_ERR_CANCELLED);
    if (wire->sent > 0)
        dj_staging_release(wire->ring, wire->slots[--wire->sent], status);
}

static void the_end_may_be_answered_by_releases(void **state)
{
    wire_t wire;
    begin(&wire, SLOTS);
    fake.patience = 0;
    assert_int_equal(dj_staging_out(wire.ring, device, PART, on_send, release_in_done, &wire),
                     DJ_IN_PROGRESS);
    dj_staging_progress(wire.ring);
    assert_int_equal(wire.sent, 1);
    assert_int_equal(dj_staging_out(wire.ring, device, PART, on_send, release_in_done, &wire),
                     DJ_IN_PROGRESS);
    dj_staging_destroy(wire.ring);
    assert_int_equal(wire.done, 2);
    assert_int_equal(fake.pinned, 0);
}

/* ---- at random ---- */

enum { BIG = (8 << 20) + 3, TRANSFERS = 40, RING_PART = 1 << 20 };

static uint64_t random_state = 0x2545f4914f6cdd1dull;

static uint64_t draw(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

typedef struct parcel {
    struct exchange *exchange;
    uint8_t *target;
    uint32_t from; /* the sending slot */
    uint64_t bytes, offset;
    bool used;
    uint32_t slot;
} parcel_t;

/* Two rings, a wire that delivers in any order, and sends or refuses as it likes. */
typedef struct exchange {
    dj_staging_t *out, *in;
    parcel_t parcels[SLOTS];
    uint64_t landed, done, peak;
    dj_status_t status;
} exchange_t;

typedef struct job {
    exchange_t *exchange;
    uint8_t *target;
} job_t;

static unsigned in_flight(const exchange_t *exchange)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SLOTS; ++i)
        count += exchange->parcels[i].used;
    return count;
}

static dj_status_t random_send(void *argument, uint32_t slot, const void *host, uint64_t bytes,
                               uint64_t offset)
{
    job_t *job = argument;
    exchange_t *exchange = job->exchange;
    uint32_t to;
    void *memory;
    if (draw(4) == 0 || dj_staging_in(exchange->in, &to, &memory) != DJ_OK)
        return DJ_ERR_BUSY;
    memcpy(memory, host, bytes);
    for (unsigned i = 0; i < SLOTS; ++i) {
        if (exchange->parcels[i].used)
            continue;
        exchange->parcels[i] = (parcel_t){exchange, job->target, slot, bytes, offset, true, to};
        if (in_flight(exchange) > exchange->peak)
            exchange->peak = in_flight(exchange);
        return DJ_IN_PROGRESS;
    }
    assert_true(false); /* more parts than slots */
    return DJ_ERR_INTERNAL;
}

static void parcel_landed(void *argument, dj_status_t status)
{
    exchange_t *exchange = argument;
    assert_int_equal(status, DJ_OK);
    ++exchange->landed;
}

static void job_done(void *argument, dj_status_t status)
{
    job_t *job = argument;
    assert_int_equal(status, DJ_OK);
    ++job->exchange->done;
}

static void deliver_one(exchange_t *exchange)
{
    parcel_t *parcel = &exchange->parcels[draw(SLOTS)];
    if (!parcel->used)
        return;
    parcel->used = false;
    assert_int_equal(dj_staging_land(exchange->in, parcel->slot, parcel->target + parcel->offset,
                                     parcel->bytes, parcel_landed, exchange),
                     DJ_IN_PROGRESS);
    dj_staging_release(exchange->out, parcel->from, DJ_OK);
}

static void run_to_the_end(exchange_t *exchange)
{
    while (!dj_staging_idle(exchange->out) || !dj_staging_idle(exchange->in)) {
        fake_copy_t *copy = &fake.copies[draw(4 * SLOTS)];
        if (draw(3) == 0)
            fake_end(copy, DJ_OK);
        if (draw(2) == 0)
            deliver_one(exchange);
        dj_staging_progress(draw(2) ? exchange->out : exchange->in);
    }
}

static uint64_t draw_size(void)
{
    static const uint64_t edges[] = {0, 1, RING_PART - 1, RING_PART, RING_PART + 1, BIG};
    return draw(3) == 0 ? edges[draw(sizeof(edges) / sizeof(edges[0]))] : draw(BIG + 1);
}

static void any_sizes_in_any_order_arrive(void **state)
{
    exchange_t exchange = {0};
    uint8_t *source = malloc(BIG + 64), *target = malloc(BIG + 64);
    fake_reset();
    fake.patience = FAKE_NEVER;
    assert_int_equal(dj_staging_create(&fake_ops, SLOTS, RING_PART, &exchange.out), DJ_OK);
    assert_int_equal(dj_staging_create(&fake_ops, SLOTS, RING_PART, &exchange.in), DJ_OK);
    for (unsigned i = 0; i < BIG + 64; ++i)
        source[i] = (uint8_t)(draw(251) + 1);
    unsigned long allocated = 0;
    for (unsigned i = 0; i < TRANSFERS; ++i) {
        uint64_t bytes = draw_size(), shift = draw(64);
        job_t job = {&exchange, target + shift};
        memset(target, 0, BIG + 64);
        allocations_start();
        dj_status_t status =
            dj_staging_out(exchange.out, source + shift, bytes, random_send, job_done, &job);
        run_to_the_end(&exchange);
        allocated += allocations_stop();
        assert_int_equal(status, bytes ? DJ_IN_PROGRESS : DJ_OK);
        assert_memory_equal(target + shift, source + shift, bytes);
        for (unsigned at = 0; at < 64 && shift + bytes + at < BIG + 64; ++at)
            assert_int_equal(target[shift + bytes + at], 0);
        assert_true(shift == 0 || target[shift - 1] == 0);
    }
    assert_int_equal(allocated, 0);
    assert_in_range(exchange.peak, 2, SLOTS);
    dj_staging_destroy(exchange.out);
    dj_staging_destroy(exchange.in);
    assert_int_equal(fake.pinned, 0);
    free(source);
    free(target);
}

static void many_transfers_at_once_arrive(void **state)
{
    enum { MANY = DJ_STAGING_TRANSFERS_MAX, EACH = 5000 };
    static uint8_t source[MANY * EACH], target[MANY * EACH];
    static job_t jobs[MANY];
    exchange_t exchange = {0};
    fake_reset();
    fake.patience = FAKE_NEVER;
    assert_int_equal(dj_staging_create(&fake_ops, SLOTS, 1024, &exchange.out), DJ_OK);
    assert_int_equal(dj_staging_create(&fake_ops, SLOTS, 1024, &exchange.in), DJ_OK);
    for (unsigned i = 0; i < sizeof(source); ++i)
        source[i] = (uint8_t)draw(256);
    for (unsigned i = 0; i < MANY; ++i) {
        jobs[i] = (job_t){&exchange, target + i * EACH};
        assert_int_equal(
            dj_staging_out(exchange.out, source + i * EACH, EACH, random_send, job_done, &jobs[i]),
            DJ_IN_PROGRESS);
    }
    run_to_the_end(&exchange);
    assert_int_equal(exchange.done, MANY);
    assert_memory_equal(target, source, sizeof(source));
    dj_staging_destroy(exchange.out);
    dj_staging_destroy(exchange.in);
}

/* ---- host memory ---- */

static void host_memory_goes_through_the_same_ring(void **state)
{
    wire_t wire;
    uint32_t slot;
    void *host;
    uint8_t target[PART];
    begin(&wire, SLOTS);
    dj_staging_destroy(wire.ring);
    assert_int_equal(dj_staging_create(dj_memops_get(DJ_MEMORY_HOST), SLOTS, PART, &wire.ring),
                     DJ_OK);
    send_out(&wire, 2 * PART);
    dj_staging_progress(wire.ring);
    assert_int_equal(dj_staging_in(wire.ring, &slot, &host), DJ_OK);
    memset(host, 9, PART);
    assert_int_equal(dj_staging_land(wire.ring, slot, target, PART, on_done, &wire), DJ_OK);
    assert_int_equal(target[PART - 1], 9);
    release(&wire, 0, DJ_OK);
    release(&wire, 1, DJ_OK);
    dj_staging_progress(wire.ring);
    assert_string_equal(words, "S0 S1 R0 R1 D");
    end(&wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(a_device_that_gives_nothing_leaves_nothing),
        cmocka_unit_test(the_next_part_is_copied_while_one_is_on_the_wire),
        cmocka_unit_test(parts_leave_in_order_however_copies_end),
        cmocka_unit_test(transfers_leave_in_the_order_they_came),
        cmocka_unit_test(a_full_ring_waits),
        cmocka_unit_test(a_part_refused_is_offered_again),
        cmocka_unit_test(a_ring_takes_so_many_transfers),
        cmocka_unit_test(incoming_parts_land_in_any_order),
        cmocka_unit_test(incoming_parts_can_fail),
        cmocka_unit_test(the_directions_do_not_share_slots),
        cmocka_unit_test(a_copy_that_fails_ends_its_transfer_alone),
        cmocka_unit_test(a_copy_that_does_not_start_fails),
        cmocka_unit_test(a_send_that_fails_ends_its_transfer),
        cmocka_unit_test(a_lost_peer_ends_all),
        cmocka_unit_test(a_refused_part_of_a_lost_peer_is_not_forgotten),
        cmocka_unit_test(the_end_waits_for_copies_and_not_for_the_network),
        cmocka_unit_test(the_end_may_be_answered_by_releases),
        cmocka_unit_test(any_sizes_in_any_order_arrive),
        cmocka_unit_test(many_transfers_at_once_arrive),
        cmocka_unit_test(host_memory_goes_through_the_same_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
