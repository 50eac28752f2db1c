/* pack_beam.c - see pack_beam.h. */
#include "planner/pack_beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/pack_meter.h"

#define HISTORY_BYTES_MAX (256ull << 20)
#define NO_STATE UINT32_MAX

enum { SUM, FORWARD, BACKWARD, POWER, COUNT, SUMS };

dj_status_t dj_beam_init(dj_beam_t *beam, uint32_t tree_room, uint32_t n_levels,
                         const uint64_t *kinds)
{
    *beam = (dj_beam_t){.tree_room = tree_room, .kinds = kinds};
    beam->log_factorial = calloc(tree_room + 2ull, sizeof beam->log_factorial[0]);
    beam->sums = calloc(SUMS * (tree_room + 2ull), sizeof beam->sums[0]);
    beam->level_first = calloc(n_levels + 2ull, sizeof beam->level_first[0]);
    if (beam->log_factorial == NULL || beam->sums == NULL || beam->level_first == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for trees of %u nodes", tree_room);
    for (uint32_t i = 2; i < tree_room + 2; i++)
        beam->log_factorial[i] = beam->log_factorial[i - 1] + log2(i);
    return DJ_OK;
}

static void free_pool(dj_beam_pool_t *pool)
{
    free(pool->states);
    free(pool->nodes);
    free(pool->blocks);
    free(pool->free_slots);
    *pool = (dj_beam_pool_t){0};
}

void dj_beam_fini(dj_beam_t *beam)
{
    free_pool(&beam->pools[0]);
    free_pool(&beam->pools[1]);
    free(beam->table);
    free(beam->log_factorial);
    free(beam->sums);
    free(beam->level_first);
    free(beam->kept_parent);
    free(beam->kept_blocks);
    free(beam->blocks);
    *beam = (dj_beam_t){0};
}

static bool make_pool(dj_beam_pool_t *pool, uint32_t width, uint32_t tree_room)
{
    uint32_t max = 2 * width + 1;
    free_pool(pool);
    pool->states = malloc(max * sizeof pool->states[0]);
    pool->nodes = malloc((size_t)max * tree_room * sizeof pool->nodes[0]);
    pool->blocks = malloc((size_t)max * DJ_BLOCK_BITS * sizeof pool->blocks[0]);
    pool->free_slots = malloc(max * sizeof pool->free_slots[0]);
    pool->max = max;
    return pool->states != NULL && pool->nodes != NULL && pool->blocks != NULL &&
           pool->free_slots != NULL;
}

static void empty_pool(dj_beam_pool_t *pool)
{
    pool->n = 0;
    pool->n_free = 0;
    for (uint32_t i = pool->max; i-- > 0;)
        pool->free_slots[pool->n_free++] = i;
}

static uint32_t find_entry(const dj_beam_t *beam, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & (beam->table_size - 1);
    while (beam->table[at] != NO_STATE && beam->next->states[beam->table[at]].hash != hash)
        at = (at + 1) & (beam->table_size - 1);
    return at;
}

static void fill_table(dj_beam_t *beam)
{
    memset(beam->table, 0xff, beam->table_size * sizeof beam->table[0]);
    for (uint32_t i = 0; i < beam->next->n; i++)
        beam->table[find_entry(beam, beam->next->states[i].hash)] = i;
}

dj_status_t dj_beam_reset(dj_beam_t *beam, uint32_t width)
{
    bool good = true;
    if (beam->width != width) {
        beam->table_size = 16;
        while (beam->table_size < 8 * width)
            beam->table_size *= 2;
        free(beam->table);
        beam->table = malloc(beam->table_size * sizeof beam->table[0]);
        good = beam->table != NULL && make_pool(&beam->pools[0], width, beam->tree_room) &&
               make_pool(&beam->pools[1], width, beam->tree_room);
    }
    beam->width = good ? width : 0;
    if (!good)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a beam of %u trees", width);
    beam->now = &beam->pools[0];
    beam->next = &beam->pools[1];
    beam->dropped = false;
    beam->n_kept = beam->n_levels = 0;
    beam->n_blocks = 0;
    empty_pool(beam->now);
    empty_pool(beam->next);
    fill_table(beam);
    return DJ_OK;
}

/* Finds each node's parent and clears the sums of inner nodes. */
static void prepare_sums(dj_beam_t *beam, const dj_tree_t *tree, dj_tree_work_t *work)
{
    uint32_t depth = 0, *stack = work->path, *parents = work->list;
    for (uint32_t i = 0; i < tree->n; i++) {
        while (depth > 0 && i >= stack[depth - 1] + tree->nodes[stack[depth - 1]].span)
            depth--;
        parents[i] = depth > 0 ? stack[depth - 1] : UINT32_MAX;
        if (tree->nodes[i].piece >= 0)
            continue;
        stack[depth++] = i;
        memset(beam->sums + SUMS * (size_t)i, 0, SUMS * sizeof beam->sums[0]);
        beam->sums[SUMS * (size_t)i + POWER] = 1;
    }
}

static void add_child(uint64_t *sums, uint64_t hash)
{
    const uint64_t factor = 0x9ddfea08eb382d69ull;
    sums[SUM] += dj_pack_mix(hash);
    sums[FORWARD] += hash * sums[POWER];
    sums[BACKWARD] = sums[BACKWARD] * factor + hash;
    sums[POWER] *= factor;
    sums[COUNT]++;
}

/* The logarithm of the number of orders, and a hash that is the same for a tree however its nodes
 * are turned. */
static double weigh(dj_beam_t *beam, const dj_tree_t *tree, dj_tree_work_t *work, uint64_t *hash_p)
{
    uint64_t hash = 0;
    double orders = 0;
    prepare_sums(beam, tree, work);
    for (uint32_t i = tree->n; i-- > 0;) {
        int32_t piece = tree->nodes[i].piece;
        const uint64_t *sums = beam->sums + SUMS * (size_t)i;
        if (piece >= 0) {
            hash = beam->kinds[piece];
        } else if (piece == DJ_TREE_P || sums[COUNT] == 2) {
            hash = dj_pack_mix(sums[SUM] ^ 0x5555);
            orders += beam->log_factorial[sums[COUNT]];
        } else {
            hash = dj_pack_mix(dj_pack_mix(sums[FORWARD]) + dj_pack_mix(sums[BACKWARD]));
            orders += 1;
        }
        if (i > 0)
            add_child(beam->sums + SUMS * (size_t)work->list[i], hash);
    }
    *hash_p = hash;
    return orders;
}

static int by_score(const void *a, const void *b)
{
    const dj_beam_state_t *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static void drop_worst(dj_beam_t *beam)
{
    dj_beam_pool_t *pool = beam->next;
    if (pool->n <= beam->width)
        return;
    qsort(pool->states, pool->n, sizeof pool->states[0], by_score);
    for (uint32_t i = beam->width; i < pool->n; i++)
        pool->free_slots[pool->n_free++] = pool->states[i].slot;
    pool->n = beam->width;
    beam->dropped = true;
}

static double draw_noise(dj_beam_t *beam)
{
    return beam->noise * (double)(dj_pack_mix(beam->random++) >> 11) / (double)(1ull << 53);
}

void dj_beam_offer(dj_beam_t *beam, const dj_tree_t *tree, uint32_t parent,
                   const dj_block_t *blocks, uint32_t n_blocks, dj_tree_work_t *work)
{
    dj_beam_pool_t *pool = beam->next;
    uint64_t hash;
    double orders = weigh(beam, tree, work, &hash);
    if (beam->table[find_entry(beam, hash)] != NO_STATE)
        return;
    if (pool->n == pool->max) {
        drop_worst(beam);
        fill_table(beam);
    }
    uint32_t slot = pool->free_slots[--pool->n_free];
    pool->states[pool->n] = (dj_beam_state_t){.score = orders + draw_noise(beam),
                                              .hash = hash,
                                              .slot = slot,
                                              .n_nodes = tree->n,
                                              .parent = parent,
                                              .n_blocks = n_blocks};
    memcpy(pool->nodes + (size_t)slot * beam->tree_room, tree->nodes,
           tree->n * sizeof tree->nodes[0]);
    if (n_blocks > 0)
        memcpy(pool->blocks + (size_t)slot * DJ_BLOCK_BITS, blocks, n_blocks * sizeof blocks[0]);
    beam->table[find_entry(beam, hash)] = pool->n++;
}

static bool grow_history(dj_beam_t *beam, uint32_t n_states, size_t n_blocks)
{
    if (beam->n_kept + n_states + 1ull > beam->max_kept) {
        uint32_t max = 2 * (beam->n_kept + n_states + 1);
        uint32_t *parents = realloc(beam->kept_parent, max * sizeof parents[0]);
        beam->kept_parent = parents != NULL ? parents : beam->kept_parent;
        size_t *first = realloc(beam->kept_blocks, max * sizeof first[0]);
        beam->kept_blocks = first != NULL ? first : beam->kept_blocks;
        if (parents == NULL || first == NULL)
            return false;
        beam->max_kept = max;
    }
    if (beam->n_blocks + n_blocks > beam->max_blocks) {
        size_t max = 2 * (beam->n_blocks + n_blocks);
        dj_block_t *blocks = realloc(beam->blocks, max * sizeof blocks[0]);
        if (blocks == NULL)
            return false;
        beam->blocks = blocks;
        beam->max_blocks = max;
    }
    return beam->max_kept * (sizeof(uint32_t) + sizeof(size_t)) +
               beam->max_blocks * sizeof(dj_block_t) <=
           HISTORY_BYTES_MAX;
}

dj_status_t dj_beam_advance(dj_beam_t *beam)
{
    drop_worst(beam);
    dj_beam_pool_t *pool = beam->next;
    size_t n_blocks = 0;
    for (uint32_t i = 0; i < pool->n; i++)
        n_blocks += pool->states[i].n_blocks;
    if (!grow_history(beam, pool->n, n_blocks))
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u events of a packing", beam->n_levels);
    beam->level_first[beam->n_levels++] = beam->n_kept;
    for (uint32_t i = 0; i < pool->n; i++) {
        const dj_beam_state_t *state = &pool->states[i];
        beam->kept_parent[beam->n_kept] = state->parent;
        beam->kept_blocks[beam->n_kept++] = beam->n_blocks;
        if (state->n_blocks > 0)
            memcpy(beam->blocks + beam->n_blocks,
                   pool->blocks + (size_t)state->slot * DJ_BLOCK_BITS,
                   state->n_blocks * sizeof beam->blocks[0]);
        beam->n_blocks += state->n_blocks;
    }
    beam->kept_blocks[beam->n_kept] = beam->n_blocks;
    beam->next = beam->now;
    beam->now = pool;
    empty_pool(beam->next);
    fill_table(beam);
    return DJ_OK;
}

uint32_t dj_beam_count(const dj_beam_t *beam)
{
    return beam->now->n;
}

dj_tree_t dj_beam_tree(const dj_beam_t *beam, uint32_t number)
{
    const dj_beam_state_t *state = &beam->now->states[number];
    return (dj_tree_t){.nodes = beam->now->nodes + (size_t)state->slot * beam->tree_room,
                       .n = state->n_nodes};
}

uint32_t dj_beam_trace(const dj_beam_t *beam, dj_step_t *steps, uint32_t max)
{
    uint32_t n = 0, state = 0;
    for (uint32_t level = beam->n_levels; level-- > 1;) {
        uint32_t kept = beam->level_first[level] + state;
        for (size_t i = beam->kept_blocks[kept + 1]; i-- > beam->kept_blocks[kept] && n < max;)
            steps[n++] = (dj_step_t){.event = level, .block = beam->blocks[i]};
        state = beam->kept_parent[kept];
    }
    for (uint32_t i = 0; i < n / 2; i++) {
        dj_step_t step = steps[i];
        steps[i] = steps[n - 1 - i];
        steps[n - 1 - i] = step;
    }
    return n;
}
