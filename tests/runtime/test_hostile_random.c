/* test_hostile_random.c - ten thousand requests that chance has spoilt; each is answered, none is
 * remembered.
 *
 * Half are spoilt in their program and signed anew, so that decoder, shapes, planner, kernels and
 * bounds on data see them; the others anywhere in the message. The base is the planner's random
 * programs (views of views, in-place ops, aliased windows) and programs that index by data from the
 * request. Every request releases what it makes. TEST_SEED and TEST_ROUNDS change the run. */
#include "tests/planner/random_program.h"
#include "tests/runtime/raw.h"

#define REF(index) ((uint64_t)0x5eed << 32 | (index))
enum { BASES = 96, ROUNDS = 10000, BINDINGS_MAX = 64, DATA_MAX = 1 << 15 };

static server_t server;
static raw_t raw;
static uint64_t seed = 20261121;

typedef struct base {
    dj_program_t program;
    dj_graph_t *graph;
} base_t;

static base_t bases[BASES];

/* ---- programs that index by data ---- */

static dj_operand_t data_input(dj_program_t *program, dj_view_t view)
{
    return input_of(program, DJ_CLASS_IMMEDIATE, view);
}

static void indexing_program(dj_program_t *program, uint32_t kind)
{
    dj_program_reset(program);
    dj_operand_t table = data_input(program, shape(DJ_F32, 2, 8, 4));
    dj_operand_t index = data_input(program, shape(DJ_I64, 1, 6));
    dj_operand_t index2 = data_input(program, shape(DJ_I64, 2, 3, 4));
    dj_operand_t rows = data_input(program, shape(DJ_F32, 2, 6, 4));
    dj_operand_t pair[2] = {index, index};
    dj_arg_t embedding[] = {arg_tensor(&table), arg_tensor(&index), arg_none(), arg_none(),
                            arg_none()};
    dj_arg_t select[] = {arg_tensor(&table), arg_integer(0), arg_tensor(&index)};
    dj_arg_t gather[] = {arg_tensor(&table), arg_integer(0), arg_tensor(&index2), arg_integer(0)};
    dj_arg_t at[] = {arg_tensor(&table), arg_list(pair, 2)};
    dj_arg_t row[] = {arg_tensor(&table), arg_list(pair, 1)};
    dj_arg_t put[] = {arg_tensor(&table), arg_list(pair, 1), arg_tensor(&rows), arg_integer(1)};
    dj_arg_t copy[] = {arg_tensor(&table), arg_integer(0), arg_tensor(&index), arg_tensor(&rows)};
    dj_arg_t scatter[] = {arg_tensor(&table), arg_integer(0), arg_tensor(&index2),
                          arg_tensor(&rows)};
    dj_operand_t out = rows;
    uint32_t made;
    dj_call_t call;
    switch (kind % 8) {
    case 0:
        out = add_op(program, "embedding", embedding);
        break;
    case 1:
        out = add_op(program, "index_select", select);
        break;
    case 2:
        out = add_op(program, "gather", gather);
        break;
    case 3:
        out = add_op(program, "index.Tensor", at);
        break;
    case 4:
        out = add_op(program, "index.Tensor", row);
        break;
    case 5:
        out = add_op(program, "scatter.src", scatter);
        break;
    case 6:
        call = call_of("index_put_", put);
        assert_ok(dj_program_add(program, &call, NULL, &made));
        break;
    default:
        call = call_of("index_copy_", copy);
        assert_ok(dj_program_add(program, &call, NULL, &made));
        break;
    }
    finish(program, &out.storage, kind % 8 < 6);
}

static void make_bases(void)
{
    for (uint32_t i = 0; i < BASES; i++) {
        if (i % 4 == 3)
            indexing_program(&bases[i].program, i / 4);
        else
            random_program(&bases[i].program, i + 1, 1 + i % 9);
        assert_ok(decode(&bases[i].program, &bases[i].graph));
    }
}

/* ---- a request from a program ---- */

typedef struct spoilt {
    dj_exec_t exec;
    dj_segment_header_t segment;
    dj_bytes_t structure, sizes, scalars, payload;
} spoilt_t;

static void mutate(uint8_t *data, size_t size)
{
    static const uint8_t edges[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0xfe, 16, 64};
    for (uint32_t n = 1 + random_below(&seed, 4); size && n > 0; n--) {
        size_t at = random_below(&seed, (uint32_t)size);
        switch (random_below(&seed, 4)) {
        case 0:
            data[at] = (uint8_t)random_next(&seed);
            break;
        case 1:
            data[at] = edges[random_below(&seed, sizeof(edges))];
            break;
        case 2:
            data[at] ^= (uint8_t)(1u << random_below(&seed, 8));
            break;
        default:
            data[at] = (uint8_t)(data[at] + (random_below(&seed, 2) ? 1 : -1));
            break;
        }
    }
}

