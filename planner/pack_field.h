/* pack_field.h - what a search of placements knows at one moment, and how to take it back.
 *
 * Time is cut into sections, between which nothing begins or ends. Each item that is not placed has
 * a floor: the highest end of the placed ones it meets. A section's base is the lowest floor of the
 * items not placed that cross it; what they weigh together must fit above it. Floors and bases only
 * rise while items are placed; a trail remembers the old values.
 *
 * Inside the planner. Threads: one. */
#ifndef DJ_PLANNER_PACK_FIELD_H
#define DJ_PLANNER_PACK_FIELD_H

#include "planner/pack_meter.h"

typedef struct dj_item {
    uint64_t size, floor, offset;
    uint32_t first, last; /* sections crossed: from first up to, not including, last */
    bool placed;
} dj_item_t;

typedef struct dj_section {
    uint64_t base, load; /* load: bytes of the items not placed that cross it */
    uint64_t begin, end; /* time */
} dj_section_t;

typedef struct dj_trail_entry {
    uint64_t old;
    uint32_t number; /* of an item, or of a section after all items */
} dj_trail_entry_t;

typedef struct dj_field {
    dj_item_t *items;
    dj_section_t *sections;
    uint32_t n_items, n_sections;
    uint64_t capacity;
    uint32_t *meets_first, *meets;     /* of each item: the items it shares time with */
    uint32_t *crosses_first, *crosses; /* of each section: the items that cross it */
    dj_trail_entry_t *trail;
    size_t n_trail, max_trail;
    uint32_t *placed, n_placed; /* in order */
    bool failed;                /* the trail could not grow */
    int32_t *covers;            /* working memory of a placement: by section, 0 between them */
} dj_field_t;

typedef struct dj_field_mark {
    size_t trail;
    uint32_t placed;
} dj_field_mark_t;

/* Ends with dj_field_fini(), also after an error. *fits_p: false when it is too large to search.
 * DJ_ERR_MEMORY. */
dj_status_t dj_field_init(dj_field_t *field, const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                          bool *fits_p);
void dj_field_fini(dj_field_t *field);

/* Places an item at its floor; false: something else does not fit any more. To be taken back either
 * way. */
bool dj_field_place(dj_field_t *field, uint32_t item);

dj_field_mark_t dj_field_mark(const dj_field_t *field);
void dj_field_undo(dj_field_t *field, dj_field_mark_t mark);

#endif
