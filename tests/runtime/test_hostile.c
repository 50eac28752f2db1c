/* test_hostile.c - a client with a good token that lies in every message: each lie gets its status,
 * and what is left of the session goes back to the byte.
 *
 * The honest request is the sum of two immediate vectors, one of which stays under a ref, with the
 * sum kept and fetched. Each case spoils one thing in it. After a case the same session must still
 * add. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "planner/program.h"
#include "tests/runtime/raw.h"

#define REF(index) ((uint64_t)0x5eed << 32 | (index))
enum { N = 16, BYTES = N * 4, QUOTA = 16 << 20, INGRESS = 4 << 20 };

static server_t server;
static raw_t raw;

typedef struct request {
    dj_exec_t exec;
    uint64_t releases[4];
    dj_segment_header_t segment;
    dj_binding_t inputs[4];
    uint64_t outputs[4], scalars[8];
    uint8_t sizes[256], structure[256];
    dj_fetch_t fetches[2];
    uint8_t data[2 * BYTES];
    uint32_t n_packed; /* of each list what is really there */
    uint32_t releases_packed, inputs_packed, outputs_packed, scalars_packed, fetches_packed;
    uint32_t sizes_packed, structure_packed, data_packed;
} request_t;

static dj_operand_t vector_of(dj_program_t *program, dj_operand_class_t class, int64_t n)
{
    dj_operand_t operand = {.slot = DJ_SLOT_NONE, .view = dj_view_contiguous(DJ_F32, 1, &n)};
    operand.storage = dj_program_input(program, class, (uint64_t)n * 4);
    return operand;
}

/* a + b; `offset`: b is seen through a window that begins one element later. */
static void record_sum(dj_program_t *program, dj_operand_class_t second, bool offset,
                       dj_segment_header_t *segment)
{
    uint32_t sum;
    dj_view_t view;
    dj_program_reset(program);
    dj_operand_t a = vector_of(program, DJ_CLASS_IMMEDIATE, N);
    dj_operand_t b = vector_of(program, second, N);
    if (offset)
        a.view.sizes[0] = b.view.sizes[0] = N - 1, b.view.offset = 1;
    dj_arg_t args[] = {{.kind = DJ_ARG_TENSORS, .count = 1, .operands = &a},
                       {.kind = DJ_ARG_TENSORS, .count = 1, .operands = &b},
                       {.kind = DJ_ARG_SCALAR, .scalar = {.dtype = DJ_I64, .integer = 1}}};
    dj_call_t call = {DJ_OP_ADD, 3, args};
    assert_int_equal(dj_op_infer(&call, &view), DJ_OK);
    assert_int_equal(dj_program_add(program, &call, NULL, &sum), DJ_OK);
    assert_int_equal(
        dj_program_finish(program, &sum, 1, &segment->program_key, &segment->exact_key), DJ_OK);
}

static void take_program(request_t *r, const dj_program_t *program)
{
    r->segment.flags = DJ_SEGMENT_STRUCTURE | DJ_SEGMENT_SIZES;
    r->segment.structure_bytes = r->structure_packed = (uint32_t)program->structure.size;
    r->segment.sizes_bytes = r->sizes_packed = (uint32_t)program->sizes.size;
    r->segment.n_scalars = r->scalars_packed = (uint32_t)program->scalars.size / 8;
    memcpy(r->structure, program->structure.data, program->structure.size);
    if (program->sizes.size)
        memcpy(r->sizes, program->sizes.data, program->sizes.size);
    if (program->scalars.size)
        memcpy(r->scalars, program->scalars.data, program->scalars.size);
}

/* Keys that belong to the bytes as they now are. */
static void sign(request_t *r)
{
    r->segment.program_key = dj_program_key(r->structure, r->structure_packed);
    r->segment.exact_key = dj_program_exact_key(r->segment.program_key, r->sizes, r->sizes_packed);
}

