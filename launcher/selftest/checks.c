/* checks.c - connection, transfers, sharing, growth, errors, several workers, figures. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "launcher/selftest/selftest.h"

enum { MIB = 1 << 20, LARGE_BYTES = 32 * MIB, RELAY_BYTES = 3 * MIB + 5, LOOPS = 400, STEPS = 48 };
enum { PRODUCTS_MAX = 2560 };

double dj_selftest_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

dj_verdict_t dj_found(dj_selftest_t *self, dj_verdict_t verdict, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(self->text, sizeof self->text, format, arguments);
    va_end(arguments);
    return verdict;
}

dj_verdict_t dj_found_error(dj_selftest_t *self, const char *tried)
{
    return dj_found(self, DJ_CHECK_FAIL, "%s: %.400s", tried, djinn_error());
}

/* ---- bytes that are known ---- */

static void fill(uint8_t *bytes, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(seed >> 24);
    }
}

/* The first byte that differs; `count`: none. */
static size_t differs_at(const uint8_t *a, const uint8_t *b, size_t count)
{
    size_t at = 0;
    while (at < count && a[at] == b[at])
        at++;
    return at;
}

static dj_verdict_t compare(dj_selftest_t *self, const char *what, const uint8_t *got,
                            const uint8_t *want, size_t count)
{
    size_t at = differs_at(got, want, count);
    if (at == count)
        return DJ_CHECK_OK;
    return dj_found(self, DJ_CHECK_FAIL, "%s: byte %zu of %zu came back as %02x, not %02x", what,
                    at, count, got[at], want[at]);
}

static djinn_arg_t of_tensor(const djinn_tensor_t *tensor)
{
    return (djinn_arg_t){.kind = DJINN_ARG_TENSOR, .value.tensors = tensor};
}

/* `count` bytes up and down again. */
static dj_verdict_t there_and_back(dj_selftest_t *self, djinn_t *djinn, size_t count)
{
    uint8_t *up = malloc(2 * count + 1), *down = up ? up + count : NULL;
    int64_t size = (int64_t)count;
    djinn_tensor_t tensor = {0};
    if (!up)
        return dj_found(self, DJ_CHECK_FAIL, "no memory for %zu bytes", 2 * count);
    fill(up, count, (uint32_t)count);
    memset(down, 0x5a, count);
    dj_verdict_t verdict = DJ_CHECK_OK;
    if (djinn_upload(djinn, DJINN_UINT8, 1, &size, up, 0, &tensor) != DJINN_OK)
        verdict = dj_found_error(self, "upload");
    else if (djinn_fetch(djinn, &tensor, down, count) != DJINN_OK)
        verdict = dj_found_error(self, "fetch");
    else
        verdict = compare(self, "there and back", down, up, count);
    djinn_release(tensor.storage);
    free(up);
    return verdict;
}

/* ---- what the server says of itself ---- */

static json_t *describe(dj_selftest_t *self)
{
    char *text = NULL;
    if (djinn_info(&self->server, &text) != DJINN_OK) {
        dj_found_error(self, "the server does not describe itself");
        return NULL;
    }
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    if (!json_is_array(json_object_get(root, "ranks"))) {
        dj_found(self, DJ_CHECK_FAIL, "the server's description of itself is no list of ranks");
        json_decref(root);
        return NULL;
    }
    return root;
}

static bool is_text(const json_t *row, const char *name, const char *text)
{
    const char *found = json_string_value(json_object_get(row, name));
    return found && strcmp(found, text) == 0;
}

/* Devices call themselves by their makers' names. A GPU is known by what it says of itself. */
static bool is_of(const json_t *row, const char *device)
{
    const char *name = json_string_value(json_object_get(row, "device"));
    if (strcmp(device, "cuda") == 0)
        return json_object_get(row, "gpu_memory_total_bytes") != NULL;
    return name && strncmp(name, device, strlen(device)) == 0;
}

int dj_selftest_workers(dj_selftest_t *self, const char *device, int *ranks, int room)
{
    json_t *root = describe(self), *row;
    size_t at;
    int n = 0;
    if (!root)
        return -1;
    json_array_foreach(json_object_get(root, "ranks"), at, row)
    {
        bool fits = !device || is_of(row, device);
        bool serves = is_text(row, "state", "serving") && !is_text(row, "role", "coordinator");
        if (fits && serves && n < room)
            ranks[n++] = (int)json_integer_value(json_object_get(row, "rank"));
    }
    json_decref(root);
    return n;
}

