/* group_move.c - what a member does in a round: ask its parent, serve its children, place what
 * arrives.
 *
 * dj_round_move() looks at the records and does whatever can be done; it is called again when a
 * message, a completion, a loss or a tick has changed something. A broadcast's part goes on to a
 * child as soon as it and all before it are here. A gather's block is the subtree's bytes by place;
 * cut where member numbers wrap around, it is one or two runs that land at the parent, and at the
 * root in the caller's memory, without a copy. */
#define DJ_LOG_MODULE "group"

#include "comm/group_state.h"

#include <string.h>

#include "runtime/base/log.h"

/* ---- the parent ---- */

static void drop_receives(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    for (uint32_t i = round->have; i < round->parts; ++i)
        group->parts[i] = DJ_PART_NONE;
}

/* The nearest member above that is here; the root is waited for as long as it is not known dead. */
static uint32_t find_source(const dj_group_t *group)
{
    uint32_t place = dj_tree_parent(group->radix, group->round.place);
    while (place != DJ_TREE_NONE) {
        uint32_t member = dj_group_at(group, place);
        const dj_group_peer_t *peer = &group->peers[member];
        if (!peer->lost && (place == 0 || !peer->absent))
            return member;
        place = dj_tree_parent(group->radix, place);
    }
    return DJ_GROUP_NOBODY;
}

/* False when there is none, or the old one's transfers are still to end. */
static bool settle_source(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    bool has = round->source != DJ_GROUP_NOBODY && !group->peers[round->source].lost;
    if (has && round->next_source == DJ_GROUP_NOBODY)
        return true;
    if (round->next_source == DJ_GROUP_NOBODY || group->peers[round->next_source].lost)
        round->next_source = find_source(group);
    if (round->next_source == DJ_GROUP_NOBODY) {
        round->status = dj_fail(DJ_ERR_PEER_DIED, "the root, member %u, is lost", round->root);
        round->missing = 1;
        round->first_missing = round->root;
        return false;
    }
    uint32_t pending = round->kind == DJ_GROUP_BROADCAST ? round->receiving : round->in_flight;
    if (pending > 0) {
        if (round->next_source != round->source)
            dj_group_sever(group, round->source);
        return false;
    }
    round->asked = round->wanted = round->sent = false;
    round->source = round->next_source;
    round->next_source = DJ_GROUP_NOBODY;
    if (round->kind == DJ_GROUP_BROADCAST)
        drop_receives(group);
    return true;
}

static void ask_parent(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    if (!settle_source(group) || round->asked)
        return;
    dj_group_step_t step = {.round = round->number,
                            .kind = round->kind,
                            .root = round->root,
                            .bytes = round->bytes,
                            .step = DJ_STEP_ASK};
    if (round->kind == DJ_GROUP_BROADCAST)
        step.offset = round->have;
    else
        step.missing[0] = dj_round_tally(group, &step.missing[1]);
    round->asked = dj_group_send(group, round->source, &step, NULL, NULL, NULL) == DJ_OK;
}

/* ---- broadcast ---- */

static void on_part_sent(void *argument, dj_status_t status)
{
    dj_group_peer_t *peer = argument;
    dj_group_t *group = peer->group;
    uint32_t member = (uint32_t)(peer - group->peers);
    --peer->in_flight;
    --group->round.in_flight;
    peer->moved_ns = dj_clock_ns();
    group->attention = true;
    if (status == DJ_ERR_PEER_DIED)
        dj_group_lost(group, member);
    else if (status != DJ_OK)
        dj_round_replace(group, member); /* it does not want it: it is in another round */
}

static dj_status_t send_part(dj_group_t *group, uint32_t member, uint32_t part)
{
    dj_group_round_state_t *round = &group->round;
    dj_group_peer_t *peer = &group->peers[member];
    const dj_group_step_t step = {.round = round->number,
                                  .kind = round->kind,
                                  .root = round->root,
                                  .bytes = round->bytes,
                                  .offset = part * round->part_bytes,
                                  .step = DJ_STEP_PART};
    uint64_t left = round->bytes - step.offset;
    const dj_piece_t piece = {round->data + step.offset,
                              left < round->part_bytes ? left : round->part_bytes};
    ++peer->in_flight;
    ++round->in_flight;
    dj_status_t status = dj_group_send(group, member, &step, &piece, on_part_sent, peer);
    if (status == DJ_IN_PROGRESS)
        return DJ_OK;
    --peer->in_flight;
    --round->in_flight;
    return status;
}

