/* pack_full.c - exact placement where no byte is ever unused.
 *
 * If all columns are full, pieces never have room to lie elsewhere than end to end, and all that is
 * left to find is the order of the stack. From event to event that order changes only in gaps: what
 * ends leaves some, what begins fills them (pack_event.h). So a state of the search need not be one
 * order: it is the PQ-tree of every order that what came before allows (pack_tree.h), and a step is
 * the choice of which pieces share a gap. If no two sets of sizes ever had the same sum there would
 * be no choice at all and the search would be a proof by reductions; choices come only from
 * coincidences. They are searched by a beam (pack_beam.h), forwards and backwards in time by turns,
 * with growing width. When nothing was left out and the beam still died, there is no packing.
 *
 * Looking ahead: an event whose pieces can only be one block needs all that end in it together from
 * the moment that the last of them is there; so the tree is narrowed then, not when they end. */
#include "planner/pack_full.h"

#include <stdlib.h>
#include <string.h>

#include "planner/pack_beam.h"

enum {
    WIDTH_FIRST = 4,
    WIDTH_GROWTH = 4,
    WIDTH_MAX = 4096,
    ROUNDS_MAX = 64,
    BLOCKS_A_NODE = 32,     /* blocks looked at count like one tree made */
    SUBSETS_BRIEF = 1 << 8, /* of one side of an event; what is beyond has many pieces */
    SUBSETS_LONG = 1 << 15,
    BEAM_BYTES_MAX = 128 << 20,
    CANDIDATES_MAX = 2048 + 2, /* an event lists no more blocks */
};
#define REST UINT32_MAX /* the candidate that is all of the event that is left */

/* One block of an event being chosen. */
typedef struct choice {
    uint64_t ends_left, starts_left;
    dj_tree_t tree;
    uint32_t *candidates, n_candidates, next;
    uint32_t from; /* blocks before are not taken any more */
} choice_t;

/* One direction of time. */
typedef struct full {
    const dj_rect_t *rects;
    dj_events_t events;
    dj_pack_meter_t *meter;
    dj_beam_t beam;
    bool *marks;
    uint64_t *kinds;
    uint32_t *watch_first,
        *watch; /* events to look ahead at, by the event that begins the last piece */
    choice_t choices[DJ_BLOCK_BITS + 1];
    dj_block_t taken[DJ_BLOCK_BITS + 1];
    dj_tree_t ahead[2];
    dj_tree_work_t work;
    dj_tree_node_t *nodes;
    uint32_t *numbers, *candidates, *heirs;
    uint32_t ways_max; /* how many ways through one event are followed from one tree */
    bool cut_short;    /* some were not */
} full_t;

static void mark_bits(full_t *f, const dj_event_t *event, uint64_t bits, bool mark)
{
    for (; bits != 0; bits &= bits - 1)
        f->marks[event->ends[__builtin_ctzll(bits)]] = mark;
}

static void mark_ends(full_t *f, const dj_event_t *event, bool mark)
{
    for (uint32_t i = 0; i < event->n_ends; i++)
        f->marks[event->ends[i]] = mark;
}

static uint32_t count_bits(uint64_t bits)
{
    return (uint32_t)__builtin_popcountll(bits);
}

static bool take_block(full_t *f, const dj_event_t *event, const dj_tree_t *tree, dj_block_t block,
                       dj_tree_t *out)
{
    uint32_t n_heirs = 0;
    f->meter->nodes++;
    for (uint64_t bits = block.starts; bits != 0; bits &= bits - 1)
        f->heirs[n_heirs++] = event->starts[__builtin_ctzll(bits)];
    mark_bits(f, event, block.ends, true);
    bool fits =
        dj_tree_reduce(tree, f->marks, count_bits(block.ends), f->heirs, n_heirs, out, &f->work);
    mark_bits(f, event, block.ends, false);
    return fits;
}

static bool is_together(full_t *f, const dj_event_t *event, const choice_t *choice)
{
    mark_bits(f, event, choice->ends_left, true);
    bool together =
        dj_tree_together(&choice->tree, f->marks, count_bits(choice->ends_left), &f->work);
    mark_bits(f, event, choice->ends_left, false);
    return together;
}

typedef struct scarcest {
    uint64_t end, start; /* one bit in one of them */
} scarcest_t;

