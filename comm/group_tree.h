/* group_tree.h - the shape of a group's tree, as arithmetic on places.
 *
 * A place is a member's number counted from the root: place 0 is the root, place p is member
 * (root + p) modulo n. The tree is k-nomial: written in base `radix`, a place's parent has its
 * lowest digit that is not 0 cleared. So the places below p, itself included, are neighbours: [p, p
 * + span). Radix 2 is the binomial tree; a radix of n and more is flat.
 *
 * Pure functions; n at least 1, radix at least 2, places below n. */
#ifndef DJ_COMM_GROUP_TREE_H
#define DJ_COMM_GROUP_TREE_H

#include <stdint.h>

#define DJ_TREE_NONE UINT32_MAX

/* DJ_TREE_NONE for the root. */
uint32_t dj_tree_parent(uint32_t radix, uint32_t place);
/* How many places hang below, `place` included. */
uint32_t dj_tree_span(uint32_t n, uint32_t radix, uint32_t place);
/* The child that follows `previous` (DJ_TREE_NONE: the first), larger subtrees first; DJ_TREE_NONE
 * at the end. */
uint32_t dj_tree_next_child(uint32_t n, uint32_t radix, uint32_t place, uint32_t previous);
/* Edges between the root and this place; and the largest such number in the tree. */
uint32_t dj_tree_depth(uint32_t radix, uint32_t place);
uint32_t dj_tree_height(uint32_t n, uint32_t radix);

static inline uint32_t dj_tree_place(uint32_t n, uint32_t root, uint32_t member)
{
    return member >= root ? member - root : member + n - root;
}

static inline uint32_t dj_tree_member(uint32_t n, uint32_t root, uint32_t place)
{
    return place < n - root ? place + root : place - (n - root);
}

#endif
