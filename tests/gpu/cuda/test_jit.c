/* test_jit.c - compiled kernels in memory and on disk, with a compiler and a driver that only pretend: a "cubin" is
 * its source behind a word, and what does not begin with the word does not load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu/cuda/cuda_device.h"
#include "gpu/cuda/jit_cache.h"

#define WORD "cubin:"

/* ---- the compiler and the driver ---- */

struct _nvrtcProgram {
    char *source;
    bool failed;
};

static atomic_int n_compiled, n_modules, n_refused, nvrtc_minor, n_headers_seen;
static char architecture[64];
static bool short_of_memory;

static nvrtcResult fake_version(int *major, int *minor)
{
    *major = 13;
    *minor = nvrtc_minor;
    return 0;
}

static nvrtcResult fake_create(nvrtcProgram *program, const char *source, const char *name, int n_headers,
                               const char *const *headers, const char *const *include_names)
{
    (void)name;
    n_headers_seen = 0;
    for (int i = 0; i < n_headers; i++)
        n_headers_seen += strncmp(headers[i], "/* ", 3) == 0 && strncmp(include_names[i], "gpu/", 4) == 0 &&
                          strstr(headers[i], "#ifndef DJ_GPU_") != NULL;
    *program = calloc(1, sizeof(**program));
    (*program)->source = strdup(source);
    return 0;
}

static nvrtcResult fake_destroy(nvrtcProgram *program)
{
    free((*program)->source);
    free(*program);
    *program = NULL;
    return 0;
}

static void note_architecture(const char *option)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    snprintf(architecture, sizeof(architecture), "%s", option);
    pthread_mutex_unlock(&lock);
}

static nvrtcResult fake_compile(nvrtcProgram program, int n_options, const char *const *options)
{
    bool contracts = true;
    for (int i = 0; i < n_options; i++) {
        if (strncmp(options[i], "--gpu-arch", 10) == 0)
            note_architecture(options[i]);
        if (strcmp(options[i], "--gpu-architecture=sm_121") == 0 || strstr(options[i], "=sm_99"))
            return 5; /* too new */
        contracts &= strcmp(options[i], "--fmad=false") != 0;
    }
    assert_false(contracts);
    n_compiled++;
    usleep(500); /* long enough for threads to meet */
    program->failed = strstr(program->source, "#error") != NULL;
    return program->failed ? 6 : 0;
}

static nvrtcResult fake_cubin_size(nvrtcProgram program, size_t *bytes)
{
    *bytes = strlen(program->source) + sizeof(WORD);
    return 0;
}

static nvrtcResult fake_cubin(nvrtcProgram program, char *cubin)
{
    sprintf(cubin, WORD "%s", program->source);
    return 0;
}

static nvrtcResult fake_log_size(nvrtcProgram program, size_t *bytes)
{
    (void)program;
    *bytes = 64;
    return 0;
}

static nvrtcResult fake_log(nvrtcProgram program, char *log)
{
    (void)program;
    strcpy(log, "fused.cu(3): error: what is this");
    return 0;
}

static CUresult fake_load(CUmodule *module, const void *cubin)
{
    if (short_of_memory)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (strncmp(cubin, WORD, strlen(WORD)) != 0) {
        n_refused++;
        return CUDA_ERROR_INVALID_IMAGE;
    }
    n_modules++;
    *module = malloc(1);
    return CUDA_SUCCESS;
}

static CUresult fake_unload(CUmodule module)
{
    n_modules--;
    free(module);
    return CUDA_SUCCESS;
}

static CUresult fake_get(CUfunction *function, CUmodule module, const char *name)
{
    if (strcmp(name, "missing") == 0)
        return CUDA_ERROR_NOT_FOUND;
    *function = (CUfunction)module;
    return CUDA_SUCCESS;
}

