/* pack_tree.c - see pack_tree.h. A reduction in three parts: find the lowest node that holds all
 * marked leaves, open the (at most two) chains of half-marked nodes below it into lists, and write
 * the new subtree in the old one's place. */
#include "planner/pack_tree.h"

#include <string.h>

typedef enum fill { EMPTY, PARTIAL, FULL } fill_t;

typedef struct writer {
    const dj_tree_t *tree;
    dj_tree_t *out;
    dj_tree_work_t *work;
    const uint32_t *heirs;
    uint32_t n_heirs;
} writer_t;

static uint32_t count_full(const writer_t *w, uint32_t node)
{
    return w->work->full[node + w->tree->nodes[node].span] - w->work->full[node];
}

static fill_t fill_of(const writer_t *w, uint32_t node)
{
    uint32_t end = node + w->tree->nodes[node].span, full = count_full(w, node);
    if (full == 0)
        return EMPTY;
    return full == w->work->leaves[end] - w->work->leaves[node] ? FULL : PARTIAL;
}

static uint32_t first_child(uint32_t node)
{
    return node + 1;
}

static uint32_t next_child(const writer_t *w, uint32_t child)
{
    return child + w->tree->nodes[child].span;
}

static void count_leaves(writer_t *w, const bool *marks)
{
    uint32_t full = 0, leaves = 0, n = w->tree->n;
    for (uint32_t i = 0; i < n; i++) {
        int32_t piece = w->tree->nodes[i].piece;
        w->work->full[i] = full;
        w->work->leaves[i] = leaves;
        full += piece >= 0 && marks[piece];
        leaves += piece >= 0;
    }
    w->work->full[n] = full;
    w->work->leaves[n] = leaves;
}

/* Fills the path; the last node of it holds all marked leaves and none of its children does. */
static uint32_t find_root(writer_t *w, uint32_t n_marked)
{
    uint32_t node = 0, depth = 0;
    for (;;) {
        uint32_t end = next_child(w, node), child = first_child(node);
        w->work->path[depth++] = node;
        while (child < end && count_full(w, child) != n_marked)
            child = next_child(w, child);
        if (child >= end)
            return depth;
        node = child;
    }
}

static uint32_t begin_node(writer_t *w, int32_t kind)
{
    w->out->nodes[w->out->n].piece = kind;
    return w->out->n++;
}

static void end_node(writer_t *w, uint32_t node)
{
    w->out->nodes[node].span = w->out->n - node;
}

static void copy_subtree(writer_t *w, uint32_t node)
{
    uint32_t span = w->tree->nodes[node].span;
    memcpy(w->out->nodes + w->out->n, w->tree->nodes + node, span * sizeof w->out->nodes[0]);
    w->out->n += span;
}

static void write_heirs(writer_t *w)
{
    uint32_t node = w->n_heirs > 1 ? begin_node(w, DJ_TREE_P) : 0;
    for (uint32_t i = 0; i < w->n_heirs; i++)
        end_node(w, begin_node(w, (int32_t)w->heirs[i]));
    if (w->n_heirs > 1)
        end_node(w, node);
}

/* The children of a P node that are filled so, under a P node of their own where they are several.
 */
static void write_group(writer_t *w, uint32_t parent, fill_t fill)
{
    uint32_t count = 0, end = next_child(w, parent), node = 0;
    for (uint32_t c = first_child(parent); c < end; c = next_child(w, c))
        count += fill_of(w, c) == fill;
    if (count > 1)
        node = begin_node(w, DJ_TREE_P);
    for (uint32_t c = first_child(parent); count > 0 && c < end; c = next_child(w, c))
        if (fill_of(w, c) == fill)
            copy_subtree(w, c);
    if (count > 1)
        end_node(w, node);
}

static uint32_t count_children(const writer_t *w, uint32_t parent, fill_t fill)
{
    uint32_t count = 0, end = next_child(w, parent);
    for (uint32_t c = first_child(parent); c < end; c = next_child(w, c))
        count += fill_of(w, c) == fill;
    return count;
}

/* Lists the children of a Q node into work->list, unmarked end first; false: they are not unmarked*
 * half? marked*. */
static bool order_children(writer_t *w, uint32_t parent, uint32_t *n_p)
{
    uint32_t n = 0, end = next_child(w, parent), *list = w->work->list;
    for (uint32_t c = first_child(parent); c < end; c = next_child(w, c))
        list[n++] = c;
    if (fill_of(w, list[0]) == FULL || fill_of(w, list[n - 1]) == EMPTY)
        for (uint32_t i = 0; i < n / 2; i++) {
            uint32_t child = list[i];
            list[i] = list[n - 1 - i];
            list[n - 1 - i] = child;
        }
    for (uint32_t i = 1; i < n; i++) {
        fill_t before = fill_of(w, list[i - 1]), now = fill_of(w, list[i]);
        if (now < before || (now == PARTIAL && before == PARTIAL))
            return false;
    }
    *n_p = n;
    return true;
}