static void copy_bytes(dj_bytes_t *to, const dj_bytes_t *from)
{
    dj_bytes_clear(to);
    dj_bytes_put(to, from->data, from->size);
}

static void spoil_program(spoilt_t *s)
{
    dj_bytes_t *parts[] = {&s->structure, &s->sizes, &s->scalars};
    for (uint32_t n = 1 + random_below(&seed, 2); n > 0; n--) {
        dj_bytes_t *part = parts[random_below(&seed, 3)];
        size_t from = part == &s->structure ? 4 : 0; /* magic and version have their own tests */
        if (part->size > from)
            mutate(part->data + from, part->size - from);
    }
}

static void put_binding(spoilt_t *s, const dj_storage_t *storage, uint64_t *data_bytes)
{
    dj_binding_t binding = {0, *data_bytes, storage->bytes};
    if (storage->input_class == DJ_CLASS_WEIGHT && storage->bytes == 256)
        binding = (dj_binding_t){REF(1), DJ_BINDING_REF, storage->bytes};
    else if (storage->input_class == DJ_CLASS_STATE && storage->bytes == 128)
        binding = (dj_binding_t){REF(2), DJ_BINDING_REF, storage->bytes};
    else
        *data_bytes += (storage->bytes + 63) & ~63ull;
    dj_bytes_put(&s->payload, &binding, sizeof(binding));
}

/* Bytes that are often small integers, so that some indices are good. */
static void put_data(dj_bytes_t *to, uint64_t bytes)
{
    bool small = random_below(&seed, 2);
    for (uint64_t i = 0; i < bytes; i += 8)
        dj_bytes_put_u64(to, small ? random_below(&seed, 9) : random_next(&seed));
}

/* Packs the program as `graph` (its own, or what was recorded before it was spoilt) says. */
static void pack(spoilt_t *s, const dj_graph_t *graph)
{
    uint32_t n_outputs = graph->n_bindings - graph->n_inputs;
    uint64_t data_bytes = 0, first = 100 + raw.request % 10000 * BINDINGS_MAX;
    dj_bytes_clear(&s->payload);
    s->exec = (dj_exec_t){.n_segments = 1, .n_releases = n_outputs, .deadline_ms = 2000};
    s->segment = (dj_segment_header_t){.structure_bytes = (uint32_t)s->structure.size,
                                       .sizes_bytes = (uint32_t)s->sizes.size,
                                       .n_inputs = graph->n_inputs,
                                       .n_outputs = n_outputs,
                                       .n_scalars = (uint32_t)s->scalars.size / 8,
                                       .flags = DJ_SEGMENT_STRUCTURE | DJ_SEGMENT_SIZES};
    s->segment.program_key = dj_program_key(s->structure.data, s->structure.size);
    s->segment.exact_key =
        dj_program_exact_key(s->segment.program_key, s->sizes.data, s->sizes.size);
    for (uint32_t i = 0; i < n_outputs; i++)
        dj_bytes_put_u64(&s->payload, REF(first + i));
    dj_bytes_put(&s->payload, &s->segment, sizeof(s->segment));
    for (uint32_t i = 0; i < graph->n_inputs; i++)
        put_binding(s, &graph->storages[graph->bindings[i]], &data_bytes);
    for (uint32_t i = 0; i < n_outputs; i++)
        dj_bytes_put_u64(&s->payload, REF(first + i));
    dj_bytes_put(&s->payload, s->scalars.data, s->scalars.size);
    dj_bytes_put(&s->payload, s->sizes.data, s->sizes.size);
    dj_bytes_align(&s->payload, 8);
    dj_bytes_put(&s->payload, s->structure.data, s->structure.size);
    dj_bytes_align(&s->payload, 64);
    s->exec.data_offset = s->payload.size;
    s->exec.data_bytes = data_bytes;
    put_data(&s->payload, data_bytes);
}

static bool binds_little(const dj_graph_t *graph)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < graph->n_inputs && bytes <= DATA_MAX; i++)
        bytes += graph->storages[graph->bindings[i]].bytes;
    return bytes <= DATA_MAX && graph->n_bindings <= BINDINGS_MAX;
}

