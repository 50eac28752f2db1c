/* poison.c - the poisoned slab (poison.h). The runtime uses it under --poison and in tests. */
#include "gpu/poison.h"

#include <string.h>

void dj_poison_fill(void *slab, uint64_t bytes, uint8_t value)
{
    memset(slab, value, bytes);
}

uint64_t dj_poison_peak(const void *slab, uint64_t bytes, uint8_t value)
{
    const uint8_t *data = slab;
    uint64_t word, clean = 0x0101010101010101ull * value;
    while (bytes % sizeof(word) && data[bytes - 1] == value)
        bytes--;
    if (bytes % sizeof(word))
        return bytes;
    for (; bytes; bytes -= sizeof(word)) {
        memcpy(&word, data + bytes - sizeof(word), sizeof(word));
        if (word != clean)
            break;
    }
    while (bytes && data[bytes - 1] == value)
        bytes--;
    return bytes;
}
