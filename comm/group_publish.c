/* group_publish.c - publications: bytes that one member hands to all without anyone entering
 * anything.
 *
 * A member offers a publication to its children in the tree rooted at the origin, and gives it to
 * those who ask; a child asks for what it has not seen and has room for, else it is offered again
 * later, less and less often. It passes on what has arrived, then delivers it, and tells its parent
 * when its whole subtree has it. Until then it keeps the bytes: when a child dies, the child's
 * children are offered them from here. So a publication survives the death of any member but its
 * origin, and a window of the last numbers of each origin makes that nothing is delivered twice. */
#define DJ_LOG_MODULE "group"

#include "comm/group_state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/log.h"

#define KEEP_NS (10 * DJ_NS_PER_S)
/* Of one origin, and of all: members that are full of each other's publications would wait for each
 * other, so there is room for 16 origins at once. */
#define ORIGIN_MAX 4
#define PUBLICATIONS_MAX 64
#define KEPT_BYTES_MAX (64ull << 20)
#define OFFER_NS (50 * DJ_NS_PER_MS)
#define OFFER_NS_MAX DJ_NS_PER_S

typedef enum reader_state {
    READER_NONE,
    READER_EXPECTED,
    READER_OFFERED,
    READER_ASKED,
    READER_GIVEN, /* it has the bytes; its subtree may not */
    READER_OVER,
} reader_state_t;

typedef struct dj_publication {
    struct dj_publication *next;
    dj_group_t *group;
    uint64_t number, bytes;
    uint32_t origin, parent; /* DJ_GROUP_NOBODY: the origin is here */
    uint32_t in_flight;      /* sends of the bytes */
    bool asked, receiving, here, delivered, given_up;
    uint64_t give_up_ns, offer_ns, offer_after_ns;
    uint8_t *data;
    uint8_t readers[]; /* reader_state_t of each member */
} dj_publication_t;

/* ---- what has been seen ---- */

static bool seen(const dj_group_t *group, uint32_t origin, uint64_t number)
{
    const dj_group_window_t *window = &group->windows[origin];
    if (number > window->top)
        return false;
    return window->top - number >= 64 || window->bits >> (window->top - number) & 1;
}

static void see(dj_group_t *group, uint32_t origin, uint64_t number)
{
    dj_group_window_t *window = &group->windows[origin];
    if (number > window->top) {
        uint64_t shift = number - window->top;
        window->bits = shift < 64 ? window->bits << shift : 0;
        window->top = number;
    }
    if (window->top - number < 64)
        window->bits |= 1ull << (window->top - number);
}

/* ---- the list ---- */

static dj_publication_t *find(const dj_group_t *group, uint32_t origin, uint64_t number)
{
    for (dj_publication_t *at = group->publications; at; at = at->next)
        if (at->origin == origin && at->number == number)
            return at;
    return NULL;
}

static void expect_readers(dj_publication_t *publication, uint32_t member)
{
    dj_group_t *group = publication->group;
    uint32_t place = dj_tree_place(group->n, publication->origin, member), child = DJ_TREE_NONE;
    while ((child = dj_tree_next_child(group->n, group->radix, place, child)) != DJ_TREE_NONE) {
        uint32_t reader = dj_tree_member(group->n, publication->origin, child);
        if (group->peers[reader].lost)
            expect_readers(publication, reader);
        else if (reader != group->me && publication->readers[reader] == READER_NONE)
            publication->readers[reader] = READER_EXPECTED;
    }
}

static dj_status_t add(dj_group_t *group, uint32_t origin, uint64_t number, uint64_t bytes,
                       dj_publication_t **publication_p)
{
    uint32_t of_origin = 0;
    for (const dj_publication_t *at = group->publications; at; at = at->next)
        of_origin += at->origin == origin;
    if (of_origin >= ORIGIN_MAX || group->n_publications >= PUBLICATIONS_MAX ||
        bytes > KEPT_BYTES_MAX - group->publication_bytes)
        return dj_fail(DJ_ERR_BUSY,
                       "%u publications of %llu bytes are on their way, %u of them from member %u; "
                       "the limits are %d, %llu and %d",
                       group->n_publications, (unsigned long long)group->publication_bytes,
                       of_origin, origin, PUBLICATIONS_MAX, KEPT_BYTES_MAX, ORIGIN_MAX);
    dj_publication_t *publication = calloc(1, sizeof(*publication) + group->n);
    uint8_t *data = malloc(bytes + 1);
    if (!publication || !data) {
        free(publication);
        free(data);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a publication of %llu bytes",
                       (unsigned long long)bytes);
    }
    publication->group = group;
    publication->data = data;
    publication->origin = origin;
    publication->number = number;
    publication->bytes = bytes;
    publication->parent = DJ_GROUP_NOBODY;
    publication->give_up_ns = dj_clock_ns() + KEEP_NS;
    publication->offer_after_ns = OFFER_NS;
    publication->next = group->publications;
    group->publications = publication;
    ++group->n_publications;
    group->publication_bytes += bytes;
    *publication_p = publication;
    return DJ_OK;
}