static void honest_with(request_t *r, bool offset)
{
    dj_program_t program = {0};
    memset(r, 0, sizeof(*r));
    record_sum(&program, DJ_CLASS_IMMEDIATE, offset, &r->segment);
    take_program(r, &program);
    dj_program_fini(&program);
    r->exec.n_segments = r->n_packed = 1;
    r->exec.n_fetches = r->fetches_packed = 1;
    r->segment.n_inputs = r->inputs_packed = 2;
    r->segment.n_outputs = r->outputs_packed = 1;
    r->inputs[0] = (dj_binding_t){0, 0, BYTES};
    r->inputs[1] = (dj_binding_t){REF(1), BYTES, BYTES};
    r->outputs[0] = REF(2);
    r->fetches[0] = (dj_fetch_t){REF(2), 0, offset ? BYTES - 4 : BYTES};
    r->exec.data_bytes = r->data_packed = 2 * BYTES;
    for (int i = 0; i < N; i++)
        ((float *)r->data)[i] = (float)i, ((float *)r->data)[N + i] = 100;
}

static void honest(request_t *r)
{
    honest_with(r, false);
}

static void put(dj_bytes_t *to, const void *data, size_t size)
{
    dj_bytes_put(to, data, size);
    dj_bytes_align(to, 8);
}

static void pack(request_t *r, dj_bytes_t *to)
{
    put(to, r->releases, r->releases_packed * 8ull);
    for (uint32_t i = 0; i < r->n_packed; i++) {
        put(to, &r->segment, sizeof(r->segment));
        put(to, r->inputs, r->inputs_packed * sizeof(r->inputs[0]));
        put(to, r->outputs, r->outputs_packed * 8ull);
        put(to, r->scalars, r->scalars_packed * 8ull);
        put(to, r->sizes, r->sizes_packed);
        put(to, r->structure, r->structure_packed);
    }
    put(to, r->fetches, r->fetches_packed * sizeof(r->fetches[0]));
    dj_bytes_align(to, 64);
    if (!r->exec.data_offset)
        r->exec.data_offset = to->size;
    put(to, r->data, r->data_packed);
}

static int exchange(request_t *r)
{
    dj_bytes_t payload = {0};
    pack(r, &payload);
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_EXEC);
    assert_int_equal(raw_say(&raw, &header, &r->exec, sizeof(r->exec), payload.data, payload.size),
                     DJ_OK);
    int status = raw_hear(&raw, 5000);
    dj_bytes_fini(&payload);
    return status;
}

/* Adds as it should, then gives both refs back. */
static void still_adds(void)
{
    request_t r;
    honest(&r);
    assert_int_equal(exchange(&r), DJ_OK);
    assert_int_equal(raw.payload_bytes, BYTES);
    for (int i = 0; i < N; i++)
        assert_true(((float *)raw.payload)[i] == 100 + (float)i);
    memset(&r, 0, sizeof(r));
    r.exec.n_releases = r.releases_packed = 2;
    r.releases[0] = REF(1), r.releases[1] = REF(2);
    assert_int_equal(exchange(&r), DJ_OK);
}

/* The request is answered with `want` and a sentence, leaves no ref, and the session goes on. */
static void refused(request_t *r, int want)
{
    int got = exchange(r);
    if (got != want || raw.payload_bytes == 0)
        print_error("%s and '%.*s', not %s\n", dj_status_name(got), (int)raw.payload_bytes,
                    raw.payload, dj_status_name(want));
    assert_int_equal(got, want);
    assert_true(raw.payload_bytes > 0);
    still_adds();
    assert_true(server_becomes(&server, 0, "refs", 0, 2000));
}

#define SPOIL(want, ...)                                                                           \
    do {                                                                                           \
        request_t r;                                                                               \
        honest(&r);                                                                                \
        __VA_ARGS__;                                                                               \
        refused(&r, want);                                                                         \
    } while (0)

/* ---- EXEC ---- */

