/* pages.c - the device's memory: one file in memory, mapped where the program asks.
 *
 * In strict mode a mapping is shut to the process. Simulated work that touches it faults, the handler (execute.c)
 * opens the piece of 2 MiB under the address with the mapping's own access and goes on; when the work of a call is
 * done all is shut again. So host code that follows a device pointer dies as it would beside a GPU, and the cost
 * goes with what is touched. A piece is filled with poison when it is first opened. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fcntl.h>

#include "tests/gpu/simulator/inner.h"

static int memory = -1; /* the file */
static uint64_t memory_end;
static sim_mapping_t **mappings; /* by address */
static size_t n_mappings, room;

static uint64_t pieces_of(uint64_t bytes)
{
    return (bytes + SIM_PIECE_BYTES - 1) / SIM_PIECE_BYTES;
}

static void *zeroed(size_t bytes)
{
    void *block = calloc(1, bytes);
    if (block == NULL)
        abort();
    return block;
}

/* ---- pages ---- */

sim_pages_t *sim_pages_create(uint64_t bytes, uint64_t counted)
{
    if (counted > sim_memory_bytes - sim_count.used_bytes)
        return NULL;
    if (memory < 0) {
        memory = memfd_create("simulated GPU", MFD_CLOEXEC);
        if (memory < 0)
            abort();
    }
    /* Offsets are never used twice: what is freed becomes a hole. */
    if (ftruncate(memory, (off_t)(memory_end + bytes)))
        return NULL;
    sim_pages_t *pages = sim_object_create(sizeof *pages, SIM_HANDLE);
    pages->bytes = bytes;
    pages->counted = counted;
    pages->offset = memory_end;
    pages->refs = 1;
    pages->poisoned = zeroed(pieces_of(bytes));
    memory_end += bytes;
    sim_count.used_bytes += counted;
    return pages;
}

void sim_pages_unref(sim_pages_t *pages)
{
    if (--pages->refs)
        return;
    sim_count.used_bytes -= pages->counted;
    if (fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)pages->offset, (off_t)pages->bytes))
        sim_say("no hole in the memory's file: %s", strerror(errno));
    free(pages->poisoned);
    pages->object.magic = SIM_DEAD;
}

/* ---- ranges ---- */

uint64_t sim_range_reserve(uint64_t bytes, uint64_t alignment)
{
    if (bytes + alignment < bytes)
        return 0;
    void *range = mmap(NULL, bytes + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED)
        return 0;
    uint64_t at = (uint64_t)range, base = (at + alignment - 1) / alignment * alignment;
    if (base > at)
        munmap(range, base - at);
    if (at + alignment > base)
        munmap((void *)(base + bytes), at + alignment - base);
    return base;
}

void sim_range_release(uint64_t base, uint64_t bytes)
{
    munmap((void *)base, bytes);
}

/* ---- mappings ---- */