uint64_t dj_selftest_number(dj_selftest_t *self, int rank, const char *name)
{
    uint64_t number = UINT64_MAX;
    json_t *root = describe(self), *row;
    size_t at;
    json_array_foreach(json_object_get(root, "ranks"), at, row)
    {
        const json_t *value = json_object_get(row, name);
        if (json_integer_value(json_object_get(row, "rank")) == rank && json_is_integer(value))
            number = (uint64_t)json_integer_value(value);
    }
    json_decref(root);
    return number;
}

/* A further connection; NULL and the text set. */
static djinn_t *connect_again(dj_selftest_t *self, uint32_t flags, int rank)
{
    djinn_options_t options = self->server;
    djinn_t *djinn = NULL;
    options.flags |= flags;
    options.rank = rank;
    if (djinn_connect(&options, &djinn) != DJINN_OK)
        dj_found_error(self, "a further connection");
    return djinn;
}

/* ---- the checks ---- */

static dj_verdict_t check_connect(dj_selftest_t *self, const dj_check_t *check)
{
    if (!self->djinn)
        return DJ_CHECK_FAIL; /* the text is why not */
    return dj_found(self, DJ_CHECK_OK, "rank %d by %s", djinn_rank(self->djinn),
                    djinn_path(self->djinn));
}

static dj_verdict_t check_round_trip(dj_selftest_t *self, const dj_check_t *check)
{
    static const size_t sizes[] = {1, 7, 64, 1000, 4096, 65537, MIB, 8 * MIB + 3, LARGE_BYTES};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (there_and_back(self, self->djinn, sizes[i]) != DJ_CHECK_OK)
            return DJ_CHECK_FAIL;
    return dj_found(self, DJ_CHECK_OK, "1 byte to 32 MiB, every byte the same");
}

static dj_verdict_t check_put(dj_selftest_t *self, const dj_check_t *check)
{
    enum { ROWS = 64, COLUMNS = 4096, BYTES = ROWS * COLUMNS };
    uint8_t *bytes = malloc(3 * BYTES), *want = bytes + BYTES, *down = bytes + 2 * BYTES;
    djinn_tensor_t whole = {0}, window;
    dj_verdict_t verdict = DJ_CHECK_OK;
    if (!bytes)
        return dj_found(self, DJ_CHECK_FAIL, "no memory");
    fill(want, BYTES, 1);
    fill(bytes, BYTES, 2);
    memcpy(want + 5 * COLUMNS, bytes, 7 * COLUMNS);
    fill(down, BYTES, 1);
    djinn_status_t status =
        djinn_upload(self->djinn, DJINN_UINT8, 2, (int64_t[]){ROWS, COLUMNS}, down, 0, &whole);
    window = whole;
    window.sizes[0] = 7;
    window.offset += 5 * COLUMNS;
    if (status == DJINN_OK)
        status = djinn_put(self->djinn, &window, bytes, 7 * COLUMNS, NULL);
    memset(down, 0, BYTES);
    if (status == DJINN_OK)
        status = djinn_fetch(self->djinn, &whole, down, BYTES);
    if (status != DJINN_OK)
        verdict = dj_found_error(self, "put");
    else if (compare(self, "put", down, want, BYTES) != DJ_CHECK_OK)
        verdict = DJ_CHECK_FAIL;
    else
        dj_found(self, DJ_CHECK_OK, "rows 5 to 11 of 64 written over, the others kept");
    djinn_release(whole.storage);
    free(bytes);
    return verdict;
}

