/* group_round.c - a round from its opening to its end: who is waited for, for how long, what it
 * ends with.
 *
 * Time: a member waits for its children up to `patience_ns`, and the nearer to the root it is the
 * longer, so that what a member gives up on can still be told upwards. A child that shows no sign
 * for most of that time is suspected: its children are invited to ask here. For its parent's answer
 * a member waits up to `answer_ns`, again longer further down, so that it hears who is missing
 * before its own time is over.
 *
 * Waiting: polling with the processor offered to others between polls, as members often share
 * cores; then sleep. */
#define DJ_LOG_MODULE "group"

#include "comm/group_state.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"

#define SPIN_NS (500 * 1000ull)
#define SLEEP_MS 2

/* ---- who is waited for ---- */

static void expect(dj_group_t *group, uint32_t member, bool invite)
{
    dj_group_peer_t *peer = &group->peers[member];
    if (peer->state != DJ_CHILD_NONE)
        return;
    peer->state = DJ_CHILD_EXPECTED;
    peer->moved_ns = dj_clock_ns();
    if (!invite || dj_group_asks_now(group, peer))
        return;
    peer->due |= DJ_DUE_INVITE;
    group->dues = true;
}

/* The children of a place; those of children that are gone already in their stead. */
static void expect_children(dj_group_t *group, uint32_t place, bool invite)
{
    uint32_t child = DJ_TREE_NONE;
    for (;;) {
        child = dj_tree_next_child(group->n, group->radix, place, child);
        if (child == DJ_TREE_NONE)
            return;
        uint32_t member = dj_group_at(group, child);
        if (member == group->me)
            continue;
        if (!dj_group_gone(group, member)) {
            expect(group, member, invite);
            continue;
        }
        dj_group_peer_t *peer = &group->peers[member];
        if (!peer->lost && peer->state == DJ_CHILD_NONE) {
            peer->state = DJ_CHILD_MISSING; /* it may be alive: it is missed every time */
            group->round.silent = true;
        }
        peer->adopted = true;
        expect_children(group, child, true);
    }
}

static void adopt(dj_group_t *group, uint32_t member)
{
    group->peers[member].adopted = true;
    group->attention = true;
    expect_children(group, dj_group_place(group, member), true);
}

void dj_round_replace(dj_group_t *group, uint32_t member)
{
    dj_group_peer_t *peer = &group->peers[member];
    if (peer->state == DJ_CHILD_EXPECTED)
        peer->state = DJ_CHILD_MISSING;
    if (peer->state != DJ_CHILD_NONE && !peer->adopted)
        adopt(group, member);
}

static bool above_me(const dj_group_t *group, uint32_t member)
{
    uint32_t place = dj_group_place(group, member);
    uint32_t at = dj_tree_parent(group->radix, group->round.place);
    while (at != DJ_TREE_NONE && at != place)
        at = dj_tree_parent(group->radix, at);
    return at == place;
}

void dj_round_invited(dj_group_t *group, const dj_group_step_t *step)
{
    dj_group_round_state_t *round = &group->round;
    if (round->kind == DJ_GROUP_BARRIER && step->root < round->root &&
        !group->peers[step->root].lost)
        dj_round_restart(group, step->root);
    round->doubt = round->doubt || step->root > round->root;
    bool known = round->asked && round->source == step->from;
    if (step->root == round->root && above_me(group, step->from) && !known)
        round->next_source = step->from;
}

void dj_round_ended(dj_group_t *group, const dj_group_step_t *step)
{
    dj_group_round_state_t *round = &group->round;
    round->over = true;
    round->missing = step->missing[0];
    round->first_missing = step->missing[1];
    if (round->missing == 0 || round->first_missing >= group->n)
        return;
    dj_group_peer_t *peer = &group->peers[round->first_missing];
    if (round->first_missing == round->root && !peer->lost)
        peer->absent = true; /* the next barrier has another root */
}

/* ---- opening ---- */

static void set_times(dj_group_t *group, uint64_t deadline_ns)
{
    dj_group_round_state_t *round = &group->round;
    uint32_t height = dj_tree_height(group->n, group->radix);
    uint32_t below = height - dj_tree_depth(group->radix, round->place);
    uint64_t now_ns = dj_clock_ns();
    uint64_t time_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    round->begin_ns = now_ns;
    round->unit_ns = time_ns / (2 * (height + 2));
    round->patience_ns = now_ns + time_ns / 2 + below * round->unit_ns;
    round->answer_ns = now_ns + time_ns - below * (2 * round->unit_ns / (height + 1));
}

