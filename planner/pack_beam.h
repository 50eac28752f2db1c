/* pack_beam.h - the most promising trees of orders after each event, and how each came to be.
 *
 * A tree stands for every order it allows, so its promise is their number: it is kept as its
 * logarithm. Two trees that differ only in pieces of one size and one end are the same to the
 * future and only one is kept (they are known by a hash of 64 bits).
 *
 * Inside the planner. Threads: one. */
#ifndef DJ_PLANNER_PACK_BEAM_H
#define DJ_PLANNER_PACK_BEAM_H

#include "planner/pack_order.h"
#include "planner/pack_tree.h"

typedef struct dj_beam_state {
    double score;
    uint64_t hash;
    uint32_t slot, n_nodes, parent, n_blocks;
} dj_beam_state_t;

typedef struct dj_beam_pool {
    dj_beam_state_t *states;
    uint32_t n, max;
    dj_tree_node_t *nodes; /* by slot */
    dj_block_t *blocks;    /* by slot */
    uint32_t *free_slots, n_free;
} dj_beam_pool_t;

typedef struct dj_beam {
    uint32_t width, tree_room;
    dj_beam_pool_t pools[2];
    dj_beam_pool_t *now, *next;
    uint32_t *table, table_size; /* hash table over next->states */
    bool dropped;                /* a state was left out for want of width */
    double noise;                /* added to a score, at most */
    uint64_t random;
    const uint64_t *kinds; /* of each piece: equal for those of one size and one end */
    double *log_factorial;
    uint64_t *sums; /* working memory of a weighing */
    /* the states kept after each event: where their blocks are and whose children they are */
    uint32_t *kept_parent, n_kept, max_kept;
    size_t *kept_blocks;
    dj_block_t *blocks;
    size_t n_blocks, max_blocks;
    uint32_t *level_first, n_levels;
} dj_beam_t;

/* Ends with dj_beam_fini(), also after an error. `kinds` is borrowed. DJ_ERR_MEMORY. */
dj_status_t dj_beam_init(dj_beam_t *beam, uint32_t tree_room, uint32_t n_levels,
                         const uint64_t *kinds);
void dj_beam_fini(dj_beam_t *beam);

/* Forgets all and sets how many trees are kept. DJ_ERR_MEMORY. */
dj_status_t dj_beam_reset(dj_beam_t *beam, uint32_t width);

/* A tree of the coming event, reached from state `parent` of this one by blocks[0, n_blocks) (at
 * most DJ_BLOCK_BITS). */
void dj_beam_offer(dj_beam_t *beam, const dj_tree_t *tree, uint32_t parent,
                   const dj_block_t *blocks, uint32_t n_blocks, dj_tree_work_t *work);

/* The coming event becomes this one. DJ_ERR_MEMORY, also when the history grew too long. */
dj_status_t dj_beam_advance(dj_beam_t *beam);

uint32_t dj_beam_count(const dj_beam_t *beam);
dj_tree_t dj_beam_tree(const dj_beam_t *beam, uint32_t number);

/* The steps that led to the first state of this event, in order. `max` holds for steps; there are
 * no more than pieces. Returns how many. */
uint32_t dj_beam_trace(const dj_beam_t *beam, dj_step_t *steps, uint32_t max);

#endif
