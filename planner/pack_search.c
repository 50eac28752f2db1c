/* pack_search.c - see pack_search.h.
 *
 * Every placement can be let down until each item rests on the floor or on another one, and its
 * items can be named from the lowest offset up, those of one offset by rank: so it is enough to
 * try, at each node, which item comes next in that order, at exactly the height it rests at
 * (Moffitt 2023, canonical solutions). A node is left when something can no longer fit above its
 * floor, when a section's items together cannot fit above the lowest place any of them may take
 * (section inference), or when an item would come next although another would fit under it. When
 * what is left falls into parts that share no time, the parts are searched one after the other and
 * the failure of one is the failure of all.
 *
 * Which items are tried first is a rank; no rank is best for all inputs, so several take turns,
 * each with more nodes than the last time. The stack is an array, so nothing recurses. */
#include "planner/pack_search.h"

#include <stdlib.h>
#include <string.h>

#include "planner/pack_field.h"

enum { RANKS = 5, SHAKEN = 3, NODES_FIRST = 1 << 13, CHECK_EVERY = 16 };

typedef struct range {
    size_t first;
    uint32_t n;
} range_t;

/* A node: the items that are left of one part, the next of them to try, and the parts into which a
 * tried one has split the others. */
typedef struct frame {
    range_t list, candidates;
    uint32_t next;
    uint64_t height; /* of the item placed last; none comes next below it */
    uint32_t rank;   /* its rank */
    bool tried;      /* a candidate is placed; its parts are under way */
    dj_field_mark_t before;
    uint64_t part_height;
    uint32_t part_rank;
    size_t part_at, part_end; /* where the next part begins in the arena */
    size_t arena_before;      /* top of the arena before this frame */
} frame_t;

typedef struct search {
    dj_field_t field;
    dj_pack_meter_t *meter;
    uint32_t *rank; /* of each item, 1 and up */
    uint32_t *by_begin;
    uint32_t *arena;
    size_t n_arena, max_arena;
    frame_t *frames;
    uint32_t depth;
    bool failed;
} search_t;

static bool reserve(search_t *s, size_t more)
{
    if (s->n_arena + more <= s->max_arena)
        return true;
    size_t max = 2 * (s->n_arena + more);
    uint32_t *arena = realloc(s->arena, max * sizeof arena[0]);
    if (arena == NULL) {
        s->failed = true;
        return false;
    }
    s->arena = arena;
    s->max_arena = max;
    return true;
}

static int by_height(const void *a, const void *b, void *context)
{
    const search_t *s = context;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    const dj_item_t *item_x = &s->field.items[x], *item_y = &s->field.items[y];
    if (item_x->floor != item_y->floor)
        return item_x->floor < item_y->floor ? -1 : 1;
    return s->rank[x] < s->rank[y] ? -1 : s->rank[x] > s->rank[y];
}

/* Candidates of a new frame: what may come next. */
static void list_candidates(search_t *s, frame_t *frame)
{
    uint64_t lowest_end = UINT64_MAX;
    uint32_t n = 0;
    for (uint32_t i = 0; i < frame->list.n; i++) {
        const dj_item_t *item = &s->field.items[s->arena[frame->list.first + i]];
        uint64_t floor = item->floor > frame->height ? item->floor : frame->height;
        if (floor + item->size < lowest_end)
            lowest_end = floor + item->size;
    }
    frame->candidates.first = s->n_arena;
    for (uint32_t i = 0; i < frame->list.n; i++) {
        uint32_t number = s->arena[frame->list.first + i];
        uint64_t floor = s->field.items[number].floor;
        if (floor < lowest_end &&
            (floor > frame->height || (floor == frame->height && s->rank[number] > frame->rank)))
            s->arena[s->n_arena + n++] = number;
    }
    qsort_r(s->arena + s->n_arena, n, sizeof s->arena[0], by_height, s);
    frame->candidates.n = n;
    s->n_arena += n;
    frame->next = 0;
}

/* Nothing of a part may lie below `height` any more: do its sections' items fit above? */
static bool fits_above(const search_t *s, const uint32_t *list, uint32_t n, uint64_t height)
{
    const dj_field_t *field = &s->field;
    uint32_t done = 0;
    for (uint32_t i = 0; i < n; i++) {
        const dj_item_t *item = &field->items[list[i]];
        uint32_t from = item->first > done ? item->first : done;
        for (uint32_t at = from; at < item->last; at++)
            if (field->sections[at].load + height > field->capacity)
                return false;
        done = item->last > done ? item->last : done;
    }
    return true;
}

