/* shelf.c - things side by side on pages that come and go (shelf.h).
 *
 * The things of a shelf are kept in order of their offsets; the gaps between them are found by walking it. An extent
 * is written down at its first page: how many things touch it, and for how many of them its window is open. */
#include "gpu/shelf.h"

#include <stdlib.h>
#include <string.h>

enum { SHELF_PAGES = 256, WASTE_SHARE = 16 };
_Static_assert(SHELF_PAGES >= DJ_SHELF_THING_PAGES, "a thing fits an empty shelf");
_Static_assert(WASTE_SHARE <= DJ_SHELF_THING_PAGES, "what is larger never wastes as much");

typedef struct thing {
    uint64_t offset, end;
} thing_t;

typedef struct page {
    uint16_t first, n;     /* the extent that it is of; n 0: there is no page */
    uint32_t things, open; /* of the extent that begins here */
} page_t;

struct dj_shelf {
    dj_shelf_t *next;
    dj_device_t *device;
    uint64_t page_bytes;
    uint8_t *base, *window;
    thing_t *things; /* by offset */
    uint32_t n_things, room;
    page_t pages[SHELF_PAGES];
};

void dj_shelves_init(dj_shelves_t *shelves, dj_device_t *device)
{
    *shelves = (dj_shelves_t){.device = device};
}

static uint64_t page_bytes_of(const dj_device_t *device)
{
    return device->ops->info(device)->page_bytes;
}

bool dj_shelf_suits(const dj_device_t *device, uint64_t bytes)
{
    uint64_t page = page_bytes_of(device);
    uint64_t waste = bytes ? (page - bytes % page) % page : page;
    return device->ops->memory.mirror && waste > bytes / WASTE_SHARE;
}

/* ---- shelves ---- */

static dj_status_t shelf_create(dj_device_t *device, dj_shelf_t **shelf_p)
{
    const dj_device_memory_t *memory = &device->ops->memory;
    uint64_t page_bytes = page_bytes_of(device), bytes = SHELF_PAGES * page_bytes;
    void *base = NULL, *window = NULL;
    dj_shelf_t *shelf = calloc(1, sizeof(*shelf));
    if (!shelf)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a shelf's table");
    dj_status_t status = memory->reserve(device, bytes, &base);
    if (status != DJ_OK)
        goto err_reserve;
    status = memory->reserve(device, bytes, &window);
    if (status != DJ_OK)
        goto err_window;
    shelf->device = device;
    shelf->page_bytes = page_bytes;
    shelf->base = base;
    shelf->window = window;
    *shelf_p = shelf;
    return DJ_OK;

err_window:
    memory->release(device, base, bytes);
err_reserve:
    free(shelf);
    return status;
}

static void shelf_destroy(dj_shelf_t *shelf)
{
    const dj_device_memory_t *memory = &shelf->device->ops->memory;
    memory->release(shelf->device, shelf->window, SHELF_PAGES * shelf->page_bytes);
    memory->release(shelf->device, shelf->base, SHELF_PAGES * shelf->page_bytes);
    free(shelf->things);
    free(shelf);
}

/* With the last thing on it. */
static void drop_empty(dj_shelves_t *shelves, dj_shelf_t *shelf)
{
    dj_shelf_t **at = &shelves->first;
    if (shelf->n_things)
        return;
    while (*at && *at != shelf)
        at = &(*at)->next;
    if (*at)
        *at = shelf->next;
    shelf_destroy(shelf);
}

void dj_shelves_fini(dj_shelves_t *shelves)
{
    while (shelves->first) {
        dj_shelf_t *next = shelves->first->next;
        shelf_destroy(shelves->first);
        shelves->first = next;
    }
}

/* ---- finding ---- */

static uint32_t first_page(const dj_shelf_t *shelf, uint64_t offset)
{
    return (uint32_t)(offset / shelf->page_bytes);
}

static uint32_t end_page(const dj_shelf_t *shelf, uint64_t end)
{
    return (uint32_t)((end + shelf->page_bytes - 1) / shelf->page_bytes);
}

static uint64_t new_pages(const dj_shelf_t *shelf, uint64_t offset, uint64_t end)
{
    uint64_t n = 0;
    for (uint32_t i = first_page(shelf, offset); i < end_page(shelf, end); i++)
        n += shelf->pages[i].n == 0;
    return n;
}

