/* pack_field.c - see pack_field.h. */
#include "planner/pack_field.h"

#include <stdlib.h>
#include <string.h>

#define PAIRS_MAX (16ull << 20)

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t find_section(const dj_field_t *field, uint64_t time)
{
    uint32_t low = 0, high = field->n_sections;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (field->sections[middle].begin < time)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static dj_status_t cut_sections(dj_field_t *field, const dj_rect_t *rects, uint32_t n)
{
    uint64_t *times = malloc(2 * (n + 1ull) * sizeof times[0]);
    uint32_t kept = 0;
    field->sections = calloc(2 * (n + 1ull), sizeof field->sections[0]);
    if (times == NULL || field->sections == NULL) {
        free(times);
        return DJ_ERR_MEMORY;
    }
    for (uint32_t i = 0; i < n; i++) {
        times[2 * i] = rects[i].lower;
        times[2 * i + 1] = rects[i].upper;
    }
    qsort(times, 2ull * n, sizeof times[0], by_value);
    for (uint32_t i = 0; i < 2 * n; i++)
        if (i == 0 || times[i] != times[i - 1])
            times[kept++] = times[i];
    field->n_sections = kept - 1;
    for (uint32_t i = 0; i + 1 < kept; i++) {
        field->sections[i].begin = times[i];
        field->sections[i].end = times[i + 1];
    }
    free(times);
    return DJ_OK;
}

/* Turns counts into where each list begins; the last entry is the sum. */
static void begin_lists(uint32_t *first, uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i <= n; i++) {
        uint32_t count = first[i];
        first[i] = sum;
        sum += count;
    }
}

/* After filling, each entry has moved to the end of its list: back by one. */
static void end_lists(uint32_t *first, uint32_t n)
{
    for (uint32_t i = n; i > 0; i--)
        first[i] = first[i - 1];
    first[0] = 0;
}

static dj_status_t list_crossings(dj_field_t *field)
{
    uint32_t *first = calloc(field->n_sections + 2ull, sizeof first[0]);
    field->crosses_first = first;
    if (first == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < field->n_items; i++)
        for (uint32_t s = field->items[i].first; s < field->items[i].last; s++)
            first[s]++;
    begin_lists(first, field->n_sections);
    field->crosses = malloc((first[field->n_sections] + 1ull) * sizeof field->crosses[0]);
    if (field->crosses == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < field->n_items; i++)
        for (uint32_t s = field->items[i].first; s < field->items[i].last; s++)
            field->crosses[first[s]++] = i;
    end_lists(first, field->n_sections);
    return DJ_OK;
}

static bool meet(const dj_item_t *a, const dj_item_t *b)
{
    return a->first < b->last && b->first < a->last;
}

static dj_status_t list_meetings(dj_field_t *field)
{
    uint32_t *first = calloc(field->n_items + 2ull, sizeof first[0]), n = field->n_items;
    field->meets_first = first;
    if (first == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++)
            first[i] += i != j && meet(&field->items[i], &field->items[j]);
    begin_lists(first, n);
    field->meets = malloc((first[n] + 1ull) * sizeof field->meets[0]);
    if (field->meets == NULL)
        return DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++)
            if (i != j && meet(&field->items[i], &field->items[j]))
                field->meets[first[i]++] = j;
    end_lists(first, n);
    return DJ_OK;
}

dj_status_t dj_field_init(dj_field_t *field, const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                          bool *fits_p)
{
    uint64_t pairs = 0;
    *field = (dj_field_t){.n_items = n, .capacity = capacity};
    dj_status_t status = cut_sections(field, rects, n);
    field->items = calloc(n + 1ull, sizeof field->items[0]);
    field->placed = malloc((n + 1ull) * sizeof field->placed[0]);
    field->covers = calloc(2 * (n + 1ull), sizeof field->covers[0]);
    if (field->items == NULL || field->placed == NULL || field->covers == NULL)
        status = DJ_ERR_MEMORY;
    for (uint32_t i = 0; i < n && status == DJ_OK; i++) {
        dj_item_t *item = &field->items[i];
        *item = (dj_item_t){.size = rects[i].size,
                            .first = find_section(field, rects[i].lower),
                            .last = find_section(field, rects[i].upper)};
        pairs += item->last - item->first;
        for (uint32_t s = item->first; s < item->last; s++)
            field->sections[s].load += item->size;
    }
    *fits_p = pairs <= PAIRS_MAX;
    if (status == DJ_OK && *fits_p)
        status = list_crossings(field);
    if (status == DJ_OK && *fits_p)
        status = list_meetings(field);
    return status == DJ_OK ? status : dj_fail(status, "no memory to search %u rectangles", n);
}