static bool push(search_t *s, range_t list, uint64_t height, uint32_t rank, size_t arena_before)
{
    frame_t *frame = &s->frames[s->depth];
    *frame = (frame_t){.list = list, .height = height, .rank = rank, .arena_before = arena_before};
    if (!reserve(s, 2ull * list.n + 2))
        return false;
    list_candidates(s, frame);
    s->depth++;
    return true;
}

/* Places the next candidate and cuts the rest into parts: in the arena, each a count and then its
 * items. */
static bool try_next(search_t *s, frame_t *frame)
{
    uint32_t number = s->arena[frame->candidates.first + frame->next++];
    uint32_t n = 0, part = 0, end = 0;
    frame->before = dj_field_mark(&s->field);
    frame->part_height = s->field.items[number].floor;
    frame->part_rank = s->rank[number];
    s->meter->nodes++;
    if (!dj_field_place(&s->field, number) || !reserve(s, 2ull * frame->list.n + 2))
        return false;
    uint32_t *out = s->arena + s->n_arena;
    for (uint32_t i = 0; i < frame->list.n; i++) {
        uint32_t other = s->arena[frame->list.first + i];
        if (other == number)
            continue;
        if (n == 0 || s->field.items[other].first >= end) {
            part = n++;
            out[part] = 0;
            end = 0;
        }
        out[n++] = other;
        out[part]++;
        end = s->field.items[other].last > end ? s->field.items[other].last : end;
    }
    frame->part_at = s->n_arena;
    frame->part_end = s->n_arena + n;
    for (uint32_t at = 0; at < n; at += out[at] + 1)
        if (!fits_above(s, out + at + 1, out[at], frame->part_height))
            return false;
    s->n_arena += n;
    frame->tried = true;
    return true;
}

/* One step of the stack; *end_p is set when it is empty. */
static void step(search_t *s, dj_pack_end_t *end_p)
{
    frame_t *frame = &s->frames[s->depth - 1];
    if (frame->tried && frame->part_at < frame->part_end) {
        range_t list = {.first = frame->part_at + 1, .n = s->arena[frame->part_at]};
        frame->part_at += list.n + 1ull;
        push(s, list, frame->part_height, frame->part_rank, s->n_arena);
        return;
    }
    if (frame->tried) { /* all parts are placed, so this one is */
        s->n_arena = frame->arena_before;
        if (--s->depth == 0)
            *end_p = DJ_PACK_FOUND;
        return;
    }
    if (frame->next < frame->candidates.n) {
        if (!try_next(s, frame))
            dj_field_undo(&s->field, frame->before);
        return;
    }
    s->n_arena = frame->arena_before;
    if (--s->depth == 0) {
        *end_p = DJ_PACK_NONE;
        return;
    }
    frame--;
    dj_field_undo(&s->field, frame->before);
    s->n_arena = frame->candidates.first + frame->candidates.n;
    frame->tried = false;
}

/* Until an answer, or for so many nodes. */
static dj_pack_end_t run(search_t *s, uint64_t nodes)
{
    dj_pack_end_t end = DJ_PACK_ENDED;
    uint64_t until = s->meter->nodes + nodes;
    uint32_t turns = 0;
    s->n_arena = 0;
    s->depth = 0;
    if (!reserve(s, s->field.n_items))
        return end;
    memcpy(s->arena, s->by_begin, s->field.n_items * sizeof s->arena[0]);
    s->n_arena = s->field.n_items;
    push(s, (range_t){.n = s->field.n_items}, 0, 0, 0);
    while (end == DJ_PACK_ENDED && s->meter->nodes < until && !s->failed && !s->field.failed) {
        step(s, &end);
        if (++turns % CHECK_EVERY == 0 && dj_pack_meter_spent(s->meter))
            break;
    }
    if (end != DJ_PACK_FOUND)
        dj_field_undo(&s->field, (dj_field_mark_t){0});
    return end;
}