static void counts_that_lie(void **state)
{
    SPOIL(DJ_ERR_LIMIT, r.exec.n_segments = DJ_EXEC_SEGMENTS_MAX + 1);
    SPOIL(DJ_ERR_LIMIT, r.exec.n_segments = UINT32_MAX);
    SPOIL(DJ_ERR_PROTOCOL, r.exec.n_segments = 200; memset(r.data, 0, sizeof(r.data)));
    SPOIL(DJ_ERR_PROTOCOL, r.exec.n_segments = 0);
    SPOIL(DJ_ERR_LIMIT, r.exec.n_releases = UINT32_MAX);
    SPOIL(DJ_ERR_PROTOCOL, r.exec.n_releases = 1000);
    SPOIL(DJ_ERR_LIMIT, r.exec.n_fetches = DJ_EXEC_FETCHES_MAX + 1);
    SPOIL(DJ_ERR_PROTOCOL, r.exec.n_fetches = DJ_EXEC_FETCHES_MAX);
    SPOIL(DJ_ERR_LIMIT, r.segment.n_inputs = DJ_EXEC_BINDINGS_MAX + 1);
    SPOIL(DJ_ERR_PROTOCOL, r.segment.n_inputs = DJ_EXEC_BINDINGS_MAX);
    SPOIL(DJ_ERR_LIMIT, r.segment.n_outputs = UINT32_MAX);
    SPOIL(DJ_ERR_LIMIT, r.segment.n_scalars = UINT32_MAX);
    SPOIL(DJ_ERR_LIMIT, r.segment.structure_bytes = UINT32_MAX);
    SPOIL(DJ_ERR_PROTOCOL, r.segment.structure_bytes += 4096);
    SPOIL(DJ_ERR_LIMIT, r.segment.sizes_bytes = UINT32_MAX);
    SPOIL(DJ_ERR_PROTOCOL, r.n_packed = 0);
    SPOIL(DJ_ERR_PROTOCOL, r.inputs_packed = r.segment.n_inputs = 1);
    SPOIL(DJ_ERR_PROTOCOL, r.inputs_packed = r.segment.n_inputs = 3; r.inputs[2] = r.inputs[0]);
    SPOIL(DJ_ERR_PROTOCOL, r.outputs_packed = r.segment.n_outputs = 0);
    SPOIL(DJ_ERR_PROTOCOL, r.outputs_packed = r.segment.n_outputs = 2; r.outputs[1] = REF(7));
    SPOIL(DJ_ERR_PROTOCOL, r.scalars_packed = r.segment.n_scalars = 3);
}

static void flags_and_deadlines_that_lie(void **state)
{
    SPOIL(DJ_ERR_PROTOCOL, r.exec.flags = 0x80);
    SPOIL(DJ_ERR_PROTOCOL, r.exec.flags = DJ_EXEC_QUIET);
    SPOIL(DJ_ERR_PROTOCOL, r.segment.flags = 0x80 | r.segment.flags);
    SPOIL(DJ_ERR_PROTOCOL, r.segment.flags = DJ_SEGMENT_SIZES);
    SPOIL(DJ_ERR_PROTOCOL, r.segment.flags = DJ_SEGMENT_STRUCTURE);
    SPOIL(DJ_ERR_LIMIT, r.exec.deadline_ms = UINT64_MAX);
}

static void immediate_bytes_beyond_the_payload(void **state)
{
    SPOIL(DJ_ERR_PROTOCOL, r.exec.data_bytes += 64);
    SPOIL(DJ_ERR_PROTOCOL, r.exec.data_bytes = UINT64_MAX);
    SPOIL(DJ_ERR_PROTOCOL, r.exec.data_offset = 64);
    SPOIL(DJ_ERR_PROTOCOL, r.exec.data_offset = UINT64_MAX - 63);
    SPOIL(DJ_ERR_PROTOCOL, r.data_packed = BYTES);
    SPOIL(DJ_ERR_PROTOCOL, r.inputs[0].offset = 2 * BYTES);
    SPOIL(DJ_ERR_PROTOCOL, r.inputs[0].offset = UINT64_MAX - 7);
    SPOIL(DJ_ERR_PROTOCOL, r.inputs[0].bytes = UINT64_MAX);
    SPOIL(DJ_ERR_PROTOCOL, r.inputs[1].offset = BYTES + 8);
    SPOIL(DJ_ERR_PROTOCOL, r.inputs[0].offset = 4);
}