typedef struct search {
    dj_shelf_spot_t spot;
    uint64_t pages, gap; /* of the best so far: new pages, and the size of the gap that it is in */
} search_t;

/* Of two spots with as many new pages the one in the smaller gap: large ones stay for large things. */
static void look_at(search_t *search, dj_shelf_t *shelf, uint64_t offset, uint64_t gap)
{
    uint64_t pages = new_pages(shelf, offset, offset + search->spot.bytes);
    if (search->spot.shelf && (pages > search->pages || (pages == search->pages && gap >= search->gap)))
        return;
    search->spot.shelf = shelf;
    search->spot.offset = offset;
    search->pages = pages;
    search->gap = gap;
}

/* A gap's start and its end: in its middle are no pages but those of extents that reach in from there. */
static void search_shelf(search_t *search, dj_shelf_t *shelf)
{
    uint64_t start = 0;
    for (uint32_t i = 0; i <= shelf->n_things; i++) {
        uint64_t end = i < shelf->n_things ? shelf->things[i].offset : SHELF_PAGES * shelf->page_bytes;
        if (end - start >= search->spot.bytes) {
            look_at(search, shelf, start, end - start);
            look_at(search, shelf, end - search->spot.bytes, end - start);
        }
        if (i < shelf->n_things)
            start = shelf->things[i].end;
    }
}

uint64_t dj_shelf_find(const dj_shelves_t *shelves, uint64_t bytes, dj_shelf_spot_t *spot)
{
    uint64_t rounded = (bytes + DJ_SHELF_ALIGN - 1) / DJ_SHELF_ALIGN * DJ_SHELF_ALIGN;
    search_t search = {.spot.bytes = rounded ? rounded : DJ_SHELF_ALIGN};
    for (dj_shelf_t *shelf = shelves->first; shelf; shelf = shelf->next)
        search_shelf(&search, shelf);
    uint64_t page_bytes = page_bytes_of(shelves->device);
    *spot = search.spot;
    return spot->shelf ? search.pages * page_bytes : (spot->bytes + page_bytes - 1) / page_bytes * page_bytes;
}

/* ---- extents ---- */

/* The pages from `first` on, up to `end` or the next page that is there. */
static dj_status_t extent_make(dj_shelf_t *shelf, uint32_t first, uint32_t end)
{
    const dj_device_memory_t *memory = &shelf->device->ops->memory;
    uint32_t n = 1;
    while (first + n < end && shelf->pages[first + n].n == 0)
        n++;
    uint8_t *base = shelf->base + first * shelf->page_bytes;
    dj_status_t status = memory->commit(shelf->device, base, n * shelf->page_bytes);
    if (status != DJ_OK)
        return status;
    status = memory->seal(shelf->device, base, n * shelf->page_bytes, true);
    if (status != DJ_OK) {
        memory->decommit(shelf->device, base, n * shelf->page_bytes);
        return status;
    }
    for (uint32_t i = first; i < first + n; i++)
        shelf->pages[i] = (page_t){.first = (uint16_t)first, .n = (uint16_t)n};
    return DJ_OK;
}

static void extent_drop(dj_shelf_t *shelf, uint32_t first)
{
    uint32_t n = shelf->pages[first].n;
    shelf->device->ops->memory.decommit(shelf->device, shelf->base + first * shelf->page_bytes, n * shelf->page_bytes);
    memset(&shelf->pages[first], 0, n * sizeof(shelf->pages[0]));
}

static void window_shut(dj_shelf_t *shelf, uint32_t first)
{
    if (--shelf->pages[first].open == 0)
        shelf->device->ops->memory.decommit(shelf->device, shelf->window + first * shelf->page_bytes,
                                            shelf->pages[first].n * shelf->page_bytes);
}

static uint64_t extent_leave(dj_shelf_t *shelf, uint32_t first)
{
    uint64_t bytes = shelf->pages[first].n * shelf->page_bytes;
    if (--shelf->pages[first].things > 0)
        return 0;
    extent_drop(shelf, first);
    return bytes;
}