/* What ranks are made of, larger first. */
static double worth(const search_t *s, const dj_item_t *item, char what)
{
    double size = (double)item->size, most = 0;
    double length =
        (double)(s->field.sections[item->last - 1].end - s->field.sections[item->first].begin);
    for (uint32_t i = item->first; i < item->last && what == 'T'; i++)
        if ((double)s->field.sections[i].load > most)
            most = (double)s->field.sections[i].load;
    switch (what) {
    case 'T': /* the most crowded section */
        return most;
    case 'A':
        return size * length;
    case 'W':
        return length;
    default:
        return size;
    }
}

typedef struct worth {
    double first, second;
    uint32_t number;
} worth_t;

static int by_worth(const void *a, const void *b)
{
    const worth_t *x = a, *y = b;
    if (x->first != y->first)
        return x->first > y->first ? -1 : 1;
    if (x->second != y->second)
        return x->second > y->second ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static const char *const ways[RANKS] = {"TW", "TA", "WA", "AW", "ZW"};

/* But for every third turn a rank is shaken a little. */
static void set_ranks(search_t *s, worth_t *worths, uint32_t way, uint32_t turn)
{
    for (uint32_t i = 0; i < s->field.n_items; i++) {
        double shake = (double)(dj_pack_mix(s->meter->random + ((uint64_t)turn << 32) + i) >> 11);
        shake = turn % SHAKEN == 0 ? 1 : 1 + 0.3 * shake / (double)(1ull << 53);
        worths[i] = (worth_t){.first = worth(s, &s->field.items[i], ways[way][0]) * shake,
                              .second = worth(s, &s->field.items[i], ways[way][1]),
                              .number = i};
    }
    qsort(worths, s->field.n_items, sizeof worths[0], by_worth);
    for (uint32_t i = 0; i < s->field.n_items; i++)
        s->rank[worths[i].number] = i + 1;
}

static int by_first(const void *a, const void *b, void *context)
{
    const dj_item_t *items = context;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (items[x].first != items[y].first)
        return items[x].first < items[y].first ? -1 : 1;
    return x < y ? -1 : x > y;
}

static dj_status_t take_turns(search_t *s, dj_pack_end_t *end_p)
{
    uint32_t n = s->field.n_items;
    worth_t *worths = malloc((n + 1ull) * sizeof worths[0]);
    s->rank = malloc(2 * (n + 1ull) * sizeof s->rank[0]);
    s->frames = malloc((n + 2ull) * sizeof s->frames[0]);
    if (worths != NULL && s->rank != NULL && s->frames != NULL) {
        s->by_begin = s->rank + n + 1;
        for (uint32_t i = 0; i < n; i++)
            s->by_begin[i] = i;
        qsort_r(s->by_begin, n, sizeof s->by_begin[0], by_first, s->field.items);
        uint64_t nodes = NODES_FIRST;
        for (uint32_t turn = 0; *end_p == DJ_PACK_ENDED && !s->meter->spent; turn++) {
            for (uint32_t way = 0; way < RANKS && *end_p == DJ_PACK_ENDED; way++) {
                set_ranks(s, worths, way, turn);
                *end_p = run(s, turn % SHAKEN == 0 ? 4 * nodes : nodes);
                if (s->failed || s->field.failed || s->meter->spent)
                    break;
            }
            if (s->failed || s->field.failed)
                break;
            nodes *= 2;
        }
    } else {
        s->failed = true;
    }
    free(worths);
    free(s->rank);
    free(s->frames);
    free(s->arena);
    if (s->failed || s->field.failed)
        return dj_fail(DJ_ERR_MEMORY, "no memory to search %u rectangles", n);
    return DJ_OK;
}

dj_status_t dj_pack_search(const dj_rect_t *rects, uint32_t n, uint64_t capacity,
                           dj_pack_meter_t *meter, uint64_t *offsets, dj_pack_end_t *end_p)
{
    search_t s = {.meter = meter};
    bool fits = false;
    *end_p = DJ_PACK_ENDED;
    if (n > DJ_PACK_SEARCH_MAX)
        return DJ_OK;
    dj_status_t status = dj_field_init(&s.field, rects, n, capacity, &fits);
    if (status == DJ_OK && fits)
        status = take_turns(&s, end_p);
    for (uint32_t i = 0; status == DJ_OK && *end_p == DJ_PACK_FOUND && i < n; i++)
        offsets[i] = s.field.items[i].offset;
    dj_field_fini(&s.field);
    return status;
}