static CUresult fake_func_load(CUfunction function)
{
    return function ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult fake_error_name(CUresult error, const char **text)
{
    (void)error;
    *text = "CUDA_ERROR";
    return CUDA_SUCCESS;
}

/* ---- a device in a folder of its own ---- */

static char root[64], folder[128];
static dj_cuda_device_t device;

static void jit_open(const char *path)
{
    device = (dj_cuda_device_t){.major = 9, .minor = 0};
    assert_int_equal(dj_cuda_jit_open(&device, path), DJ_OK);
    n_compiled = n_refused = 0;
}

static dj_status_t get(const char *source)
{
    CUfunction function = NULL;
    dj_cuda_jit_entry_t *held;
    dj_status_t status = dj_cuda_jit_function(&device, source, "kernel", &function, &held);
    assert_true(status != DJ_OK || function != NULL);
    if (status == DJ_OK)
        dj_cuda_jit_drop(&device, held);
    return status;
}

/* Closes and opens again, so that only the disk knows. */
static void jit_reopen(void)
{
    dj_cuda_jit_close(&device);
    assert_int_equal(n_modules, 0);
    jit_open(folder);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/dj_jit_XXXXXX");
    if (!mkdtemp(root))
        return -1;
    snprintf(folder, sizeof(folder), "%s/a/kernels", root);
    dj_cuda.has.nvrtc = true;
    nvrtc_minor = 0;
    jit_open(folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[256];
    dj_cuda_jit_close(&device);
    snprintf(command, sizeof(command), "chmod -R u+rwx %s; rm -rf %s", root, root);
    return system(command) || n_modules != 0;
}

/* The only cubin's path; fails when there are more files, or none. */
static const char *only_file(void)
{
    static char path[512];
    uint32_t n = 0;
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    for (struct dirent *e; (e = readdir(entries));)
        if (e->d_name[0] != '.' || strlen(e->d_name) > 2) {
            snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
            n++;
        }
    closedir(entries);
    assert_int_equal(n, 1);
    return path;
}

static uint32_t mode_of(const char *path)
{
    struct stat info;
    assert_int_equal(lstat(path, &info), 0);
    return info.st_mode & 07777;
}

/* ---- hits and misses ---- */

static void compiled_once_a_process_and_once_a_disk(void **state)
{
    (void)state;
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 1);
    assert_int_equal(n_headers_seen, 4);
    assert_string_equal(architecture, "--gpu-architecture=sm_90");
    assert_int_equal(mode_of(folder), 0700);
    assert_int_equal(mode_of(only_file()), 0600);
    jit_reopen();
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 0);
    assert_int_equal(get("b"), DJ_OK);
    assert_int_equal(n_compiled, 1);
}

static void another_gpu_or_compiler_compiles_anew(void **state)
{
    (void)state;
    assert_int_equal(get("a"), DJ_OK);
    nvrtc_minor = 1;
    jit_reopen();
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 1);
    dj_cuda_jit_close(&device);
    device = (dj_cuda_device_t){.major = 12, .minor = 0};
    assert_int_equal(dj_cuda_jit_open(&device, folder), DJ_OK);
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 2);
    assert_string_equal(architecture, "--gpu-architecture=sm_120");
}

static void a_gpu_newer_than_the_compiler_takes_an_older_ones_code(void **state)
{
    (void)state;
    dj_cuda_jit_close(&device);
    device = (dj_cuda_device_t){.major = 12, .minor = 1};
    assert_int_equal(dj_cuda_jit_open(&device, folder), DJ_OK);
    assert_int_equal(get("a"), DJ_OK);
    assert_string_equal(architecture, "--gpu-architecture=sm_120");
    dj_cuda_jit_close(&device);
    device = (dj_cuda_device_t){.major = 99, .minor = 3};
    assert_int_equal(dj_cuda_jit_open(&device, folder), DJ_OK);
    assert_int_equal(get("a"), DJ_ERR_UNSUPPORTED);
    assert_non_null(strstr(dj_error_text(), "99.3"));
}

static void a_compile_error_is_told_and_not_kept(void **state)
{
    (void)state;
    assert_int_equal(get("#error"), DJ_ERR_INTERNAL);
    assert_non_null(strstr(dj_error_text(), "kernel kernel: NVRTC failed with 6: fused.cu(3): error: what is this"));
    assert_int_equal(get("a"), DJ_OK);
    only_file();
    CUfunction function = NULL;
    dj_cuda_jit_entry_t *held;
    assert_int_equal(dj_cuda_jit_function(&device, "c", "missing", &function, &held), DJ_ERR_SYSTEM);
    assert_null(function);
    assert_int_equal(n_modules, 1);
}