static void drop(dj_publication_t **at_p)
{
    dj_publication_t *publication = *at_p;
    *at_p = publication->next;
    --publication->group->n_publications;
    publication->group->publication_bytes -= publication->bytes;
    free(publication->data);
    free(publication);
}

void dj_publications_fini(dj_group_t *group)
{
    while (group->publications)
        drop(&group->publications);
}

/* Numbers go on rising when the origin is a new process. */
static uint64_t first_number(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

dj_status_t dj_group_publish(dj_group_t *group, const void *data, uint64_t bytes)
{
    if (bytes > DJ_GROUP_PUBLISH_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "a publication of %llu bytes; the limit is %d",
                       (unsigned long long)bytes, DJ_GROUP_PUBLISH_BYTES_MAX);
    if (group->next_publication == 0)
        group->next_publication = first_number();
    dj_publication_t *publication;
    dj_status_t status = add(group, group->me, group->next_publication, bytes, &publication);
    if (status != DJ_OK)
        return status;
    ++group->next_publication;
    ++group->counters.published;
    if (bytes > 0)
        memcpy(publication->data, data, bytes);
    publication->here = publication->delivered = true;
    see(group, group->me, publication->number);
    expect_readers(publication, group->me);
    group->attention = true;
    return DJ_OK;
}

void dj_publications_lost(dj_group_t *group, uint32_t member)
{
    for (dj_publication_t *at = group->publications; at; at = at->next) {
        bool pending = at->readers[member] != READER_NONE && at->readers[member] != READER_OVER;
        if (at->here && pending) {
            at->readers[member] = READER_OVER;
            expect_readers(at, member);
            at->offer_ns = 0;
        }
        if (at->parent == member && !at->receiving)
            at->asked = false; /* who takes it over will offer */
    }
}

/* ---- messages ---- */

static dj_status_t take_offer(dj_group_t *group, const dj_group_step_t *step)
{
    dj_publication_t *publication = find(group, step->root, step->round);
    dj_group_peer_t *peer = &group->peers[step->from];
    if (!publication && seen(group, step->root, step->round)) {
        ++group->counters.repeated;
        peer->receipt = *step;
        peer->receipt.step = DJ_STEP_DONE;
        peer->due |= DJ_DUE_RECEIPT;
        group->dues = true;
        return DJ_OK;
    }
    if (publication &&
        (publication->bytes != step->bytes || publication->parent == DJ_GROUP_NOBODY))
        return dj_group_refuse(group, "an offer that differs from an earlier one");
    if (!publication && add(group, step->root, step->round, step->bytes, &publication) != DJ_OK)
        return DJ_OK; /* it will be offered again */
    if (publication->receiving && publication->parent != step->from)
        return DJ_OK; /* still on its way from the old parent: offered again if that fails */
    publication->parent = step->from;
    if (!publication->here && !publication->receiving)
        publication->asked = false;
    return DJ_OK;
}

static dj_status_t take_part(dj_group_t *group, dj_publication_t *publication,
                             const dj_group_step_t *step, const dj_incoming_t *incoming,
                             void **memory_p, void **token_p)
{
    if (!publication->asked || publication->here || publication->receiving ||
        step->from != publication->parent || step->offset != 0 ||
        step->bytes != publication->bytes || incoming->payload_bytes != step->bytes)
        return dj_group_refuse(group, "bytes of a publication that were not asked for");
    if (incoming->rendezvous) {
        publication->receiving = true;
        *memory_p = publication->data;
        *token_p = publication;
        return DJ_OK;
    }
    if (incoming->payload_bytes > 0)
        memcpy(publication->data, incoming->payload, incoming->payload_bytes);
    publication->here = true;
    return DJ_OK;
}

static void take_end(dj_publication_t *publication, bool arrived)
{
    publication->receiving = false;
    publication->here = arrived;
    publication->asked = publication->asked && arrived;
}

dj_status_t dj_publication_message(dj_group_t *group, const dj_group_step_t *step,
                                   const dj_incoming_t *incoming, void **memory_p, void **token_p)
{
    if (incoming->token) {
        take_end(incoming->token, !incoming->failed);
        return DJ_OK;
    }
    if (step->root == group->me && (step->step == DJ_STEP_OFFER || step->step == DJ_STEP_PART))
        return dj_group_refuse(group, "a publication of this member from another");
    if (step->step == DJ_STEP_OFFER)
        return take_offer(group, step);
    dj_publication_t *publication = find(group, step->root, step->round);
    if (!publication)
        return dj_group_refuse(group, "a publication that is not here any more");
    if (step->step == DJ_STEP_PART)
        return take_part(group, publication, step, incoming, memory_p, token_p);
    uint8_t *reader = &publication->readers[step->from];
    if (*reader == READER_NONE || !publication->here)
        return dj_group_refuse(group, "a reader that was not offered anything");
    if (step->step == DJ_STEP_ASK && *reader < READER_ASKED)
        *reader = READER_ASKED;
    else if (step->step == DJ_STEP_DONE)
        *reader = READER_OVER;
    return DJ_OK;
}

/* ---- sending ---- */

static dj_status_t send_step(dj_publication_t *publication, uint32_t member,
                             dj_group_step_kind_t kind, const dj_piece_t *piece, dj_sent_fn_t done)
{
    const dj_group_step_t step = {.round = publication->number,
                                  .bytes = publication->bytes,
                                  .kind = DJ_GROUP_PUBLISH,
                                  .step = (uint32_t)kind,
                                  .root = publication->origin};
    return dj_group_send(publication->group, member, &step, piece, done, publication);
}

static void on_given(void *argument, dj_status_t status)
{
    dj_publication_t *publication = argument;
    --publication->in_flight;
    publication->group->attention = true;
}

/* One that refuses (it had it from another) or fails is offered again by and by. */
static void give(dj_publication_t *publication, uint32_t member)
{
    const dj_piece_t piece = {publication->data, publication->bytes};
    ++publication->in_flight;
    dj_status_t status = send_step(publication, member, DJ_STEP_PART, &piece, on_given);
    if (status != DJ_IN_PROGRESS)
        --publication->in_flight;
    if (status == DJ_OK || status == DJ_IN_PROGRESS)
        publication->readers[member] = READER_GIVEN;
}

/* Every offer that is open, again from time to time: a child without room does not answer. */
static bool tend_readers(dj_publication_t *publication, uint64_t now_ns)
{
    dj_group_t *group = publication->group;
    bool waiting = false, again = now_ns >= publication->offer_ns;
    for (uint32_t i = 0; i < group->n; ++i) {
        uint8_t *reader = &publication->readers[i];
        if (*reader == READER_NONE || *reader == READER_OVER)
            continue;
        if (publication->given_up) {
            ++group->counters.abandoned;
            *reader = READER_OVER;
            continue;
        }
        waiting = true;
        if (*reader == READER_ASKED)
            give(publication, i);
        else if ((*reader == READER_EXPECTED || again) &&
                 send_step(publication, i, DJ_STEP_OFFER, NULL, NULL) == DJ_OK)
            *reader = READER_OFFERED;
    }
    if (again) {
        publication->offer_ns = now_ns + publication->offer_after_ns;
        if (publication->offer_after_ns < OFFER_NS_MAX)
            publication->offer_after_ns *= 2;
    }
    return waiting;
}

/* True when nothing more is to be done with it. */
static bool tend_one(dj_publication_t *publication, uint64_t now_ns)
{
    dj_group_t *group = publication->group;
    publication->given_up = now_ns >= publication->give_up_ns;
    if (!publication->here) {
        if (!publication->asked && !publication->given_up)
            publication->asked =
                send_step(publication, publication->parent, DJ_STEP_ASK, NULL, NULL) == DJ_OK;
        return publication->given_up && !publication->receiving;
    }
    if (!publication->delivered)
        expect_readers(publication, group->me);
    bool waiting = tend_readers(publication, now_ns);
    if (!publication->delivered) {
        publication->delivered = true;
        see(group, publication->origin, publication->number);
        ++group->counters.delivered;
        if (group->options.deliver)
            group->options.deliver(group->options.context, publication->origin, publication->data,
                                   publication->bytes);
    }
    if (waiting || publication->in_flight > 0)
        return false;
    if (publication->parent != DJ_GROUP_NOBODY)
        return send_step(publication, publication->parent, DJ_STEP_DONE, NULL, NULL) !=
                   DJ_ERR_BUSY ||
               publication->given_up;
    return true;
}

bool dj_publications_tend(dj_group_t *group)
{
    if (!group->publications || group->tending)
        return group->publications != NULL;
    uint64_t now_ns = dj_clock_ns();
    group->tending = true; /* a delivery may publish */
    for (dj_publication_t **at_p = &group->publications; *at_p;) {
        dj_publication_t *publication = *at_p;
        bool over = tend_one(publication, now_ns);
        if (*at_p != publication) /* published meanwhile: the new one stands before */
            for (at_p = &group->publications; *at_p != publication;)
                at_p = &(*at_p)->next;
        if (over)
            drop(at_p);
        else
            at_p = &publication->next;
    }
    group->tending = false;
    return group->publications != NULL;
}
