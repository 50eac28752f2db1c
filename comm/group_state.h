/* group_state.h - what the group's files share. Private to comm/.
 *
 *   group.c         creation, members, sending, the gate for messages, what is due to whom
 *   group_tree.c    the shape of the tree
 *   group_round.c   opening, watching and closing a round; broadcast, barrier, gather as calls
 *   group_move.c    what a round does: serving children, asking the parent, parts
 *   group_publish.c publications
 *
 * A message only changes records here; everything is sent from outside of handlers, because `reach`
 * may dial. Steps of a round, child to parent (up) and parent to child (down):
 *
 *   ASK    up    serve me. Broadcast: I have `offset` parts; barrier, gather: my subtree is here
 *   SEND   down  gather: send me the bytes of your subtree
 *   PART   both  payload: `offset` in the whole
 *   DONE   down  barrier, gather: the round is over, so many are missing
 *   OVER   both  the round has ended here without that; so many are missing
 *   INVITE down  ask me: your parent is missing
 *
 * and of a publication, by its number at its origin (`root`): OFFER down, ASK up, PART down, DONE
 * up. */
#ifndef DJ_COMM_GROUP_STATE_H
#define DJ_COMM_GROUP_STATE_H

#include "comm/group.h"
#include "comm/group_tree.h"
#include "runtime/base/clock.h"

#define DJ_GROUP_NOBODY UINT32_MAX
/* Measured: see docs/collectives.md. */
#define DJ_GROUP_RADIX 2
#define DJ_GROUP_PART_BYTES (256u << 10)
#define DJ_GROUP_PARTS_MAX 4096
#define DJ_GROUP_WINDOW 8 /* parts under way to one child */
#define DJ_GROUP_RESULTS 16
#define DJ_GROUP_TICK_NS (DJ_NS_PER_MS / 2)

typedef enum dj_group_step_kind {
    DJ_STEP_ASK = 1,
    DJ_STEP_SEND = 2,
    DJ_STEP_PART = 3,
    DJ_STEP_DONE = 4,
    DJ_STEP_OVER = 5,
    DJ_STEP_INVITE = 6,
    DJ_STEP_OFFER = 7,
} dj_group_step_kind_t;

typedef enum dj_child_state {
    DJ_CHILD_NONE,     /* not mine in this round */
    DJ_CHILD_EXPECTED, /* waited for */
    DJ_CHILD_SERVED,
    DJ_CHILD_MISSING,
} dj_child_state_t;

/* What a member is owed as soon as it can be reached. */
enum {
    DJ_DUE_INVITE = 1,  /* to ask me, in the open round */
    DJ_DUE_ANSWER = 2,  /* what became of the round of `answer` */
    DJ_DUE_RECEIPT = 4, /* that the publication of `receipt` is here */
};

typedef struct dj_group_peer {
    struct dj_group *group;
    dj_group_step_t ask;    /* its last, of any round; round 0: none */
    dj_group_step_t invite; /* its last, of a round to come */
    bool lost;              /* known to be dead until `reach` gives it again */
    bool absent;            /* silent: not waited for until it is heard */
    bool missed;            /* in the last round */
    uint8_t due;
    dj_group_step_t answer, receipt;
    /* In the open round: */
    uint8_t state;
    bool adopted;       /* its children hang on me */
    bool told;          /* SEND has gone out */
    bool fresh;         /* broadcast: `next_part` is to be taken from its ASK */
    uint32_t next_part; /* broadcast: to send */
    uint32_t in_flight;
    uint8_t runs_taken, runs_landed; /* gather: bits of the two runs of its block */
    uint64_t moved_ns;               /* when it last showed progress */
} dj_group_peer_t;

typedef struct dj_group_round_state {
    bool open, asked, wanted, released, over, silent;
    bool doubt; /* barrier: another member thinks that the root is gone */
    uint32_t kind, root, place;
    uint32_t source;      /* the parent, or who stands in for it */
    uint32_t next_source; /* takes over when nothing of the old one is on the way any more */
    uint64_t number, bytes;
    uint8_t *data;  /* broadcast: all of it; gather: what this member gives */
    uint8_t *block; /* gather: bytes of the subtree by place; at the root the caller's, by member */
    uint64_t part_bytes;
    uint32_t parts, have, receiving; /* of a broadcast; `receiving` also of a gather */
    uint32_t in_flight;              /* sends that need the caller's memory */
    bool sent;                       /* gather: the block has been given to UCX */
    uint64_t missing, first_missing; /* as the root, or an OVER, tells it */
    uint64_t begin_ns, patience_ns, answer_ns, unit_ns, tick_ns;
    dj_status_t status; /* what the round ends with, unless members are missing */
} dj_group_round_state_t;

