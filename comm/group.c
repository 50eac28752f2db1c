/* group.c - members of a group: who can be reached, what they say, what they are owed.
 *
 * dj_group_message() is the gate: what passes has a kind, a step, members and sizes that make sense
 * for this group; what it says about a round is checked against the open one. A member that asks
 * about a round that is over here gets an answer from the last results, sent when it can be
 * reached. */
#define DJ_LOG_MODULE "group"

#include "comm/group_state.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"

/* ---- creation ---- */

static dj_status_t check_options(const dj_group_options_t *options)
{
    if (options->members < 1 || options->members > DJ_RANKS_MAX)
        return dj_fail(DJ_ERR_INVALID, "a group of %u members; it has 1 to %d", options->members,
                       DJ_RANKS_MAX);
    if (options->me >= options->members)
        return dj_fail(DJ_ERR_INVALID, "member %u of a group of %u", options->me, options->members);
    if (options->radix == 1 || !options->reach || !options->comm)
        return dj_fail(DJ_ERR_INVALID,
                       "a group needs a comm, a way to reach members and a radix of "
                       "at least 2");
    return DJ_OK;
}

dj_status_t dj_group_create(const dj_group_options_t *options, dj_group_t **group_p)
{
    dj_status_t status = check_options(options);
    if (status != DJ_OK)
        return status;
    uint32_t n = options->members;
    dj_group_t *group = calloc(1, sizeof(*group) + n * sizeof(group->peers[0]));
    if (!group)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a group of %u members", n);
    group->options = *options;
    group->n = n;
    group->me = options->me;
    group->radix = options->radix ? options->radix : DJ_GROUP_RADIX;
    group->next_round = options->round + 1;
    for (uint32_t i = 0; i < n; ++i)
        group->peers[i].group = group;
    group->windows = calloc(n, sizeof(group->windows[0]));
    if (!group->windows) {
        free(group);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a group of %u members", n);
    }
    *group_p = group;
    return DJ_OK;
}

void dj_group_destroy(dj_group_t *group)
{
    if (!group)
        return;
    dj_publications_fini(group);
    free(group->windows);
    free(group);
}

uint64_t dj_group_round(const dj_group_t *group)
{
    return group->next_round - 1;
}

void dj_group_counters(const dj_group_t *group, dj_group_counters_t *counters)
{
    *counters = group->counters;
}

bool dj_group_missed(const dj_group_t *group, uint32_t member)
{
    return member < group->n && group->peers[member].missed;
}

/* ---- reaching ---- */

void dj_group_lost(dj_group_t *group, uint32_t member)
{
    if (member >= group->n || member == group->me || group->peers[member].lost)
        return;
    dj_group_peer_t *peer = &group->peers[member];
    dj_log(DEBUG, "member %u is lost", member);
    peer->lost = true;
    peer->absent = false;
    peer->due = 0;
    peer->ask.round = 0;
    group->attention = true;
    dj_publications_lost(group, member);
    if (group->round.open)
        dj_round_replace(group, member);
}

dj_status_t dj_group_reach(dj_group_t *group, uint32_t member, dj_endpoint_t **endpoint_p)
{
    if (group->peers[member].lost)
        return DJ_ERR_PEER_DIED;
    dj_endpoint_t *endpoint = NULL;
    dj_status_t status = group->options.reach(group->options.context, member, &endpoint);
    if (status == DJ_IN_PROGRESS)
        return status;
    if (status != DJ_OK || dj_endpoint_failed(endpoint)) {
        dj_group_lost(group, member);
        return DJ_ERR_PEER_DIED;
    }
    *endpoint_p = endpoint;
    return DJ_OK;
}

bool dj_group_find(dj_group_t *group, uint32_t member)
{
    dj_group_peer_t *peer = &group->peers[member];
    dj_endpoint_t *endpoint = NULL;
    if (!peer->lost)
        return true;
    dj_status_t status = group->options.reach(group->options.context, member, &endpoint);
    peer->lost = status != DJ_IN_PROGRESS && (status != DJ_OK || dj_endpoint_failed(endpoint));
    return !peer->lost;
}