/* The number of mappings that begin at or below `address`. */
static size_t mappings_to(uint64_t address)
{
    size_t low = 0, high = n_mappings;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (mappings[middle]->base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

sim_mapping_t *sim_mapping_at(uint64_t address)
{
    size_t i = mappings_to(address);
    if (i == 0 || address - mappings[i - 1]->base >= mappings[i - 1]->bytes)
        return NULL;
    return mappings[i - 1];
}

bool sim_is_touched(uint64_t address, uint64_t bytes)
{
    size_t i = mappings_to(address + bytes - 1);
    return i > 0 && mappings[i - 1]->base + mappings[i - 1]->bytes > address;
}

bool sim_is_whole(uint64_t address, uint64_t bytes)
{
    uint64_t at = address;
    while (at < address + bytes) {
        sim_mapping_t *mapping = sim_mapping_at(at);
        if (mapping == NULL || mapping->base != at || mapping->is_alloc)
            return false;
        at += mapping->bytes;
    }
    return at == address + bytes;
}

bool sim_is_device(uint64_t address, uint64_t bytes)
{
    uint64_t at = address, end = address + bytes;
    if (end < address)
        return false;
    do {
        sim_mapping_t *mapping = sim_mapping_at(at);
        if (mapping == NULL || mapping->access == CU_MEM_ACCESS_FLAGS_PROT_NONE)
            return false;
        if (mapping->is_alloc)
            return address >= mapping->first && end <= mapping->first + mapping->exact;
        at = mapping->base + mapping->bytes;
    } while (at < end);
    return true;
}

sim_mapping_t *sim_mapping_create(uint64_t base, uint64_t bytes, sim_pages_t *pages)
{
    if (mmap((void *)base, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, memory, (off_t)pages->offset) == MAP_FAILED)
        return NULL;
    if (n_mappings == room) {
        room = room ? room * 2 : 256;
        mappings = realloc(mappings, room * sizeof(*mappings));
        if (mappings == NULL)
            abort();
    }
    sim_mapping_t *mapping = zeroed(sizeof *mapping);
    mapping->base = base;
    mapping->bytes = bytes;
    mapping->pages = pages;
    mapping->access = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    mapping->open = zeroed(pieces_of(bytes));
    ++pages->refs;
    size_t at = mappings_to(base);
    memmove(&mappings[at + 1], &mappings[at], (n_mappings - at) * sizeof(*mappings));
    mappings[at] = mapping;
    ++n_mappings;
    return mapping;
}

void sim_mapping_destroy(sim_mapping_t *mapping)
{
    size_t at = mappings_to(mapping->base) - 1;
    memmove(&mappings[at], &mappings[at + 1], (n_mappings - at - 1) * sizeof(*mappings));
    --n_mappings;
    mmap((void *)mapping->base, mapping->bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    sim_pages_unref(mapping->pages);
    free(mapping->open);
    free(mapping);
}

/* ---- opening and shutting ---- */

static void protect(uint64_t at, uint64_t bytes, int access)
{
    if (mprotect((void *)at, bytes, access)) {
        sim_say("mprotect of device memory: %s", strerror(errno));
        abort();
    }
}

static void open_piece(sim_mapping_t *mapping, uint64_t piece)
{
    uint64_t at = mapping->base + piece * SIM_PIECE_BYTES, bytes = mapping->base + mapping->bytes - at;
    if (bytes > SIM_PIECE_BYTES)
        bytes = SIM_PIECE_BYTES;
    if (!mapping->pages->poisoned[piece]) {
        protect(at, bytes, PROT_READ | PROT_WRITE);
        memset((void *)at, SIM_POISON, bytes);
        mapping->pages->poisoned[piece] = 1;
    }
    protect(at, bytes,
            mapping->access == CU_MEM_ACCESS_FLAGS_PROT_READ ? PROT_READ : PROT_READ | PROT_WRITE);
    mapping->open[piece] = 1;
    ++mapping->n_open;
}

bool sim_open(uint64_t address)
{
    sim_mapping_t *mapping = sim_mapping_at(address);
    if (mapping == NULL || mapping->access == CU_MEM_ACCESS_FLAGS_PROT_NONE)
        return false;
    uint64_t piece = (address - mapping->base) / SIM_PIECE_BYTES;
    if (mapping->open[piece])
        return false;
    open_piece(mapping, piece);
    return true;
}

static void shut(sim_mapping_t *mapping)
{
    protect(mapping->base, mapping->bytes, PROT_NONE);
    memset(mapping->open, 0, pieces_of(mapping->bytes));
    mapping->n_open = 0;
}

void sim_close_all(void)
{
    if (!sim_strict)
        return;
    for (size_t i = 0; i < n_mappings; ++i) {
        if (mappings[i]->n_open)
            shut(mappings[i]);
    }
}

void sim_mapping_set_access(sim_mapping_t *mapping, CUmemAccess_flags access)
{
    mapping->access = access;
    if (mapping->n_open)
        shut(mapping);
    if (!sim_strict && access != CU_MEM_ACCESS_FLAGS_PROT_NONE) {
        for (uint64_t piece = 0; piece < pieces_of(mapping->bytes); ++piece)
            open_piece(mapping, piece);
    }
}