/* The piece that the fewest candidates hold: one of these must be taken anyway. */
static scarcest_t find_scarcest(const dj_event_t *event, const choice_t *choice, uint32_t n)
{
    uint32_t ends[DJ_BLOCK_BITS] = {0}, starts[DJ_BLOCK_BITS] = {0}, fewest = UINT32_MAX;
    scarcest_t found = {0};
    for (uint32_t i = 0; i < n; i++) {
        const dj_block_t *block = &event->blocks[choice->candidates[i]];
        for (uint64_t bits = block->ends; bits != 0; bits &= bits - 1)
            ends[__builtin_ctzll(bits)]++;
        for (uint64_t bits = block->starts; bits != 0; bits &= bits - 1)
            starts[__builtin_ctzll(bits)]++;
    }
    for (uint64_t bits = choice->ends_left; bits != 0; bits &= bits - 1)
        if (ends[__builtin_ctzll(bits)] < fewest) {
            fewest = ends[__builtin_ctzll(bits)];
            found = (scarcest_t){.end = bits & -bits};
        }
    for (uint64_t bits = choice->starts_left; bits != 0; bits &= bits - 1)
        if (starts[__builtin_ctzll(bits)] < fewest) {
            fewest = starts[__builtin_ctzll(bits)];
            found = (scarcest_t){.start = bits & -bits};
        }
    return found;
}

/* Where the list of blocks is complete, one of those with the scarcest piece must be taken; else
 * any may be, in the order of the list, and what is left in the end is one block. What lies
 * together in every order is best taken as one: nothing narrows the tree less. */
static void list_candidates(full_t *f, const dj_event_t *event, choice_t *choice)
{
    uint32_t n = 0, kept = 0, *list = choice->candidates;
    choice->next = 0;
    choice->n_candidates = 1;
    list[0] = REST;
    if (count_bits(choice->ends_left) <= 1 || count_bits(choice->starts_left) <= 1 ||
        is_together(f, event, choice))
        return;
    for (uint32_t i = event->complete ? 0 : choice->from; i < event->n_blocks; i++) {
        const dj_block_t *block = &event->blocks[i];
        if ((block->ends & ~choice->ends_left) == 0 &&
            (block->starts & ~choice->starts_left) == 0 && block->ends != choice->ends_left)
            list[n++] = i;
    }
    f->meter->nodes += event->n_blocks / BLOCKS_A_NODE;
    scarcest_t scarcest = find_scarcest(event, choice, n);
    for (uint32_t i = 0; i < n; i++) {
        const dj_block_t *block = &event->blocks[list[i]];
        if (!event->complete || (block->ends & scarcest.end) != 0 ||
            (block->starts & scarcest.start) != 0)
            list[kept++] = list[i];
    }
    list[kept++] = REST;
    choice->n_candidates = kept;
}

/* Narrows by what is ahead and offers the tree to the beam. */
static void offer(full_t *f, uint32_t event, const dj_tree_t *tree, uint32_t parent,
                  uint32_t n_blocks)
{
    const dj_tree_t *now = tree;
    uint32_t turn = 0;
    for (uint32_t i = f->watch_first[event]; i < f->watch_first[event + 1]; i++) {
        const dj_event_t *ahead = &f->events.list[f->watch[i]];
        mark_ends(f, ahead, true);
        bool fits =
            dj_tree_reduce(now, f->marks, ahead->n_ends, NULL, 0, &f->ahead[turn], &f->work);
        mark_ends(f, ahead, false);
        if (!fits)
            return;
        now = &f->ahead[turn];
        turn ^= 1;
    }
    dj_beam_offer(&f->beam, now, parent, f->taken, n_blocks, &f->work);
}

/* More pieces than bits: all as one block. */
static void expand_whole(full_t *f, uint32_t number, uint32_t parent, const dj_tree_t *tree)
{
    const dj_event_t *event = &f->events.list[number];
    dj_tree_t *out = &f->choices[1].tree;
    f->meter->nodes++;
    mark_ends(f, event, true);
    bool fits = dj_tree_reduce(tree, f->marks, event->n_ends, event->starts, event->n_starts, out,
                               &f->work);
    if (!dj_tree_together(tree, f->marks, event->n_ends, &f->work))
        f->cut_short = true;
    mark_ends(f, event, false);
    f->taken[0] = (dj_block_t){0};
    if (fits)
        offer(f, number, out, parent, 1);
}

static uint64_t low_bits(uint32_t n)
{
    return n >= DJ_BLOCK_BITS ? UINT64_MAX : (1ull << n) - 1;
}

