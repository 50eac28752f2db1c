/* fuzz_group.c - GROUP messages of members that lie, between and around the rounds of a group that nobody
 * can be reached in.
 *
 * Input: commands, `what:u8` and its bytes: 0 to 3 a message (1: by rendezvous, 2: one that fails), the
 * struct, payload_bytes:u8 and payload; 4 progress; 5 a member is lost; 6 publish; 7 a round whose deadline has
 * passed. The struct's member numbers are taken modulo twice the group, so that most exist. */
#include "comm/group.h"
#include "runtime/base/clock.h"
#include "tests/fuzz/fuzz.h"

enum { MEMBERS = 7, ME = 2, BYTES_MAX = 256 };

static dj_comm_t *comm;

static dj_status_t nobody(void *context, uint32_t member, dj_endpoint_t **endpoint_p)
{
    return member % 2 ? DJ_IN_PROGRESS : DJ_ERR_PEER_DIED;
}

static void deliver(void *context, uint32_t origin, const void *data, uint64_t bytes)
{
    FUZZ_ASSERT(origin < MEMBERS && origin != ME);
    fuzz_touch(data, bytes);
}

static dj_status_t refuse(void *context, const dj_incoming_t *incoming, void **memory_p,
                          void **token_p)
{
    return DJ_ERR_PROTOCOL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    dj_comm_options_t options = {.loopback_only = true, .on_message = refuse};
    FUZZ_ASSERT(dj_hash_setup() && dj_comm_create(&options, &comm) == DJ_OK);
    return 0;
}

static void say(dj_group_t *group, dj_reader_t *reader, uint8_t how)
{
    struct {
        dj_header_t header;
        dj_group_step_t step;
    } message = {{.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                  .type = DJ_MESSAGE_GROUP}, {0}};
    size_t taken;
    const uint8_t *step = fuzz_take(reader, sizeof(message.step), &taken);
    if (taken)
        memcpy(&message.step, step, taken);
    message.step.from %= 2 * MEMBERS;
    message.step.root %= 2 * MEMBERS;
    const uint8_t *bytes = fuzz_take(reader, dj_reader_u8(reader), &taken);
    uint8_t *payload = malloc(taken ? taken : 1);
    if (taken)
        memcpy(payload, bytes, taken);
    void *memory = NULL, *token = NULL, *none = NULL;
    bool rendezvous = how > 0 && taken > 0;
    dj_incoming_t incoming = {.header = &message.header, .body = &message.step,
                              .payload = rendezvous ? NULL : payload, .payload_bytes = taken,
                              .rendezvous = rendezvous};
    dj_status_t status = dj_group_message(group, &incoming, &memory, &token);
    if (rendezvous && status == DJ_OK) {
        FUZZ_ASSERT(memory);
        incoming.token = token;
        incoming.failed = how == 2;
        incoming.payload = incoming.failed ? NULL : memory;
        if (!incoming.failed)
            memcpy(memory, payload, taken);
        dj_group_message(group, &incoming, &none, &none);
    }
    free(payload);
}

static void take_part(dj_group_t *group, dj_reader_t *reader)
{
    static uint8_t data[BYTES_MAX * MEMBERS], own[BYTES_MAX];
    uint32_t root = dj_reader_u8(reader) % (MEMBERS + 1), bytes = dj_reader_u8(reader);
    switch (dj_reader_u8(reader) % 3) {
    case 0:
        dj_group_broadcast(group, root, data, bytes, dj_clock_ns());
        break;
    case 1:
        dj_group_barrier(group, dj_clock_ns());
        break;
    default:
        dj_group_gather(group, root, own, bytes, data, dj_clock_ns());
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dj_group_options_t options = {.comm = comm, .members = MEMBERS, .me = ME, .reach = nobody,
                                  .deliver = deliver};
    dj_reader_t reader;
    dj_group_t *group;
    FUZZ_ASSERT(dj_group_create(&options, &group) == DJ_OK);
    dj_reader_init(&reader, data, size);
    for (int i = 0; i < 24 && dj_reader_left(&reader) > 0; i++) {
        uint8_t what = dj_reader_u8(&reader) % 8;
        if (what < 4)
            say(group, &reader, what);
        else if (what == 4)
            dj_group_progress(group);
        else if (what == 5)
            dj_group_lost(group, dj_reader_u8(&reader) % (MEMBERS + 1));
        else if (what == 6)
            dj_group_publish(group, data, size < BYTES_MAX ? size : BYTES_MAX);
        else
            take_part(group, &reader);
    }
    dj_group_destroy(group);
    return 0;
}