static void reset_peers(dj_group_t *group, bool invite)
{
    for (uint32_t i = 0; i < group->n; ++i) {
        dj_group_peer_t *peer = &group->peers[i];
        peer->state = DJ_CHILD_NONE;
        peer->adopted = peer->told = peer->missed = false;
        peer->next_part = 0;
        peer->fresh = true;
        peer->runs_taken = peer->runs_landed = 0;
        peer->due &= (uint8_t)~DJ_DUE_INVITE;
    }
    expect_children(group, group->round.place, invite);
}

/* What members said before this one came. */
static void recall(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    for (uint32_t i = 0; i < group->n; ++i) {
        dj_group_peer_t *peer = &group->peers[i];
        if (peer->invite.round == round->number && peer->invite.kind == round->kind)
            dj_round_invited(group, &peer->invite);
    }
}

static uint32_t elect(const dj_group_t *group)
{
    uint32_t root = 0;
    while (root < group->me && dj_group_gone(group, root))
        ++root;
    return root;
}

void dj_round_restart(dj_group_t *group, uint32_t root)
{
    dj_group_round_state_t *round = &group->round;
    round->root = root;
    round->place = dj_group_place(group, group->me);
    round->source = round->next_source = DJ_GROUP_NOBODY;
    round->asked = false;
    if (root != group->me)
        group->peers[root].absent = false;
    reset_peers(group, true);
    group->attention = true;
}

static void set_parts(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    round->part_bytes = DJ_GROUP_PART_BYTES;
    while (round->bytes > round->part_bytes * DJ_GROUP_PARTS_MAX)
        round->part_bytes *= 2;
    round->parts = (uint32_t)((round->bytes + round->part_bytes - 1) / round->part_bytes);
    if (round->parts == 0)
        round->parts = 1;
    memset(group->parts, DJ_PART_NONE, round->parts);
    round->have = round->root == group->me ? round->parts : 0;
}

static dj_status_t open_round(dj_group_t *group, dj_group_kind_t kind, uint32_t root, void *data,
                              uint64_t bytes, uint64_t deadline_ns)
{
    dj_group_round_state_t *round = &group->round;
    if (root >= group->n || round->open)
        return dj_fail(DJ_ERR_INVALID,
                       root >= group->n ? "member %u is none of this group's %u"
                                        : "member %u of %u is in a collective",
                       root, group->n);
    for (uint32_t i = 0; i < group->n; ++i)
        dj_group_find(group, i);
    *round = (dj_group_round_state_t){.kind = kind,
                                      .root = kind == DJ_GROUP_BARRIER ? elect(group) : root,
                                      .source = DJ_GROUP_NOBODY,
                                      .next_source = DJ_GROUP_NOBODY,
                                      .number = group->next_round++,
                                      .data = data,
                                      .bytes = bytes};
    round->place = dj_group_place(group, group->me);
    set_times(group, deadline_ns);
    set_parts(group);
    round->open = true;
    /* Under another root than 0 the children are told: they may not know of its death yet, and wait for members who
     * went over to this root before they came. */
    reset_peers(group, round->kind == DJ_GROUP_BARRIER && round->root != 0);
    recall(group);
    group->attention = true;
    return DJ_OK;
}

/* ---- watching ---- */

/* Nothing keeps this child but itself. */
static bool its_turn(const dj_group_t *group, const dj_group_peer_t *peer)
{
    return group->round.kind != DJ_GROUP_BROADCAST || !dj_group_asks_now(group, peer) ||
           group->round.have == group->round.parts;
}

static void watch_child(dj_group_t *group, uint32_t member, uint64_t now_ns)
{
    dj_group_round_state_t *round = &group->round;
    dj_group_peer_t *peer = &group->peers[member];
    dj_endpoint_t *endpoint;
    if (peer->state != DJ_CHILD_EXPECTED ||
        dj_group_reach(group, member, &endpoint) == DJ_ERR_PEER_DIED || !its_turn(group, peer))
        return;
    uint64_t still_ns = now_ns - peer->moved_ns;
    if (now_ns >= round->patience_ns && still_ns > round->unit_ns) {
        peer->state = DJ_CHILD_MISSING;
        peer->absent = true;
        round->silent = true;
        group->attention = true;
    } else if (!peer->adopted &&
               still_ns + 2 * round->unit_ns > round->patience_ns - round->begin_ns) {
        dj_log(DEBUG, "member %u is silent: its children are invited", member);
        peer->due |= DJ_DUE_INVITE; /* if it lives it hears where the group is */
        adopt(group, member);
    }
}