static void make(spoilt_t *s)
{
    const base_t *base = &bases[random_below(&seed, BASES)];
    dj_graph_t *graph;
    uint32_t way = random_below(&seed, 8);
    copy_bytes(&s->structure, &base->program.structure);
    copy_bytes(&s->sizes, &base->program.sizes);
    copy_bytes(&s->scalars, &base->program.scalars);
    if (way < 4)
        spoil_program(s);
    dj_program_t spoilt = {.structure = s->structure, .sizes = s->sizes, .scalars = s->scalars};
    bool decodes = decode(&spoilt, &graph) == DJ_OK;
    pack(s, decodes && binds_little(graph) ? graph : base->graph);
    if (decodes)
        dj_graph_destroy(graph);
    if (way == 4 || way == 5)
        mutate(s->payload.data, s->payload.size);
    else if (way == 6)
        mutate((uint8_t *)&s->exec, sizeof(s->exec));
    else if (way == 7 && s->payload.size)
        s->payload.size = random_below(&seed, (uint32_t)s->payload.size);
}

/* ---- the run ---- */

static int upload(uint64_t ref, uint64_t bytes, uint32_t flags)
{
    uint8_t zeros[256] = {0};
    dj_upload_t message = {ref, bytes, flags, 0};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_UPLOAD);
    raw_say(&raw, &header, &message, sizeof(message), zeros, bytes);
    return raw_hear(&raw, 5000);
}

static int say_exec(const dj_exec_t *exec, const dj_bytes_t *payload, int limit_ms)
{
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_EXEC);
    dj_status_t status = raw_say(&raw, &header, exec, sizeof(*exec), payload->data, payload->size);
    return status == DJ_OK ? raw_hear(&raw, limit_ms) : (int)status;
}

static void print_last(const spoilt_t *s, int round, int status)
{
    print_error("round %d: %s %.*s; structure:", round, dj_status_name((dj_status_t)status),
                (int)raw.payload_bytes, raw.payload);
    for (size_t i = 0; i < s->structure.size; i++)
        print_error(" %02x", s->structure.data[i]);
    print_error("\nsizes:");
    for (size_t i = 0; i < s->sizes.size; i++)
        print_error(" %02x", s->sizes.data[i]);
    print_error("\n");
}

static void every_spoilt_request_is_answered(void **state)
{
    const char *rounds_text = getenv("TEST_ROUNDS"), *seed_text = getenv("TEST_SEED");
    int rounds = rounds_text ? atoi(rounds_text) : ROUNDS, counts[32] = {0};
    spoilt_t s = {0};
    if (seed_text)
        seed = strtoull(seed_text, NULL, 0);
    assert_int_equal(upload(REF(1), 256, DJ_UPLOAD_WEIGHT), DJ_OK);
    assert_int_equal(upload(REF(2), 128, 0), DJ_OK);
    for (int i = 0; i < rounds; i++) {
        make(&s);
        int status = say_exec(&s.exec, &s.payload, 10000);
        if (status > 0 || status == DJ_ERR_INTERNAL || raw.ended)
            print_last(&s, i, status);
        assert_false(raw.ended);
        assert_in_range(-status, 0, 31);
        assert_int_not_equal(status, DJ_ERR_INTERNAL);
        counts[-status]++;
        if (i % 64 == 0) { /* chance may have kept or dropped refs */
            upload(REF(1), 256, DJ_UPLOAD_WEIGHT);
            upload(REF(2), 128, 0);
        }
    }
    for (int i = 0; i < 32; i++)
        if (counts[i])
            print_message("%6d %s\n", counts[i], dj_status_name((dj_status_t)-i));
    assert_true(counts[0] > rounds / 20); /* many still run */
    dj_bytes_fini(&s.structure);
    dj_bytes_fini(&s.sizes);
    dj_bytes_fini(&s.scalars);
    dj_bytes_fini(&s.payload);
}

static int start(void **state)
{
    static const char *const words[] = {"--threads",
                                        "1",
                                        "--data-quota-bytes",
                                        "16M",
                                        "--ingress-bytes",
                                        "4M",
                                        "--stack-bytes",
                                        "16M",
                                        "--plans",
                                        "256",
                                        NULL};
    make_bases();
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    for (int i = 0; i < BASES; i++) {
        dj_program_fini(&bases[i].program);
        dj_graph_destroy(bases[i].graph);
    }
    return server_stop(&server) ? 0 : -1;
}

static int open_raw(void **state)
{
    return raw_open(&raw, &server) == DJ_OK ? 0 : -1;
}

static int close_raw(void **state)
{
    return raw_close(&raw) && server_is_empty(&server, 0) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_spoilt_request_is_answered, open_raw, close_raw),
    };
    return dj_hash_setup() ? server_verdict(cmocka_run_group_tests(tests, start, stop)) : 1;
}
