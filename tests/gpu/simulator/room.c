/* room.c - memory of operations, from the system by itself: a replay is measured by what the process allocates, and a
 * real driver's work does not pass through malloc either.
 *
 * Free lists by power of two, cut from slabs that are never given back; what is large is mapped for itself. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/gpu/simulator/inner.h"

enum { SMALLEST = 6, LARGEST = 17, SLAB_BYTES = 1 << 20, HEAD_BYTES = 16 };

typedef struct head {
    uint64_t bytes; /* of what was mapped, or 1 << class */
    struct head *next;
} head_t;

static head_t *free_of[LARGEST + 1];
static char *slab, *slab_end;

static void *map(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    return memory;
}

static head_t *cut(size_t bytes)
{
    if ((size_t)(slab_end - slab) < bytes) {
        slab = map(SLAB_BYTES);
        slab_end = slab + SLAB_BYTES;
    }
    slab += bytes;
    return (head_t *)(slab - bytes);
}

void *sim_room_take(size_t bytes)
{
    size_t whole = bytes + HEAD_BYTES;
    int class = SMALLEST;
    head_t *head;
    while (class <= LARGEST && (size_t)1 << class < whole)
        ++class;
    if (class > LARGEST) {
        head = map(whole);
        head->bytes = whole;
    } else {
        head = free_of[class];
        if (head)
            free_of[class] = head->next;
        else
            head = cut((size_t)1 << class);
        head->bytes = (uint64_t)1 << class;
    }
    return (char *)head + HEAD_BYTES;
}

void sim_room_give(void *room)
{
    if (room == NULL)
        return;
    head_t *head = (head_t *)((char *)room - HEAD_BYTES);
    int class = SMALLEST;
    while (class <= LARGEST && (uint64_t)1 << class != head->bytes)
        ++class;
    if (class > LARGEST) {
        munmap(head, head->bytes);
        return;
    }
    memset(room, SIM_POISON, head->bytes - HEAD_BYTES);
    head->next = free_of[class];
    free_of[class] = head;
}
