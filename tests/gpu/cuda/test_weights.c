/* test_weights.c - what the weights of real models map on a GPU, and how many calls of the driver that takes: beside
 * each other on shelves, and each on pages of its own as on a device that shows no page twice. Shapes only: contents are
 * made up, and nothing is filled. */
#include "tests/gpu/cuda/table.h"

#include "gpu/text.h"
#include "runtime/base/clock.h"

#define PAGE (2ull << 20)
#define WEIGHTS_MAX 512u
#define BATCH_BYTES (256ull << 20) /* as the loader drafts them */

typedef struct model {
    const char *name;
    uint32_t n;
    uint64_t bytes, of[WEIGHTS_MAX];
} model_t;

static void put(model_t *model, uint64_t numbers)
{
    assert_true(model->n < WEIGHTS_MAX);
    model->of[model->n++] = 4 * numbers;
    model->bytes += 4 * numbers;
}

static void put_linear(model_t *model, uint64_t in, uint64_t out)
{
    put(model, in * out);
    put(model, out);
}

static void put_many(model_t *model, uint32_t n, uint64_t numbers)
{
    for (uint32_t i = 0; i < n; i++)
        put(model, numbers);
}

static void gpt2(model_t *model)
{
    const uint64_t width = 768;
    model->name = "GPT-2 124M";
    put(model, 50257 * width);
    put(model, 1024 * width);
    for (int layer = 0; layer < 12; layer++) {
        put_many(model, 2, width);
        put_linear(model, width, 3 * width);
        put_linear(model, width, width);
        put_many(model, 2, width);
        put_linear(model, width, 4 * width);
        put_linear(model, 4 * width, width);
    }
    put_many(model, 2, width);
    assert_int_equal(model->n, 148);
    assert_int_equal(model->bytes, 4 * 124439808ull);
}

static void minilm(model_t *model)
{
    const uint64_t width = 384;
    model->name = "MiniLM-L6";
    put(model, 30522 * width);
    put(model, 512 * width);
    put(model, 2 * width);
    put_many(model, 2, width);
    for (int layer = 0; layer < 6; layer++) {
        for (int i = 0; i < 4; i++)
            put_linear(model, width, width);
        put_many(model, 2, width);
        put_linear(model, width, 4 * width);
        put_linear(model, 4 * width, width);
        put_many(model, 2, width);
    }
    put_linear(model, width, width);
    assert_int_equal(model->n, 103);
    assert_int_equal(model->bytes, 4 * 22713216ull);
}

static void put_convolution(model_t *model, uint64_t in, uint64_t out, uint64_t side)
{
    put(model, out * in * side * side);
    put_many(model, 4, out); /* its norm: weight, bias, mean and variance */
}

static void resnet50(model_t *model)
{
    const int blocks[] = {3, 4, 6, 3};
    uint64_t in = 64;
    model->name = "ResNet-50";
    put_convolution(model, 3, 64, 7);
    for (uint64_t stage = 0, width = 64; stage < 4; stage++, width *= 2) {
        for (int block = 0; block < blocks[stage]; block++, in = 4 * width) {
            put_convolution(model, in, width, 1);
            put_convolution(model, width, width, 3);
            put_convolution(model, width, 4 * width, 1);
            if (block == 0)
                put_convolution(model, in, 4 * width, 1);
        }
    }
    put_linear(model, 2048, 1000);
    assert_int_equal(model->n, 267);
    assert_int_equal(model->bytes, 4 * (25557032ull + 53120));
}

/* ---- loading ---- */

static dj_device_ops_t bent;

static dj_device_t *open_device(bool shelves)
{
    dj_device_t *device = table_open();
    bent = *device->ops;
    if (!shelves)
        bent.memory.mirror = NULL;
    device->ops = &bent;
    return device;
}

static void publish_all(dj_text_store_t *store, dj_text_t **texts, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        dj_hash_t content = {{i + 1, 7}};
        TABLE_OK(dj_text_publish_as(store, texts[i], content, 1, &texts[i]));
    }
}