/* A view is a window on a storage: the rank reads it turned. */
static dj_verdict_t check_view(dj_selftest_t *self, const dj_check_t *check)
{
    enum { ROWS = 37, COLUMNS = 53 };
    uint8_t up[ROWS * COLUMNS], want[ROWS * COLUMNS], down[ROWS * COLUMNS];
    djinn_tensor_t tensor;
    fill(up, sizeof up, 3);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++)
            want[j * ROWS + i] = up[i * COLUMNS + j];
    if (djinn_upload(self->djinn, DJINN_UINT8, 2, (int64_t[]){ROWS, COLUMNS}, up, 0, &tensor))
        return dj_found_error(self, "upload");
    djinn_tensor_t turned = tensor;
    turned.sizes[0] = COLUMNS, turned.sizes[1] = ROWS;
    turned.strides[0] = 1, turned.strides[1] = COLUMNS;
    djinn_status_t status = djinn_fetch(self->djinn, &turned, down, sizeof down);
    djinn_release(tensor.storage);
    if (status != DJINN_OK)
        return dj_found_error(self, "fetch of a view");
    if (compare(self, "a transposed view", down, want, sizeof down) != DJ_CHECK_OK)
        return DJ_CHECK_FAIL;
    return dj_found(self, DJ_CHECK_OK, "a transposed view, without a copy of its own");
}

/* A cache of keys: a row behind the others at each step. */
static dj_verdict_t check_grow(dj_selftest_t *self, const dj_check_t *check)
{
    enum { WIDTH = 96 };
    uint8_t rows[STEPS][WIDTH], down[STEPS][WIDTH];
    djinn_tensor_t all = {0};
    djinn_status_t status = DJINN_OK;
    fill(rows[0], sizeof rows, 4);
    for (int step = 0; step < STEPS && status == DJINN_OK; step++) {
        djinn_tensor_t parts[2] = {all}, joined;
        status = djinn_upload(self->djinn, DJINN_UINT8, 2, (int64_t[]){1, WIDTH}, rows[step], 0,
                              &parts[1]);
        if (status == DJINN_OK && step > 0) {
            djinn_arg_t args[] = {{.kind = DJINN_ARG_TENSORS, .count = 2, .value.tensors = parts},
                                  {.kind = DJINN_ARG_INT, .value.integer = 0}};
            status = djinn_record(self->djinn, djinn_op("aten::cat"), args, 2, &joined);
            djinn_release(parts[1].storage);
        } else {
            joined = parts[1];
        }
        if (status == DJINN_OK) {
            djinn_release(all.storage);
            all = joined;
            status = djinn_flush(self->djinn);
        }
    }
    if (status == DJINN_OK)
        status = djinn_fetch(self->djinn, &all, down, sizeof down);
    djinn_release(all.storage);
    if (status != DJINN_OK)
        return dj_found_error(self, "a growing tensor");
    if (compare(self, "a growing tensor", down[0], rows[0], sizeof down) != DJ_CHECK_OK)
        return DJ_CHECK_FAIL;
    return dj_found(self, DJ_CHECK_OK, "%d steps, a row more at each", STEPS);
}

/* Waits up to two seconds until the rank's number has passed `before`. */
static bool has_risen(dj_selftest_t *self, int rank, const char *name, uint64_t before)
{
    double end = dj_selftest_now_ms() + 2000;
    for (;;) {
        uint64_t now = dj_selftest_number(self, rank, name);
        if (now != UINT64_MAX && now > before)
            return true;
        if (dj_selftest_now_ms() > end)
            return false;
        poll(NULL, 0, 10);
    }
}

static djinn_status_t upload_weight(djinn_t *djinn, const uint8_t *bytes, int64_t count,
                                    djinn_tensor_t *tensor, uint8_t *down)
{
    djinn_status_t status =
        djinn_upload(djinn, DJINN_UINT8, 1, &count, bytes, DJINN_UPLOAD_WEIGHT, tensor);
    return status == DJINN_OK ? djinn_fetch(djinn, tensor, down, (uint64_t)count) : status;
}

static dj_verdict_t share(dj_selftest_t *self, djinn_t *other, uint8_t *bytes, int64_t count)
{
    int rank = djinn_rank(self->djinn);
    djinn_tensor_t ours = {0}, theirs = {0};
    dj_verdict_t verdict = DJ_CHECK_FAIL;
    uint64_t before = dj_selftest_number(self, rank, "text_shared");
    fill(bytes, (size_t)count, (uint32_t)getpid() ^ (uint32_t)time(NULL)); /* nobody else has it */
    djinn_status_t status = upload_weight(self->djinn, bytes, count, &ours, bytes + count);
    if (status == DJINN_OK)
        status = upload_weight(other, bytes, count, &theirs, bytes + count);
    if (status != DJINN_OK)
        verdict = dj_found_error(self, "a weight");
    else if (compare(self, "a shared weight", bytes + count, bytes, (size_t)count) == DJ_CHECK_OK)
        verdict = has_risen(self, rank, "text_shared", before)
                      ? dj_found(self, DJ_CHECK_OK, "two sessions, one copy on rank %d", rank)
                      : dj_found(self, DJ_CHECK_FAIL,
                                 "rank %d holds the weight of two sessions twice", rank);
    djinn_release(ours.storage);
    djinn_release(theirs.storage);
    return verdict;
}

