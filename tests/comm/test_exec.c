/* test_exec.c - dj_exec_decode() against lies: every count, every length, every truncation, then
 * random damage; a decoded segment must lie inside its payload. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "comm/messages.h"

/* A message with all parts: 2 releases, 2 segments, 2 fetches, 100 immediate bytes. */
typedef struct sample {
    dj_exec_t exec;
    uint64_t bytes;
    _Alignas(64) uint8_t payload[4096];
    size_t segment_at[2], inputs_at, releases_at, fetches_at;
} sample_t;

static void put(sample_t *sample, const void *data, size_t bytes)
{
    memcpy(sample->payload + sample->bytes, data, bytes);
    sample->bytes += (bytes + 7) & ~7ull;
}

static void make(sample_t *sample)
{
    memset(sample, 0, sizeof(*sample));
    const uint64_t refs[2] = {11, 12}, outputs[3] = {21, 0, 22}, scalars[2] = {31, 32};
    const dj_binding_t inputs[2] = {{41, DJ_BINDING_REF, 0}, {0, 10, 90}};
    const dj_fetch_t fetches[2] = {{51, 0, 4}, {52, 8, 0}};
    dj_segment_header_t full = {.structure_bytes = 13,
                                .sizes_bytes = 5,
                                .n_inputs = 2,
                                .n_outputs = 3,
                                .n_scalars = 2,
                                .flags = DJ_SEGMENT_STRUCTURE | DJ_SEGMENT_SIZES};
    dj_segment_header_t known = {.n_scalars = 2};
    put(sample, refs, sizeof(refs));
    sample->segment_at[0] = sample->bytes;
    put(sample, &full, sizeof(full));
    sample->inputs_at = sample->bytes;
    put(sample, inputs, sizeof(inputs));
    put(sample, outputs, sizeof(outputs));
    put(sample, scalars, sizeof(scalars));
    put(sample, "SIZES", 5);
    put(sample, "the structure", 13);
    sample->segment_at[1] = sample->bytes;
    put(sample, &known, sizeof(known));
    put(sample, scalars, sizeof(scalars));
    sample->fetches_at = sample->bytes;
    put(sample, fetches, sizeof(fetches));
    sample->exec = (dj_exec_t){.n_segments = 2, .n_releases = 2, .n_fetches = 2};
    sample->exec.data_offset = (sample->bytes + 63) & ~63ull;
    sample->exec.data_bytes = 100;
    sample->bytes = sample->exec.data_offset + 100;
    memset(sample->payload + sample->exec.data_offset, 'd', 100);
}

static dj_status_t decode(const sample_t *sample)
{
    static dj_exec_segment_t segments[DJ_EXEC_SEGMENTS_MAX];
    dj_exec_body_t body;
    return dj_exec_decode(&sample->exec, sample->payload, sample->bytes, segments,
                          DJ_EXEC_SEGMENTS_MAX, &body);
}

static dj_segment_header_t *segment(sample_t *sample, int number)
{
    return (dj_segment_header_t *)(sample->payload + sample->segment_at[number]);
}

static void test_refuses_every_truncation(void **state)
{
    sample_t sample;
    make(&sample);
    uint64_t whole = sample.bytes;
    for (uint64_t bytes = 0; bytes < whole; ++bytes) {
        /* In memory of just that size, so that a sanitizer sees any read past it. */
        uint8_t *cut = aligned_alloc(64, (bytes + 64) & ~63ull);
        dj_exec_segment_t segments[2];
        dj_exec_body_t body;
        memcpy(cut, sample.payload, bytes);
        assert_int_equal(dj_exec_decode(&sample.exec, cut, bytes, segments, 2, &body),
                         DJ_ERR_PROTOCOL);
        free(cut);
    }
    sample.bytes = whole + 1;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
}