static void without_nvrtc_the_status_says_what_is_missing(void **state)
{
    (void)state;
    dj_cuda_jit_close(&device);
    dj_cuda.has.nvrtc = false;
    jit_open(folder);
    assert_int_equal(get("a"), DJ_ERR_UNSUPPORTED);
    assert_non_null(strstr(dj_error_text(), "libnvrtc"));
}

/* ---- files that do not hold ---- */

static uint8_t content[4096];

static size_t read_content(const char *path)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, content, sizeof(content));
    close(fd);
    assert_true(n > 48);
    return (size_t)n;
}

static void write_content(const char *path, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
    assert_int_equal(write(fd, content, bytes), bytes);
    close(fd);
}

static void what_is_corrupt_is_compiled_again(void **state)
{
    (void)state;
    assert_int_equal(get("a long enough source"), DJ_OK);
    char path[512];
    snprintf(path, sizeof(path), "%s", only_file());
    size_t bytes = read_content(path);
    for (size_t at = 0; at < bytes; at++) {
        content[at] ^= 0x20;
        write_content(path, bytes);
        content[at] ^= 0x20;
        jit_reopen();
        assert_int_equal(get("a long enough source"), DJ_OK);
        assert_int_equal(n_compiled, 1);
        assert_int_equal(n_refused, 0); /* the driver never saw it */
        jit_reopen();
        assert_int_equal(get("a long enough source"), DJ_OK);
        assert_int_equal(n_compiled, 0); /* and the file is whole again */
    }
    for (size_t length = 0; length < bytes; length += 7) {
        write_content(path, length);
        jit_reopen();
        assert_int_equal(get("a long enough source"), DJ_OK);
        assert_int_equal(n_compiled, 1);
    }
}

static void what_the_driver_refuses_is_compiled_again(void **state)
{
    (void)state;
    assert_int_equal(get("a"), DJ_OK);
    char path[512], hex[33] = {0};
    snprintf(path, sizeof(path), "%s", only_file());
    memcpy(hex, strrchr(path, '/') + 1, 32);
    int fd = dj_jit_cache_open(folder);
    dj_hash_t key;
    /* whole and for this key, but no cubin */
    read_content(path);
    memcpy(&key, content + 8, sizeof(key));
    char back[33];
    dj_hash_hex(key, back);
    assert_string_equal(back, hex);
    assert_int_equal(dj_jit_cache_write(fd, key, "nonsense", 9), DJ_OK);
    dj_jit_cache_close(fd);
    jit_reopen();
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_refused, 1);
    assert_int_equal(n_compiled, 1);
    jit_reopen();
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 0);
}

/* The file is as good as it was. */
static void what_finds_no_memory_is_not_compiled_again(void **state)
{
    (void)state;
    assert_int_equal(get("a"), DJ_OK);
    jit_reopen();
    short_of_memory = true;
    assert_int_equal(get("a"), DJ_ERR_MEMORY);
    short_of_memory = false;
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 0);
}

static void what_others_could_have_written_is_not_read(void **state)
{
    (void)state;
    assert_int_equal(get("a"), DJ_OK);
    char path[512], other[512];
    snprintf(path, sizeof(path), "%s", only_file());
    snprintf(other, sizeof(other), "%s/other", root);
    assert_int_equal(chmod(path, 0622), 0);
    jit_reopen();
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 1);
    assert_int_equal(mode_of(path), 0600); /* replaced */
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    jit_reopen();
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* opening one must not wait */
    jit_reopen();
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0); /* in the way of the rename: not kept, and that is all */
    jit_reopen();
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 1);
    only_file();
}

/* ---- folders that are not used ---- */

static void a_folder_for_others_is_not_used(void **state)
{
    (void)state;
    char other[192];
    assert_int_equal(chmod(folder, 0750), 0);
    jit_reopen();
    assert_non_null(strstr(dj_error_text(), "mode 750"));
    assert_int_equal(get("a"), DJ_OK);
    assert_int_equal(n_compiled, 1);
    assert_int_equal(rmdir(folder), 0); /* nothing in it */
    snprintf(other, sizeof(other), "%s/real", root);
    assert_int_equal(mkdir(other, 0700), 0);
    assert_int_equal(symlink(other, folder), 0);
    assert_int_equal(dj_jit_cache_open(folder), -1);
    assert_int_equal(unlink(folder), 0);
    write_content(folder, 1);
    assert_int_equal(dj_jit_cache_open(folder), -1);
    snprintf(other, sizeof(other), "%s/below/it", folder);
    assert_int_equal(dj_jit_cache_open(other), -1);
    char *longer = malloc(8192);
    memset(longer, 'x', 8191);
    longer[8191] = 0;
    assert_int_equal(dj_jit_cache_open(longer), -1);
    free(longer);
    if (geteuid() == 0) {
        assert_int_equal(unlink(folder), 0);
        assert_int_equal(mkdir(folder, 0700), 0);
        assert_int_equal(chown(folder, 12345, 12345), 0);
        assert_int_equal(dj_jit_cache_open(folder), -1);
        assert_non_null(strstr(dj_error_text(), "user 12345"));
    }
}