/* All ways through an event from one tree, by depth first. */
static void expand(full_t *f, uint32_t number, uint32_t parent)
{
    const dj_event_t *event = &f->events.list[number];
    dj_tree_t tree = dj_beam_tree(&f->beam, parent);
    uint32_t depth = 0, ways = 0, tries = 0;
    f->cut_short = f->cut_short || !event->complete;
    if (event->n_ends > DJ_BLOCK_BITS || event->n_starts > DJ_BLOCK_BITS) {
        expand_whole(f, number, parent, &tree);
        return;
    }
    f->choices[0] = (choice_t){.ends_left = low_bits(event->n_ends),
                               .starts_left = low_bits(event->n_starts),
                               .tree = tree,
                               .candidates = f->candidates};
    list_candidates(f, event, &f->choices[0]);
    while (depth < DJ_BLOCK_BITS) {
        choice_t *choice = &f->choices[depth], *next = choice + 1;
        if (choice->next == choice->n_candidates) {
            if (depth-- == 0)
                return;
            continue;
        }
        if (ways == f->ways_max || tries++ == 16 * f->ways_max)
            break;
        uint32_t pick = choice->candidates[choice->next++];
        f->taken[depth] =
            pick != REST ? event->blocks[pick]
                         : (dj_block_t){.ends = choice->ends_left, .starts = choice->starts_left};
        if (!take_block(f, event, &choice->tree, f->taken[depth], &next->tree))
            continue;
        next->ends_left = choice->ends_left & ~f->taken[depth].ends;
        next->starts_left = choice->starts_left & ~f->taken[depth].starts;
        if (next->ends_left == 0) {
            ways++;
            offer(f, number, &next->tree, parent, depth + 1);
            continue;
        }
        next->from = pick + 1;
        next->candidates = choice->candidates + choice->n_candidates;
        list_candidates(f, event, next);
        depth++;
    }
    f->cut_short = true;
}

/* One pass through time. DJ_PACK_FOUND: the beam holds a way. */
static dj_status_t sweep(full_t *f, uint32_t width, dj_pack_end_t *end_p)
{
    dj_tree_t *first = &f->choices[1].tree;
    dj_status_t status = dj_beam_reset(&f->beam, width);
    if (status != DJ_OK)
        return status;
    f->cut_short = false;
    dj_tree_any(first, f->events.list[0].starts, f->events.list[0].n_starts);
    offer(f, 0, first, 0, 0);
    status = dj_beam_advance(&f->beam);
    for (uint32_t event = 1; event + 1 < f->events.n && status == DJ_OK; event++) {
        uint32_t n = dj_beam_count(&f->beam);
        for (uint32_t i = 0; i < n && !dj_pack_meter_spent(f->meter); i++)
            expand(f, event, i);
        if (f->meter->spent)
            break;
        status = dj_beam_advance(&f->beam);
    }
    *end_p = DJ_PACK_ENDED;
    if (status == DJ_OK && !f->meter->spent && dj_beam_count(&f->beam) > 0)
        *end_p = DJ_PACK_FOUND;
    else if (status == DJ_OK && !f->meter->spent && !f->beam.dropped && !f->cut_short)
        *end_p = DJ_PACK_NONE;
    return status;
}

/* Looking ahead is possible where only the block of all is balanced. */
static void fill_watch(full_t *f)
{
    uint32_t n = 0, n_events = f->events.n;
    uint32_t *count = f->watch_first;
    for (uint32_t i = 1; i + 1 < n_events; i++) {
        const dj_event_t *event = &f->events.list[i];
        if (event->complete && event->n_blocks == 0)
            count[event->last_born]++;
    }
    for (uint32_t i = 0; i <= n_events; i++) {
        uint32_t more = count[i];
        count[i] = n;
        n += more;
    }
    for (uint32_t i = 1; i + 1 < n_events; i++) {
        const dj_event_t *event = &f->events.list[i];
        if (event->complete && event->n_blocks == 0)
            f->watch[count[event->last_born]++] = i;
    }
    for (uint32_t i = n_events; i > 0; i--)
        count[i] = count[i - 1];
    count[0] = 0;
}

static void share_memory(full_t *f, uint32_t room, uint32_t n)
{
    uint32_t *next = f->numbers, row = room + 2;
    uint32_t **rows[] = {&f->work.full,       &f->work.leaves,    &f->work.path,
                         &f->work.empty_list, &f->work.full_list, &f->work.list};
    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++, next += row)
        *rows[i] = next;
    f->heirs = next;
    f->watch_first = next + DJ_BLOCK_BITS;
    f->watch = f->watch_first + 2ull * n + 2;
    for (uint32_t i = 0; i <= DJ_BLOCK_BITS; i++)
        f->choices[i].tree.nodes = f->nodes + (size_t)i * room;
    f->ahead[0].nodes = f->nodes + (DJ_BLOCK_BITS + 1ull) * room;
    f->ahead[1].nodes = f->ahead[0].nodes + room;
}