/* A question that is not of the collective that this member is in: both called something else. */
static bool same_call(dj_group_t *group, uint32_t member)
{
    dj_group_peer_t *peer = &group->peers[member];
    if (peer->ask.kind == group->round.kind && peer->ask.bytes == group->round.bytes)
        return true;
    ++group->counters.refused;
    dj_log(WARN, "member %u is in another collective than member %u in round %llu", member,
           group->me, (unsigned long long)group->round.number);
    dj_group_answer(group, member, &peer->ask);
    peer->ask.round = 0;
    dj_round_replace(group, member);
    return false;
}

static void serve(dj_group_t *group, uint32_t member)
{
    dj_group_round_state_t *round = &group->round;
    dj_group_peer_t *peer = &group->peers[member];
    if (peer->fresh) {
        if (peer->in_flight > 0)
            return; /* of an earlier question */
        peer->fresh = false;
        peer->next_part =
            peer->ask.offset < round->parts ? (uint32_t)peer->ask.offset : round->parts;
    }
    while (peer->next_part < round->have && peer->in_flight < DJ_GROUP_WINDOW) {
        dj_status_t status = send_part(group, member, peer->next_part);
        if (status == DJ_ERR_BUSY || status == DJ_ERR_PEER_DIED)
            return;
        if (status != DJ_OK) {
            dj_round_replace(group, member);
            return;
        }
        ++peer->next_part;
    }
    if (peer->next_part == round->parts && peer->in_flight == 0)
        peer->state = DJ_CHILD_SERVED;
}

/* It asks in a later round: it has what it needs, or it tells what became of this one. */
static void see_ahead(dj_group_t *group, uint32_t member)
{
    dj_group_peer_t *peer = &group->peers[member];
    if (peer->in_flight > 0)
        return;
    if (peer->next_part == group->round.parts) {
        peer->state = DJ_CHILD_SERVED;
    } else if (!peer->told) {
        peer->told = true;
        peer->due |= DJ_DUE_INVITE;
        group->dues = true;
    }
}

static bool move_broadcast(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    if (round->root != group->me &&
        (round->have < round->parts || round->next_source != DJ_GROUP_NOBODY))
        ask_parent(group);
    bool waiting = round->have < round->parts;
    for (uint32_t i = 0; i < group->n; ++i) {
        dj_group_peer_t *peer = &group->peers[i];
        if (peer->state != DJ_CHILD_SERVED && peer->state != DJ_CHILD_MISSING &&
            dj_group_asks_now(group, peer) && same_call(group, i))
            serve(group, i);
        if (peer->state == DJ_CHILD_EXPECTED && peer->ask.round > round->number)
            see_ahead(group, i);
        waiting = waiting || peer->state == DJ_CHILD_EXPECTED || peer->in_flight > 0;
    }
    return !waiting;
}

/* ---- gather ---- */

typedef struct run {
    uint32_t member, count;
} run_t;

/* The places [place, place + span) as members: one run, or two where the numbers wrap. */
static uint32_t find_runs(const dj_group_t *group, uint32_t member, run_t runs[2])
{
    uint32_t span = dj_tree_span(group->n, group->radix, dj_group_place(group, member));
    uint32_t first = span < group->n - member ? span : group->n - member;
    runs[0] = (run_t){member, first};
    runs[1] = (run_t){0, span - first};
    return runs[1].count > 0 ? 2 : 1;
}

/* Where the bytes of a member of my subtree lie. */
static uint8_t *slot(const dj_group_t *group, uint32_t member)
{
    const dj_group_round_state_t *round = &group->round;
    if (round->root == group->me)
        return round->block + member * round->bytes;
    uint32_t at = dj_group_place(group, member) - round->place;
    return (round->block ? round->block : round->data) + at * round->bytes;
}