/* A list entry that stands for the group of a P node's children is the node with this bit. */
#define GROUP 0x80000000u

/* What a chain of half-marked nodes opens into. */
typedef struct chain {
    uint32_t *empty, *full; /* both from outside to inside */
    uint32_t n_empty, n_full;
} chain_t;

/* Opens a half-marked node. */
static bool open_chain(writer_t *w, uint32_t node, chain_t *chain)
{
    while (fill_of(w, node) == PARTIAL) {
        uint32_t inner = UINT32_MAX, n, end = next_child(w, node);
        if (w->tree->nodes[node].piece == DJ_TREE_P) {
            if (count_children(w, node, PARTIAL) > 1)
                return false;
            if (count_children(w, node, EMPTY) > 0)
                chain->empty[chain->n_empty++] = node | GROUP;
            if (count_children(w, node, FULL) > 0)
                chain->full[chain->n_full++] = node | GROUP;
            for (uint32_t c = first_child(node); c < end; c = next_child(w, c))
                inner = fill_of(w, c) == PARTIAL ? c : inner;
        } else {
            if (!order_children(w, node, &n))
                return false;
            for (uint32_t i = 0; i < n; i++) {
                uint32_t c = w->work->list[i];
                if (fill_of(w, c) == EMPTY)
                    chain->empty[chain->n_empty++] = c;
                inner = fill_of(w, c) == PARTIAL ? c : inner;
            }
            for (uint32_t i = n; i > 0 && fill_of(w, w->work->list[i - 1]) == FULL; i--)
                chain->full[chain->n_full++] = w->work->list[i - 1];
        }
        if (inner == UINT32_MAX)
            break;
        node = inner;
    }
    return true;
}

static void write_entry(writer_t *w, uint32_t entry, fill_t fill)
{
    if ((entry & GROUP) != 0)
        write_group(w, entry & ~GROUP, fill);
    else
        copy_subtree(w, entry);
}

/* A chain as children of the Q node being written: its unmarked side first, or last. */
static void write_chain(writer_t *w, const chain_t *chain, bool empty_first)
{
    for (uint32_t i = 0; empty_first && i < chain->n_empty; i++)
        write_entry(w, chain->empty[i], EMPTY);
    for (uint32_t i = 0; w->n_heirs == 0 && i < chain->n_full; i++)
        write_entry(w, chain->full[empty_first ? chain->n_full - 1 - i : i], FULL);
    for (uint32_t i = 0; !empty_first && i < chain->n_empty; i++)
        write_entry(w, chain->empty[chain->n_empty - 1 - i], EMPTY);
}

/* Opens up to two half-marked children; false when there are more or one cannot be opened. */
static bool open_partials(writer_t *w, uint32_t root, chain_t chains[2], uint32_t *n_p)
{
    uint32_t n = 0, end = next_child(w, root);
    chains[0] = (chain_t){.empty = w->work->empty_list, .full = w->work->full_list};
    for (uint32_t c = first_child(root); c < end; c = next_child(w, c)) {
        if (fill_of(w, c) != PARTIAL)
            continue;
        if (n == 2 || !open_chain(w, c, &chains[n]))
            return false;
        if (n++ == 0)
            chains[1] = (chain_t){.empty = chains[0].empty + chains[0].n_empty,
                                  .full = chains[0].full + chains[0].n_full};
    }
    *n_p = n;
    return true;
}

static void write_together(writer_t *w, uint32_t root)
{
    if (w->n_heirs > 0)
        write_heirs(w);
    else
        write_group(w, root, FULL);
}

static bool write_p_root(writer_t *w, uint32_t root)
{
    chain_t chains[2];
    uint32_t n_chains, end = next_child(w, root), node = 0, q = 0;
    uint32_t n_empty = count_children(w, root, EMPTY);
    if (!open_partials(w, root, chains, &n_chains))
        return false;
    if (n_empty > 0)
        node = begin_node(w, DJ_TREE_P);
    for (uint32_t c = first_child(root); c < end; c = next_child(w, c))
        if (fill_of(w, c) == EMPTY)
            copy_subtree(w, c);
    if (n_chains > 0) {
        q = begin_node(w, DJ_TREE_Q);
        write_chain(w, &chains[0], true);
    }
    write_together(w, root);
    if (n_chains > 1)
        write_chain(w, &chains[1], false);
    if (n_chains > 0)
        end_node(w, q);
    if (n_empty > 0)
        end_node(w, node);
    return true;
}