static dj_verdict_t check_share(dj_selftest_t *self, const dj_check_t *check)
{
    int64_t count = MIB;
    djinn_t *other = connect_again(self, DJINN_CONNECT_RANK, djinn_rank(self->djinn));
    uint8_t *bytes = malloc(2 * MIB);
    dj_verdict_t verdict = DJ_CHECK_FAIL;
    if (!bytes)
        verdict = dj_found(self, DJ_CHECK_FAIL, "no memory");
    else if (other)
        verdict = share(self, other, bytes, count);
    djinn_close(other);
    free(bytes);
    return verdict;
}

static dj_verdict_t check_refusal(dj_selftest_t *self, const dj_check_t *check)
{
    djinn_tensor_t tensor, out;
    float values[12] = {0};
    if (djinn_upload(self->djinn, DJINN_FLOAT32, 2, (int64_t[]){3, 4}, values, 0, &tensor))
        return dj_found_error(self, "upload");
    djinn_arg_t args[] = {of_tensor(&tensor), of_tensor(&tensor)};
    djinn_status_t status = djinn_record(self->djinn, djinn_op("aten::mm"), args, 2, &out);
    djinn_release(tensor.storage);
    if (status != DJINN_ERR_SHAPE)
        return dj_found(self, DJ_CHECK_FAIL, "3 x 4 by 3 x 4 ended with %s, not ERR_SHAPE",
                        djinn_status_name(status));
    status = djinn_load(self->djinn, "/djinn/selftest/no such file", "x", &tensor);
    if (status == DJINN_OK)
        status = djinn_synchronize(self->djinn);
    if (status != DJINN_ERR_FILE)
        return dj_found(self, DJ_CHECK_FAIL, "a file that is not there ended with %s, not ERR_FILE",
                        djinn_status_name(status));
    return dj_found(self, DJ_CHECK_OK, "a wrong shape and a missing file are told as such");
}

/* Products in a row, each of the last one and a projection, so that no value leaves its range. */
static djinn_status_t run_long(djinn_t *djinn, int side, int products)
{
    float one;
    djinn_arg_t full[] = {
        {.kind = DJINN_ARG_INTS, .count = 2, .value.integers = (int64_t[]){side, side}},
        {.kind = DJINN_ARG_REAL_SCALAR, .value.real = 1.0 / side},
        {.kind = DJINN_ARG_INT, .value.integer = DJINN_FLOAT32}};
    djinn_tensor_t square, out, next;
    djinn_status_t status = djinn_record(djinn, djinn_op("djinn::full"), full, 3, &square);
    if (status != DJINN_OK)
        return status;
    out = square;
    djinn_retain(out.storage);
    for (int i = 0; i < products && status == DJINN_OK; i++) {
        djinn_arg_t args[] = {of_tensor(&out), of_tensor(&square)};
        status = djinn_record(djinn, djinn_op("aten::mm"), args, 2, &next);
        if (status == DJINN_OK) {
            djinn_release(out.storage);
            out = next;
        }
    }
    djinn_tensor_t corner = out;
    corner.rank = 1, corner.sizes[0] = 1, corner.strides[0] = 1;
    if (status == DJINN_OK)
        status = djinn_fetch(djinn, &corner, &one, sizeof one);
    djinn_release(square.storage);
    djinn_release(out.storage);
    return status;
}

/* What takes a few deadlines on this device: a fast one must have work enough, and a slow one (a simulated GPU) is not
 * to be held long after the deadline, as nothing ends a product that has begun. */
typedef struct work {
    int side, products;
} work_t;