/* Once a tick: deaths that nobody has told of, and time. */
static void watch(dj_group_t *group, uint64_t now_ns)
{
    dj_group_round_state_t *round = &group->round;
    dj_endpoint_t *endpoint;
    round->tick_ns = now_ns + DJ_GROUP_TICK_NS;
    for (uint32_t i = 0; i < group->n; ++i)
        watch_child(group, i, now_ns);
    if (round->source != DJ_GROUP_NOBODY)
        dj_group_reach(group, round->source, &endpoint);
    if (round->doubt && round->root != group->me)
        dj_group_reach(group, round->root, &endpoint);
    group->attention = true;
    if (now_ns < round->answer_ns || round->over)
        return;
    round->over = round->silent = true;
    if (round->asked && round->missing == 0 && !group->peers[round->source].lost) {
        /* Of a parent that is not the root its own parent judges, and invites. */
        group->peers[round->source].absent = round->source == round->root;
        round->missing = 1;
        round->first_missing = round->source;
    }
}

static void pause_for(dj_group_t *group, uint64_t *idle_from_p)
{
    if (dj_comm_progress(group->options.comm) > 0) {
        *idle_from_p = 0;
        return;
    }
    uint64_t now_ns = dj_clock_ns();
    if (*idle_from_p == 0)
        *idle_from_p = now_ns;
    if (now_ns - *idle_from_p < SPIN_NS)
        sched_yield();
    else
        dj_comm_wait(group->options.comm, 0, SLEEP_MS);
}

static void run(dj_group_t *group)
{
    uint64_t idle_from_ns = 0;
    for (;;) {
        uint64_t now_ns = dj_clock_ns();
        if (now_ns >= group->round.tick_ns)
            watch(group, now_ns);
        if (group->attention) {
            group->attention = false;
            dj_group_settle(group);
            dj_publications_tend(group);
            if (dj_round_move(group))
                return;
        }
        pause_for(group, &idle_from_ns);
    }
}

/* ---- closing ---- */

uint64_t dj_round_tally(const dj_group_t *group, uint64_t *first_p)
{
    uint64_t count = 0;
    *first_p = UINT64_MAX;
    for (uint32_t i = 0; i < group->n; ++i) {
        const dj_group_peer_t *peer = &group->peers[i];
        uint64_t more = 0, first = i;
        if (peer->state == DJ_CHILD_MISSING)
            more =
                peer->adopted ? 1 : dj_tree_span(group->n, group->radix, dj_group_place(group, i));
        else if (peer->state == DJ_CHILD_SERVED && group->round.kind != DJ_GROUP_BROADCAST &&
                 dj_group_asks_now(group, peer)) {
            more = peer->ask.missing[0];
            first = peer->ask.missing[1];
        }
        if (more > 0 && first < *first_p)
            *first_p = first;
        count += more;
    }
    return count;
}

/* Nothing of the caller's memory is in UCX's hands afterwards. */
static void drain(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    uint64_t idle_from_ns = 0;
    if (round->in_flight == 0 && round->receiving == 0)
        return;
    bool from_source = round->kind == DJ_GROUP_BROADCAST ? round->receiving > 0 : round->sent;
    for (uint32_t i = 0; i < group->n; ++i) {
        const dj_group_peer_t *peer = &group->peers[i];
        if (peer->in_flight > 0 || (peer->runs_taken & ~peer->runs_landed) ||
            (from_source && i == round->source))
            dj_group_sever(group, i);
    }
    while (round->in_flight > 0 || round->receiving > 0)
        pause_for(group, &idle_from_ns);
}

static const char *name(uint32_t kind)
{
    static const char *const names[] = {"?", "broadcast", "barrier", "gather"};
    return names[kind];
}

static dj_status_t verdict(dj_group_t *group, const dj_group_result_t *result)
{
    const dj_group_round_state_t *round = &group->round;
    unsigned long long number = (unsigned long long)round->number;
    if (round->status != DJ_OK)
        return dj_fail_prefix(round->status, "%s, round %llu", name(round->kind), number);
    if (result->missing > 0) {
        bool dead = !round->silent && result->first_missing < group->n &&
                    group->peers[result->first_missing].lost;
        return dj_fail(dead ? DJ_ERR_PEER_DIED : DJ_ERR_DEADLINE,
                       "%s, round %llu: %llu of %u members are missing, the first is member %llu",
                       name(round->kind), number, (unsigned long long)result->missing, group->n,
                       (unsigned long long)result->first_missing);
    }
    if (!result->well)
        return dj_fail(DJ_ERR_DEADLINE, "%s, round %llu: the deadline passed", name(round->kind),
                       number);
    return DJ_OK;
}

