/* member.c - a comm and a group on top of the stage: worker addresses are gathered once, endpoints
 * are made when the group reaches for them. */
#include "benchmarks/member.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/config.h"

#define COLLECTIVE_S 60

typedef struct dj_member_address {
    uint32_t bytes;
    uint8_t address[DJ_ADDRESS_BYTES_MAX];
} dj_member_address_t;

uint64_t dj_member_deadline_ns(void)
{
    return dj_clock_ns() + COLLECTIVE_S * DJ_NS_PER_S;
}

static dj_status_t reach(void *context, uint32_t member, dj_endpoint_t **endpoint_p)
{
    dj_member_t *self = context;
    dj_status_t status = DJ_OK;
    if (!self->endpoints[member])
        status = dj_endpoint_create(self->comm, self->addresses[member].address,
                                    self->addresses[member].bytes, &self->endpoints[member]);
    if (status == DJ_OK)
        *endpoint_p = self->endpoints[member];
    return status;
}

static dj_status_t on_message(void *context, const dj_incoming_t *incoming, void **memory_p,
                              void **token_p)
{
    dj_member_t *self = context;
    if (incoming->header->type != DJ_MESSAGE_GROUP || !self->group)
        return dj_fail(DJ_ERR_PROTOCOL, "a member of a group got a message that is not its own");
    return dj_group_message(self->group, incoming, memory_p, token_p);
}

static bool has_shared_memory(const dj_config_t *config, const dj_stage_t *stage)
{
    return strcmp(config->transports, "tcp") != 0 &&
           (stage->place.size <= 1 || stage->place.local_size == stage->place.size);
}

static dj_status_t tell_addresses(dj_bench_t *bench, dj_member_t *self)
{
    const void *address;
    dj_member_address_t *mine = calloc(1, sizeof(*mine));
    if (!mine)
        return dj_fail(DJ_ERR_MEMORY, "no memory for an address");
    dj_status_t status = dj_comm_address(self->comm, &address, &mine->bytes);
    if (status == DJ_OK && mine->bytes > sizeof(mine->address))
        status = dj_fail(DJ_ERR_LIMIT, "a worker address of %u bytes, above the limit of %d",
                         mine->bytes, DJ_ADDRESS_BYTES_MAX);
    if (status == DJ_OK) {
        memcpy(mine->address, address, mine->bytes);
        status = dj_stage_gather(&bench->stage, mine, sizeof(*mine), self->addresses, NULL, NULL);
    }
    free(mine);
    return status;
}

djinn_status_t dj_member_open(dj_bench_t *bench)
{
    uint32_t count = bench->stage.size;
    dj_config_t config;
    dj_member_t *self = bench->own = calloc(1, sizeof(*self));
    if (!self)
        return dj_bench_no_memory();
    self->addresses = calloc(count, sizeof(*self->addresses));
    self->endpoints = calloc(count, sizeof(dj_endpoint_t *));
    self->data = calloc(1, bench->options.max_bytes ? bench->options.max_bytes : 1);
    if (!self->addresses || !self->endpoints || !self->data)
        return dj_bench_no_memory();
    dj_status_t status = dj_config_load(&config, 0, NULL, NULL);
    dj_comm_options_t options = {.on_message = on_message, .context = self};
    if (status == DJ_OK) {
        options.shared_memory = has_shared_memory(&config, &bench->stage);
        options.loopback_only = bench->stage.place.size <= 1 ||
                                bench->stage.place.local_size == bench->stage.place.size;
        status = dj_comm_create(&options, &self->comm);
    }
    if (status == DJ_OK)
        status = tell_addresses(bench, self);
    dj_group_options_t group = {.comm = self->comm,
                                .members = count,
                                .me = bench->stage.rank,
                                .reach = reach,
                                .context = self};
    if (status == DJ_OK)
        status = dj_group_create(&group, &self->group);
    return (djinn_status_t)status;
}

void dj_member_idle(void *context)
{
    dj_bench_t *bench = context;
    dj_member_t *self = bench->own;
    if (!self || !self->group)
        return;
    while (dj_comm_progress(self->comm) > 0)
        continue;
    dj_group_progress(self->group);
}

void dj_member_close(dj_bench_t *bench)
{
    dj_member_t *self = bench->own;
    if (!self)
        return;
    if (self->group)
        dj_group_destroy(self->group);
    for (uint32_t i = 0; self->endpoints && i < bench->stage.size; i++)
        if (self->endpoints[i])
            dj_endpoint_close(self->endpoints[i]);
    if (self->comm)
        dj_comm_destroy(self->comm);
    free(self->addresses);
    free(self->endpoints);
    free(self->data);
    free(self);
}
