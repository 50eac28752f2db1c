/* gpu.c - GPUs, their driver, and which way their memory would take to the network.
 *
 * The driver is asked by dj_probe_cuda() in a process of its own: cuInit() may take a second a
 * machine, and a broken driver may hang. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/doctor/check.h"

enum { PCI_MAX = 512, NODES_MAX = 64, COMPUTE_PROHIBITED = 2, COMPUTE_EXCLUSIVE = 3 };

/* NVIDIA's display and 3D controllers that the bus shows. */
static int count_cards(const dj_exam_t *exam)
{
    static char names[PCI_MAX][DJ_ENTRY_MAX];
    char path[DJ_FILE_PATH_MAX], vendor[32], class[32];
    int cards = 0, n = dj_exam_entries(exam, "/sys/bus/pci/devices", names, PCI_MAX);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%.63s/vendor", names[i]);
        dj_exam_read(exam, path, vendor, sizeof vendor);
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%.63s/class", names[i]);
        dj_exam_read(exam, path, class, sizeof class);
        cards += strcmp(vendor, "0x10de") == 0 && strncmp(class, "0x03", 4) == 0;
    }
    return cards;
}

static bool has_gpu(const dj_exam_t *exam)
{
    return dj_exam_exists(exam, "/dev/nvidiactl") ||
           dj_exam_exists(exam, "/proc/driver/nvidia/version");
}

/* The first device file that this user may not open, or "". */
static int see_device_files(const dj_exam_t *exam, char closed[DJ_FILE_PATH_MAX])
{
    static char names[PCI_MAX][DJ_ENTRY_MAX];
    char path[DJ_FILE_PATH_MAX];
    int gpus = 0, n = dj_exam_entries(exam, "/dev", names, PCI_MAX);
    closed[0] = '\0';
    for (int i = 0; i < n; i++) {
        bool gpu = strncmp(names[i], "nvidia", 6) == 0 && names[i][6] >= '0' && names[i][6] <= '9';
        if (!gpu && strcmp(names[i], "nvidiactl") != 0 && strcmp(names[i], "nvidia-uvm") != 0)
            continue;
        gpus += gpu;
        if (access(dj_exam_path(exam, path, "/dev/%.63s", names[i]), R_OK | W_OK) != 0 &&
            !closed[0])
            snprintf(closed, DJ_FILE_PATH_MAX, "/dev/%.63s", names[i]);
    }
    return gpus;
}

dj_verdict_t dj_check_gpu_devices(dj_exam_t *exam, dj_finding_t *finding)
{
    char closed[DJ_FILE_PATH_MAX];
    int cards = count_cards(exam), gpus = see_device_files(exam, closed);
    if (!has_gpu(exam) && cards > 0)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "modprobe nvidia; in a container --gpus all (Docker), --nv (Apptainer)",
                       "%d NVIDIA device%s on the bus, but no driver is loaded here", cards,
                       cards == 1 ? " is" : "s are");
    if (!has_gpu(exam))
        return dj_find(finding, DJ_VERDICT_INFO, "", "no GPU is here; --device host needs none");
    if (closed[0])
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "inside a job ask for GPUs (--gpus, --gres=gpu:N); outside, an "
                       "administrator gives your group the device files",
                       "%s may not be opened by this user", closed);
    if (gpus == 0)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "nvidia-modprobe -c 0 -u; in a container --gpus all (Docker), --nv "
                       "(Apptainer); in a job --gpus",
                       "the driver is loaded, but there is no /dev/nvidia0");
    if (!dj_exam_exists(exam, "/dev/nvidia-uvm"))
        return dj_find(finding, DJ_VERDICT_FAIL, "nvidia-modprobe -u -c 0",
                       "/dev/nvidia-uvm is missing: CUDA does not start");
    return dj_find(finding, DJ_VERDICT_OK, "", "%d GPU%s can be opened", gpus,
                   gpus == 1 ? "" : "s");
}

/* ---- the driver ---- */

/* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu ..." */
static const char *kernel_module(const dj_exam_t *exam, char *version, size_t room)
{
    char text[1024];
    version[0] = '\0';
    if (!dj_exam_read(exam, "/proc/driver/nvidia/version", text, sizeof text))
        return version;
    for (const char *at = text; *at && !version[0];) {
        at += strcspn(at, "0123456789");
        size_t span = strspn(at, "0123456789.");
        bool alone = at > text && at[-1] == ' ' && span > 4 && memchr(at, '.', span);
        if (alone)
            snprintf(version, room, "%.*s", (int)span, at);
        at += span;
    }
    return version;
}