static void on_block_sent(void *argument, dj_status_t status)
{
    dj_group_t *group = argument;
    --group->round.in_flight;
    group->attention = true;
    if (status == DJ_ERR_PEER_DIED && group->round.source != DJ_GROUP_NOBODY)
        dj_group_lost(group, group->round.source);
}

static void send_block(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    dj_endpoint_t *endpoint;
    run_t runs[2];
    uint32_t n_runs = find_runs(group, group->me, runs);
    if (dj_group_reach(group, round->source, &endpoint) != DJ_OK)
        return;
    round->sent = true;
    for (uint32_t i = 0; i < n_runs; ++i) {
        const dj_group_step_t step = {.round = round->number,
                                      .kind = round->kind,
                                      .root = round->root,
                                      .bytes = round->bytes,
                                      .offset = runs[i].member * round->bytes,
                                      .step = DJ_STEP_PART};
        const dj_piece_t piece = {slot(group, runs[i].member), runs[i].count * round->bytes};
        ++round->in_flight;
        if (dj_group_send(group, round->source, &step, &piece, on_block_sent, group) !=
            DJ_IN_PROGRESS)
            --round->in_flight;
    }
}

/* ---- barrier and gather ---- */

static void take_child(dj_group_t *group, uint32_t member)
{
    dj_group_round_state_t *round = &group->round;
    dj_group_peer_t *peer = &group->peers[member];
    if (!same_call(group, member))
        return;
    if (round->bytes == 0 || peer->runs_landed == 3) {
        peer->state = DJ_CHILD_SERVED;
        return;
    }
    if (peer->told)
        return;
    const dj_group_step_t step = {.round = round->number,
                                  .kind = round->kind,
                                  .root = round->root,
                                  .bytes = round->bytes,
                                  .step = DJ_STEP_SEND};
    peer->told = dj_group_send(group, member, &step, NULL, NULL, NULL) == DJ_OK;
}

/* Of two who believe in different roots of a barrier, the lower root wins: it cannot be dead for
 * both. */
static void agree_on_root(dj_group_t *group, uint32_t member)
{
    dj_group_round_state_t *round = &group->round;
    dj_group_peer_t *peer = &group->peers[member];
    if (peer->ask.round != round->number || peer->ask.kind != DJ_GROUP_BARRIER ||
        peer->ask.root == round->root)
        return;
    if (peer->ask.root < round->root && !group->peers[peer->ask.root].lost)
        dj_round_restart(group, peer->ask.root);
}

static bool move_up(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    bool waiting = false;
    for (uint32_t i = 0; i < group->n; ++i) {
        dj_group_peer_t *peer = &group->peers[i];
        if (round->kind == DJ_GROUP_BARRIER)
            agree_on_root(group, i);
        if (peer->state == DJ_CHILD_EXPECTED && dj_group_asks_now(group, peer))
            take_child(group, i);
        waiting = waiting || peer->state == DJ_CHILD_EXPECTED;
    }
    if (waiting)
        return false;
    if (round->root == group->me) {
        round->released = true;
        return true;
    }
    ask_parent(group);
    if (round->asked && round->wanted && !round->sent)
        send_block(group);
    return false;
}

bool dj_round_move(dj_group_t *group)
{
    dj_group_round_state_t *round = &group->round;
    if (round->over || round->status != DJ_OK)
        return true;
    if (round->kind == DJ_GROUP_BROADCAST)
        return move_broadcast(group) || round->status != DJ_OK;
    if (round->released)
        return round->in_flight == 0;
    if (round->kind == DJ_GROUP_BARRIER && round->root != group->me &&
        group->peers[round->root].lost) {
        uint32_t root = round->root;
        while (root != group->me && dj_group_gone(group, root))
            root = (root + 1) % group->n;
        dj_round_restart(group, root);
    }
    return move_up(group) || round->status != DJ_OK;
}

/* ---- what arrives ---- */

static bool of_this_call(const dj_group_t *group, const dj_group_step_t *step)
{
    const dj_group_round_state_t *round = &group->round;
    return round->open && !round->over && step->round == round->number &&
           step->kind == round->kind && step->root == round->root && step->bytes == round->bytes;
}

