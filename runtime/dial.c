/* dial.c - see dial.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/dial.h"

static dj_status_t take_welcome(const dj_dial_t *dial, const dj_frame_t *frame, const void *body,
                                dj_command_t *command)
{
    const dj_welcome_t *welcome = body;
    if (frame->type != DJ_MESSAGE_WELCOME || welcome->rank != dial->target ||
        welcome->address_bytes > sizeof(command->address))
        return dj_fail(DJ_ERR_PROTOCOL, "%s does not answer as rank %u does", dial->endpoint,
                       dial->target);
    if (welcome->incarnation != dial->incarnation)
        return dj_fail(DJ_ERR_STALE, "rank %u is incarnation %u, not %u", dial->target,
                       welcome->incarnation, dial->incarnation);
    command->hello.generation = welcome->generation;
    command->hello.features = welcome->features;
    command->hello.host = welcome->host;
    command->hello.flags = welcome->flags;
    command->address_bytes = welcome->address_bytes;
    memcpy(command->address, welcome + 1, welcome->address_bytes);
    return DJ_OK;
}

static dj_status_t connect_peer(dj_dial_t *dial, dj_control_t **control_p, dj_command_t *command)
{
    uint64_t deadline_ns = dj_clock_ns() + DJ_DIAL_MS * DJ_NS_PER_MS;
    dj_frame_t frame;
    const void *body;
    dj_status_t status = dj_control_connect(dial->endpoint, deadline_ns, control_p);
    if (status != DJ_OK)
        return status;
    status = dj_control_greet(*control_p, dial->rank->token, &dial->hello, dial->address,
                              deadline_ns, &frame, &body);
    if (status == DJ_OK)
        status = take_welcome(dial, &frame, body, command);
    if (status != DJ_OK)
        dj_control_close(*control_p);
    return status;
}

static void *dial_main(void *argument)
{
    dj_dial_t *dial = argument;
    dj_rank_t *rank = dial->rank;
    dj_control_t *control;
    dj_command_t *command = dial->command;
    pthread_setname_np(pthread_self(), "dj-dial");
    command->kind = DJ_COMMAND_DIALLED;
    command->number = dial->number;
    command->hello.rank = dial->target;
    command->hello.incarnation = dial->incarnation;
    command->status = connect_peer(dial, &control, command);
    if (command->status == DJ_OK && dj_outbox_adopt(rank, control, command) == DJ_OK)
        return NULL;
    snprintf(command->text, sizeof(command->text), "%s", dj_error_text());
    if (command->status == DJ_OK) {
        command->status = DJ_ERR_MEMORY;
        dj_control_close(control);
    }
    dj_queue_push(&rank->commands, &command->entry);
    dj_comm_wake(rank->comm);
    return NULL;
}

static void fill_hello(dj_dial_t *dial, const dj_hello_t *hello, uint32_t address_bytes)
{
    dial->hello = *hello;
    dial->hello.role = DJ_ROLE_PEER;
    dial->hello.uid = (uint32_t)getuid();
    dial->hello.pid = (uint32_t)getpid();
    dial->hello.host = dj_host_identity();
    dial->hello.op_table = dj_op_table_hash();
    dial->hello.address_bytes = address_bytes;
}

dj_status_t dj_dial_start(dj_rank_t *rank, dj_dial_t **dials_p, uint64_t number, uint32_t target,
                          uint32_t incarnation, const char *endpoint, const dj_hello_t *hello)
{
    dj_dial_t *dial = calloc(1, sizeof(*dial));
    uint32_t bytes;
    if (dial)
        dial->command = calloc(1, sizeof(*dial->command));
    if (!dial || !dial->command) {
        free(dial);
        return dj_fail(DJ_ERR_MEMORY, "no memory to dial rank %u", target);
    }
    dial->rank = rank;
    dial->number = number;
    dial->target = target;
    dial->incarnation = incarnation;
    snprintf(dial->endpoint, sizeof(dial->endpoint), "%s", endpoint);
    dj_status_t status = dj_comm_address(rank->comm, &dial->address, &bytes);
    if (status == DJ_OK) {
        fill_hello(dial, hello, bytes);
        if (pthread_create(&dial->thread, NULL, dial_main, dial) != 0)
            status = dj_fail(DJ_ERR_SYSTEM, "no thread to dial rank %u: %s", target,
                             strerror(errno));
    }
    if (status != DJ_OK) {
        free(dial->command);
        free(dial);
        return status;
    }
    dial->next = *dials_p;
    *dials_p = dial;
    return DJ_OK;
}

void dj_dial_join(dj_dial_t **dials_p, uint64_t number)
{
    for (dj_dial_t *dial; (dial = *dials_p); dials_p = &dial->next) {
        if (dial->number != number)
            continue;
        *dials_p = dial->next;
        pthread_join(dial->thread, NULL);
        free(dial);
        return;
    }
}