static void load(dj_text_store_t *store, const model_t *model, uint64_t batch_bytes, dj_text_t **texts)
{
    uint64_t drafted = 0;
    uint32_t published = 0;
    for (uint32_t i = 0; i < model->n; i++) {
        TABLE_OK(dj_text_draft(store, model->of[i], &texts[i]));
        drafted += model->of[i];
        if (drafted < batch_bytes)
            continue;
        publish_all(store, texts, published, i + 1);
        published = i + 1;
        drafted = 0;
    }
    publish_all(store, texts, published, model->n);
}

typedef struct figures {
    uint64_t mapped_bytes, load_calls, drop_calls, load_ns;
} figures_t;

static figures_t measure(const model_t *model, bool shelves, uint64_t batch_bytes)
{
    dj_text_t *texts[WEIGHTS_MAX];
    dj_device_t *device = open_device(shelves);
    dj_text_store_t *store = NULL;
    dj_text_counters_t text;
    dj_cuda_memory_counters_t memory;
    TABLE_OK(dj_text_store_create(device, 16ull << 30, &store));
    uint64_t used = table_counters().used_bytes, calls = table_counters().entered, begin_ns = dj_clock_ns();
    load(store, model, batch_bytes, texts);
    figures_t figures = {.load_calls = table_counters().entered - calls, .load_ns = dj_clock_ns() - begin_ns};
    dj_text_counters(store, &text);
    dj_cuda_memory_counters(device, &memory);
    assert_int_equal(text.bytes, model->bytes);
    assert_int_equal(text.mapped_bytes, memory.mapped_bytes);
    assert_int_equal(table_counters().used_bytes - used, memory.mapped_bytes);
    figures.mapped_bytes = text.mapped_bytes;
    calls = table_counters().entered;
    for (uint32_t i = 0; i < model->n; i++)
        dj_text_release(store, texts[i]);
    dj_text_sweep(store, 0);
    figures.drop_calls = table_counters().entered - calls;
    dj_cuda_memory_counters(device, &memory);
    assert_int_equal(memory.mapped_bytes + memory.reserved_bytes + memory.ranges, 0);
    assert_int_equal(table_counters().used_bytes, used);
    dj_text_store_destroy(store);
    dj_device_close(device);
    return figures;
}

static void print_figures(const char *what, const figures_t *figures)
{
    print_message("  %-12s %6.1f MiB mapped, %5llu calls to load, %5llu to drop, %6.1f ms\n", what,
                  (double)figures->mapped_bytes / (1 << 20), (unsigned long long)figures->load_calls,
                  (unsigned long long)figures->drop_calls, (double)figures->load_ns / 1e6);
}

static void a_model_maps_little_more_than_it_has(void **state)
{
    void (*const models[])(model_t *) = {gpt2, minilm, resnet50};
    for (int i = 0; i < 3; i++) {
        model_t model = {0};
        models[i](&model);
        figures_t alone = measure(&model, false, BATCH_BYTES), shared = measure(&model, true, BATCH_BYTES);
        figures_t singly = measure(&model, true, 0); /* as a client pushes them: each is published before the next */
        print_message("%s: %u tensors, %.1f MiB\n", model.name, model.n, (double)model.bytes / (1 << 20));
        print_figures("pages alone", &alone);
        print_figures("shelves", &shared);
        print_figures("  one by one", &singly);
        assert_int_equal(shared.mapped_bytes, singly.mapped_bytes);
        assert_true(singly.load_calls < alone.load_calls);
        assert_true(shared.mapped_bytes < model.bytes + model.bytes / 32 + 2 * PAGE);
        assert_true(2 * shared.load_calls < alone.load_calls);
        assert_true(2 * shared.drop_calls < alone.drop_calls);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(a_model_maps_little_more_than_it_has, table_restore)};
    setenv("DJ_SIM_MEMORY", "2g", 1);
    if (!table_load())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