void dj_group_sever(dj_group_t *group, uint32_t member)
{
    dj_endpoint_t *endpoint = NULL;
    if (group->options.reach(group->options.context, member, &endpoint) == DJ_OK)
        dj_endpoint_fail(endpoint);
}

dj_status_t dj_group_send(dj_group_t *group, uint32_t member, const dj_group_step_t *step,
                          const dj_piece_t *piece, dj_sent_fn_t done, void *argument)
{
    dj_endpoint_t *endpoint;
    dj_status_t status = dj_group_reach(group, member, &endpoint);
    if (status != DJ_OK)
        return status == DJ_IN_PROGRESS ? DJ_ERR_BUSY : status;
    struct {
        dj_header_t header;
        dj_group_step_t step;
    } message = {{.magic = DJ_HEADER_MAGIC,
                  .version = DJ_PROTOCOL_VERSION,
                  .type = DJ_MESSAGE_GROUP,
                  .request = step->round},
                 *step};
    message.step.from = group->me;
    status = dj_endpoint_send(endpoint, &message, sizeof(message), piece,
                              piece && piece->bytes > 0 ? 1 : 0, done, argument);
    if (status == DJ_IN_PROGRESS && !done)
        return DJ_OK;
    if (status == DJ_ERR_PEER_DIED)
        dj_group_lost(group, member);
    return status;
}

/* ---- what is due ---- */

static const dj_group_result_t *find_result(const dj_group_t *group, uint64_t round)
{
    const dj_group_result_t *result = &group->results[round % DJ_GROUP_RESULTS];
    return result->round == round ? result : NULL;
}

void dj_group_answer(dj_group_t *group, uint32_t member, const dj_group_step_t *step)
{
    const dj_group_result_t *result = find_result(group, step->round);
    bool well = result && result->well;
    /* A broadcast's bytes are gone with its round. */
    if (step->kind == DJ_GROUP_BROADCAST && step->step == DJ_STEP_ASK)
        well = false;
    dj_group_peer_t *peer = &group->peers[member];
    peer->answer = *step;
    peer->answer.step = well ? DJ_STEP_DONE : DJ_STEP_OVER;
    peer->answer.missing[0] = result ? result->missing : 0;
    peer->answer.missing[1] = result ? result->first_missing : 0;
    peer->due |= DJ_DUE_ANSWER;
    group->dues = true;
}

static dj_status_t send_invite(dj_group_t *group, uint32_t member)
{
    const dj_group_step_t step = {.round = group->round.number,
                                  .kind = group->round.kind,
                                  .root = group->round.root,
                                  .bytes = group->round.bytes,
                                  .step = DJ_STEP_INVITE};
    return dj_group_send(group, member, &step, NULL, NULL, NULL);
}

static void settle_with(dj_group_t *group, uint32_t member)
{
    dj_group_peer_t *peer = &group->peers[member];
    if (!group->round.open)
        peer->due &= (uint8_t)~DJ_DUE_INVITE;
    if (peer->due & DJ_DUE_INVITE && send_invite(group, member) != DJ_ERR_BUSY)
        peer->due &= (uint8_t)~DJ_DUE_INVITE;
    dj_group_find(group, member);
    if (peer->due & DJ_DUE_RECEIPT &&
        dj_group_send(group, member, &peer->receipt, NULL, NULL, NULL) != DJ_ERR_BUSY)
        peer->due &= (uint8_t)~DJ_DUE_RECEIPT;
    if (peer->due & DJ_DUE_ANSWER &&
        dj_group_send(group, member, &peer->answer, NULL, NULL, NULL) != DJ_ERR_BUSY)
        peer->due &= (uint8_t)~DJ_DUE_ANSWER;
}