static const char *init_meaning(int code)
{
    switch (code) {
    case 100:
        return "no GPU may be used here: look at CUDA_VISIBLE_DEVICES and the job's --gpus";
    case 101:
        return "CUDA_VISIBLE_DEVICES names a device that is not there";
    case 802:
        return "the NVSwitch fabric is not ready: start nvidia-fabricmanager of the driver's "
               "version";
    case 803:
        return "libcuda and the kernel module are of different versions: reboot after an update, "
               "or bind the host's libcuda into the container";
    case 804:
        return "the driver is older than CUDA's forward compatibility allows: update the driver";
    default:
        return "nvidia-smi and dmesg may tell why";
    }
}

dj_verdict_t dj_check_gpu_driver(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_CUDA];
    char module[64], cuda[64], text[256];
    kernel_module(exam, module, sizeof module);
    dj_ask_state_t state = dj_ask_wait(ask);
    if (!has_gpu(exam))
        return dj_find(finding, DJ_VERDICT_INFO, "", "no driver of NVIDIA is loaded");
    if (state == DJ_ASKED_NOT)
        return dj_find(finding, DJ_VERDICT_INFO, "", "driver %s; CUDA was not asked (--quick)",
                       module);
    if (state == DJ_ASKED_LATE)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "time nvidia-smi: seconds mean no persistence mode (nvidia-smi -pm 1), for "
                       "ever means a broken driver (dmesg)",
                       "driver %s, but CUDA does not start within %d s", module, DJ_ASK_MS / 1000);
    if (state != DJ_ASKED_ANSWERED || ask->status != 0)
        return dj_find(finding, DJ_VERDICT_FAIL, "compare nvidia-smi; dmesg may tell why",
                       "driver %s, but CUDA crashes (status %d)", module, ask->status);
    if (dj_ask_value(ask, "cuda-missing", text, sizeof text))
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "install the driver's libcuda.so.1; in a container --gpus all (Docker), "
                       "--nv (Apptainer)",
                       "driver %s, but %s", module, text);
    dj_ask_value(ask, "cuda", cuda, sizeof cuda);
    int code = dj_ask_value(ask, "init", text, sizeof text) ? (int)strtol(text, NULL, 10) : -1;
    if (code != 0)
        return dj_find(finding, DJ_VERDICT_FAIL, init_meaning(code),
                       "driver %s with CUDA %s does not start: cuInit answers %d", module, cuda,
                       code);
    dj_ask_value(ask, "mode", text, sizeof text);
    if (strtol(text, NULL, 10) == COMPUTE_PROHIBITED)
        return dj_find(finding, DJ_VERDICT_FAIL, "nvidia-smi -c 0 (an administrator)",
                       "the compute mode of the GPUs is 'prohibited'");
    bool exclusive = strtol(text, NULL, 10) == COMPUTE_EXCLUSIVE;
    dj_ask_value(ask, "devices", text, sizeof text);
    return dj_find(finding, DJ_VERDICT_OK, "", "driver %s, CUDA %s, %s GPU%s%s", module, cuda, text,
                   strcmp(text, "1") == 0 ? "" : "s",
                   exclusive ? ", one process each (exclusive mode)" : "");
}

dj_verdict_t dj_check_gpu_health(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_CUDA];
    char devices[32], ecc[32], pending[32], failed[32];
    dj_ask_state_t state = dj_ask_wait(ask);
    if (!has_gpu(exam) || state == DJ_ASKED_NOT || !dj_ask_value(ask, "nvml", devices, 32))
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       has_gpu(exam) && state != DJ_ASKED_NOT
                           ? "libnvidia-ml.so.1 does not answer, so nothing is known of errors"
                           : "no GPU was asked");
    dj_ask_value(ask, "ecc", ecc, sizeof ecc);
    dj_ask_value(ask, "pending", pending, sizeof pending);
    dj_ask_value(ask, "failed", failed, sizeof failed);
    if (strtoul(failed, NULL, 10) > 0)
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "have the GPU replaced; nvidia-smi -q -d ROW_REMAPPER",
                       "%s GPU%s could not replace a broken row of memory", failed,
                       strcmp(failed, "1") == 0 ? "" : "s");
    if (strtoul(pending, NULL, 10) > 0)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "reset the GPU or reboot; nvidia-smi -q -d "
                       "ROW_REMAPPER",
                       "%s GPU%s wait%s for a reset to replace a broken row of memory", pending,
                       strcmp(pending, "1") == 0 ? "" : "s", strcmp(pending, "1") == 0 ? "s" : "");
    if (strtoull(ecc, NULL, 10) > 0)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "nvidia-smi -q -d ECC tells which; dmesg | grep Xid tells what it cost",
                       "%s memory errors since the last boot that ECC could not correct", ecc);
    return dj_find(finding, DJ_VERDICT_OK, "",
                   "%s GPUs without memory errors that ECC could not "
                   "correct",
                   devices);
}

