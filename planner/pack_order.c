/* pack_order.c - see pack_order.h.
 *
 * Forwards, the tree of orders before each step is kept. Backwards, an order of the pieces after a
 * step is turned into one before it: the heirs' place in it is given to the pieces that ended, and
 * the tree, narrowed to the orders in which these lie together, is walked so that all others keep
 * theirs. (Each child of a node takes up a range of any order, so comparing where the ranges begin
 * is enough.) */
#include "planner/pack_order.h"

#include <stdlib.h>
#include <string.h>

#include "planner/pack_tree.h"

typedef struct unroller {
    const dj_rect_t *rects;
    const dj_events_t *events;
    const dj_step_t *steps;
    uint32_t n_steps, room;
    dj_tree_node_t *nodes; /* of all trees */
    size_t *first;         /* of each step's tree, before the step */
    bool *marks;
    uint32_t *where;          /* of each piece in the order */
    uint32_t *order, n_order; /* the pieces alive, bottom to top */
    uint32_t *keys, *parents, *stack, *children, *heirs;
    uint64_t *offsets;
    dj_tree_t narrowed;
    dj_tree_work_t work;
} unroller_t;

static uint32_t list_block(const uint32_t *pieces, uint32_t n_pieces, uint64_t bits, uint32_t *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_pieces; i++)
        if (bits == 0 || (bits >> i & 1) != 0)
            out[n++] = pieces[i];
    return n;
}

/* Marks the pieces that end in a step and lists its heirs. */
static uint32_t read_step(unroller_t *u, const dj_step_t *step, bool mark, uint32_t *n_heirs_p)
{
    const dj_event_t *event = &u->events->list[step->event];
    uint32_t n = list_block(event->ends, event->n_ends, step->block.ends, u->heirs);
    for (uint32_t i = 0; i < n; i++)
        u->marks[u->heirs[i]] = mark;
    *n_heirs_p = list_block(event->starts, event->n_starts, step->block.starts, u->heirs);
    return n;
}