bool dj_group_settle(dj_group_t *group)
{
    if (!group->dues)
        return false;
    group->dues = false;
    for (uint32_t i = 0; i < group->n; ++i) {
        if (group->peers[i].due)
            settle_with(group, i);
        group->dues = group->dues || group->peers[i].due;
    }
    return group->dues;
}

bool dj_group_progress(dj_group_t *group)
{
    bool publishing = dj_publications_tend(group);
    return dj_group_settle(group) || publishing;
}

/* ---- the gate ---- */

dj_status_t dj_group_refuse(dj_group_t *group, const char *why)
{
    ++group->counters.refused;
    return dj_fail(DJ_ERR_STALE, "a step of a group is refused: %s", why);
}

static bool sane(const dj_group_t *group, const dj_group_step_t *step, uint64_t payload_bytes)
{
    if (step->from >= group->n || step->from == group->me || step->root >= group->n)
        return false;
    if (step->kind < DJ_GROUP_BROADCAST || step->kind > DJ_GROUP_PUBLISH || step->round == 0)
        return false;
    if (step->step < DJ_STEP_ASK || step->step > DJ_STEP_OFFER || step->round > UINT64_MAX / 2)
        return false;
    if ((step->step == DJ_STEP_OFFER && step->kind != DJ_GROUP_PUBLISH) ||
        (step->step == DJ_STEP_SEND && step->kind != DJ_GROUP_GATHER))
        return false;
    uint64_t bytes = step->bytes, limit = DJ_GROUP_BYTES_MAX;
    if (step->kind == DJ_GROUP_GATHER)
        limit /= group->n;
    if (step->kind == DJ_GROUP_PUBLISH)
        limit = DJ_GROUP_PUBLISH_BYTES_MAX;
    if (bytes > limit || (step->kind == DJ_GROUP_BARRIER && bytes > 0))
        return false;
    if (step->step != DJ_STEP_PART)
        return payload_bytes == 0;
    uint64_t whole = step->kind == DJ_GROUP_GATHER ? bytes * group->n : bytes;
    return step->kind != DJ_GROUP_BARRIER && step->offset <= whole &&
           payload_bytes <= whole - step->offset;
}

static uint64_t current_round(const dj_group_t *group)
{
    return group->next_round - 1;
}

static bool of_open_round(const dj_group_t *group, const dj_group_step_t *step)
{
    const dj_group_round_state_t *round = &group->round;
    return round->open && step->round == round->number && step->kind == round->kind;
}

static dj_status_t take_ask(dj_group_t *group, const dj_group_step_t *step)
{
    dj_group_peer_t *peer = &group->peers[step->from];
    bool over = step->round < current_round(group) ||
                (step->round == current_round(group) && !group->round.open);
    if (over) {
        dj_group_answer(group, step->from, step);
        return DJ_OK;
    }
    if (step->round < peer->ask.round)
        return dj_group_refuse(group, "an older question than the last");
    peer->ask = *step;
    peer->moved_ns = dj_clock_ns();
    peer->told = false;
    peer->fresh = true;
    bool again = peer->state == DJ_CHILD_SERVED && step->kind == DJ_GROUP_BROADCAST;
    if (of_open_round(group, step) && (again || peer->state == DJ_CHILD_MISSING) && !peer->lost)
        peer->state = DJ_CHILD_EXPECTED;
    return DJ_OK;
}

static dj_status_t take_invite(dj_group_t *group, const dj_group_step_t *step)
{
    dj_group_round_state_t *round = &group->round;
    if (step->round < current_round(group) ||
        (step->round == current_round(group) && !round->open)) {
        dj_group_answer(group, step->from, step);
        return DJ_OK;
    }
    if (!of_open_round(group, step)) {
        group->peers[step->from].invite = *step; /* a round to come */
        return DJ_OK;
    }
    dj_round_invited(group, step);
    return DJ_OK;
}