/* One thing more touches the extent with this page, and its window is open for it. */
static dj_status_t extent_enter(dj_shelf_t *shelf, uint32_t at, uint32_t end)
{
    dj_status_t status = shelf->pages[at].n ? DJ_OK : extent_make(shelf, at, end);
    if (status != DJ_OK)
        return status;
    uint32_t first = shelf->pages[at].first;
    page_t *page = &shelf->pages[first];
    uint64_t offset = first * shelf->page_bytes;
    if (page->open == 0)
        status = shelf->device->ops->memory.mirror(shelf->device, shelf->window + offset, shelf->base + offset,
                                                   page->n * shelf->page_bytes);
    if (status == DJ_OK) {
        page->open++;
        page->things++;
    } else if (page->things == 0) {
        extent_drop(shelf, first);
    }
    return status;
}

static dj_status_t extents_enter(dj_shelf_t *shelf, uint64_t offset, uint64_t bytes)
{
    uint32_t first = first_page(shelf, offset), end = end_page(shelf, offset + bytes), at = first;
    dj_status_t status = DJ_OK;
    while (at < end && (status = extent_enter(shelf, at, end)) == DJ_OK)
        at = shelf->pages[at].first + shelf->pages[at].n;
    for (uint32_t undone = first, next; status != DJ_OK && undone < at; undone = next) {
        uint32_t extent = shelf->pages[undone].first;
        next = extent + shelf->pages[extent].n;
        window_shut(shelf, extent);
        extent_leave(shelf, extent);
    }
    return status;
}

/* ---- things ---- */

/* How many things begin before `offset`. */
static uint32_t things_before(const dj_shelf_t *shelf, uint64_t offset)
{
    uint32_t low = 0, high = shelf->n_things;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (shelf->things[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static dj_status_t make_room(dj_shelf_t *shelf)
{
    if (shelf->n_things < shelf->room)
        return DJ_OK;
    uint32_t room = shelf->room ? 2 * shelf->room : 32;
    thing_t *grown = realloc(shelf->things, room * sizeof(*grown));
    if (!grown)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a shelf's table of %u things", room);
    shelf->things = grown;
    shelf->room = room;
    return DJ_OK;
}

static void insert(dj_shelf_t *shelf, const dj_shelf_spot_t *spot)
{
    uint32_t at = things_before(shelf, spot->offset);
    memmove(&shelf->things[at + 1], &shelf->things[at], (shelf->n_things - at) * sizeof(thing_t));
    shelf->things[at] = (thing_t){spot->offset, spot->offset + spot->bytes};
    shelf->n_things++;
}

dj_status_t dj_shelf_put(dj_shelves_t *shelves, dj_shelf_spot_t *spot, void **window_p)
{
    dj_shelf_t *shelf = spot->shelf;
    dj_status_t status = DJ_OK;
    if (!shelf) {
        status = shelf_create(shelves->device, &shelf);
        if (status != DJ_OK)
            return status;
        shelf->next = shelves->first;
        shelves->first = shelf;
    }
    status = make_room(shelf);
    if (status == DJ_OK)
        status = extents_enter(shelf, spot->offset, spot->bytes);
    if (status != DJ_OK) {
        drop_empty(shelves, shelf);
        return status;
    }
    spot->shelf = shelf;
    insert(shelf, spot);
    *window_p = shelf->window + spot->offset;
    return DJ_OK;
}

void *dj_shelf_close(const dj_shelf_spot_t *spot)
{
    dj_shelf_t *shelf = spot->shelf;
    uint32_t end = end_page(shelf, spot->offset + spot->bytes);
    for (uint32_t at = first_page(shelf, spot->offset); at < end;) {
        uint32_t first = shelf->pages[at].first;
        at = first + shelf->pages[first].n;
        window_shut(shelf, first);
    }
    return shelf->base + spot->offset;
}

uint64_t dj_shelf_remove(dj_shelves_t *shelves, const dj_shelf_spot_t *spot)
{
    dj_shelf_t *shelf = spot->shelf;
    uint64_t bytes = 0;
    uint32_t end = end_page(shelf, spot->offset + spot->bytes);
    for (uint32_t at = first_page(shelf, spot->offset); at < end;) {
        uint32_t first = shelf->pages[at].first;
        at = first + shelf->pages[first].n;
        bytes += extent_leave(shelf, first);
    }
    uint32_t at = things_before(shelf, spot->offset);
    memmove(&shelf->things[at], &shelf->things[at + 1], (--shelf->n_things - at) * sizeof(thing_t));
    drop_empty(shelves, shelf);
    return bytes;
}