/* Of one product, once it has been planned. */
static djinn_status_t time_product(djinn_t *djinn, int side, double *took_ms_p)
{
    double began = 0;
    djinn_status_t status = DJINN_OK;
    for (int i = 0; i < 2 && status == DJINN_OK; i++) {
        began = dj_selftest_now_ms();
        status = run_long(djinn, side, 1);
    }
    *took_ms_p = dj_selftest_now_ms() - began;
    return status;
}

static djinn_status_t choose_work(djinn_t *djinn, double deadline_ms, work_t *work)
{
    enum { SMALL = 256, LARGE = 1024, SLOW_MS = 5 };
    double took;
    work->side = SMALL;
    djinn_status_t status = time_product(djinn, work->side, &took);
    if (status == DJINN_OK && took < SLOW_MS) {
        work->side = LARGE;
        status = time_product(djinn, work->side, &took);
    }
    double wanted = 4 * deadline_ms / took;
    work->products = wanted < 1 ? 1 : wanted > PRODUCTS_MAX ? PRODUCTS_MAX : (int)wanted;
    return status;
}

/* More and more work, until even a fast device cannot do it in time. */
static dj_verdict_t check_deadline(dj_selftest_t *self, const dj_check_t *check)
{
    enum { DEADLINE_MS = 30, LATE_MS = 2000 };
    djinn_options_t options = self->server;
    djinn_t *hurried;
    double took = 0;
    work_t work;
    int tried = 0;
    djinn_status_t status = choose_work(self->djinn, DEADLINE_MS, &work);
    if (status != DJINN_OK)
        return dj_found_error(self, "a product of matrices");
    options.deadline_ms = DEADLINE_MS;
    if (djinn_connect(&options, &hurried) != DJINN_OK)
        return dj_found_error(self, "a further connection");
    while (status == DJINN_OK && tried < PRODUCTS_MAX) {
        double began = dj_selftest_now_ms();
        tried = work.products < PRODUCTS_MAX ? work.products : PRODUCTS_MAX;
        status = run_long(hurried, work.side, tried);
        took = dj_selftest_now_ms() - began;
        work.products *= 4;
    }
    djinn_close(hurried);
    if (status == DJINN_OK)
        return dj_found(self, DJ_CHECK_SKIPPED, "%d products of %d x %d took only %.1f ms", tried, work.side,
                        work.side, took);
    if (status != DJINN_ERR_DEADLINE)
        return dj_found(self, DJ_CHECK_FAIL,
                        "a request beyond its %d ms ended with %s, not "
                        "ERR_DEADLINE",
                        DEADLINE_MS, djinn_status_name(status));
    if (took > LATE_MS)
        return dj_found(self, DJ_CHECK_FAIL, "a deadline of %d ms was told after %.0f ms",
                        DEADLINE_MS, took);
    if (run_long(self->djinn, work.side, 1) != DJINN_OK) /* nothing is left behind: the device is free again */
        return dj_found_error(self, "a product after the late ones");
    return dj_found(self, DJ_CHECK_OK, "a deadline of %d ms, shorter than %d products of %d x %d take, was told after %.1f ms",
                    DEADLINE_MS, tried, work.side, work.side, took);
}

/* Another way to the rank: one port alone, tcp, checksums. */
static dj_verdict_t other_way(dj_selftest_t *self, djinn_t *djinn, const char *path)
{
    char taken[200];
    if (!djinn)
        return DJ_CHECK_FAIL;
    snprintf(taken, sizeof taken, "%s", djinn_path(djinn));
    dj_verdict_t verdict = there_and_back(self, djinn, RELAY_BYTES);
    djinn_close(djinn);
    if (verdict != DJ_CHECK_OK)
        return verdict;
    if (strncmp(taken, path, strlen(path)) != 0)
        return dj_found(self, DJ_CHECK_FAIL, "%s was asked for, but the way is %s", path, taken);
    return dj_found(self, DJ_CHECK_OK, "3 MiB there and back: %s", taken);
}

static dj_verdict_t check_relay(dj_selftest_t *self, const dj_check_t *check)
{
    return other_way(self, connect_again(self, DJINN_CONNECT_RELAY, 0), "relay");
}

