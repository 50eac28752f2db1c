/* probe.c - what is asked of libraries and the resolver, in processes of their own: a driver
 * that hangs or crashes takes one of them, not the doctor. Answers are "key=value" lines. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "launcher/doctor/questions.h"

static void *load(const char *library, const char *key)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        printf("%s-missing=%s\n", key, dlerror());
    return handle;
}

/* A function pointer from a library; POSIX promises that the bits fit. */
static bool symbol(void *library, const char *name, void *slot)
{
    void *found = dlsym(library, name);
    memcpy(slot, &found, sizeof found);
    return found != NULL;
}

/* ---- the driver ---- */

enum { /* CU_DEVICE_ATTRIBUTE_* */
       COMPUTE_MODE = 20,
       VMM_RDMA = 110,
       RDMA = 116,
       DMA_BUF = 124,
};

static void probe_driver(void *cuda)
{
    int (*init)(unsigned), (*version)(int *), (*count)(int *), (*get)(int *, int),
        (*attribute)(int *, int, int);
    int devices = 0, number = 0, device = 0;
    if (!symbol(cuda, "cuInit", &init) || !symbol(cuda, "cuDriverGetVersion", &version) ||
        !symbol(cuda, "cuDeviceGetCount", &count) || !symbol(cuda, "cuDeviceGet", &get) ||
        !symbol(cuda, "cuDeviceGetAttribute", &attribute)) {
        puts("cuda-missing=libcuda.so.1 lacks a call");
        return;
    }
    if (version(&number) == 0)
        printf("cuda=%d.%d\n", number / 1000, number % 1000 / 10);
    int code = init(0);
    printf("init=%d\n", code);
    if (code != 0 || count(&devices) != 0)
        return;
    printf("devices=%d\n", devices);
    if (devices == 0 || get(&device, 0) != 0)
        return;
    static const struct {
        const char *key;
        int id;
    } wanted[] = {
        {"mode", COMPUTE_MODE}, {"rdma", RDMA}, {"vmm-rdma", VMM_RDMA}, {"dma-buf", DMA_BUF}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (attribute(&number, wanted[i].id, device) == 0)
            printf("%s=%d\n", wanted[i].key, number);
}

/* ---- NVML ---- */

static void probe_management(void *nvml)
{
    int (*init)(void), (*count)(unsigned *), (*get)(unsigned, void **),
        (*errors)(void *, int, int, unsigned long long *),
        (*rows)(void *, unsigned *, unsigned *, unsigned *, unsigned *);
    unsigned devices = 0;
    if (!symbol(nvml, "nvmlInit_v2", &init) || !symbol(nvml, "nvmlDeviceGetCount_v2", &count) ||
        !symbol(nvml, "nvmlDeviceGetHandleByIndex_v2", &get) || init() != 0 || count(&devices) != 0)
        return;
    printf("nvml=%u\n", devices);
    bool has_errors = symbol(nvml, "nvmlDeviceGetTotalEccErrors", &errors);
    bool has_rows = symbol(nvml, "nvmlDeviceGetRemappedRows", &rows);
    unsigned long long ecc = 0;
    unsigned pending = 0, failed = 0;
    for (unsigned i = 0; i < devices && i < 64; i++) {
        void *device;
        unsigned long long uncorrected = 0;
        unsigned a = 0, b = 0, waits = 0, failure = 0;
        if (get(i, &device) != 0)
            continue;
        if (has_errors && errors(device, 1, 0, &uncorrected) == 0)
            ecc += uncorrected;
        if (has_rows && rows(device, &a, &b, &waits, &failure) == 0) {
            pending += waits != 0;
            failed += failure != 0;
        }
    }
    printf("ecc=%llu\npending=%u\nfailed=%u\n", ecc, pending, failed);
}

void dj_probe_cuda(const void *nothing)
{
    void *cuda = load("libcuda.so.1", "cuda");
    if (!cuda)
        return;
    probe_driver(cuda);
    fflush(stdout);
    void *nvml = load("libnvidia-ml.so.1", "nvml");
    if (nvml)
        probe_management(nvml);
}

/* ---- PMIx ---- */

void dj_probe_pmix(const void *nothing)
{
    void *pmix = load("libpmix.so.2", "pmix");
    const char *(*version)(void);
    if (!pmix)
        return;
    if (symbol(pmix, "PMIx_Get_version", &version))
        printf("pmix=%.*s\n", (int)strcspn(version(), "\n"), version());
    else
        puts("pmix-missing=libpmix.so.2 has no PMIx_Get_version");
}

/* ---- the resolver ---- */

void dj_probe_host(const void *nothing)
{
    char name[256] = "", text[INET_ADDRSTRLEN];
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    gethostname(name, sizeof name - 1);
    printf("name=%s\n", name);
    fflush(stdout);
    int wrong = getaddrinfo(name, NULL, &hints, &found);
    if (wrong)
        printf("error=%s\n", gai_strerror(wrong));
    for (struct addrinfo *at = found; at; at = at->ai_next)
        if (inet_ntop(AF_INET, &((struct sockaddr_in *)at->ai_addr)->sin_addr, text, sizeof text))
            printf("address=%s\n", text);
}