static void sizes_that_do_not_fit(void **state)
{
    SPOIL(DJ_ERR_SHAPE, r.inputs[0].bytes = BYTES - 4);
    SPOIL(DJ_ERR_SHAPE, r.inputs[1].bytes = BYTES - 8); /* its ref is made and goes again */
    SPOIL(DJ_ERR_SHAPE, r.inputs[1].bytes = 0);
    SPOIL(DJ_ERR_SHAPE, r.fetches[0].bytes = BYTES + 1);
    SPOIL(DJ_ERR_SHAPE, r.fetches[0].offset = 4);
    SPOIL(DJ_ERR_LIMIT, r.fetches[0].bytes = UINT64_MAX);
    SPOIL(DJ_ERR_LIMIT, r.fetches[0].offset = UINT64_MAX - 3);
}

static void refs_that_are_none(void **state)
{
    SPOIL(DJ_ERR_STALE, r.inputs[0] = ((dj_binding_t){REF(9), DJ_BINDING_REF, BYTES}));
    SPOIL(DJ_ERR_PROTOCOL, r.inputs[0] = ((dj_binding_t){0, DJ_BINDING_REF, BYTES}));
    SPOIL(DJ_ERR_STALE, r.inputs[0] = ((dj_binding_t){9, DJ_BINDING_REF, BYTES}));
    SPOIL(DJ_ERR_STALE, r.inputs[0] = ((dj_binding_t){UINT64_MAX, DJ_BINDING_REF, BYTES}));
    SPOIL(DJ_ERR_STALE, r.fetches[0].ref = REF(9));
    SPOIL(DJ_ERR_STALE, r.fetches[0].ref = r.outputs[0] ^ 1ull << 40);
    SPOIL(DJ_ERR_PROTOCOL, r.fetches[0].ref = 0);
    SPOIL(DJ_ERR_LIMIT, r.outputs[0] = 5; r.fetches[0].ref = 5);
    SPOIL(DJ_ERR_LIMIT, r.outputs[0] = 0);
    SPOIL(DJ_ERR_LIMIT, r.outputs[0] = REF(DJ_REFS_MAX));
    SPOIL(DJ_ERR_LIMIT, r.inputs[1].ref = REF(UINT32_MAX));
    SPOIL(DJ_ERR_LIMIT, r.inputs[1].ref = 7);
    SPOIL(DJ_ERR_PROTOCOL, r.exec.n_releases = r.releases_packed = 1);
}

static void refs_named_twice(void **state)
{
    request_t r;
    SPOIL(DJ_ERR_STALE, r.outputs[0] = r.inputs[1].ref);
    SPOIL(DJ_ERR_STALE, r.inputs[0].ref = r.inputs[1].ref);
    SPOIL(DJ_ERR_STALE, r.n_packed = r.exec.n_segments = 2); /* the second makes the same refs */
    honest(&r);
    assert_int_equal(exchange(&r), DJ_OK); /* both refs are there: made again they are taken */
    assert_int_equal(exchange(&r), DJ_ERR_STALE);
    memset(&r, 0, sizeof(r));
    r.exec.n_releases = r.releases_packed = 4;
    r.releases[0] = r.releases[1] = REF(1), r.releases[2] = r.releases[3] = REF(2);
    assert_int_equal(exchange(&r), DJ_OK); /* released twice is released once */
    still_adds();
}

static void an_old_ref_at_a_used_index(void **state)
{
    request_t r;
    honest(&r);
    assert_int_equal(exchange(&r), DJ_OK);
    uint64_t old = r.inputs[1].ref;
    memset(&r, 0, sizeof(r));
    r.exec.n_releases = r.releases_packed = 2;
    r.releases[0] = old, r.releases[1] = REF(2);
    assert_int_equal(exchange(&r), DJ_OK);
    honest(&r);
    r.inputs[1].ref = old ^ 1ull << 33; /* the same index, another tag */
    assert_int_equal(exchange(&r), DJ_OK);
    honest(&r);
    r.outputs[0] = r.fetches[0].ref = REF(3);
    r.inputs[0] = (dj_binding_t){old, DJ_BINDING_REF, BYTES};
    assert_int_equal(exchange(&r), DJ_ERR_STALE);
    memset(&r, 0, sizeof(r));
    r.exec.n_releases = r.releases_packed = 3;
    r.releases[0] = old, r.releases[1] = old ^ 1ull << 33, r.releases[2] = REF(2);
    assert_int_equal(exchange(&r), DJ_OK);
    still_adds();
}