typedef struct dj_group_result {
    uint64_t round, missing, first_missing;
    bool well; /* broadcast: the bytes are here; else: all that are not missing have come */
} dj_group_result_t;

struct dj_publication;

/* Numbers of one origin that were delivered: the highest, and bit i: the one i before it. */
typedef struct dj_group_window {
    uint64_t top, bits;
} dj_group_window_t;

struct dj_group {
    dj_group_options_t options;
    dj_group_counters_t counters;
    uint32_t n, me, radix;
    uint64_t next_round;
    bool attention; /* a message, completion or loss has changed a record */
    bool dues;
    dj_group_round_state_t round;
    dj_group_result_t results[DJ_GROUP_RESULTS];
    uint8_t parts[DJ_GROUP_PARTS_MAX]; /* broadcast: DJ_PART_* */
    /* publications */
    struct dj_publication *publications;
    uint32_t n_publications;
    uint64_t publication_bytes, next_publication;
    dj_group_window_t *windows; /* one an origin */
    bool tending;
    dj_group_peer_t peers[];
};

enum { DJ_PART_NONE, DJ_PART_RECEIVING, DJ_PART_HERE };

/* ---- group.c ---- */

/* DJ_OK: sent, or on its way and nothing of the caller's is needed any more. DJ_IN_PROGRESS: `done`
 * will be called. DJ_ERR_BUSY: cannot be reached yet. DJ_ERR_PEER_DIED: it is marked lost. */
dj_status_t dj_group_send(dj_group_t *group, uint32_t member, const dj_group_step_t *step,
                          const dj_piece_t *piece, dj_sent_fn_t done, void *argument);
/* DJ_IN_PROGRESS, or DJ_ERR_PEER_DIED, which marks it lost. */
dj_status_t dj_group_reach(dj_group_t *group, uint32_t member, dj_endpoint_t **endpoint_p);
/* A member that was lost is looked for again; true when it is a member. */
bool dj_group_find(dj_group_t *group, uint32_t member);
/* Ends what is under way with a member. */
void dj_group_sever(dj_group_t *group, uint32_t member);
dj_status_t dj_group_refuse(dj_group_t *group, const char *why);
/* Owes `member` what became of the round that `step`, an ASK or INVITE of its, is about. */
void dj_group_answer(dj_group_t *group, uint32_t member, const dj_group_step_t *step);
/* Sends what is due; true when something remains. */
bool dj_group_settle(dj_group_t *group);
static inline bool dj_group_gone(const dj_group_t *group, uint32_t member)
{
    return member != group->me && (group->peers[member].lost || group->peers[member].absent);
}
static inline uint32_t dj_group_place(const dj_group_t *group, uint32_t member)
{
    return dj_tree_place(group->n, group->round.root, member);
}
static inline uint32_t dj_group_at(const dj_group_t *group, uint32_t place)
{
    return dj_tree_member(group->n, group->round.root, place);
}
static inline bool dj_group_asks_now(const dj_group_t *group, const dj_group_peer_t *peer)
{
    return group->round.open && peer->ask.round == group->round.number &&
           peer->ask.root == group->round.root;
}

/* ---- group_round.c ---- */

/* `member` will not serve or be served in the open round: its children are mine. */
void dj_round_replace(dj_group_t *group, uint32_t member);
/* A barrier whose root is missing goes on under another. */
void dj_round_restart(dj_group_t *group, uint32_t root);
/* How many members are missing by what this one knows, and the first of them. */
uint64_t dj_round_tally(const dj_group_t *group, uint64_t *first_p);
/* An INVITE of the open round. */
void dj_round_invited(dj_group_t *group, const dj_group_step_t *step);
/* The parent has ended the round without a result. */
void dj_round_ended(dj_group_t *group, const dj_group_step_t *step);

/* ---- group_move.c ---- */

/* What can be done now; true when the round is over. */
bool dj_round_move(dj_group_t *group);
/* Where a part goes, for an eager one (then filled at once) and the first call of a rendezvous. */
dj_status_t dj_round_part(dj_group_t *group, const dj_group_step_t *step, uint64_t payload_bytes,
                          uint8_t **memory_p);
void dj_round_landed(dj_group_t *group, const dj_group_step_t *step, uint64_t payload_bytes,
                     bool arrived);

/* ---- group_publish.c ---- */

dj_status_t dj_publication_message(dj_group_t *group, const dj_group_step_t *step,
                                   const dj_incoming_t *incoming, void **memory_p, void **token_p);
bool dj_publications_tend(dj_group_t *group);
void dj_publications_lost(dj_group_t *group, uint32_t member);
void dj_publications_fini(dj_group_t *group);

#endif