void dj_field_fini(dj_field_t *field)
{
    free(field->items);
    free(field->sections);
    free(field->meets_first);
    free(field->meets);
    free(field->crosses_first);
    free(field->crosses);
    free(field->trail);
    free(field->placed);
    free(field->covers);
    *field = (dj_field_t){0};
}

static void remember(dj_field_t *field, uint32_t number, uint64_t old)
{
    if (field->n_trail == field->max_trail) {
        size_t max = field->max_trail > 0 ? 2 * field->max_trail : 1024;
        dj_trail_entry_t *trail = realloc(field->trail, max * sizeof trail[0]);
        if (trail == NULL) {
            field->failed = true;
            return;
        }
        field->trail = trail;
        field->max_trail = max;
    }
    field->trail[field->n_trail++] = (dj_trail_entry_t){.old = old, .number = number};
}

/* Items left the section or their floors rose: its base may have to follow. */
static bool raise_base(dj_field_t *field, uint32_t number)
{
    dj_section_t *section = &field->sections[number];
    uint64_t base = UINT64_MAX;
    if (section->load == 0)
        return true;
    for (uint32_t i = field->crosses_first[number]; i < field->crosses_first[number + 1]; i++) {
        const dj_item_t *item = &field->items[field->crosses[i]];
        if (!item->placed && item->floor < base)
            base = item->floor;
        if (base == section->base)
            break;
    }
    if (base != section->base) {
        remember(field, field->n_items + number, section->base);
        section->base = base;
    }
    return base + section->load <= field->capacity;
}

/* Raises what meets the item to its end and counts, in `covers`, where such items begin and end.
 * False: something does not fit any more. */
static bool raise_floors(dj_field_t *field, uint32_t number, uint64_t end, uint32_t *first_p,
                         uint32_t *last_p)
{
    bool fits = true;
    for (uint32_t i = field->meets_first[number]; i < field->meets_first[number + 1]; i++) {
        dj_item_t *other = &field->items[field->meets[i]];
        if (other->placed || other->floor >= end)
            continue;
        remember(field, field->meets[i], other->floor);
        other->floor = end;
        fits = fits && end + other->size <= field->capacity;
        field->covers[other->first]++;
        field->covers[other->last]--;
        *first_p = other->first < *first_p ? other->first : *first_p;
        *last_p = other->last > *last_p ? other->last : *last_p;
    }
    return fits;
}

bool dj_field_place(dj_field_t *field, uint32_t number)
{
    dj_item_t *item = &field->items[number];
    uint32_t first = item->first, last = item->last;
    uint64_t end = item->floor + item->size;
    int32_t covers = 0;
    item->placed = true;
    item->offset = item->floor;
    field->placed[field->n_placed++] = number;
    for (uint32_t s = item->first; s < item->last; s++)
        field->sections[s].load -= item->size;
    field->covers[item->first]++;
    field->covers[item->last]--;
    bool fits = raise_floors(field, number, end, &first, &last);
    for (uint32_t s = first; s < last; s++) {
        covers += field->covers[s];
        field->covers[s] = 0;
        if (fits && covers > 0 && field->sections[s].base < end)
            fits = raise_base(field, s);
    }
    field->covers[last] = 0;
    return fits && !field->failed;
}

dj_field_mark_t dj_field_mark(const dj_field_t *field)
{
    return (dj_field_mark_t){.trail = field->n_trail, .placed = field->n_placed};
}

void dj_field_undo(dj_field_t *field, dj_field_mark_t mark)
{
    while (field->n_trail > mark.trail) {
        const dj_trail_entry_t *entry = &field->trail[--field->n_trail];
        if (entry->number < field->n_items)
            field->items[entry->number].floor = entry->old;
        else
            field->sections[entry->number - field->n_items].base = entry->old;
    }
    while (field->n_placed > mark.placed) {
        dj_item_t *item = &field->items[field->placed[--field->n_placed]];
        item->placed = false;
        for (uint32_t s = item->first; s < item->last; s++)
            field->sections[s].load += item->size;
    }
}