/* Those who wait for this member's word. */
static void answer_askers(dj_group_t *group)
{
    for (uint32_t i = 0; i < group->n; ++i) {
        dj_group_peer_t *peer = &group->peers[i];
        bool served = peer->state == DJ_CHILD_SERVED && group->round.kind == DJ_GROUP_BROADCAST;
        if (peer->ask.round == group->round.number && !served)
            dj_group_answer(group, i, &peer->ask);
    }
}

static dj_status_t close_round(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    bool broadcast = round->kind == DJ_GROUP_BROADCAST;
    dj_group_result_t *result = &group->results[round->number % DJ_GROUP_RESULTS];
    *result = (dj_group_result_t){
        .round = round->number, .well = broadcast ? round->have == round->parts : round->released};
    result->missing = dj_round_tally(group, &result->first_missing);
    if (round->missing > 0 && (!result->well || round->missing > result->missing)) {
        result->missing = round->missing;
        result->first_missing = round->first_missing;
    }
    dj_status_t status = verdict(group, result);
    drain(group);
    for (uint32_t i = 0; i < group->n; ++i)
        group->peers[i].missed = (result->missing > 0 && i == result->first_missing) ||
                                 group->peers[i].state == DJ_CHILD_MISSING;
    round->open = false;
    answer_askers(group);
    dj_group_settle(group);
    return status;
}

/* ---- the calls ---- */

dj_status_t dj_group_broadcast(dj_group_t *group, uint32_t root, void *data, uint64_t bytes,
                               uint64_t deadline_ns)
{
    if (bytes > DJ_GROUP_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a broadcast of %llu bytes; the limit is %d",
                       (unsigned long long)bytes, DJ_GROUP_BYTES_MAX);
    dj_status_t status = open_round(group, DJ_GROUP_BROADCAST, root, data, bytes, deadline_ns);
    if (status != DJ_OK)
        return status;
    run(group);
    return close_round(group);
}

dj_status_t dj_group_barrier(dj_group_t *group, uint64_t deadline_ns)
{
    dj_status_t status = open_round(group, DJ_GROUP_BARRIER, 0, NULL, 0, deadline_ns);
    if (status != DJ_OK)
        return status;
    run(group);
    return close_round(group);
}

/* The root's own bytes in their place, zeros in all others. */
static void prepare_all(dj_group_t *group, const void *data, uint64_t bytes, uint8_t *all)
{
    uint64_t before = group->me * bytes, after = (group->n - group->me - 1) * bytes;
    group->round.block = all;
    if (bytes == 0)
        return;
    memmove(all + before, data, bytes);
    memset(all, 0, before);
    memset(all + before + bytes, 0, after);
}

static void prepare_block(dj_group_t *group, const void *data, uint64_t bytes)
{
    dj_group_round_state_t *round = &group->round;
    uint32_t span = dj_tree_span(group->n, group->radix, round->place);
    if (span == 1 || bytes == 0)
        return;
    round->block = calloc(span, bytes);
    if (round->block)
        memcpy(round->block, data, bytes);
    else
        round->status = dj_fail(DJ_ERR_MEMORY, "no memory for the bytes of %u members", span);
}

dj_status_t dj_group_gather(dj_group_t *group, uint32_t root, const void *data, uint64_t bytes,
                            void *all, uint64_t deadline_ns)
{
    if (bytes > DJ_GROUP_BYTES_MAX / group->n)
        return dj_fail(DJ_ERR_LIMIT, "a gather of %llu bytes from %u members; the limit is %d",
                       (unsigned long long)bytes, group->n, DJ_GROUP_BYTES_MAX);
    dj_status_t status =
        open_round(group, DJ_GROUP_GATHER, root, (void *)(uintptr_t)data, bytes, deadline_ns);
    if (status != DJ_OK)
        return status;
    if (root == group->me)
        prepare_all(group, data, bytes, all);
    else
        prepare_block(group, data, bytes);
    run(group);
    status = close_round(group);
    if (root != group->me)
        free(group->round.block);
    group->round.block = NULL;
    return status;
}