static void test_refuses_counts_over_their_limits(void **state)
{
    sample_t sample;
    make(&sample);
    sample.exec.n_segments = DJ_EXEC_SEGMENTS_MAX + 1;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    sample.exec.n_releases = DJ_EXEC_RELEASES_MAX + 1;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    sample.exec.n_fetches = DJ_EXEC_FETCHES_MAX + 1;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    sample.exec.deadline_ms = (uint64_t)DJ_DEADLINE_MS_MAX + 1;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    segment(&sample, 0)->n_inputs = DJ_EXEC_BINDINGS_MAX + 1;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    segment(&sample, 0)->n_outputs = UINT32_MAX;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    segment(&sample, 1)->n_scalars = DJ_PROGRAM_SCALARS_MAX + 1;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    segment(&sample, 0)->structure_bytes = DJ_PROGRAM_BYTES_MAX + 1;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    segment(&sample, 0)->sizes_bytes = UINT32_MAX;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    ((dj_fetch_t *)(sample.payload + sample.fetches_at))->bytes = UINT64_MAX;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
    make(&sample);
    ((dj_fetch_t *)(sample.payload + sample.fetches_at))->offset = DJ_TENSOR_BYTES_MAX + 1;
    assert_int_equal(decode(&sample), DJ_ERR_LIMIT);
}

static void test_refuses_counts_that_the_payload_cannot_hold(void **state)
{
    sample_t sample;
    make(&sample);
    sample.exec.n_segments = DJ_EXEC_SEGMENTS_MAX;
    assert_int_not_equal(decode(&sample), DJ_OK);
    make(&sample);
    sample.exec.n_releases = DJ_EXEC_RELEASES_MAX;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    make(&sample);
    sample.exec.n_fetches = DJ_EXEC_FETCHES_MAX;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    make(&sample);
    segment(&sample, 0)->n_inputs = DJ_EXEC_BINDINGS_MAX;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    make(&sample);
    segment(&sample, 0)->structure_bytes = DJ_PROGRAM_BYTES_MAX;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    make(&sample);
    segment(&sample, 0)->sizes_bytes = DJ_PROGRAM_BYTES_MAX;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
}

static void test_refuses_more_segments_than_room(void **state)
{
    sample_t sample;
    dj_exec_segment_t one;
    dj_exec_body_t body;
    make(&sample);
    assert_int_equal(dj_exec_decode(&sample.exec, sample.payload, sample.bytes, &one, 1, &body),
                     DJ_ERR_LIMIT);
}

static void test_refuses_flags_that_do_not_fit(void **state)
{
    sample_t sample;
    make(&sample);
    sample.exec.flags = 1u << 31;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    make(&sample);
    sample.exec.flags = DJ_EXEC_QUIET; /* but it has segments */
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    for (uint32_t flags = 0; flags < 16; ++flags) {
        make(&sample);
        segment(&sample, 0)->flags = flags;
        bool right = flags == (DJ_SEGMENT_STRUCTURE | DJ_SEGMENT_SIZES);
        assert_int_equal(decode(&sample), right ? DJ_OK : DJ_ERR_PROTOCOL);
        make(&sample);
        segment(&sample, 1)->flags = flags;
        right = flags == 0 || flags == DJ_SEGMENT_SIZES;
        assert_int_equal(decode(&sample), right ? DJ_OK : DJ_ERR_PROTOCOL);
    }
}

static void test_refuses_null_refs(void **state)
{
    sample_t sample;
    make(&sample);
    memset(sample.payload, 0, 8); /* a release */
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    make(&sample);
    ((dj_binding_t *)(sample.payload + sample.inputs_at))->ref = 0;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    make(&sample);
    ((dj_fetch_t *)(sample.payload + sample.fetches_at))->ref = 0;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
}

static void test_refuses_immediate_bytes_outside(void **state)
{
    static const uint64_t lies[][2] = {{101, 0},
                                       {0, 101},
                                       {1, 100},
                                       {100, 1},
                                       {UINT64_MAX - 1, 4},
                                       {4, UINT64_MAX},
                                       {1ull << 63, 1ull << 63}};
    sample_t sample;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); ++i) {
        make(&sample);
        dj_binding_t *input = (dj_binding_t *)(sample.payload + sample.inputs_at) + 1;
        input->offset = lies[i][0];
        input->bytes = lies[i][1];
        assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    }
}