static void programs_that_are_not_what_they_are_called(void **state)
{
    SPOIL(DJ_ERR_CORRUPT, r.segment.program_key.word[0] ^= 1; r.segment.exact_key.word[0] ^= 1);
    SPOIL(DJ_ERR_CORRUPT, r.segment.exact_key.word[1] ^= 1);
    still_adds();
    SPOIL(DJ_ERR_CORRUPT, r.structure[r.structure_packed - 1] ^= 1); /* under a key that is known */
    SPOIL(DJ_ERR_CORRUPT, r.sizes[0] ^= 1);
    SPOIL(DJ_ERR_NO_PLAN, r.segment.flags = 0; r.structure_packed = r.sizes_packed = 0;
          r.segment.structure_bytes = r.segment.sizes_bytes = 0; r.segment.exact_key.word[0] ^= 5);
}

/* The op's varint stands behind its item byte; found by its neighbours. */
static uint8_t *op_of(request_t *r)
{
    for (uint32_t i = 4; i < r->structure_packed; i++)
        if (r->structure[i] == 2 && r->structure[i + 1] == DJ_OP_ADD && r->structure[i + 2] == 2)
            return &r->structure[i + 1];
    fail_msg("no op in the structure");
    return NULL;
}

static void programs_that_are_none(void **state)
{
    /* 0xff and the 2 behind it are one number, 383: an op that no table has */
    _Static_assert(DJ_OP_COUNT <= 383, "the number is an op now");
    SPOIL(DJ_ERR_UNSUPPORTED, *op_of(&r) = 0xff; sign(&r));
    SPOIL(DJ_ERR_PROTOCOL, r.structure[0] = 'X'; sign(&r));
    SPOIL(DJ_ERR_VERSION, r.structure[3] = 99; sign(&r));
    SPOIL(DJ_ERR_PROTOCOL, r.segment.structure_bytes = --r.structure_packed; sign(&r));
    SPOIL(DJ_ERR_PROTOCOL, r.segment.sizes_bytes = --r.sizes_packed; sign(&r));
    SPOIL(DJ_ERR_SHAPE, r.sizes[r.sizes_packed - 1] = N - 1; sign(&r));   /* 16 + 15 */
    SPOIL(DJ_ERR_SHAPE, r.sizes[0] = 4; r.inputs[0].bytes = 4; sign(&r)); /* 16 of a storage of 1 */
}

static void view_offsets_out_of_range(void **state)
{
    static const uint64_t offsets[] = {2, N, 1ull << 40, INT64_MAX, UINT64_MAX, 1ull << 62};
    request_t r;
    honest_with(&r, true);
    assert_int_equal(r.scalars_packed, 2);
    assert_int_equal(exchange(&r), DJ_OK);
    memset(&r, 0, sizeof(r));
    r.exec.n_releases = r.releases_packed = 2;
    r.releases[0] = REF(1), r.releases[1] = REF(2);
    assert_int_equal(exchange(&r), DJ_OK);
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        honest_with(&r, true);
        r.scalars[r.scalars[0] == 1 && r.scalars[1] == 1 ? 0 : r.scalars[0] != 1] = offsets[i];
        refused(&r, DJ_ERR_SHAPE);
    }
}

/* ---- UPLOAD ---- */

static int upload(dj_upload_t message, const void *data, uint64_t bytes)
{
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_UPLOAD);
    raw_say(&raw, &header, &message, sizeof(message), data, bytes);
    return raw_hear(&raw, 5000);
}

static void release(uint64_t ref)
{
    request_t r = {.exec.n_releases = 1, .releases_packed = 1, .releases = {ref}};
    assert_int_equal(exchange(&r), DJ_OK);
}