static dj_verdict_t check_tcp(dj_selftest_t *self, const dj_check_t *check)
{
    djinn_options_t options = self->server;
    djinn_t *djinn = NULL;
    if (access("/sys/class/net", R_OK) != 0)
        return dj_found(self, DJ_CHECK_SKIPPED, "no /sys is mounted here, where UCX looks for tcp");
    options.mode = "remote";
    if (djinn_connect(&options, &djinn) != DJINN_OK)
        return dj_found_error(self, "a connection by tcp");
    return other_way(self, djinn, "tcp");
}

static dj_verdict_t check_checksums(dj_selftest_t *self, const dj_check_t *check)
{
    return other_way(self, connect_again(self, DJINN_CONNECT_CHECKSUM, 0), "");
}

static dj_verdict_t check_workers(dj_selftest_t *self, const dj_check_t *check)
{
    static int ranks[DJ_SELFTEST_RANKS_MAX];
    int n = dj_selftest_workers(self, NULL, ranks, DJ_SELFTEST_RANKS_MAX);
    if (n < 0)
        return DJ_CHECK_FAIL;
    if (n == 1)
        return dj_found(self, DJ_CHECK_SKIPPED, "one rank serves; djinn-run -n 3 has two");
    for (int i = 0; i < n; i++) {
        djinn_t *djinn = connect_again(self, DJINN_CONNECT_RANK, ranks[i]);
        if (!djinn)
            return DJ_CHECK_FAIL;
        int reached = djinn_rank(djinn);
        dj_verdict_t verdict = there_and_back(self, djinn, 10000);
        djinn_close(djinn);
        if (verdict != DJ_CHECK_OK)
            return verdict;
        if (reached != ranks[i])
            return dj_found(self, DJ_CHECK_FAIL, "rank %d was asked for, rank %d answered",
                            ranks[i], reached);
    }
    return dj_found(self, DJ_CHECK_OK, "%d ranks serve, each was reached", n);
}

static dj_verdict_t move(dj_selftest_t *self, djinn_t *from, djinn_t *to)
{
    enum { BYTES = 2 * MIB + 9 };
    int64_t size = BYTES;
    uint8_t *up = malloc(2 * BYTES);
    djinn_tensor_t source = {0}, target = {0};
    if (!up)
        return dj_found(self, DJ_CHECK_FAIL, "no memory");
    fill(up, BYTES, 6);
    djinn_status_t status = djinn_upload(from, DJINN_UINT8, 1, &size, up, 0, &source);
    if (status == DJINN_OK)
        status = djinn_move(to, &source, &target);
    if (status == DJINN_OK)
        status = djinn_fetch(to, &target, up + BYTES, BYTES);
    dj_verdict_t verdict = status == DJINN_OK ? compare(self, "a move", up + BYTES, up, BYTES)
                                              : dj_found_error(self, "a move");
    if (verdict == DJ_CHECK_OK)
        dj_found(self, DJ_CHECK_OK, "2 MiB from rank %d to rank %d", djinn_rank(from),
                 djinn_rank(to));
    djinn_release(source.storage);
    djinn_release(target.storage);
    free(up);
    return verdict;
}

static dj_verdict_t check_move(dj_selftest_t *self, const dj_check_t *check)
{
    int ranks[2], n = dj_selftest_workers(self, NULL, ranks, 2);
    if (n < 2)
        return n < 0 ? DJ_CHECK_FAIL : dj_found(self, DJ_CHECK_SKIPPED, "one rank serves");
    djinn_t *from = connect_again(self, DJINN_CONNECT_RANK, ranks[0]);
    djinn_t *to = from ? connect_again(self, DJINN_CONNECT_RANK, ranks[1]) : NULL;
    dj_verdict_t verdict = to ? move(self, from, to) : DJ_CHECK_FAIL;
    djinn_close(to);
    djinn_close(from);
    return verdict;
}

