/* copy.c - see copy.h. */
#include "gpu/host/copy.h"

#define TILE 512
#define BLOCK 16

#define MOVE_ITEMS(bytes, T)                                                                       \
    case bytes:                                                                                    \
        for (int64_t i = 0; i < n; i++)                                                            \
            *(T *)(target + i * target_stride) = *(const T *)(source + i * source_stride);         \
        break;

static void row_move(int64_t n, const char *source, int64_t source_stride, char *target,
                     int64_t target_stride, uint32_t item_bytes)
{
    switch (item_bytes) {
        MOVE_ITEMS(1, uint8_t)
        MOVE_ITEMS(2, uint16_t)
        MOVE_ITEMS(4, uint32_t)
        MOVE_ITEMS(8, uint64_t)
    }
}

static void row_convert(const dj_copy_t *copy, int64_t n, const char *source, char *target)
{
    uint32_t inner = copy->loop.rank - 1;
    int64_t source_stride = copy->loop.strides[0][inner];
    int64_t target_stride = copy->loop.strides[1][inner];
    uint64_t tile[TILE];
    if (!copy->load) {
        copy->store(n, source, target, target_stride);
        return;
    }
    for (int64_t done = 0; done < n; done += TILE) {
        int64_t part = dj_host_min(n - done, TILE);
        copy->load(part, source + done * source_stride, source_stride, tile);
        copy->store(part, tile, target + done * target_stride, target_stride);
    }
}

static void run_rows(const dj_copy_t *copy, void *const *bases, int64_t first, int64_t end)
{
    const dj_loop_t *loop = &copy->loop;
    uint32_t inner = loop->rank - 1;
    dj_walk_t walk;
    dj_walk_seek(loop, &walk, bases, first);
    while (first < end) {
        int64_t n = dj_host_min(dj_walk_row(loop, &walk), end - first);
        if (copy->mode == DJ_COPY_BYTES)
            memcpy(walk.at[1], walk.at[0], (size_t)n * copy->item_bytes);
        else if (copy->mode == DJ_COPY_ITEMS)
            row_move(n, walk.at[0], loop->strides[0][inner], walk.at[1], loop->strides[1][inner],
                     copy->item_bytes);
        else
            row_convert(copy, n, walk.at[0], walk.at[1]);
        first += n;
        if (first < end)
            dj_walk_advance(loop, &walk, n);
    }
}

/* One block column: BLOCK rows of the next to last dimension, the whole last dimension. */
static void run_block(const dj_copy_t *copy, char *source, char *target, int64_t rows)
{
    const dj_loop_t *loop = &copy->loop;
    uint32_t d = loop->rank - 1;
    int64_t from_row = loop->strides[0][d - 1], from = loop->strides[0][d];
    int64_t to_row = loop->strides[1][d - 1], to = loop->strides[1][d];
    for (int64_t column = 0; column < loop->sizes[d]; column += BLOCK) {
        int64_t n = dj_host_min(loop->sizes[d] - column, BLOCK);
        for (int64_t r = 0; r < rows; r++)
            row_move(n, source + r * from_row + column * from, from,
                     target + r * to_row + column * to, to, copy->item_bytes);
    }
}

static void run_blocks(const dj_copy_t *copy, void *const *bases, int64_t first, int64_t end)
{
    const dj_loop_t *loop = &copy->loop;
    uint32_t d = loop->rank - 1;
    int64_t per_matrix = (loop->sizes[d - 1] + BLOCK - 1) / BLOCK;
    for (int64_t block = first; block < end; block++) {
        int64_t matrix = block / per_matrix, row = block % per_matrix * BLOCK;
        dj_walk_t walk;
        dj_walk_seek(loop, &walk, bases, (matrix * loop->sizes[d - 1] + row) * loop->sizes[d]);
        run_block(copy, walk.at[0], walk.at[1], dj_host_min(loop->sizes[d - 1] - row, BLOCK));
    }
}