static void uploads_that_lie(void **state)
{
    uint8_t *data = calloc(1, QUOTA + (1 << 20));
    for (uint32_t flags = 0; flags <= DJ_UPLOAD_WEIGHT; flags++) {
        assert_int_equal(upload((dj_upload_t){REF(1), BYTES + 1, flags, 0}, data, BYTES),
                         DJ_ERR_PROTOCOL);
        assert_int_equal(upload((dj_upload_t){REF(1), 1ull << 40, flags, 0}, data, BYTES),
                         DJ_ERR_PROTOCOL);
        assert_int_equal(upload((dj_upload_t){7, BYTES, flags, 0}, data, BYTES), DJ_ERR_LIMIT);
        assert_int_equal(upload((dj_upload_t){0, BYTES, flags, 0}, data, BYTES), DJ_ERR_LIMIT);
        assert_int_equal(upload((dj_upload_t){REF(1), BYTES, flags, 0}, data, BYTES), DJ_OK);
        assert_int_equal(upload((dj_upload_t){REF(1), BYTES, flags, 0}, data, BYTES), DJ_ERR_STALE);
        release(REF(1));
        /* the same by rendezvous */
        assert_int_equal(upload((dj_upload_t){REF(1), 1, flags, 0}, data, 1 << 20),
                         DJ_ERR_PROTOCOL);
        assert_int_equal(upload((dj_upload_t){7, 1 << 20, flags, 0}, data, 1 << 20), DJ_ERR_LIMIT);
        assert_int_equal(upload((dj_upload_t){REF(1), 1 << 20, flags, 0}, data, 1 << 20), DJ_OK);
        assert_int_equal(upload((dj_upload_t){REF(1), 1 << 20, flags, 0}, data, 1 << 20),
                         DJ_ERR_STALE);
        release(REF(1));
    }
    assert_int_equal(upload((dj_upload_t){REF(1), BYTES, 0x40, 0}, data, BYTES), DJ_ERR_PROTOCOL);
    assert_int_equal(
        upload((dj_upload_t){REF(1), QUOTA + (1 << 20), 0, 0}, data, QUOTA + (1 << 20)),
        DJ_ERR_RESOURCE);
    free(data);
    still_adds();
}

/* ---- LOAD ---- */

static int load(uint32_t path_bytes, uint32_t n_tensors, const void *payload, uint64_t bytes)
{
    dj_load_t message = {path_bytes, n_tensors};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_LOAD);
    raw_say(&raw, &header, &message, sizeof(message), payload, bytes);
    return raw_hear(&raw, 5000);
}

static void loads_that_lie(void **state)
{
    static const char path[] = "/proc/self/exe";
    uint8_t named[64] = "/proc/self/exe";
    uint32_t n = sizeof(path) - 1, long_name = 1 << 30;
    assert_int_equal(load(0, 1, NULL, 0), DJ_ERR_FILE);
    assert_int_equal(load(n, 0, path, n), DJ_ERR_FILE);
    assert_int_equal(load(n, 1, path, n), DJ_ERR_FILE);
    assert_int_equal(load(n + 1, 1, path, n), DJ_ERR_FILE);
    assert_int_equal(load(DJ_LOAD_PATH_MAX + 1, 1, path, n), DJ_ERR_LIMIT);
    assert_int_equal(load(UINT32_MAX, 1, path, n), DJ_ERR_LIMIT);
    assert_int_equal(load(n, DJ_LOAD_TENSORS_MAX + 1, path, n), DJ_ERR_LIMIT);
    assert_int_equal(load(n, UINT32_MAX, path, n), DJ_ERR_LIMIT);
    assert_int_equal(load(n - 1, 1, path + 1, n - 1), DJ_ERR_FILE); /* not absolute */
    memcpy(named + n + 8, &long_name, 4);
    assert_int_equal(load(n, 1, named, sizeof(named)), DJ_ERR_FILE);
    still_adds();
}

/* ---- headers ---- */

/* No answer comes; the next request is answered, so this one was passed over and not delayed. */
static void dropped(dj_header_t header, uint32_t struct_bytes)
{
    uint8_t body[64] = {0};
    uint64_t answers = raw.answers;
    assert_int_equal(raw_say(&raw, &header, body, struct_bytes, NULL, 0), DJ_OK);
    uint64_t before = raw.answers;
    assert_int_equal(before, answers);
    request_t nothing = {0};
    assert_int_equal(exchange(&nothing), DJ_OK);
    assert_int_equal(raw.answers, answers + 1);
}

