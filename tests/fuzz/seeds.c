/* seeds.c - writes the first inputs of every fuzz target: one good message of each kind, and then some.
 *
 *     fuzz_seeds FOLDER      makes FOLDER/<target>/seed-<number>
 *
 * libFuzzer does the rest: tests/fuzz/run --grow explores from here and keeps what reaches new code, small,
 * in tests/fuzz/corpus. The inputs' forms are described in each target's file. */
#include <stdio.h>
#include <sys/stat.h>

#include "comm/messages.h"
#include "planner/snapshot.h"
#include "tests/planner/random_program.h"

#define REF(index) ((uint64_t)0x5eed << 32 | (index))

static const char *folder;
static uint32_t number;

static void keep(const char *target, dj_bytes_t *input)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", folder, target);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/%s/seed-%03u", folder, target, number++);
    FILE *file = fopen(path, "w");
    if (!file || fwrite(input->data, 1, input->size, file) != input->size || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    dj_bytes_clear(input);
}

/* ---- control frames: type, length, body ---- */

static void put_frame(dj_bytes_t *input, dj_message_t type, const void *body, uint32_t bytes,
                      const void *tail, uint32_t tail_bytes)
{
    dj_bytes_put_u8(input, (uint8_t)type);
    dj_bytes_put_u16(input, (uint16_t)(bytes + tail_bytes));
    dj_bytes_put(input, body, bytes);
    dj_bytes_put(input, tail, tail_bytes);
}

static void put_zero_frame(dj_bytes_t *input, dj_message_t type)
{
    static const uint8_t zeros[1024];
    put_frame(input, type, zeros, dj_message_struct_bytes((uint16_t)type), NULL, 0);
}

static const dj_message_t control_types[] = {
    DJ_MESSAGE_CHALLENGE, DJ_MESSAGE_HELLO,  DJ_MESSAGE_WELCOME,    DJ_MESSAGE_REDIRECT,
    DJ_MESSAGE_REFUSE,    DJ_MESSAGE_CLOSE,  DJ_MESSAGE_HEARTBEAT,  DJ_MESSAGE_REGISTER,
    DJ_MESSAGE_REPORT,    DJ_MESSAGE_PLAN,   DJ_MESSAGE_INFO,       DJ_MESSAGE_INFO_REPLY,
    DJ_MESSAGE_ROSTER,    DJ_MESSAGE_TUNNEL, DJ_MESSAGE_MUSTER,     DJ_MESSAGE_CREW,
    DJ_MESSAGE_ENDING};
enum { CONTROL_TYPES = sizeof(control_types) / sizeof(control_types[0]) };

static void seed_frames(dj_bytes_t *input)
{
    for (int i = 0; i < CONTROL_TYPES; i++) {
        dj_bytes_put_u8(input, 3);
        dj_bytes_put_u8(input, (uint8_t)i);
        put_zero_frame(input, control_types[i]);
        put_zero_frame(input, DJ_MESSAGE_HEARTBEAT);
        keep("frames", input);
    }
    dj_frame_t frame;
    dj_frame_init(&frame, DJ_MESSAGE_CHALLENGE, sizeof(dj_challenge_t), 0);
    dj_bytes_put_u16(input, 0);
    dj_bytes_put(input, &frame, sizeof(frame));
    dj_bytes_put_zeros(input, sizeof(dj_challenge_t));
    keep("frames", input);
}

static const char table[] =
    "{\"version\":\"0.1.0\",\"ranks_expected\":2,\"ranks\":[{\"rank\":0,\"role\":\"both\","
    "\"state\":\"serving\",\"device\":\"host\",\"threads\":2,\"sessions\":1,\"requests\":7,"
    "\"text_bytes\":1024,\"data_bytes\":123456789,\"stack_peak_bytes\":0,\"plan_hits\":5,"
    "\"plan_resizes\":1,\"plan_misses\":1,\"incarnation\":0,\"endpoint\":\"127.0.0.1:4000\"}]}";

