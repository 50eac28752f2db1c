/* blind_rank.c - what a rank opens in the place of gpu/device.c: the blind device, whatever it is told. */
#include <stdlib.h>

#include "tests/gpu/blind_device.h"

dj_status_t dj_device_open(const dj_config_t *config, dj_device_t **device_p)
{
    const char *page = getenv("BLIND_PAGE_BYTES"), *extras = getenv("BLIND_EXTRAS"), *slab = getenv("BLIND_SLAB");
    const char *engine = getenv("BLIND_COPY_MB_PER_S"), *release = getenv("BLIND_RELEASE_MS");
    blind_options_t options = {.page_bytes = page ? strtoull(page, NULL, 10) : 2u << 20,
                               .no_extras = extras && extras[0] == '0',
                               .slab = slab && slab[0] == '1',
                               .release_ms = release ? (uint32_t)strtoul(release, NULL, 10) : 0,
                               .copy_mb_per_s = engine ? strtoull(engine, NULL, 10) : 0,
                               .fail_file = getenv("BLIND_FAIL_FILE")};
    return blind_open(config, &options, device_p);
}