static void headers_of_another_life_are_dropped(void **state)
{
    dj_header_t header;
    const uint32_t exec = sizeof(dj_exec_t);
    uint64_t stale = server_number(&server, 0, "stale");
    header = raw_header(&raw, DJ_MESSAGE_EXEC), header.session ^= 1, dropped(header, exec);
    header = raw_header(&raw, DJ_MESSAGE_EXEC), header.generation++, dropped(header, exec);
    header = raw_header(&raw, DJ_MESSAGE_EXEC), header.generation--, dropped(header, exec);
    header = raw_header(&raw, DJ_MESSAGE_EXEC), header.request = 1, dropped(header, exec);
    assert_true(server_becomes(&server, 0, "stale", stale + 4, 2000));
    header = raw_header(&raw, DJ_MESSAGE_EXEC), header.magic ^= 1, dropped(header, exec);
    header = raw_header(&raw, DJ_MESSAGE_EXEC), header.version++, dropped(header, exec);
    header = raw_header(&raw, DJ_MESSAGE_EXEC), header.type = 77, dropped(header, exec);
    header = raw_header(&raw, DJ_MESSAGE_EXEC), header.type = DJ_MESSAGE_HELLO,
    dropped(header, exec);
    header = raw_header(&raw, DJ_MESSAGE_EXEC), dropped(header, exec - 8);
    header = raw_header(&raw, DJ_MESSAGE_EXEC), dropped(header, exec + 8);
    dropped(raw_header(&raw, DJ_MESSAGE_UPLOAD), 8);
    dropped(raw_header(&raw, DJ_MESSAGE_RESULT), sizeof(dj_result_t));
    dropped(raw_header(&raw, DJ_MESSAGE_WIRE), sizeof(dj_wire_t));
}

static void a_repeat_is_answered_once(void **state)
{
    request_t r = {0};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_EXEC);
    uint64_t answers = raw.answers;
    for (int i = 0; i < 3; i++)
        assert_int_equal(raw_say(&raw, &header, &r.exec, sizeof(r.exec), NULL, 0), DJ_OK);
    assert_int_equal(raw_hear(&raw, 5000), DJ_OK);
    assert_int_equal(exchange(&r), DJ_OK);
    assert_int_equal(raw.answers, answers + 2);
}

/* ---- limits ---- */

static void inputs_beyond_the_ingress_limit(void **state)
{
    uint64_t bytes = INGRESS + (1 << 20);
    uint8_t *payload = calloc(1, bytes);
    dj_exec_t exec = {.data_bytes = bytes};
    dj_header_t header = raw_header(&raw, DJ_MESSAGE_EXEC);
    raw_say(&raw, &header, &exec, sizeof(exec), payload, bytes);
    assert_int_equal(raw_hear(&raw, 5000), DJ_ERR_RESOURCE);
    assert_non_null(memmem(raw.payload, raw.payload_bytes, "--ingress-bytes", 15));
    free(payload);
    still_adds();
}