static void seed_greet(dj_bytes_t *input)
{
    static const uint8_t address[64] = {1, 2, 3};
    dj_welcome_t welcome = {.session = 1, .generation = 1, .address_bytes = sizeof(address)};
    dj_redirect_t redirect = {.session = 1, .rank = 1, .endpoint = "127.0.0.1:4000"};
    dj_refuse_t refusal = {.status = DJ_ERR_AUTH, .text = "the token is not this server's"};
    dj_info_reply_t reply = {.text_bytes = sizeof(table) - 1};
    for (int i = 0; i < 5; i++) {
        dj_bytes_put_u8(input, 3);
        if (i < 4)
            put_zero_frame(input, DJ_MESSAGE_CHALLENGE);
        if (i == 0 || i == 1)
            put_frame(input, DJ_MESSAGE_WELCOME, &welcome, sizeof(welcome), address, 64);
        if (i == 1)
            put_frame(input, DJ_MESSAGE_INFO_REPLY, &reply, sizeof(reply), table, reply.text_bytes);
        if (i == 2)
            put_frame(input, DJ_MESSAGE_REDIRECT, &redirect, sizeof(redirect), NULL, 0);
        if (i >= 3)
            put_frame(input, DJ_MESSAGE_REFUSE, &refusal, sizeof(refusal), NULL, 0);
        keep("greet", input);
    }
    dj_bytes_put(input, table, sizeof(table) - 1);
    keep("info", input);
}

static void seed_door(dj_bytes_t *input)
{
    static const uint8_t address[64] = {1, 2, 3};
    static const uint32_t roles[] = {DJ_ROLE_CLIENT, DJ_ROLE_WORKER, DJ_ROLE_TOOL, DJ_ROLE_PEER};
    dj_register_t about = {.rank = 1, .incarnation = 1, .endpoint = "127.0.0.1:4000",
                           .device = "host"};
    for (int i = 0; i < 2 * 4 * CONTROL_TYPES; i++) {
        dj_message_t type = control_types[i % CONTROL_TYPES];
        dj_hello_t hello = {.role = roles[i / CONTROL_TYPES % 4], .rank = DJ_RANK_ANY,
                            .pid = 1, .address_bytes = 64};
        bool client = hello.role == DJ_ROLE_CLIENT;
        if (i >= 4 * CONTROL_TYPES && (i + i / CONTROL_TYPES) % 3)
            continue;
        dj_bytes_put_u8(input, (uint8_t)(2 + 4 + 8 + (i >= 4 * CONTROL_TYPES)));
        hello.address_bytes = client ? 64 : 0;
        put_frame(input, DJ_MESSAGE_HELLO, &hello, sizeof(hello), address, client ? 64 : 0);
        if (hello.role == DJ_ROLE_WORKER)
            put_frame(input, DJ_MESSAGE_REGISTER, &about, sizeof(about), NULL, 0);
        put_zero_frame(input, type);
        keep("door", input);
    }
}

static void seed_lifeline(dj_bytes_t *input)
{
    dj_hello_t hello = {.role = DJ_ROLE_SUPERVISOR, .pid = 1};
    dj_muster_t musters[] = {
        {.member = 77, .task = 1, .tasks_here = 1, .capacity = 1, .version = DJINN_VERSION, .node = "a"},
        {.member = 77, .task = DJ_TASK_NONE, .version = DJINN_VERSION, .node = "b"},
        {.member = 77, .task = DJ_TASK_NONE, .version = DJINN_VERSION, .first_rank = 4, .n_ranks = 2},
        {.member = 77, .task = 2, .version = "0"}};
    for (uint32_t i = 0; i < 8; i++)
        for (uint32_t kind = DJ_CREW_SERVES; kind <= DJ_CREW_DONE; kind++) {
            dj_crew_t crew = {.kind = kind, .rank = i % 4 ? 4 : 2, .incarnation = 3};
            dj_bytes_put_u8(input, (uint8_t)(2 + 4 + 8 * (i / 4)));
            put_frame(input, DJ_MESSAGE_HELLO, &hello, sizeof(hello), NULL, 0);
            put_frame(input, DJ_MESSAGE_MUSTER, &musters[i % 4], sizeof(musters[0]), NULL, 0);
            put_zero_frame(input, DJ_MESSAGE_HEARTBEAT);
            put_frame(input, DJ_MESSAGE_CREW, &crew, sizeof(crew), NULL, 0);
            keep("lifeline", input);
        }
    for (uint32_t count = 1; count <= 3; count++) {
        dj_refuse_t refusal = {.status = DJ_ERR_BUSY, .text = "no"};
        dj_bytes_put_u8(input, 1 + 2);
        put_zero_frame(input, DJ_MESSAGE_CHALLENGE);
        put_zero_frame(input, DJ_MESSAGE_WELCOME);
        put_zero_frame(input, DJ_MESSAGE_HEARTBEAT);
        for (uint32_t i = 0; i < count; i++) {
            dj_crew_t crew = {.kind = DJ_CREW_SEAT, .rank = 2 + i, .value = (int32_t)(count - 1 - i),
                              .ranks = 6};
            put_frame(input, DJ_MESSAGE_CREW, &crew, sizeof(crew), NULL, 0);
        }
        if (count == 3)
            put_frame(input, DJ_MESSAGE_REFUSE, &refusal, sizeof(refusal), NULL, 0);
        keep("lifeline", input);
    }
}