static dj_status_t take_done(dj_group_t *group, const dj_group_step_t *step)
{
    dj_group_round_state_t *round = &group->round;
    if (!of_open_round(group, step))
        return dj_group_refuse(group, "an end of another round");
    dj_group_peer_t *peer = &group->peers[step->from];
    if (round->kind == DJ_GROUP_BROADCAST) {
        if (peer->state == DJ_CHILD_EXPECTED && peer->in_flight == 0)
            peer->state = DJ_CHILD_SERVED;
        return DJ_OK;
    }
    if (round->kind == DJ_GROUP_GATHER && round->root == group->me)
        return dj_group_refuse(group, "only the root ends a gather");
    round->released = true;
    round->missing = step->missing[0];
    round->first_missing = step->missing[1];
    return DJ_OK;
}

/* From the parent, or from a child that was invited. */
static dj_status_t take_over(dj_group_t *group, const dj_group_step_t *step)
{
    dj_group_round_state_t *round = &group->round;
    if (!of_open_round(group, step))
        return dj_group_refuse(group, "an end of another round");
    dj_group_peer_t *peer = &group->peers[step->from];
    bool source = round->asked && step->from == round->source;
    if (!source && peer->state != DJ_CHILD_EXPECTED)
        return dj_group_refuse(group, "an end by a member that was not asked");
    if (source)
        dj_round_ended(group, step);
    else
        dj_round_replace(group, step->from);
    return DJ_OK;
}

static dj_status_t take_part(dj_group_t *group, const dj_group_step_t *step,
                             const dj_incoming_t *incoming, void **memory_p)
{
    uint8_t *memory;
    dj_status_t status = dj_round_part(group, step, incoming->payload_bytes, &memory);
    if (status != DJ_OK)
        return status;
    if (incoming->rendezvous) {
        *memory_p = memory;
        return DJ_OK;
    }
    if (incoming->payload_bytes > 0)
        memcpy(memory, incoming->payload, incoming->payload_bytes);
    dj_round_landed(group, step, incoming->payload_bytes, true);
    return DJ_OK;
}

static dj_status_t take(dj_group_t *group, const dj_group_step_t *step,
                        const dj_incoming_t *incoming, void **memory_p)
{
    switch (step->step) {
    case DJ_STEP_ASK:
        return take_ask(group, step);
    case DJ_STEP_INVITE:
        return take_invite(group, step);
    case DJ_STEP_DONE:
        return take_done(group, step);
    case DJ_STEP_OVER:
        return take_over(group, step);
    case DJ_STEP_SEND:
        if (!of_open_round(group, step) || step->from != group->round.source)
            return dj_group_refuse(group, "asks for bytes of another round");
        group->round.wanted = true;
        return DJ_OK;
    default:
        return take_part(group, step, incoming, memory_p);
    }
}

dj_status_t dj_group_message(dj_group_t *group, const dj_incoming_t *incoming, void **memory_p,
                             void **token_p)
{
    const dj_group_step_t *step = incoming->body;
    bool second = incoming->rendezvous && (incoming->payload || incoming->failed);
    group->attention = true;
    if (second && !incoming->token) {
        dj_round_landed(group, step, incoming->payload_bytes, !incoming->failed);
        return DJ_OK;
    }
    if (!second) {
        if (incoming->header->type != DJ_MESSAGE_GROUP ||
            !sane(group, step, incoming->payload_bytes)) {
            ++group->counters.refused;
            return dj_fail(DJ_ERR_PROTOCOL, "a malformed step of a group");
        }
        ++group->counters.messages;
    }
    if (step->kind == DJ_GROUP_PUBLISH)
        return dj_publication_message(group, step, incoming, memory_p, token_p);
    if (step->round >= current_round(group))
        group->peers[step->from].absent = false;
    return take(group, step, incoming, memory_p);
}
