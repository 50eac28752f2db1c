/* fuzz_weights.c - LOAD: names from a client, a safetensors file from anywhere.
 *
 * Input: flags:u8 (1: the length before the header is right), n_tensors:u8, names_bytes:u8, names (of a
 * LOAD's payload after the path), header_bytes:u16, header, then the file's data. The file is real, in a
 * folder of its own, and read by the rank's own loader. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_rank.h"

static char folder[64], path[80];
static int file;

static void clean(void)
{
    unlink(path);
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *place = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%.40s/fuzz-XXXXXX", place ? place : "/tmp");
    FUZZ_ASSERT(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/w", folder);
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    FUZZ_ASSERT(file >= 0 && atexit(clean) == 0);
    fuzz_rank_open(folder);
    return 0;
}

static void write_file(dj_reader_t *reader, bool right)
{
    size_t header_bytes, data_bytes;
    size_t wanted = dj_reader_u16(reader);
    const uint8_t *header = fuzz_take(reader, wanted, &header_bytes);
    const uint8_t *data = fuzz_take(reader, SIZE_MAX, &data_bytes);
    dj_bytes_t bytes = {0};
    if (right)
        dj_bytes_put_u64(&bytes, header_bytes);
    dj_bytes_put(&bytes, header, header_bytes);
    dj_bytes_put(&bytes, data, data_bytes);
    FUZZ_ASSERT(ftruncate(file, 0) == 0);
    FUZZ_ASSERT(bytes.size == 0 ||
                pwrite(file, bytes.data, bytes.size, 0) == (ssize_t)bytes.size);
    dj_bytes_fini(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct {
        dj_header_t header;
        dj_load_t load;
    } message = {{.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION,
                  .type = DJ_MESSAGE_LOAD, .request = 1},
                 {.path_bytes = (uint32_t)strlen(path)}};
    dj_reader_t reader;
    dj_bytes_t payload = {0};
    size_t names_bytes;
    dj_session_t *session = fuzz_session_open();
    dj_reader_init(&reader, data, size);
    uint8_t flags = dj_reader_u8(&reader);
    message.load.n_tensors = dj_reader_u8(&reader);
    message.header.session = session->id;
    message.header.generation = session->generation;
    size_t wanted = dj_reader_u8(&reader);
    const uint8_t *names = fuzz_take(&reader, wanted, &names_bytes);
    dj_bytes_put(&payload, path, strlen(path));
    dj_bytes_put(&payload, names, names_bytes);
    write_file(&reader, flags & 1);
    fuzz_rank_message(&message, payload.data, payload.size, false, false);
    fuzz_rank_run();
    fuzz_session_close(session);
    dj_bytes_fini(&payload);
    return 0;
}