static void the_users_cache_is_the_default(void **state)
{
    (void)state;
    char path[256];
    setenv("XDG_CACHE_HOME", root, 1);
    int fd = dj_jit_cache_open("");
    assert_true(fd >= 0);
    dj_jit_cache_close(fd);
    snprintf(path, sizeof(path), "%s/djinn/kernels", root);
    assert_int_equal(mode_of(path), 0700);
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", root, 1);
    fd = dj_jit_cache_open("");
    assert_true(fd >= 0);
    dj_jit_cache_close(fd);
    snprintf(path, sizeof(path), "%s/.cache/djinn/kernels", root);
    assert_int_equal(mode_of(path), 0700);
    unsetenv("HOME");
    assert_int_equal(dj_jit_cache_open(""), -1);
    assert_non_null(strstr(dj_error_text(), "DJINN_KERNEL_CACHE"));
}

/* ---- size ---- */

static void the_oldest_go_first(void **state)
{
    (void)state;
    uint8_t cubin[1000] = {1};
    int fd = dj_jit_cache_open(folder);
    for (uint64_t i = 1; i <= 8; i++) {
        char name[64], hex[33];
        dj_hash_t key = {{i, i}};
        struct timespec times[2] = {{.tv_sec = (time_t)(1000 + i)}, {.tv_sec = (time_t)(1000 + i)}};
        assert_int_equal(dj_jit_cache_write(fd, key, cubin, sizeof(cubin)), DJ_OK);
        dj_hash_hex(key, hex);
        snprintf(name, sizeof(name), "%s.cubin", hex);
        assert_int_equal(utimensat(fd, name, times, 0), 0);
    }
    struct timespec old[2] = {{.tv_sec = 5}, {.tv_sec = 5}};
    int stale = openat(fd, ".1.tmp", O_CREAT | O_WRONLY, 0600), fresh = openat(fd, ".2.tmp", O_CREAT | O_WRONLY, 0600);
    futimens(stale, old);
    size_t bytes;
    void *used = dj_jit_cache_read(fd, (dj_hash_t){{2, 2}}, &bytes); /* young again */
    assert_non_null(used);
    assert_int_equal(bytes, sizeof(cubin));
    free(used);
    dj_jit_cache_trim(fd, 3 * 1100);
    for (uint64_t i = 1; i <= 8; i++) {
        void *kept = dj_jit_cache_read(fd, (dj_hash_t){{i, i}}, &bytes);
        assert_int_equal(kept != NULL, i == 2 || i >= 7);
        free(kept);
    }
    assert_int_equal(faccessat(fd, ".1.tmp", F_OK, 0), -1);
    assert_int_equal(faccessat(fd, ".2.tmp", F_OK, 0), 0);
    close(stale);
    close(fresh);
    dj_jit_cache_close(fd);
}

/* ---- at once ---- */

static void *many(void *argument)
{
    (void)argument;
    char source[32];
    for (int i = 0; i < 200; i++) {
        snprintf(source, sizeof(source), "source %d", i % 20);
        CUfunction function = NULL;
        dj_cuda_jit_entry_t *held;
        if (dj_cuda_jit_function(&device, source, "kernel", &function, &held) != DJ_OK || !function)
            return (void *)1;
        dj_cuda_jit_drop(&device, held);
    }
    return NULL;
}

