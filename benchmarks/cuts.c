/* cuts.c - see cuts.h. */
#include "benchmarks/cuts.h"

typedef struct cutter {
    const dj_cuts_t *cuts;
    dj_rect_t *pieces;
    uint64_t *offsets;
    uint32_t count;
    uint64_t state;
} cutter_t;

/* splitmix64 */
static uint64_t next_random(cutter_t *c)
{
    uint64_t z = c->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t below(cutter_t *c, uint64_t bound)
{
    return next_random(c) % bound;
}

static uint64_t width(const dj_rect_t *piece)
{
    return piece->upper - piece->lower;
}

static uint32_t draw_piece(cutter_t *c)
{
    if (!c->cuts->by_area)
        return (uint32_t)below(c, c->count);
    uint64_t time = below(c, c->cuts->times), space = below(c, c->cuts->height);
    uint32_t i = 0;
    while (time < c->pieces[i].lower || time >= c->pieces[i].upper || space < c->offsets[i] ||
           space - c->offsets[i] >= c->pieces[i].size)
        i++;
    return i;
}

static void add(cutter_t *c, uint64_t lower, uint64_t upper, uint64_t offset, uint64_t end)
{
    c->offsets[c->count] = offset;
    c->pieces[c->count++] = (dj_rect_t){.lower = lower, .upper = upper, .size = end - offset};
}

static void cut_straight(cutter_t *c, uint32_t number)
{
    dj_rect_t *piece = &c->pieces[number];
    bool wide = width(piece) > 1, high = piece->size > 1;
    if (!wide && !high)
        return;
    if (wide && (!high || below(c, 2) == 0)) {
        uint64_t at = piece->lower + 1 + below(c, width(piece) - 1);
        add(c, at, piece->upper, c->offsets[number], c->offsets[number] + piece->size);
        piece->upper = at;
    } else {
        uint64_t at = 1 + below(c, piece->size - 1), offset = c->offsets[number];
        add(c, piece->lower, piece->upper, offset + at, offset + piece->size);
        piece->size = at;
    }
}

/* Two different whole numbers strictly between 0 and `length`, ascending. */
static void draw_two(cutter_t *c, uint64_t length, uint64_t *low_p, uint64_t *high_p)
{
    uint64_t a = 1 + below(c, length - 1), b = 1 + below(c, length - 2);
    b += b >= a;
    *low_p = a < b ? a : b;
    *high_p = a < b ? b : a;
}

static void cut_pinwheel(cutter_t *c, uint32_t number)
{
    dj_rect_t old = c->pieces[number];
    uint64_t x1, x2, y1, y2, low = c->offsets[number], high = low + old.size;
    draw_two(c, width(&old), &x1, &x2);
    draw_two(c, old.size, &y1, &y2);
    x1 += old.lower;
    x2 += old.lower;
    y1 += low;
    y2 += low;
    c->pieces[number] = (dj_rect_t){.lower = old.lower, .upper = x2, .size = y1 - low};
    add(c, x2, old.upper, low, y2);
    add(c, x1, old.upper, y2, high);
    add(c, old.lower, x1, y1, high);
    add(c, x1, x2, y1, y2);
}

static void shuffle(cutter_t *c)
{
    for (uint32_t i = c->count; i > 1; i--) {
        uint32_t j = (uint32_t)below(c, i);
        dj_rect_t piece = c->pieces[i - 1];
        uint64_t offset = c->offsets[i - 1];
        c->pieces[i - 1] = c->pieces[j];
        c->offsets[i - 1] = c->offsets[j];
        c->pieces[j] = piece;
        c->offsets[j] = offset;
    }
}

void dj_cuts_make(const dj_cuts_t *cuts, dj_rect_t *pieces, uint64_t *offsets)
{
    cutter_t c = {.cuts = cuts, .pieces = pieces, .offsets = offsets, .state = cuts->seed};
    add(&c, 0, cuts->times, 0, cuts->height);
    while (c.count < cuts->count) {
        uint32_t number = draw_piece(&c);
        bool fits =
            cuts->count - c.count >= 4 && width(&pieces[number]) > 2 && pieces[number].size > 2;
        if (fits && below(&c, 100) < cuts->pinwheels)
            cut_pinwheel(&c, number);
        else
            cut_straight(&c, number);
    }
    shuffle(&c);
}