static int64_t units_count(const dj_copy_t *copy)
{
    const dj_loop_t *loop = &copy->loop;
    if (copy->mode != DJ_COPY_TRANSPOSE)
        return loop->count;
    int64_t rows = loop->sizes[loop->rank - 2];
    return loop->count / (rows * loop->sizes[loop->rank - 1]) * ((rows + BLOCK - 1) / BLOCK);
}

void dj_copy_run(const dj_copy_t *copy, const void *source, void *target, uint32_t threads)
{
    int64_t count = copy->loop.count;
    if (count == 0 || (source == target && copy->mode != DJ_COPY_CONVERT))
        return;
    void *bases[2] = {(void *)source, target};
    int64_t units = units_count(copy);
    bool blocks = copy->mode == DJ_COPY_TRANSPOSE;
    if (threads <= 1 || count < DJ_HOST_FORK_ELEMENTS) {
        blocks ? run_blocks(copy, bases, 0, units) : run_rows(copy, bases, 0, units);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        int64_t first, end;
        dj_host_share(units, blocks ? 1 : 64, &first, &end);
        if (first < end)
            blocks ? run_blocks(copy, bases, first, end) : run_rows(copy, bases, first, end);
    }
}

/* Looks for the dimension along which the source is dense and brings it next to the last. */
static bool transposition_find(dj_loop_t *loop, int64_t item_bytes)
{
    for (uint32_t d = 0; d + 1 < loop->rank; d++) {
        if (loop->strides[0][d] != item_bytes || loop->sizes[d] < 4)
            continue;
        for (uint32_t i = d; i + 2 < loop->rank; i++) {
            int64_t size = loop->sizes[i];
            loop->sizes[i] = loop->sizes[i + 1];
            loop->sizes[i + 1] = size;
            for (uint32_t k = 0; k < 2; k++) {
                int64_t stride = loop->strides[k][i];
                loop->strides[k][i] = loop->strides[k][i + 1];
                loop->strides[k][i + 1] = stride;
            }
        }
        return true;
    }
    return false;
}

dj_status_t dj_copy_make(dj_copy_t *copy, const dj_view_t *source, const dj_view_t *target)
{
    const dj_view_t *views[2] = {source, target};
    dj_status_t status = dj_loop_make(&copy->loop, views, 2);
    if (status != DJ_OK)
        return status;
    dj_loop_t *loop = &copy->loop;
    uint32_t inner = loop->rank - 1;
    int64_t item = copy->item_bytes = dj_dtype_bytes(target->dtype);
    if (source->dtype == target->dtype) {
        bool dense = loop->strides[0][inner] == item && loop->strides[1][inner] == item;
        copy->mode = dense                                           ? DJ_COPY_BYTES
                     : loop->count && transposition_find(loop, item) ? DJ_COPY_TRANSPOSE
                                                                     : DJ_COPY_ITEMS;
        return DJ_OK;
    }
    dj_class_t class = dj_class_of(source->dtype);
    copy->mode = DJ_COPY_CONVERT;
    copy->store = dj_host_store_of(class, target->dtype);
    copy->load = dj_host_load_of(source->dtype, class);
    if (dj_class_dtype(class) == source->dtype &&
        loop->strides[0][inner] == (int64_t)dj_dtype_bytes(source->dtype))
        copy->load = NULL;
    return DJ_OK;
}

void dj_copy_fill(const dj_loop_t *loop, void *target, const void *item, uint32_t item_bytes)
{
    if (loop->count == 0)
        return;
    void *bases[DJ_LOOP_MAX] = {0};
    uint32_t last = loop->n - 1, inner = loop->rank - 1;
    bases[last] = target;
    dj_walk_t walk;
    dj_walk_seek(loop, &walk, bases, 0);
    for (int64_t done = 0; done < loop->count;) {
        int64_t n = loop->sizes[inner];
        row_move(n, item, 0, walk.at[last], loop->strides[last][inner], item_bytes);
        done += n;
        if (done < loop->count)
            dj_walk_advance(loop, &walk, n);
    }
}