/* ---- data ---- */

static void seed_data(dj_bytes_t *input)
{
    static const char digits[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    for (uint16_t type = DJ_MESSAGE_EXEC; type <= DJ_MESSAGE_PART; type++) {
        dj_header_t header = {DJ_HEADER_MAGIC, DJ_PROTOCOL_VERSION, type, 1, 1, 0, 1, 0};
        dj_bytes_put_u8(input, 0);
        dj_bytes_put(input, &header, sizeof(header));
        dj_bytes_put_zeros(input, dj_message_struct_bytes(type));
        keep("data", input);
    }
    dj_put_t put = {.n_parts = 1};
    dj_put_part_t part = {REF(1), 0, 64, DJ_PART_NEW, 0};
    dj_bytes_put_u8(input, 4);
    dj_bytes_put(input, &put, sizeof(put));
    dj_bytes_put(input, &part, sizeof(part));
    dj_bytes_put_zeros(input, 64 - sizeof(part) + 64);
    keep("data", input);
    dj_bytes_put_u8(input, 5);
    for (int i = 0; i < 2; i++) {
        dj_header_t header = {DJ_HEADER_MAGIC, DJ_PROTOCOL_VERSION, DJ_MESSAGE_PUT, 1, 1, 0, 1, 0};
        dj_put_t small = {.ref = REF(1), .bytes = 8};
        dj_bytes_put_u32(input, sizeof(header) + sizeof(small));
        dj_bytes_put_u32(input, 8);
        dj_bytes_put(input, &header, sizeof(header));
        dj_bytes_put(input, &small, sizeof(small));
        dj_bytes_put_u64(input, 7);
    }
    keep("data", input);
    dj_bytes_put_u8(input, 2);
    dj_bytes_put(input, digits, sizeof(digits) - 1);
    keep("data", input);
    dj_bytes_put_u8(input, 3);
    dj_bytes_put(input, digits, sizeof(digits) - 1);
    keep("data", input);
}

static void seed_group(dj_bytes_t *input)
{
    for (uint32_t kind = 0; kind < 16; kind++) {
        dj_group_step_t step = {.round = 1, .bytes = 16, .kind = kind, .from = 3, .root = 0};
        dj_bytes_put_u8(input, (uint8_t)(kind % 3));
        dj_bytes_put(input, &step, sizeof(step));
        dj_bytes_put_u8(input, 16);
        dj_bytes_put_zeros(input, 16);
        dj_bytes_put_u8(input, 7);
        dj_bytes_put_u8(input, 0);
        dj_bytes_put_u8(input, 16);
        dj_bytes_put_u8(input, (uint8_t)kind);
        dj_bytes_put_u8(input, 6);
        dj_bytes_put_u8(input, 4);
        keep("group", input);
    }
}

/* ---- programs, alone and in an EXEC ---- */

static void put_program(dj_bytes_t *input, const dj_program_t *program, const dj_graph_t *graph)
{
    dj_plan_needs_t needs = {.device_class = {{1, 2}}, .flops_per_ns = 10, .bytes_per_ns = 10,
                             .step_ns = 100};
    dj_plan_t *plan;
    dj_bytes_t encoded = {0};
    dj_bytes_put_u16(input, (uint16_t)program->structure.size);
    dj_bytes_put_u16(input, (uint16_t)program->sizes.size);
    dj_bytes_put_u8(input, (uint8_t)(program->scalars.size / 8));
    dj_bytes_put(input, program->structure.data, program->structure.size);
    dj_bytes_put(input, program->sizes.data, program->sizes.size);
    dj_bytes_put(input, program->scalars.data, program->scalars.size);
    assert_ok(dj_plan_make(graph, &needs, &plan));
    assert_ok(dj_plan_encode(plan, &encoded));
    dj_bytes_put(input, encoded.data + 53, encoded.size - 53);
    dj_bytes_fini(&encoded);
    dj_plan_destroy(plan);
}

static void put_message(dj_bytes_t *input, dj_message_t type, uint8_t tweak, const void *body,
                        const void *payload, size_t payload_bytes)
{
    dj_bytes_put_u8(input, (uint8_t)type);
    dj_bytes_put_u8(input, tweak);
    dj_bytes_put(input, body, dj_message_struct_bytes((uint16_t)type));
    dj_bytes_put_u16(input, (uint16_t)payload_bytes);
    dj_bytes_put(input, payload, payload_bytes);
}

static void put_exec(dj_bytes_t *input, const dj_program_t *program, const dj_graph_t *graph)
{
    uint32_t n_outputs = graph->n_bindings - graph->n_inputs;
    uint64_t data_bytes = 0;
    dj_bytes_t payload = {0};
    dj_exec_t exec = {.n_segments = 1, .n_fetches = n_outputs};
    dj_segment_header_t segment = {.structure_bytes = (uint32_t)program->structure.size,
                                   .sizes_bytes = (uint32_t)program->sizes.size,
                                   .n_inputs = graph->n_inputs, .n_outputs = n_outputs,
                                   .n_scalars = (uint32_t)program->scalars.size / 8,
                                   .flags = DJ_SEGMENT_STRUCTURE | DJ_SEGMENT_SIZES};
    dj_bytes_put(&payload, &segment, sizeof(segment));
    for (uint32_t i = 0; i < graph->n_inputs; i++) {
        dj_binding_t binding = {0, data_bytes, graph->storages[graph->bindings[i]].bytes};
        data_bytes += (binding.bytes + 63) & ~63ull;
        dj_bytes_put(&payload, &binding, sizeof(binding));
    }
    for (uint32_t i = 0; i < n_outputs; i++)
        dj_bytes_put_u64(&payload, REF(10 + i));
    dj_bytes_put(&payload, program->scalars.data, program->scalars.size);
    dj_bytes_put(&payload, program->sizes.data, program->sizes.size);
    dj_bytes_align(&payload, 8);
    dj_bytes_put(&payload, program->structure.data, program->structure.size);
    dj_bytes_align(&payload, 8);
    for (uint32_t i = 0; i < n_outputs; i++) {
        uint64_t bytes = graph->storages[graph->bindings[graph->n_inputs + i]].bytes;
        dj_fetch_t fetch = {REF(10 + i), 0, bytes};
        dj_bytes_put(&payload, &fetch, sizeof(fetch));
    }
    exec.data_bytes = data_bytes;
    if (data_bytes <= 0xfff && payload.size < 4000)
        put_message(input, DJ_MESSAGE_EXEC, 16 + 32, &exec, payload.data, payload.size);
    dj_bytes_fini(&payload);
}

static void seed_programs(dj_bytes_t *input)
{
    for (uint32_t i = 0; i < 48; i++) {
        dj_program_t program = {0};
        dj_graph_t *graph;
        random_program(&program, i + 1, 1 + i % 7);
        assert_ok(decode(&program, &graph));
        put_program(input, &program, graph);
        keep("program", input);
        put_exec(input, &program, graph);
        if (input->size)
            keep("worker", input);
        dj_program_fini(&program);
        dj_graph_destroy(graph);
    }
}

static void seed_snapshots(dj_bytes_t *input)
{
    static const dj_snapshot_name_t names[] = {{0, "weight"}, {1, "bias"}};
    for (uint32_t i = 0; i < 32; i++) {
        dj_program_t programs[2] = {{.n_nodes = 0}};
        dj_snapshot_program_t written[2];
        dj_snapshot_t snapshot = {.name = "seed", .phase = (uint8_t)(i % 9), .n_programs = 1 + i % 2,
                                  .programs = written};
        for (uint32_t n = 0; n < 2; n++) {
            random_program(&programs[n], 2 * i + n + 1, 1 + i % 7);
            written[n] = (dj_snapshot_program_t){
                .structure = programs[n].structure.data,
                .structure_size = programs[n].structure.size,
                .sizes = programs[n].sizes.data,
                .sizes_size = programs[n].sizes.size,
                .scalars = (const uint64_t *)programs[n].scalars.data,
                .n_scalars = (uint32_t)(programs[n].scalars.size / 8),
                .names = names,
                .n_names = i % 3,
            };
        }
        assert_ok(dj_snapshot_encode(&snapshot, input));
        input->size -= sizeof(dj_hash_t);
        keep("snapshot", input);
        dj_program_fini(&programs[0]);
        dj_program_fini(&programs[1]);
    }
}

/* One record, as fuzz_cache_file.c reads it in its polite form. */
static void put_kept(dj_bytes_t *input, uint64_t seed, uint32_t n_ops)
{
    enum { SIGNED = 4 + 1 + 3 * sizeof(dj_hash_t) };
    static const dj_plan_needs_t needs = {
        .device_class = {{1, 2}}, .flops_per_ns = 10, .bytes_per_ns = 10, .step_ns = 100};
    dj_program_t program = {0};
    dj_graph_t *graph;
    dj_plan_t *plan;
    dj_bytes_t bytes = {0};
    random_program(&program, seed, n_ops);
    assert_ok(decode(&program, &graph));
    assert_ok(dj_plan_make(graph, &needs, &plan));
    assert_ok(dj_plan_encode(plan, &bytes));
    dj_bytes_put_u16(input, (uint16_t)program.structure.size);
    dj_bytes_put_u16(input, (uint16_t)program.sizes.size);
    dj_bytes_put_u8(input, (uint8_t)(program.scalars.size / 8));
    dj_bytes_put_u16(input, (uint16_t)(bytes.size - SIGNED));
    dj_bytes_put(input, program.structure.data, program.structure.size);
    dj_bytes_put(input, program.sizes.data, program.sizes.size);
    dj_bytes_put(input, bytes.data + SIGNED, bytes.size - SIGNED);
    dj_bytes_fini(&bytes);
    dj_plan_destroy(plan);
    dj_graph_destroy(graph);
    dj_program_fini(&program);
}

static void seed_plan_files(dj_bytes_t *input)
{
    static const uint8_t empty[] = {0, 0}, none[] = {1};
    dj_bytes_put(input, empty, sizeof(empty)); /* rude: no plans */
    keep("cache_file", input);
    dj_bytes_put(input, none, sizeof(none));
    keep("cache_file", input);
    for (uint32_t i = 0; i < 24; i++) {
        dj_bytes_put_u8(input, 1);
        for (uint32_t n = 0; n <= i % 3; n++)
            put_kept(input, i + n + 1, 1 + i % 6);
        keep("cache_file", input);
    }
}

static void seed_worker(dj_bytes_t *input)
{
    static const uint8_t bytes[512] = {7};
    for (uint8_t tweak = 0; tweak < 4; tweak++) {
        dj_upload_t upload = {REF(1), 256, tweak == 2 ? DJ_UPLOAD_WEIGHT : 0, 0};
        uint64_t release = REF(1);
        dj_exec_t exec = {.n_releases = 1};
        put_message(input, DJ_MESSAGE_UPLOAD, tweak, &upload, bytes, 256);
        dj_put_t put = {REF(1), 64, 128, 0, 0};
        put_message(input, DJ_MESSAGE_PUT, tweak, &put, bytes, 128);
        put_message(input, DJ_MESSAGE_EXEC, 0, &exec, &release, 8);
        keep("worker", input);
        dj_put_t parts = {.n_parts = 1, .flags = tweak & 1 ? DJ_PUT_QUIET : 0};
        dj_put_part_t part = {REF(2), 0, 64, DJ_PART_NEW | (tweak & 2 ? DJ_PART_WEIGHT : 0), 0};
        uint8_t payload[128] = {0};
        memcpy(payload, &part, sizeof(part));
        put_message(input, DJ_MESSAGE_PUT, tweak, &parts, payload, sizeof(payload));
        keep("worker", input);
    }
    for (uint8_t type = DJ_MESSAGE_EXEC; type <= DJ_MESSAGE_PART; type++) {
        put_message(input, (dj_message_t)type, 0, bytes + 1, bytes + 1, 128);
        keep("worker", input);
    }
}

static void seed_weights(dj_bytes_t *input)
{
    static const char *const headers[] = {
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}",
        "{\"__metadata__\":{\"a\":\"b\"},\"w\":{\"dtype\":\"BF16\",\"shape\":[8],\"data_offsets\":[0,16]}}",
        "{\"w\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[8,16]}}"};
    for (int i = 0; i < 6; i++) {
        const char *header = headers[i % 3];
        dj_bytes_put_u8(input, 1);
        dj_bytes_put_u8(input, i < 3 ? 1 : 2);
        dj_bytes_put_u8(input, i < 3 ? 13 : 26);
        for (uint32_t n = 0; n < (i < 3 ? 1u : 2u); n++) {
            dj_bytes_put_u64(input, REF(n + 1));
            dj_bytes_put_u32(input, 1);
            dj_bytes_put(input, "w", 1);
        }
        dj_bytes_put_u16(input, (uint16_t)strlen(header));
        dj_bytes_put(input, header, strlen(header));
        dj_bytes_put_zeros(input, 16);
        keep("weights", input);
    }
}

int main(int argc, char **argv)
{
    dj_bytes_t input = {0};
    if (argc != 2 || !dj_hash_setup()) {
        fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
        return 2;
    }
    folder = argv[1];
    mkdir(folder, 0777);
    seed_frames(&input);
    seed_greet(&input);
    seed_door(&input);
    seed_lifeline(&input);
    seed_data(&input);
    seed_group(&input);
    seed_programs(&input);
    seed_snapshots(&input);
    seed_plan_files(&input);
    seed_worker(&input);
    seed_weights(&input);
    dj_bytes_fini(&input);
    return 0;
}