/* The children must be unmarked* half? marked* half? unmarked*. */
static bool q_root_fits(const writer_t *w, uint32_t root)
{
    uint32_t end = next_child(w, root);
    enum { BEFORE, INSIDE, AFTER } where = BEFORE;
    for (uint32_t c = first_child(root); c < end; c = next_child(w, c)) {
        fill_t fill = fill_of(w, c);
        if (fill == EMPTY)
            where = where == BEFORE ? BEFORE : AFTER;
        else if (where == AFTER)
            return false;
        else
            where = fill == PARTIAL && where == INSIDE ? AFTER : INSIDE;
    }
    return true;
}

static bool write_q_root(writer_t *w, uint32_t root)
{
    chain_t chains[2];
    uint32_t n_chains, end = next_child(w, root), seen = 0, node;
    bool begun = false, written = false;
    if (!q_root_fits(w, root) || !open_partials(w, root, chains, &n_chains))
        return false;
    node = begin_node(w, DJ_TREE_Q);
    for (uint32_t c = first_child(root); c < end; c = next_child(w, c)) {
        fill_t fill = fill_of(w, c);
        bool first = !begun && fill != EMPTY;
        begun = begun || first;
        if (fill == PARTIAL && first)
            write_chain(w, &chains[seen++], true);
        if (first && w->n_heirs > 0 && !written) {
            write_heirs(w);
            written = true;
        }
        if (fill == PARTIAL && !first)
            write_chain(w, &chains[seen++], false);
        if (fill == EMPTY || (fill == FULL && w->n_heirs == 0))
            copy_subtree(w, c);
    }
    end_node(w, node);
    return true;
}

bool dj_tree_reduce(const dj_tree_t *tree, const bool *marks, uint32_t n_marked,
                    const uint32_t *heirs, uint32_t n_heirs, dj_tree_t *out, dj_tree_work_t *work)
{
    writer_t w = {.tree = tree, .out = out, .work = work, .heirs = heirs, .n_heirs = n_heirs};
    count_leaves(&w, marks);
    uint32_t depth = find_root(&w, n_marked), root = work->path[depth - 1];
    uint32_t end = next_child(&w, root);
    bool fits = true;
    memcpy(out->nodes, tree->nodes, root * sizeof out->nodes[0]);
    out->n = root;
    if (fill_of(&w, root) == FULL) {
        if (n_heirs > 0)
            write_heirs(&w);
        else
            copy_subtree(&w, root);
    } else if (tree->nodes[root].piece == DJ_TREE_P) {
        fits = write_p_root(&w, root);
    } else {
        fits = write_q_root(&w, root);
    }
    if (!fits)
        return false;
    uint32_t grown = out->n - end; /* wraps where it shrank; so do the sums */
    for (uint32_t i = 0; i + 1 < depth; i++)
        out->nodes[work->path[i]].span += grown;
    memcpy(out->nodes + out->n, tree->nodes + end, (tree->n - end) * sizeof out->nodes[0]);
    out->n += tree->n - end;
    return true;
}

bool dj_tree_together(const dj_tree_t *tree, const bool *marks, uint32_t n_marked,
                      dj_tree_work_t *work)
{
    writer_t w = {.tree = tree, .work = work};
    count_leaves(&w, marks);
    uint32_t depth = find_root(&w, n_marked), root = work->path[depth - 1];
    uint32_t end = next_child(&w, root), runs = 0;
    fill_t before = EMPTY;
    if (fill_of(&w, root) == FULL)
        return true;
    if (tree->nodes[root].piece == DJ_TREE_P)
        return false;
    for (uint32_t c = first_child(root); c < end; c = next_child(&w, c)) {
        fill_t now = fill_of(&w, c);
        if (now == PARTIAL)
            return false;
        runs += now == FULL && before == EMPTY;
        before = now;
    }
    return runs == 1;
}

void dj_tree_any(dj_tree_t *tree, const uint32_t *pieces, uint32_t n)
{
    tree->n = 0;
    if (n > 1)
        tree->nodes[tree->n++] = (dj_tree_node_t){.piece = DJ_TREE_P, .span = n + 1};
    for (uint32_t i = 0; i < n; i++)
        tree->nodes[tree->n++] = (dj_tree_node_t){.piece = (int32_t)pieces[i], .span = 1};
}
