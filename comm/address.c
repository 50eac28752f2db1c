/* address.c - a worker address as it travels: UCX's bytes behind a checksum and a version.
 *
 * UCX unpacks an address without checking it, so a damaged one could end the process. This prefix
 * lets dj_endpoint_create() refuse whatever is not exactly what a peer's UCX of our kind made. It
 * does not stop a peer who knows the token and means harm: the data plane is a trusted fabric by
 * declaration. */
#include <stdlib.h>
#include <string.h>

#include "comm/ucx.h"

#define ADDRESS_MAGIC 0x414e4a44u /* "DJNA" */

typedef struct address_prefix {
    uint32_t magic;
    uint16_t ucx_major, ucx_minor;
    uint64_t bytes;
    dj_hash_t hash; /* of UCX's bytes */
} address_prefix_t;

dj_status_t dj_address_wrap(const void *ucp_address, size_t bytes, uint8_t **wrapped_p,
                            uint32_t *wrapped_bytes_p)
{
    unsigned major, minor, release;
    size_t total = sizeof(address_prefix_t) + bytes;
    if (total > DJ_ADDRESS_BYTES_MAX)
        return dj_fail(DJ_ERR_LIMIT,
                       "the UCX worker address has %zu bytes, the limit is %zu; "
                       "name fewer devices with UCX_NET_DEVICES",
                       bytes, DJ_ADDRESS_BYTES_MAX - sizeof(address_prefix_t));
    uint8_t *wrapped = malloc(total);
    if (!wrapped)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a worker address");
    ucp_get_version(&major, &minor, &release);
    address_prefix_t prefix = {ADDRESS_MAGIC, (uint16_t)major, (uint16_t)minor, bytes,
                               dj_hash_of(ucp_address, bytes)};
    memcpy(wrapped, &prefix, sizeof(prefix));
    memcpy(wrapped + sizeof(prefix), ucp_address, bytes);
    *wrapped_p = wrapped;
    *wrapped_bytes_p = (uint32_t)total;
    return DJ_OK;
}

dj_status_t dj_address_unwrap(const void *wrapped, uint32_t wrapped_bytes, void **ucp_address_p)
{
    unsigned major, minor, release;
    address_prefix_t prefix;
    const uint8_t *body = (const uint8_t *)wrapped + sizeof(prefix);
    if (wrapped_bytes < sizeof(prefix) || wrapped_bytes > DJ_ADDRESS_BYTES_MAX)
        return dj_fail(DJ_ERR_PROTOCOL, "a worker address of %u bytes", wrapped_bytes);
    memcpy(&prefix, wrapped, sizeof(prefix));
    if (prefix.magic != ADDRESS_MAGIC || prefix.bytes != wrapped_bytes - sizeof(prefix) ||
        prefix.bytes < 8 || !dj_hash_equal(prefix.hash, dj_hash_of(body, prefix.bytes)))
        return dj_fail(DJ_ERR_PROTOCOL, "the peer's worker address is damaged");
    ucp_get_version(&major, &minor, &release);
    if (prefix.ucx_major != major)
        return dj_fail(DJ_ERR_VERSION,
                       "the peer runs UCX %u.%u, this side %u.%u; use one major "
                       "version",
                       prefix.ucx_major, prefix.ucx_minor, major, minor);
    void *copy = malloc(prefix.bytes); /* UCX wants it aligned */
    if (!copy)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a worker address");
    memcpy(copy, body, prefix.bytes);
    *ucp_address_p = copy;
    return DJ_OK;
}
