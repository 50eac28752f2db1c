/* pack_tree.h - all orders of a stack of pieces in which certain sets lie together, as one tree.
 *
 * A PQ-tree (Booth and Lueker 1976): leaves are pieces, the children of a P node may stand in any
 * order, those of a Q node in their order or its reverse. It is kept as one array in preorder, each
 * node with the number of nodes under it, because the search copies trees far more often than it
 * changes them, and because then nothing recurses. A step costs time in proportion to the tree.
 *
 * Inside the planner. Threads: pure. */
#ifndef DJ_PLANNER_PACK_TREE_H
#define DJ_PLANNER_PACK_TREE_H

#include <stdbool.h>
#include <stdint.h>

#define DJ_TREE_P (-1)
#define DJ_TREE_Q (-2)

typedef struct dj_tree_node {
    int32_t piece; /* a leaf's piece, else DJ_TREE_P or DJ_TREE_Q */
    uint32_t span; /* nodes of this subtree, itself included */
} dj_tree_node_t;

typedef struct dj_tree {
    dj_tree_node_t *nodes; /* nodes[0] is the root; room for twice as many as there are pieces */
    uint32_t n;
} dj_tree_t;

/* Working memory of a reduction; each array has one more entry than a tree has room for nodes. */
typedef struct dj_tree_work {
    uint32_t *full, *leaves; /* how many marked leaves, and leaves, stand before a node */
    uint32_t *path;          /* from the root to the node that holds all marked leaves */
    uint32_t *empty_list, *full_list, *list;
} dj_tree_work_t;

/* Narrows `tree` to the orders in which the `n_marked` >= 1 pieces with a mark lie together, and
 * puts into `out` (another tree) the result, in which, with n_heirs > 0, the pieces heirs[0,
 * n_heirs) in any order have taken the place of the marked ones. False: there is no such order;
 * `out` is undefined then. */
bool dj_tree_reduce(const dj_tree_t *tree, const bool *marks, uint32_t n_marked,
                    const uint32_t *heirs, uint32_t n_heirs, dj_tree_t *out, dj_tree_work_t *work);

/* The marked pieces lie together in every order of the tree. */
bool dj_tree_together(const dj_tree_t *tree, const bool *marks, uint32_t n_marked,
                      dj_tree_work_t *work);

/* The tree of any order of pieces[0, n), n > 0. */
void dj_tree_any(dj_tree_t *tree, const uint32_t *pieces, uint32_t n);

#endif