static dj_status_t part_of_broadcast(dj_group_t *group, const dj_group_step_t *step,
                                     uint64_t payload_bytes, uint8_t **memory_p)
{
    dj_group_round_state_t *round = &group->round;
    uint64_t part = step->offset / round->part_bytes;
    if (round->root == group->me || !round->asked || step->from != round->source ||
        round->next_source != DJ_GROUP_NOBODY)
        return dj_group_refuse(group, "a part from a member that was not asked");
    uint64_t left = round->bytes - step->offset;
    if (step->offset % round->part_bytes != 0 || part >= round->parts ||
        payload_bytes != (left < round->part_bytes ? left : round->part_bytes))
        return dj_group_refuse(group, "not a part of this broadcast");
    if (group->parts[part] != DJ_PART_NONE)
        return dj_group_refuse(group, "a part for the second time");
    group->parts[part] = DJ_PART_RECEIVING;
    ++round->receiving;
    *memory_p = round->data + step->offset;
    return DJ_OK;
}

/* Which run of the sender's block this is; 2: none. */
static uint32_t which_run(const dj_group_t *group, const dj_group_step_t *step,
                          uint64_t payload_bytes)
{
    run_t runs[2];
    uint32_t n_runs = find_runs(group, step->from, runs);
    for (uint32_t i = 0; i < n_runs; ++i)
        if (step->offset == runs[i].member * group->round.bytes &&
            payload_bytes == runs[i].count * group->round.bytes)
            return i;
    return 2;
}

static dj_status_t part_of_gather(dj_group_t *group, const dj_group_step_t *step,
                                  uint64_t payload_bytes, uint8_t **memory_p)
{
    dj_group_round_state_t *round = &group->round;
    dj_group_peer_t *peer = &group->peers[step->from];
    if (peer->state != DJ_CHILD_EXPECTED || !peer->told)
        return dj_group_refuse(group, "bytes from a member that was not asked");
    uint32_t run = which_run(group, step, payload_bytes);
    if (run == 2)
        return dj_group_refuse(group, "not the bytes of that member's subtree");
    if (peer->runs_taken & 1u << run)
        return dj_group_refuse(group, "bytes for the second time");
    peer->runs_taken |= (uint8_t)(1u << run);
    ++round->receiving;
    *memory_p = slot(group, step->offset / round->bytes);
    return DJ_OK;
}

dj_status_t dj_round_part(dj_group_t *group, const dj_group_step_t *step, uint64_t payload_bytes,
                          uint8_t **memory_p)
{
    if (!of_this_call(group, step))
        return dj_group_refuse(group, "a part of another round");
    if (step->kind == DJ_GROUP_BROADCAST)
        return part_of_broadcast(group, step, payload_bytes, memory_p);
    return part_of_gather(group, step, payload_bytes, memory_p);
}

static void landed_of_gather(dj_group_t *group, const dj_group_step_t *step, uint64_t payload_bytes,
                             bool arrived)
{
    dj_group_peer_t *peer = &group->peers[step->from];
    run_t runs[2];
    uint32_t run = which_run(group, step, payload_bytes);
    peer->moved_ns = dj_clock_ns();
    if (!arrived) {
        memset(slot(group, step->offset / step->bytes), 0, payload_bytes);
        peer->runs_taken &= (uint8_t) ~(1u << run);
        return;
    }
    peer->runs_landed |= (uint8_t)(1u << run);
    if (find_runs(group, step->from, runs) == 1)
        peer->runs_landed |= 2;
}

void dj_round_landed(dj_group_t *group, const dj_group_step_t *step, uint64_t payload_bytes,
                     bool arrived)
{
    dj_group_round_state_t *round = &group->round;
    --round->receiving;
    if (step->kind != DJ_GROUP_BROADCAST) {
        landed_of_gather(group, step, payload_bytes, arrived);
        return;
    }
    group->parts[step->offset / round->part_bytes] = arrived ? DJ_PART_HERE : DJ_PART_NONE;
    if (!arrived && round->next_source == DJ_GROUP_NOBODY)
        round->next_source = round->source; /* to be asked again, unless it is lost */
    while (round->have < round->parts && group->parts[round->have] == DJ_PART_HERE)
        ++round->have;
}