static void threads_and_ranks_write_at_once(void **state)
{
    (void)state;
    pid_t ranks[3];
    for (int i = 0; i < 3; i++) {
        ranks[i] = fork();
        if (ranks[i] == 0) {
            pthread_t threads[4];
            void *failed = NULL, *result;
            for (int t = 0; t < 4; t++)
                pthread_create(&threads[t], NULL, many, NULL);
            for (int t = 0; t < 4; t++) {
                pthread_join(threads[t], &result);
                failed = result ? result : failed;
            }
            int modules = n_modules;
            dj_cuda_jit_close(&device);
            _exit(failed || modules != 20 || n_modules != 0);
        }
    }
    for (int i = 0; i < 3; i++) {
        int status;
        assert_int_equal(waitpid(ranks[i], &status, 0), ranks[i]);
        assert_int_equal(status, 0);
    }
    jit_reopen();
    assert_null(many(NULL));
    assert_int_equal(n_compiled, 0); /* every file is whole */
}

/* What is held stays; of the rest the latest do, and what was dropped comes again from the disk. */
static void the_table_does_not_grow_with_every_program(void **state)
{
    (void)state;
    char source[32];
    CUfunction function, again;
    dj_cuda_jit_entry_t *held, *twice;
    assert_int_equal(dj_cuda_jit_function(&device, "held", "kernel", &function, &held), DJ_OK);
    assert_int_equal(dj_cuda_jit_function(&device, "held", "kernel", &again, &twice), DJ_OK);
    assert_ptr_equal(held, twice);
    dj_cuda_jit_drop(&device, twice);
    for (int i = 0; i < DJ_CUDA_JIT_IDLE_MAX + 50; i++) {
        snprintf(source, sizeof(source), "source %d", i);
        assert_int_equal(get(source), DJ_OK);
        if (i >= 20)
            assert_int_equal(get("source 20"), DJ_OK); /* used again and again */
    }
    assert_int_equal(n_modules, DJ_CUDA_JIT_IDLE_MAX + 1);
    int compiled = n_compiled;
    assert_int_equal(dj_cuda_jit_function(&device, "held", "kernel", &again, &twice), DJ_OK);
    assert_ptr_equal(function, again);
    int modules = n_modules;
    assert_int_equal(get("source 20"), DJ_OK);
    assert_int_equal(get("source 300"), DJ_OK);
    assert_int_equal(n_modules, modules);
    assert_int_equal(get("source 0"), DJ_OK); /* one in, one out */
    assert_int_equal(n_modules, modules);
    assert_int_equal(n_compiled, compiled);
    dj_cuda_jit_drop(&device, twice);
    dj_cuda_jit_drop(&device, held);
    assert_int_equal(n_modules, DJ_CUDA_JIT_IDLE_MAX);
}

int main(void)
{
    dj_cuda.nvrtcVersion = fake_version;
    dj_cuda.nvrtcCreateProgram = fake_create;
    dj_cuda.nvrtcDestroyProgram = fake_destroy;
    dj_cuda.nvrtcCompileProgram = fake_compile;
    dj_cuda.nvrtcGetCUBINSize = fake_cubin_size;
    dj_cuda.nvrtcGetCUBIN = fake_cubin;
    dj_cuda.nvrtcGetProgramLogSize = fake_log_size;
    dj_cuda.nvrtcGetProgramLog = fake_log;
    dj_cuda.cuModuleLoadData = fake_load;
    dj_cuda.cuModuleUnload = fake_unload;
    dj_cuda.cuModuleGetFunction = fake_get;
    dj_cuda.cuFuncLoad = fake_func_load;
    dj_cuda.cuGetErrorName = fake_error_name;
    dj_cuda.cuGetErrorString = fake_error_name;
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_corrupt_is_compiled_again),
        TEST(what_the_driver_refuses_is_compiled_again),
        TEST(what_finds_no_memory_is_not_compiled_again),
        TEST(what_others_could_have_written_is_not_read),
        TEST(a_folder_for_others_is_not_used),
        TEST(a_compile_error_is_told_and_not_kept),
        TEST(without_nvrtc_the_status_says_what_is_missing),
        TEST(compiled_once_a_process_and_once_a_disk),
        TEST(the_table_does_not_grow_with_every_program),
        TEST(another_gpu_or_compiler_compiles_anew),
        TEST(a_gpu_newer_than_the_compiler_takes_an_older_ones_code),
        TEST(the_users_cache_is_the_default),
        TEST(the_oldest_go_first),
        TEST(threads_and_ranks_write_at_once),
    };
    if (!dj_hash_setup())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