static bool roll_forward(unroller_t *u)
{
    dj_tree_t tree = {.nodes = u->nodes};
    const dj_event_t *begin = &u->events->list[0];
    dj_tree_any(&tree, begin->starts, begin->n_starts);
    for (uint32_t i = 0; i < u->n_steps; i++) {
        uint32_t n_heirs, n_marked = read_step(u, &u->steps[i], true, &n_heirs);
        dj_tree_t next = {.nodes = tree.nodes + tree.n};
        u->first[i] = (size_t)(tree.nodes - u->nodes);
        bool fits = dj_tree_reduce(&tree, u->marks, n_marked, u->heirs, n_heirs, &next, &u->work);
        read_step(u, &u->steps[i], false, &n_heirs);
        if (!fits)
            return false;
        tree = next;
    }
    u->first[u->n_steps] = (size_t)(tree.nodes - u->nodes);
    u->first[u->n_steps + 1] = u->first[u->n_steps] + tree.n;
    return true;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* keys[i]: where in the wanted order the range of node i begins. */
static void find_keys(unroller_t *u, const dj_tree_t *tree)
{
    uint32_t depth = 0;
    for (uint32_t i = 0; i < tree->n; i++) {
        int32_t piece = tree->nodes[i].piece;
        while (depth > 0 && i >= u->stack[depth - 1] + tree->nodes[u->stack[depth - 1]].span)
            depth--;
        u->parents[i] = depth > 0 ? u->stack[depth - 1] : UINT32_MAX;
        u->keys[i] = piece >= 0 ? u->where[piece] : UINT32_MAX;
        if (piece < 0)
            u->stack[depth++] = i;
    }
    for (uint32_t i = tree->n; i-- > 1;)
        u->keys[u->parents[i]] = smaller(u->keys[u->parents[i]], u->keys[i]);
}

static int by_key(const void *a, const void *b, void *context)
{
    const uint32_t *keys = context;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (keys[x] != keys[y])
        return keys[x] < keys[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Children of a node as they shall stand. */
static uint32_t arrange(unroller_t *u, const dj_tree_t *tree, uint32_t node)
{
    uint32_t n = 0, end = node + tree->nodes[node].span, *list = u->children;
    for (uint32_t c = node + 1; c < end; c += tree->nodes[c].span)
        list[n++] = c;
    if (tree->nodes[node].piece == DJ_TREE_P)
        qsort_r(list, n, sizeof list[0], by_key, u->keys);
    else if (u->keys[list[0]] > u->keys[list[n - 1]])
        for (uint32_t i = 0; i < n / 2; i++) {
            uint32_t child = list[i];
            list[i] = list[n - 1 - i];
            list[n - 1 - i] = child;
        }
    return n;
}

static void walk(unroller_t *u, const dj_tree_t *tree)
{
    uint32_t depth = 0;
    u->n_order = 0;
    find_keys(u, tree);
    u->stack[depth++] = 0;
    while (depth > 0) {
        uint32_t node = u->stack[--depth];
        if (tree->nodes[node].piece >= 0) {
            u->order[u->n_order++] = (uint32_t)tree->nodes[node].piece;
            continue;
        }
        for (uint32_t n = arrange(u, tree, node); n > 0; n--)
            u->stack[depth++] = u->children[n - 1];
    }
}

static void set_offsets(unroller_t *u)
{
    uint64_t offset = 0;
    for (uint32_t i = 0; i < u->n_order; i++) {
        u->where[u->order[i]] = i;
        u->offsets[u->order[i]] = offset;
        offset += u->rects[u->order[i]].size;
    }
}

static bool roll_back(unroller_t *u)
{
    dj_tree_t tree = {.nodes = u->nodes + u->first[u->n_steps]};
    tree.n = (uint32_t)(u->first[u->n_steps + 1] - u->first[u->n_steps]);
    walk(u, &tree);
    set_offsets(u);
    for (uint32_t i = u->n_steps; i-- > 0;) {
        uint32_t n_heirs, at = UINT32_MAX, n_marked = read_step(u, &u->steps[i], true, &n_heirs);
        const dj_event_t *event = &u->events->list[u->steps[i].event];
        for (uint32_t j = 0; j < n_heirs; j++)
            at = smaller(at, u->where[u->heirs[j]]);
        for (uint32_t j = 0; j < event->n_ends; j++)
            if (u->marks[event->ends[j]])
                u->where[event->ends[j]] = at;
        tree.nodes = u->nodes + u->first[i];
        tree.n = (uint32_t)(u->first[i + 1] - u->first[i]);
        bool fits = dj_tree_reduce(&tree, u->marks, n_marked, NULL, 0, &u->narrowed, &u->work);
        read_step(u, &u->steps[i], false, &n_heirs);
        if (!fits)
            return false;
        walk(u, &u->narrowed);
        set_offsets(u);
    }
    return true;
}

static dj_status_t unroll(unroller_t *u, uint32_t n)
{
    size_t room = u->room + 2, trees = (u->n_steps + 2ull) * room;
    uint32_t *numbers = calloc(11 * room + 2ull * n + 2, sizeof numbers[0]);
    u->nodes = malloc((trees + room) * sizeof u->nodes[0]);
    u->first = malloc((u->n_steps + 2ull) * sizeof u->first[0]);
    u->marks = calloc(n + 1ull, sizeof u->marks[0]);
    dj_status_t status = DJ_ERR_MEMORY;
    if (numbers != NULL && u->nodes != NULL && u->first != NULL && u->marks != NULL) {
        u->narrowed.nodes = u->nodes + trees;
        u->order = numbers;
        u->keys = u->order + room;
        u->parents = u->keys + room;
        u->stack = u->parents + room;
        u->children = u->stack + room;
        u->work = (dj_tree_work_t){
            .full = u->children + room,
            .leaves = u->children + 2 * room,
            .path = u->children + 3 * room,
            .empty_list = u->children + 4 * room,
            .full_list = u->children + 5 * room,
            .list = u->children + 6 * room,
        };
        u->heirs = numbers + 11 * room;
        u->where = u->heirs + n + 1;
        status = roll_forward(u) && roll_back(u) ? DJ_OK : DJ_ERR_INTERNAL;
    }
    free(numbers);
    free(u->nodes);
    free(u->first);
    free(u->marks);
    if (status == DJ_ERR_MEMORY)
        return dj_fail(status, "no memory to unroll %u steps", u->n_steps);
    return status == DJ_OK ? status
                           : dj_fail(status, "the steps of a packing contradict each other");
}

dj_status_t dj_order_offsets(const dj_rect_t *rects, uint32_t n, const dj_events_t *events,
                             const dj_step_t *steps, uint32_t n_steps, uint64_t *offsets)
{
    unroller_t u = {.rects = rects, .events = events, .steps = steps, .n_steps = n_steps};
    u.room = 2 * events->most_alive + 2;
    u.offsets = offsets;
    return unroll(&u, n);
}