/* ---- figures ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static dj_verdict_t check_latency(dj_selftest_t *self, const dj_check_t *check)
{
    double times[LOOPS];
    uint8_t bytes[8], down[8];
    djinn_tensor_t tensor;
    fill(bytes, sizeof bytes, 7);
    if (djinn_upload(self->djinn, DJINN_UINT8, 1, (int64_t[]){8}, bytes, 0, &tensor) != DJINN_OK)
        return dj_found_error(self, "upload");
    for (int i = 0; i < LOOPS; i++) {
        double began = dj_selftest_now_ms();
        if (djinn_fetch(self->djinn, &tensor, down, sizeof down) != DJINN_OK) {
            djinn_release(tensor.storage);
            return dj_found_error(self, "fetch");
        }
        times[i] = dj_selftest_now_ms() - began;
    }
    djinn_release(tensor.storage);
    qsort(times, LOOPS, sizeof times[0], by_size);
    if (compare(self, "8 bytes", down, bytes, sizeof bytes) != DJ_CHECK_OK)
        return DJ_CHECK_FAIL;
    return dj_found(self, DJ_CHECK_OK, "8 bytes asked for and here: median %.1f us, 99%% %.1f us",
                    times[LOOPS / 2] * 1e3, times[LOOPS * 99 / 100] * 1e3);
}

static dj_verdict_t check_bandwidth(dj_selftest_t *self, const dj_check_t *check)
{
    enum { ROUNDS = 5 };
    double up_ms[ROUNDS], down_ms[ROUNDS];
    int64_t size = LARGE_BYTES;
    uint8_t *bytes = malloc(2 * LARGE_BYTES);
    djinn_tensor_t tensor = {0};
    djinn_status_t status = DJINN_OK;
    if (!bytes)
        return dj_found(self, DJ_CHECK_FAIL, "no memory");
    fill(bytes, LARGE_BYTES, 8);
    status = djinn_upload(self->djinn, DJINN_UINT8, 1, &size, NULL, 0, &tensor);
    for (int i = 0; i < ROUNDS && status == DJINN_OK; i++) {
        double began = dj_selftest_now_ms();
        status = djinn_put(self->djinn, &tensor, bytes, LARGE_BYTES, NULL);
        up_ms[i] = dj_selftest_now_ms() - began;
        if (status == DJINN_OK)
            status = djinn_fetch(self->djinn, &tensor, bytes + LARGE_BYTES, LARGE_BYTES);
        down_ms[i] = dj_selftest_now_ms() - began - up_ms[i];
    }
    djinn_release(tensor.storage);
    dj_verdict_t verdict = status == DJINN_OK
                               ? compare(self, "32 MiB", bytes + LARGE_BYTES, bytes, LARGE_BYTES)
                               : dj_found_error(self, "32 MiB");
    free(bytes);
    if (verdict != DJ_CHECK_OK)
        return verdict;
    qsort(up_ms, ROUNDS, sizeof up_ms[0], by_size);
    qsort(down_ms, ROUNDS, sizeof down_ms[0], by_size);
    return dj_found(self, DJ_CHECK_OK, "32 MiB: %.2f GB/s up, %.2f GB/s down",
                    LARGE_BYTES / up_ms[ROUNDS / 2] / 1e6, LARGE_BYTES / down_ms[ROUNDS / 2] / 1e6);
}

const dj_check_t dj_selftest_checks[] = {
    {"connect", NULL, "the server answers, and how bytes travel", check_connect, NULL},
    {"roundtrip", NULL, "bytes up and down again", check_round_trip, NULL},
    {"put", NULL, "writing over a part of a tensor", check_put, NULL},
    {"view", NULL, "reading a transposed view", check_view, NULL},
    {"tcp", NULL, "the same by tcp", check_tcp, NULL},
    {"relay", NULL, "the same through rank 0's one port", check_relay, NULL},
    {"checksums", NULL, "the same with a checksum on every message", check_checksums, NULL},
    {"grow", NULL, "a tensor that grows as a cache does", check_grow, NULL},
    {"share", NULL, "two sessions hold one copy of a weight", check_share, NULL},
    {"refusal", NULL, "errors have their type", check_refusal, NULL},
    {"deadline", NULL, "a deadline is told in time", check_deadline, NULL},
    {"workers", NULL, "every rank that serves", check_workers, NULL},
    {"move", NULL, "a tensor from rank to rank", check_move, NULL},
    {"latency", NULL, "how long a small answer takes", check_latency, NULL},
    {"bandwidth", NULL, "how fast large tensors travel", check_bandwidth, NULL},
};
const size_t dj_selftest_n_checks = sizeof dj_selftest_checks / sizeof dj_selftest_checks[0];