static void a_request_beyond_the_stack_limit(void **state)
{
    request_t r;
    honest(&r);
    dj_program_t program = {0};
    int64_t sizes[] = {64 << 20};
    uint32_t made, sum;
    dj_view_t view;
    dj_operand_t big = {.slot = DJ_SLOT_NONE};
    dj_program_reset(&program);
    dj_arg_t full[] = {{.kind = DJ_ARG_INTEGERS, .count = 1, .integers = sizes},
                       {.kind = DJ_ARG_SCALAR, .scalar = {.dtype = DJ_I64, .integer = 1}},
                       {.kind = DJ_ARG_INTEGER, .integer = DJ_F32}};
    dj_call_t call = {DJ_OP_FULL, 3, full};
    assert_int_equal(dj_op_infer(&call, &big.view), DJ_OK);
    assert_int_equal(dj_program_add(&program, &call, NULL, &made), DJ_OK);
    big.storage = made;
    dj_arg_t of[] = {{.kind = DJ_ARG_TENSORS, .count = 1, .operands = &big},
                     {.kind = DJ_ARG_NONE},
                     {.kind = DJ_ARG_INTEGER, .integer = 0},
                     {.kind = DJ_ARG_INTEGER, .integer = DJ_DTYPE_NONE}};
    dj_call_t reduce = {DJ_OP_SUM, 4, of};
    assert_int_equal(dj_op_infer(&reduce, &view), DJ_OK);
    assert_int_equal(dj_program_add(&program, &reduce, NULL, &sum), DJ_OK);
    assert_int_equal(
        dj_program_finish(&program, &sum, 1, &r.segment.program_key, &r.segment.exact_key), DJ_OK);
    take_program(&r, &program);
    dj_program_fini(&program);
    r.segment.n_inputs = r.inputs_packed = 0;
    r.exec.data_bytes = r.data_packed = 0;
    r.fetches[0].bytes = 4;
    refused(&r, DJ_ERR_RESOURCE);
}

/* The sum of one element, seen 2^40 times through strides of 0. */
static void a_request_that_would_take_for_ever(void **state)
{
    request_t r;
    dj_program_t program = {0};
    uint32_t sum;
    dj_view_t view;
    honest(&r);
    dj_program_reset(&program);
    dj_operand_t all = vector_of(&program, DJ_CLASS_IMMEDIATE, 1);
    all.view = (dj_view_t){.dtype = DJ_F32, .rank = 2, .sizes = {1 << 20, 1 << 20}};
    dj_arg_t of[] = {{.kind = DJ_ARG_TENSORS, .count = 1, .operands = &all},
                     {.kind = DJ_ARG_NONE},
                     {.kind = DJ_ARG_INTEGER, .integer = 0},
                     {.kind = DJ_ARG_INTEGER, .integer = DJ_DTYPE_NONE}};
    dj_call_t reduce = {DJ_OP_SUM, 4, of};
    assert_int_equal(dj_op_infer(&reduce, &view), DJ_OK);
    assert_int_equal(dj_program_add(&program, &reduce, NULL, &sum), DJ_OK);
    assert_int_equal(
        dj_program_finish(&program, &sum, 1, &r.segment.program_key, &r.segment.exact_key), DJ_OK);
    take_program(&r, &program);
    dj_program_fini(&program);
    r.segment.n_inputs = r.inputs_packed = 1;
    r.inputs[0].bytes = 4;
    r.fetches[0].bytes = 4;
    r.exec.deadline_ms = 1000;
    refused(&r, DJ_ERR_DEADLINE);
}

/* ---- the run ---- */

static int start(void **state)
{
    static const char *const words[] = {
        "--threads", "1", "--data-quota-bytes", "16M", "--ingress-bytes", "4M", "--stack-bytes",
        "64M",       NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static int open_raw(void **state)
{
    dj_status_t status = raw_open(&raw, &server);
    if (status != DJ_OK)
        print_error("%s\n", dj_error_text());
    return status == DJ_OK ? 0 : -1;
}

static int close_raw(void **state)
{
    return raw_close(&raw) && server_is_empty(&server, 0) ? 0 : -1;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_raw, close_raw)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(counts_that_lie),
        CASE(flags_and_deadlines_that_lie),
        CASE(immediate_bytes_beyond_the_payload),
        CASE(sizes_that_do_not_fit),
        CASE(refs_that_are_none),
        CASE(refs_named_twice),
        CASE(an_old_ref_at_a_used_index),
        CASE(programs_that_are_not_what_they_are_called),
        CASE(programs_that_are_none),
        CASE(view_offsets_out_of_range),
        CASE(uploads_that_lie),
        CASE(loads_that_lie),
        CASE(headers_of_another_life_are_dropped),
        CASE(a_repeat_is_answered_once),
        CASE(inputs_beyond_the_ingress_limit),
        CASE(a_request_beyond_the_stack_limit),
        CASE(a_request_that_would_take_for_ever),
    };
    return dj_hash_setup() ? server_verdict(cmocka_run_group_tests(tests, start, stop)) : 1;
}
