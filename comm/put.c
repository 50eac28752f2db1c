/* put.c - takes the table of a PUT and the payload of a BATCH apart without believing a byte of them.
 *
 * Like exec.c: counts are checked against their limits before they are multiplied, sums against what
 * is left of the payload before a pointer is made; nothing is copied. */
#include <string.h>

#include "comm/messages.h"

static uint64_t up_to(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static dj_status_t check_part(const dj_put_part_t *part, uint32_t number)
{
    if (part->ref == 0)
        return dj_fail(DJ_ERR_PROTOCOL, "PUT: part %u names no ref", number);
    if ((part->flags & ~(uint32_t)(DJ_PART_NEW | DJ_PART_WEIGHT)) || part->reserved ||
        part->flags == DJ_PART_WEIGHT || (part->flags && part->offset))
        return dj_fail(DJ_ERR_PROTOCOL, "PUT: part %u has flags 0x%x and offset %llu", number,
                       part->flags, (unsigned long long)part->offset);
    if (part->bytes > DJ_TENSOR_BYTES_MAX || part->offset > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "PUT: part %u of %llu bytes at %llu; the limit is %llu", number,
                       (unsigned long long)part->bytes, (unsigned long long)part->offset,
                       (unsigned long long)DJ_TENSOR_BYTES_MAX);
    return DJ_OK;
}

static dj_status_t check_single(const dj_put_t *put, uint64_t payload_bytes)
{
    if (put->ref == 0)
        return dj_fail(DJ_ERR_PROTOCOL, "PUT names no ref");
    if (put->bytes != payload_bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "PUT announces %llu bytes and brings %llu",
                       (unsigned long long)put->bytes, (unsigned long long)payload_bytes);
    if (put->offset > DJ_TENSOR_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "PUT at %llu; the limit is %llu",
                       (unsigned long long)put->offset, (unsigned long long)DJ_TENSOR_BYTES_MAX);
    return DJ_OK;
}

dj_status_t dj_put_check(const dj_put_t *put, uint64_t payload_bytes)
{
    if (put->flags & ~(uint32_t)DJ_PUT_QUIET)
        return dj_fail(DJ_ERR_PROTOCOL, "PUT: unknown flags 0x%x", put->flags);
    if (put->n_parts == 0)
        return check_single(put, payload_bytes);
    if (put->n_parts > DJ_PUT_PARTS_MAX)
        return dj_fail(DJ_ERR_LIMIT, "PUT of %u parts, but the limit is %d", put->n_parts,
                       DJ_PUT_PARTS_MAX);
    if (put->ref || put->offset || put->bytes)
        return dj_fail(DJ_ERR_PROTOCOL, "PUT has both parts and a ref of its own");
    if (payload_bytes < put->n_parts * sizeof(dj_put_part_t))
        return dj_fail(DJ_ERR_PROTOCOL, "PUT: a payload of %llu bytes cannot hold %u parts",
                       (unsigned long long)payload_bytes, put->n_parts);
    return DJ_OK;
}

dj_status_t dj_put_decode(const dj_put_t *put, const void *payload, uint64_t payload_bytes,
                          const dj_put_part_t **parts_p)
{
    dj_status_t status = dj_put_check(put, payload_bytes);
    if (status != DJ_OK || put->n_parts == 0)
        return status;
    const dj_put_part_t *parts = payload;
    uint64_t at = dj_put_data_offset(put->n_parts);
    for (uint32_t i = 0; i < put->n_parts; ++i) {
        if ((status = check_part(&parts[i], i)) != DJ_OK)
            return status;
        if (at > payload_bytes || parts[i].bytes > payload_bytes - at)
            return dj_fail(DJ_ERR_PROTOCOL,
                           "PUT: the payload of %llu bytes ends inside part %u, %llu bytes at %llu",
                           (unsigned long long)payload_bytes, i, (unsigned long long)parts[i].bytes,
                           (unsigned long long)at);
        at = up_to(at + parts[i].bytes, 64);
    }
    if (payload_bytes > at)
        return dj_fail(DJ_ERR_PROTOCOL, "PUT: %llu bytes after the last part",
                       (unsigned long long)(payload_bytes - at));
    *parts_p = parts;
    return DJ_OK;
}

uint64_t dj_put_data_offset(uint32_t n_parts)
{
    return up_to(n_parts * sizeof(dj_put_part_t), 64);
}

uint64_t dj_put_next_offset(uint64_t at, const dj_put_part_t *part)
{
    return up_to(at + part->bytes, 64);
}

/* ---- batches ---- */

dj_status_t dj_batch_next(const void *payload, uint64_t payload_bytes, uint64_t *at_p,
                          dj_batch_item_t *item)
{
    const uint8_t *data = payload;
    uint64_t at = *at_p;
    uint32_t lengths[2];
    if (payload_bytes > DJ_BATCH_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT, "BATCH of %llu bytes, but the limit is %d",
                       (unsigned long long)payload_bytes, DJ_BATCH_BYTES_MAX);
    if (at > payload_bytes || payload_bytes - at < sizeof(lengths))
        return dj_fail(DJ_ERR_PROTOCOL, "BATCH: its %llu bytes end before message at %llu",
                       (unsigned long long)payload_bytes, (unsigned long long)at);
    memcpy(lengths, data + at, sizeof(lengths));
    at += sizeof(lengths);
    uint64_t header_bytes = up_to(lengths[0], 8), left = payload_bytes - at;
    if (lengths[0] > DJ_ENDPOINT_HEADER_MAX || header_bytes > left ||
        up_to(lengths[1], 8) > left - header_bytes)
        return dj_fail(DJ_ERR_PROTOCOL,
                       "BATCH: a message of %u + %u bytes where %llu are left", lengths[0],
                       lengths[1], (unsigned long long)left);
    item->header = data + at;
    item->header_bytes = lengths[0];
    item->payload = data + at + header_bytes;
    item->payload_bytes = lengths[1];
    *at_p = at + header_bytes + up_to(lengths[1], 8);
    return DJ_OK;
}
