/* group_tree.c - the k-nomial tree. Places are numbers in base `radix`; 64-bit steps cannot
 * overflow. */
#include "comm/group_tree.h"

/* The weight of the lowest digit that is not 0; for the root the smallest power that covers the
 * tree. */
static uint64_t lowest(uint32_t n, uint32_t radix, uint32_t place)
{
    uint64_t step = 1;
    if (place == 0) {
        while (step < n)
            step *= radix;
        return step;
    }
    while (place % (step * radix) == 0)
        step *= radix;
    return step;
}

uint32_t dj_tree_parent(uint32_t radix, uint32_t place)
{
    if (place == 0)
        return DJ_TREE_NONE;
    uint64_t step = lowest(0, radix, place);
    return place - (uint32_t)(place % (step * radix));
}

uint32_t dj_tree_span(uint32_t n, uint32_t radix, uint32_t place)
{
    uint64_t span = lowest(n, radix, place);
    return span < n - place ? (uint32_t)span : n - place;
}

/* Children of p are p + digit * weight for every weight below p's own lowest. */
uint32_t dj_tree_next_child(uint32_t n, uint32_t radix, uint32_t place, uint32_t previous)
{
    uint64_t weight = lowest(n, radix, place) / radix, digit = 1;
    if (previous != DJ_TREE_NONE) {
        uint64_t below = previous - place;
        weight = 1;
        while (weight * radix <= below)
            weight *= radix;
        digit = below / weight + 1;
    }
    for (; weight >= 1; weight /= radix, digit = 1)
        if (digit < radix && place + digit * weight < n)
            return place + (uint32_t)(digit * weight);
    return DJ_TREE_NONE;
}

uint32_t dj_tree_depth(uint32_t radix, uint32_t place)
{
    uint32_t depth = 0;
    for (; place != 0; place /= radix)
        depth += place % radix != 0;
    return depth;
}

uint32_t dj_tree_height(uint32_t n, uint32_t radix)
{
    uint32_t height = 0;
    for (uint64_t reach = 1; reach < n; reach *= radix)
        ++height;
    return height;
}