static dj_status_t init_full(full_t *f, const dj_rect_t *rects, uint32_t n, dj_pack_effort_t effort,
                             dj_pack_meter_t *meter)
{
    f->rects = rects;
    f->meter = meter;
    dj_status_t status = dj_events_init(
        &f->events, rects, n, effort == DJ_PACK_FULL_BRIEF ? SUBSETS_BRIEF : SUBSETS_LONG, meter);
    if (status != DJ_OK)
        return status;
    uint32_t room = 2 * f->events.most_alive + 2;
    size_t numbers = 6 * (room + 2ull) + DJ_BLOCK_BITS + 4ull * n + 8;
    f->numbers = calloc(numbers, sizeof f->numbers[0]);
    f->nodes = malloc((DJ_BLOCK_BITS + 3ull) * room * sizeof f->nodes[0]);
    f->candidates = malloc((DJ_BLOCK_BITS + 1ull) * CANDIDATES_MAX * sizeof f->candidates[0]);
    f->marks = calloc(n + 1ull, sizeof f->marks[0]);
    f->kinds = malloc((n + 1ull) * sizeof f->kinds[0]);
    if (f->numbers == NULL || f->nodes == NULL || f->candidates == NULL || f->marks == NULL ||
        f->kinds == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory to pack %u rectangles", n);
    for (uint32_t i = 0; i < n; i++)
        f->kinds[i] = dj_pack_mix(dj_pack_mix(rects[i].size) + rects[i].upper);
    share_memory(f, room, n);
    fill_watch(f);
    return dj_beam_init(&f->beam, room, f->events.n, f->kinds);
}

static void fini_full(full_t *f)
{
    dj_beam_fini(&f->beam);
    dj_events_fini(&f->events);
    free(f->numbers);
    free(f->nodes);
    free(f->candidates);
    free(f->marks);
    free(f->kinds);
}

/* The beam's first way as offsets. */
static dj_status_t read_offsets(const full_t *f, uint32_t n, uint64_t *offsets)
{
    dj_step_t *steps = malloc((n + 1ull) * sizeof steps[0]);
    if (steps == NULL)
        return dj_fail(DJ_ERR_MEMORY, "no memory for %u steps", n);
    uint32_t n_steps = dj_beam_trace(&f->beam, steps, n);
    dj_status_t status = dj_order_offsets(f->rects, n, &f->events, steps, n_steps, offsets);
    free(steps);
    return status;
}

static uint32_t widest(const full_t *f)
{
    size_t each =
        4 * (f->beam.tree_room * sizeof(dj_tree_node_t) + DJ_BLOCK_BITS * sizeof(dj_block_t));
    size_t width = BEAM_BYTES_MAX / each;
    return width > WIDTH_MAX ? WIDTH_MAX : width < 1 ? 1 : (uint32_t)width;
}

/* Both directions by turns, until one of them knows. */
static dj_status_t take_turns(full_t *directions, uint32_t n, uint64_t *offsets,
                              dj_pack_end_t *end_p)
{
    uint32_t width = WIDTH_FIRST;
    dj_pack_meter_t *meter = directions[0].meter;
    dj_status_t status = DJ_OK;
    for (uint32_t round = 0; round < ROUNDS_MAX && !meter->spent && status == DJ_OK; round++) {
        full_t *f = &directions[round % 2];
        if (round > 0 && round % 2 == 0)
            width *= WIDTH_GROWTH;
        width = width > widest(f) ? widest(f) : width;
        f->ways_max = 8 + (width << round / 16) / 4;
        f->beam.noise = round < 2 ? 0.1 : 2.0;
        f->beam.random = dj_pack_mix(meter->random + round);
        status = sweep(f, width, end_p);
        if (status == DJ_OK && *end_p == DJ_PACK_FOUND)
            return read_offsets(f, n, offsets);
        if (status == DJ_ERR_MEMORY && width > WIDTH_FIRST) { /* narrower ones had enough */
            *end_p = DJ_PACK_ENDED;
            return DJ_OK;
        }
        if (*end_p == DJ_PACK_NONE)
            return status;
    }
    return status;
}

dj_status_t dj_pack_full(const dj_rect_t *rects, uint32_t n, dj_pack_effort_t effort,
                         dj_pack_meter_t *meter, uint64_t *offsets, dj_pack_end_t *end_p)
{
    full_t *directions = calloc(2, sizeof directions[0]);
    dj_rect_t *mirrored = malloc((n + 1ull) * sizeof mirrored[0]);
    dj_status_t status = DJ_ERR_MEMORY;
    *end_p = DJ_PACK_ENDED;
    if (directions != NULL && mirrored != NULL) {
        for (uint32_t i = 0; i < n; i++)
            mirrored[i] = (dj_rect_t){
                .lower = ~rects[i].upper, .upper = ~rects[i].lower, .size = rects[i].size};
        status = init_full(&directions[0], rects, n, effort, meter);
        if (status == DJ_OK)
            status = init_full(&directions[1], mirrored, n, effort, meter);
        if (status == DJ_OK)
            status = take_turns(directions, n, offsets, end_p);
        fini_full(&directions[0]);
        fini_full(&directions[1]);
    } else {
        dj_fail(status, "no memory to pack %u rectangles", n);
    }
    free(directions);
    free(mirrored);
    return status;
}