static void test_refuses_a_wrong_data_region(void **state)
{
    static const int64_t shifts[] = {-64, 64, 1, -1, 8, 1 << 20};
    sample_t sample;
    for (size_t i = 0; i < sizeof(shifts) / sizeof(shifts[0]); ++i) {
        make(&sample);
        sample.exec.data_offset += (uint64_t)shifts[i];
        assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
        make(&sample);
        sample.exec.data_bytes += (uint64_t)shifts[i];
        assert_int_not_equal(decode(&sample), DJ_OK);
    }
    make(&sample);
    sample.exec.data_offset = UINT64_MAX - 63;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
    make(&sample); /* hidden bytes between the parts and the data region */
    sample.exec.data_offset += 64;
    sample.bytes += 64;
    assert_int_equal(decode(&sample), DJ_ERR_PROTOCOL);
}

/* Whatever is damaged: a status, or pointers inside the payload. */
static void test_survives_random_damage(void **state)
{
    uint64_t seed = 1234567;
    sample_t sample;
    dj_exec_segment_t segments[8];
    for (int round = 0; round < 200000; ++round) {
        dj_exec_body_t body = {0};
        make(&sample);
        for (int hit = 0; hit < 3; ++hit) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            uint8_t *target = (seed >> 60) < 3 ? (uint8_t *)&sample.exec : sample.payload;
            size_t range = (seed >> 60) < 3 ? sizeof(sample.exec) : sample.exec.data_offset;
            if (range > 0 && range <= sizeof(sample.payload))
                target[(seed >> 20) % range] = (uint8_t)(seed >> 52);
        }
        if (dj_exec_decode(&sample.exec, sample.payload, sample.bytes, segments, 8, &body) != DJ_OK)
            continue;
        const uint8_t *end = sample.payload + sample.bytes;
        assert_true((const uint8_t *)(body.fetches + sample.exec.n_fetches) <= end);
        for (uint32_t i = 0; i < sample.exec.n_segments; ++i) {
            assert_true((const uint8_t *)(segments[i].inputs + segments[i].header.n_inputs) <= end);
            assert_true(segments[i].structure + segments[i].header.structure_bytes <= end);
        }
    }
}

static void test_decodes_what_is_right(void **state)
{
    sample_t sample;
    dj_exec_segment_t segments[2];
    dj_exec_body_t body;
    make(&sample);
    assert_int_equal(dj_exec_decode(&sample.exec, sample.payload, sample.bytes, segments, 2, &body),
                     DJ_OK);
    assert_int_equal(body.releases[1], 12);
    assert_int_equal(segments[0].inputs[0].ref, 41);
    assert_int_equal(segments[0].inputs[1].bytes, 90);
    assert_int_equal(segments[0].outputs[2], 22);
    assert_int_equal(segments[0].scalars[1], 32);
    assert_memory_equal(segments[0].sizes, "SIZES", 5);
    assert_memory_equal(segments[0].structure, "the structure", 13);
    assert_int_equal(segments[1].header.structure_bytes, 0);
    assert_int_equal(segments[1].scalars[0], 31);
    assert_int_equal(body.fetches[1].ref, 52);
    assert_int_equal(body.data[99], 'd');
}

static void test_decodes_a_null_request(void **state)
{
    dj_exec_t exec = {0};
    dj_exec_body_t body;
    assert_int_equal(dj_exec_decode(&exec, NULL, 0, NULL, 0, &body), DJ_OK);
    assert_null(body.data);
    exec.n_releases = 1;
    exec.flags = DJ_EXEC_QUIET;
    uint64_t ref = 7;
    assert_int_equal(dj_exec_decode(&exec, &ref, sizeof(ref), NULL, 0, &body), DJ_OK);
    assert_int_equal(body.releases[0], 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_every_truncation),
        cmocka_unit_test(test_refuses_counts_over_their_limits),
        cmocka_unit_test(test_refuses_counts_that_the_payload_cannot_hold),
        cmocka_unit_test(test_refuses_more_segments_than_room),
        cmocka_unit_test(test_refuses_flags_that_do_not_fit),
        cmocka_unit_test(test_refuses_null_refs),
        cmocka_unit_test(test_refuses_immediate_bytes_outside),
        cmocka_unit_test(test_refuses_a_wrong_data_region),
        cmocka_unit_test(test_survives_random_damage),
        cmocka_unit_test(test_decodes_what_is_right),
        cmocka_unit_test(test_decodes_a_null_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