/* ---- the way of their memory ---- */

static bool is_one(const dj_ask_t *ask, const char *key)
{
    char text[32];
    return dj_ask_value(ask, key, text, sizeof text) && strcmp(text, "1") == 0;
}

static dj_reach_t choose(const dj_gpu_way_t *way, bool same_host, char text[DJ_PATH_TEXT_MAX])
{
    dj_path_facts_t facts = way->facts;
    dj_path_t path;
    facts.same_host = facts.same_user = same_host;
    facts.here = facts.there = DJ_MEMORY_CUDA;
    dj_fabric_facts(&way->fabric, way->dma_buf, &facts);
    if (dj_path_choose(&facts, &path) != DJ_OK) {
        snprintf(text, DJ_PATH_TEXT_MAX, "none: %.200s", dj_error_text());
        return DJ_REACH_STAGING;
    }
    const char *memory = strstr(path.text, "device memory by ");
    snprintf(text, DJ_PATH_TEXT_MAX, "%s",
             memory ? memory + strlen("device memory by ") : path.text);
    return path.reach;
}

/* What would have to change for the network card to read GPU memory itself. */
static const char *way_on(const dj_gpu_way_t *way)
{
    if (!way->fabric.cuda)
        return "a UCX built --with-cuda (conda-forge's ucx has it; Debian's has not)";
    if (!way->facts.rdma)
        return "nothing: without RDMA between hosts, staging is the only way";
    if (!way->rdma)
        return "nothing: this GPU or driver does not support GPUDirect RDMA";
    if (way->dma_buf)
        return "a UCX with dma-buf (1.15 or newer), or modprobe nvidia_peermem (an administrator)";
    return "modprobe nvidia_peermem (an administrator), or NVIDIA's open kernel modules, which "
           "export dma-buf";
}

dj_verdict_t dj_judge_gpu_memory(const dj_gpu_way_t *way, dj_finding_t *finding)
{
    char here[DJ_PATH_TEXT_MAX], away[DJ_PATH_TEXT_MAX];
    dj_reach_t direct = choose(way, false, away);
    choose(way, true, here);
    bool staged = direct == DJ_REACH_STAGING;
    return dj_find(finding, staged ? DJ_VERDICT_WARN : DJ_VERDICT_OK, staged ? way_on(way) : "",
                   "between ranks of this machine %s; to other hosts %s (driver: dma-buf %s, "
                   "GPUDirect RDMA %s, of VMM memory %s; nvidia_peermem %sloaded). Each rank proves it first; its log "
                   "says what its paths take",
                   here, away, way->dma_buf ? "yes" : "no", way->rdma ? "yes" : "no",
                   way->vmm_rdma ? "yes" : "no", way->facts.peermem ? "" : "not ");
}

dj_verdict_t dj_check_gpu_memory(dj_exam_t *exam, dj_finding_t *finding)
{
    static dj_gpu_way_t way;
    dj_ask_t *ask = &exam->asks[DJ_ASK_CUDA];
    char system[DJ_FILE_PATH_MAX];
    dj_ask_wait(ask);
    if (!has_gpu(exam))
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "no GPU is here: tensors lie in host memory, which every path reads "
                       "directly");
    way = (dj_gpu_way_t){.facts = {.transports = exam->doctor->config->transports},
                         .dma_buf = is_one(ask, "dma-buf"),
                         .rdma = is_one(ask, "rdma"),
                         .vmm_rdma = is_one(ask, "vmm-rdma")};
    dj_path_facts_read(dj_exam_path(exam, system, "/sys"), &way.facts);
    if (dj_fabric_read(&way.fabric) != DJ_OK)
        way.fabric = (dj_fabric_t){0};
    return dj_judge_gpu_memory(&way, finding);
}
