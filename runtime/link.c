/* link.c - a worker's connection to the coordinator: made again and again until it stands, and lost without
 * harm to the sessions here. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/door.h"

#define DJ_LOG_MODULE "control"

enum { DJ_LINK_MS = 150, DJ_LINK_RETRY_MS = 50, DJ_LINK_SEND_MS = 100, DJ_REPORT_SEND_MS = 20 };

static dj_status_t open_link(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    const dj_device_info_t *info = rank->home.device->ops->info(rank->home.device);
    uint64_t deadline_ns = dj_clock_ns() + DJ_LINK_MS * DJ_NS_PER_MS;
    dj_hello_t hello = {.role = DJ_ROLE_WORKER, .uid = (uint32_t)getuid(),
                        .pid = (uint32_t)getpid(), .host = dj_host_identity(),
                        .op_table = dj_op_table_hash()};
    dj_register_t about = {.rank = rank->rank, .incarnation = rank->incarnation,
                           .pid = (uint32_t)getpid(), .threads = info->threads,
                           .device_class = info->class_hash, .memory_bytes = info->memory_bytes};
    dj_frame_t frame;
    const void *body;
    snprintf(about.endpoint, sizeof(about.endpoint), "%s", rank->endpoint);
    snprintf(about.device, sizeof(about.device), "%.63s", info->name);
    dj_status_t status = dj_control_connect(rank->config->coordinator, deadline_ns, &door->link);
    if (status != DJ_OK)
        return status;
    status = dj_control_greet(door->link, rank->token, &hello, NULL, deadline_ns, &frame, &body);
    if (status == DJ_OK) {
        dj_control_trust(door->link);
        status = dj_control_send(door->link, DJ_MESSAGE_REGISTER, &about, sizeof(about), NULL, 0,
                                 deadline_ns);
    }
    if (status != DJ_OK) {
        dj_control_close(door->link);
        door->link = NULL;
    }
    return status;
}

static void lose(dj_rank_t *rank, const char *cause)
{
    dj_door_t *door = rank->door;
    if (!dj_rank_ends(rank) && atomic_load(&rank->told_ms) < 0 && !atomic_load(&rank->replaced))
        dj_log(WARN, "the coordinator is lost: %s; sessions here go on", cause);
    dj_control_close(door->link);
    door->link = NULL;
    door->link_retry_ns = dj_clock_ns() + DJ_LINK_RETRY_MS * DJ_NS_PER_MS;
}

/* Rank 0 ends: so does this rank. */
static void end_with_it(dj_rank_t *rank, uint64_t drain_ms)
{
    atomic_store(&rank->told_ms, (int64_t)drain_ms);
    dj_ending_wake(rank);
}

static void take_refuse(dj_rank_t *rank, const dj_refuse_t *refuse)
{
    dj_log(ERROR, "the coordinator refuses: %.*s", DJ_ERROR_TEXT_MAX, refuse->text);
    if (refuse->status != DJ_ERR_STALE)
        return;
    dj_log(ERROR, "rank %u incarnation %u ends: it was replaced", rank->rank, rank->incarnation);
    atomic_store(&rank->replaced, true);
    dj_ending_wake(rank);
}

void dj_link_keep(dj_rank_t *rank, uint64_t now_ns)
{
    dj_door_t *door = rank->door;
    if (rank->coordinates || door->link || now_ns < door->link_retry_ns || door->told)
        return;
    dj_status_t status = open_link(rank);
    if (status == DJ_ERR_CANCELLED)
        end_with_it(rank, rank->config->drain_ms);
    if (status != DJ_OK) {
        dj_log(DEBUG, "no coordinator yet: %s", dj_error_text());
        door->link_retry_ns = dj_clock_ns() + DJ_LINK_RETRY_MS * DJ_NS_PER_MS;
        return;
    }
    if (dj_door_watch(door, dj_control_fd(door->link), DJ_DOOR_LINK) != DJ_OK) {
        lose(rank, dj_error_text());
        return;
    }
}

static void take_plan(dj_rank_t *rank, const dj_frame_t *frame, const dj_plan_message_t *plan)
{
    const uint8_t *structure = (const uint8_t *)(plan + 1);
    uint64_t tail = (uint64_t)plan->structure_bytes + plan->sizes_bytes + plan->plan_bytes;
    if (tail != frame->length - sizeof(*plan))
        return;
    const uint8_t *sizes = structure + plan->structure_bytes;
    dj_status_t status = dj_cache_publish(rank->home.cache, plan->exact_key, structure,
                                          plan->structure_bytes, sizes, plan->sizes_bytes,
                                          sizes + plan->sizes_bytes, plan->plan_bytes, false);
    if (status != DJ_OK)
        dj_log(WARN, "a published plan was not taken: %s", dj_error_text());
}

void dj_link_read(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    dj_frame_t frame;
    const void *body;
    dj_status_t status;
    while ((status = dj_control_try_receive(door->link, &frame, &body)) == DJ_OK) {
        if (frame.type == DJ_MESSAGE_PLAN)
            take_plan(rank, &frame, body);
        else if (frame.type == DJ_MESSAGE_ROSTER)
            dj_roster_take(rank, body);
        else if (frame.type == DJ_MESSAGE_ENDING)
            end_with_it(rank, ((const dj_ending_t *)body)->drain_ms);
        else if (frame.type == DJ_MESSAGE_REFUSE)
            take_refuse(rank, body);
    }
    if (status != DJ_IN_PROGRESS)
        lose(rank, dj_error_text());
}

void dj_link_write(dj_rank_t *rank, const dj_outgoing_t *out)
{
    dj_control_t *link = rank->door->link;
    if (link && out->type)
        dj_control_send(link, (dj_message_t)out->type, out->bytes, out->body_bytes,
                        out->bytes + out->body_bytes, out->tail_bytes,
                        dj_clock_ns() + DJ_LINK_SEND_MS * DJ_NS_PER_MS);
}

static bool is_silent(const dj_rank_t *rank, uint64_t now_ns)
{
    return now_ns > dj_control_last_heard_ns(rank->door->link) + rank->config->suspect_ms * DJ_NS_PER_MS;
}

void dj_link_report(dj_rank_t *rank, uint64_t now_ns)
{
    dj_door_t *door = rank->door;
    dj_report_t report;
    if (!door->link || now_ns - door->report_ns < rank->config->heartbeat_ms * DJ_NS_PER_MS)
        return;
    door->report_ns = now_ns;
    dj_rank_report(rank, &report);
    if (is_silent(rank, now_ns))
        dj_link_read(rank); /* its heartbeats may lie unread: this rank was stopped, or had too much to do */
    if (!door->link)
        return;
    if (is_silent(rank, now_ns))
        lose(rank, "it has been silent too long");
    else if (dj_control_send(door->link, DJ_MESSAGE_REPORT, &report, sizeof(report), NULL, 0,
                             now_ns + DJ_REPORT_SEND_MS * DJ_NS_PER_MS) != DJ_OK)
        lose(rank, dj_error_text());
}
