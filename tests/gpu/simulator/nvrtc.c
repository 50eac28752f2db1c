/* nvrtc.c - NVRTC on the CPU: the host's C++ compiler makes a shared object of a kernel's text.
 *
 * The program's headers are written beside the text under the names they are included by, so they win over the
 * source tree's, which supplies emulate.h. The object needs libcuda.so.1 (the simulated one, by its soname): there
 * its threadIdx and barriers are. Of the options only -D and the standard reach the compiler.
 *
 * The minor version says which simulator it was, so that a cache of cubins never mixes these with a GPU's. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu/cuda/abi/nvrtc.h"

enum { SUCCESS = 0, OUT_OF_MEMORY = 1, INVALID_INPUT = 3, INVALID_PROGRAM = 4, COMPILATION = 6 };
enum { OPTIONS_MAX = 64, PATH_BYTES = 512 };

typedef struct _nvrtcProgram {
    char folder[64]; /* of the sources, ours alone */
    char *log, *cubin;
    size_t log_bytes, cubin_bytes;
} program_t;

extern char **environ;

/* ---- files ---- */

/* Makes the folders above the file. */
static int make_folders(char *path, size_t from)
{
    for (char *at = path + from; (at = strchr(at, '/')) != NULL; ++at) {
        *at = 0;
        int failed = mkdir(path, 0700) && errno != EEXIST;
        *at = '/';
        if (failed)
            return -1;
    }
    return 0;
}

static int write_text(const char *folder, const char *name, const char *text)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof path || strstr(name, "..") || make_folders(path, strlen(folder) + 1))
        return -1;
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return -1;
    int failed = fputs(text, file) < 0;
    return fclose(file) || failed ? -1 : 0;
}

/* The whole file, and a 0 after it; NULL when it cannot be read. */
static char *read_whole(const char *path, size_t *bytes_p)
{
    struct stat facts;
    FILE *file = fopen(path, "r");
    char *text = NULL;
    if (file && !fstat(fileno(file), &facts))
        text = calloc(1, (size_t)facts.st_size + 1);
    if (text)
        *bytes_p = fread(text, 1, (size_t)facts.st_size, file);
    if (file)
        fclose(file);
    return text;
}

static int run(char *const *command, const char *directory)
{
    pid_t child;
    int status;
    posix_spawn_file_actions_t actions;
    char log[PATH_BYTES];
    snprintf(log, sizeof log, "%s/log", directory);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    int failed = posix_spawnp(&child, command[0], &actions, NULL, command, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed)
        return -1;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void remove_folder(const char *folder)
{
    char *const command[] = {"rm", "-rf", (char *)folder, NULL};
    if (folder[0])
        run(command, "/dev/null");
}

/* ---- the interface ---- */

nvrtcResult nvrtcVersion(int *major, int *minor)
{
    static const char *const texts[] = {"emulate.h", "emulate_math.h", "nvrtc.c"};
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i) {
        char path[PATH_BYTES];
        size_t bytes = 0;
        snprintf(path, sizeof path, "%s/tests/gpu/simulator/%s", DJ_SOURCE_FOLDER, texts[i]);
        char *text = read_whole(path, &bytes);
        for (size_t k = 0; k < bytes; ++k)
            hash = (hash ^ (unsigned char)text[k]) * 16777619u;
        free(text);
    }
    *major = 13;
    *minor = 1000 + (int)(hash % 1000000000u);
    return SUCCESS;
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram *program_p, const char *source, const char *name, int n_headers,
                               const char *const *headers, const char *const *include_names)
{
    program_t *program = calloc(1, sizeof *program);
    if (program == NULL)
        return OUT_OF_MEMORY;
    strcpy(program->folder, "/tmp/djinn-nvrtc-XXXXXX");
    int failed = mkdtemp(program->folder) == NULL || write_text(program->folder, "kernel.cpp", source);
    for (int i = 0; !failed && i < n_headers; ++i)
        failed = write_text(program->folder, include_names[i], headers[i]);
    if (failed) {
        nvrtcDestroyProgram(&program);
        return INVALID_INPUT;
    }
    *program_p = program;
    return SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program_p)
{
    program_t *program = *program_p;
    if (program == NULL)
        return INVALID_PROGRAM;
    remove_folder(program->folder);
    free(program->log);
    free(program->cubin);
    free(program);
    *program_p = NULL;
    return SUCCESS;
}

/* Where this library and libcuda.so.1 are. */
static void own_folder(char folder[PATH_BYTES])
{
    Dl_info info;
    snprintf(folder, PATH_BYTES, "%s", dladdr((void *)nvrtcVersion, &info) ? info.dli_fname : "./x");
    char *end = strrchr(folder, '/');
    if (end)
        *end = 0;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int n_options, const char *const *options)
{
    char here[PATH_BYTES], source[PATH_BYTES], object[PATH_BYTES], log[PATH_BYTES];
    const char *compiler = getenv("DJ_SIM_CXX");
    char *fixed[] = {(char *)(compiler ? compiler : "g++"), "-x", "c++", "-std=c++17", "-O1", "-fPIC", "-shared",
                     "-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-fno-strict-aliasing", "-ffp-contract=off",
                     "-fsanitize=alignment,bounds", "-fno-sanitize-recover=all", "-Wl,--as-needed", /* no libubsan */
                     "-I", program->folder, "-I", DJ_SOURCE_FOLDER, "-o", object, source, "-x", "none", "-L", here,
                     "-l:libcuda.so.1", "-lm"};
    enum { N_FIXED = sizeof fixed / sizeof fixed[0] };
    char *command[N_FIXED + OPTIONS_MAX + 1] = {0};
    int n = N_FIXED;
    own_folder(here);
    snprintf(source, sizeof source, "%s/kernel.cpp", program->folder);
    snprintf(object, sizeof object, "%s/kernel.so", program->folder);
    snprintf(log, sizeof log, "%s/log", program->folder);
    memcpy(command, fixed, sizeof fixed);
    for (int i = 0; i < n_options && n < N_FIXED + OPTIONS_MAX; ++i) {
        if (!strncmp(options[i], "-D", 2))
            command[n++] = (char *)options[i];
    }
    int failed = run(command, program->folder);
    free(program->log);
    program->log = read_whole(log, &program->log_bytes);
    if (!failed)
        program->cubin = read_whole(object, &program->cubin_bytes);
    return program->cubin ? SUCCESS : COMPILATION;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *bytes)
{
    *bytes = program->cubin_bytes;
    return program->cubin ? SUCCESS : INVALID_PROGRAM;
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *cubin)
{
    if (program->cubin == NULL)
        return INVALID_PROGRAM;
    memcpy(cubin, program->cubin, program->cubin_bytes);
    return SUCCESS;
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes)
{
    *bytes = program->log_bytes + 1;
    return SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log)
{
    if (program->log)
        memcpy(log, program->log, program->log_bytes);
    log[program->log_bytes] = 0;
    return SUCCESS;
}

const char *nvrtcGetErrorString(nvrtcResult result)
{
    switch (result) {
    case SUCCESS:
        return "NVRTC_SUCCESS";
    case OUT_OF_MEMORY:
        return "NVRTC_ERROR_OUT_OF_MEMORY";
    case INVALID_INPUT:
        return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM:
        return "NVRTC_ERROR_INVALID_PROGRAM";
    case COMPILATION:
        return "NVRTC_ERROR_COMPILATION";
    default:
        return "NVRTC_ERROR_INTERNAL_ERROR";
    }
}
