/* doctor.c - the table of checks, the questions they need, and how the findings are told. */
#include "launcher/doctor/doctor.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/doctor/check.h"
#include "launcher/doctor/questions.h"
#include "runtime/base/clock.h"

static const char *const verdicts[DJ_VERDICT_COUNT] = {"info", "ok", "warn", "fail"};

#define ASK(name) (1u << DJ_ASK_##name)

static const dj_check_t checks[] = {
    {"ucx", "software", dj_check_ucx, 0, "version and transports of UCX"},
    {"ucx-settings", "software", dj_check_ucx_settings, 0, "UCX_* variables that win over ours"},
    {"programs", "software", dj_check_programs, ASK(SERVER) | ASK(RANK),
     "djinn-server and djinn-rank beside djinn, of the same version"},
    {"torch", "software", dj_check_torch, ASK(PYTHON) | ASK(CUDA),
     "torch of python3, against the frontend's build and the driver"},
    {"gpu-devices", "gpu", dj_check_gpu_devices, 0, "GPUs and their device files"},
    {"gpu-driver", "gpu", dj_check_gpu_driver, ASK(CUDA), "driver, CUDA version, compute mode"},
    {"gpu-memory", "gpu", dj_check_gpu_memory, ASK(CUDA), "how GPU memory reaches the network"},
    {"gpu-health", "gpu", dj_check_gpu_health, ASK(CUDA), "ECC errors, rows that wait for a reset"},
    {"shared-memory", "memory", dj_check_shared_memory, 0, "room in /dev/shm"},
    {"cma", "memory", dj_check_cma, 0, "one process may read another's memory"},
    {"huge-pages", "memory", dj_check_huge_pages, 0, "transparent huge pages"},
    {"numa-balancing", "memory", dj_check_numa_balancing, 0, "pages moved between nodes"},
    {"open-files", "limits", dj_check_open_files, 0, "open files"},
    {"locked-memory", "limits", dj_check_locked_memory, 0, "locked memory, which RDMA needs"},
    {"processes", "limits", dj_check_processes, 0, "processes and threads"},
    {"cgroup-memory", "limits", dj_check_cgroup_memory, 0, "memory that the cgroup allows"},
    {"cgroup-cpus", "limits", dj_check_cgroup_cpus, 0, "processor time that the cgroup allows"},
    {"kernel", "machine", dj_check_kernel, 0, "version of the kernel"},
    {"container", "machine", dj_check_container, 0, "whether this is a container"},
    {"governor", "machine", dj_check_governor, 0, "clock of the cores"},
    {"interfaces", "network", dj_check_interfaces, 0, "the address that other nodes reach"},
    {"host-name", "network", dj_check_host_name, ASK(HOST), "what the host name stands for"},
    {"listen", "network", dj_check_listen, 0, "listening there, --listen's port included"},
    {"ports", "network", dj_check_ports, 0, "ports that the kernel gives"},
    {"firewall", "network", dj_check_firewall, 0, "signs of a packet filter"},
    {"rdma", "network", dj_check_rdma, 0, "RDMA devices and their ports"},
    {"launcher", "launch", dj_check_launch, ASK(PMIX), "which launcher started us, and why"},
    {"pmix", "launch", dj_check_pmix, ASK(PMIX), "the PMIx library"},
    {"open-mpi", "launch", dj_check_open_mpi, ASK(MPIRUN), "whose mpirun it is"},
    {"slurm", "launch", dj_check_slurm, ASK(SCONTROL), "Slurm answers"},
    {"slurm-mpi", "launch", dj_check_slurm_mpi, ASK(SRUN_MPI) | ASK(SCONTROL),
     "the PMIx plugin of srun"},
    {"slurm-limits", "launch", dj_check_slurm_limits, ASK(SCONTROL),
     "limits of the submitting shell that follow into a job"},
    {"munge", "launch", dj_check_munge, ASK(MUNGE) | ASK(SCONTROL), "munged answers"},
    {"home", "files", dj_check_home, ASK(FILES), "~/.djinn and the token"},
    {"weights", "files", dj_check_weights, ASK(FILES), "folders of weights: shared or local"},
    {"path", "server", dj_check_path, 0, "what carries bytes to the server"},
    {"ranks", "server", dj_check_server, 0, "the server's version and ranks"},
    {"clock", "server", dj_check_clock, 0, "the clock, against the server's"},
};
enum { N_CHECKS = sizeof checks / sizeof checks[0] };

static bool is_wanted(const dj_doctor_t *doctor, const dj_check_t *check)
{
    bool wanted = doctor->n_only == 0;
    for (int i = 0; i < doctor->n_only; i++)
        wanted |=
            strcmp(doctor->only[i], check->name) == 0 || strcmp(doctor->only[i], check->group) == 0;
    return wanted;
}

bool dj_doctor_knows(const char *name)
{
    const dj_doctor_t one = {.only = {name}, .n_only = 1};
    bool known = false;
    for (int i = 0; i < N_CHECKS; i++)
        known |= is_wanted(&one, &checks[i]);
    return known;
}

void dj_doctor_list(FILE *out)
{
    for (int i = 0; i < N_CHECKS; i++)
        fprintf(out, "%-15s %-9s %s\n", checks[i].name, checks[i].group, checks[i].about);
}

static double ms_since(uint64_t start_ns)
{
    return (double)(dj_clock_ns() - start_ns) / (double)DJ_NS_PER_MS;
}

static void print_line(const char *name, dj_verdict_t verdict, const dj_finding_t *finding,
                       FILE *out)
{
    fprintf(out, "%-4s  %-14s  %s\n", verdicts[verdict], name, finding->text);
    if (finding->next[0])
        fprintf(out, "%*s-> %s\n", 22, "", finding->next);
}

static json_t *describe(const dj_check_t *check, dj_verdict_t verdict, const dj_finding_t *finding,
                        double ms)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:f}", "name", check->name, "group", check->group,
                     "verdict", verdicts[verdict], "text", finding->text, "next", finding->next,
                     "ms", ms);
}

static void print_json(json_t *list, const int *counts, dj_verdict_t worst, double ms, FILE *out)
{
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    json_t *all =
        json_pack("{s:i, s:s, s:s, s:s, s:f, s:{s:i, s:i, s:i, s:i}, s:O}", "schema", 1, "djinn",
                  DJINN_VERSION, "host", host, "verdict", verdicts[worst], "ms", ms, "counts",
                  "info", counts[DJ_VERDICT_INFO], "ok", counts[DJ_VERDICT_OK], "warn",
                  counts[DJ_VERDICT_WARN], "fail", counts[DJ_VERDICT_FAIL], "checks", list);
    if (all)
        json_dumpf(all, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    fputc('\n', out);
    json_decref(all);
}

static unsigned questions_of(const dj_doctor_t *doctor)
{
    unsigned asks = 0;
    for (int i = 0; i < N_CHECKS && !doctor->quick; i++)
        asks |= is_wanted(doctor, &checks[i]) ? checks[i].asks : 0;
    return asks;
}

bool dj_doctor_run(const dj_doctor_t *doctor, FILE *out)
{
    uint64_t start_ns = dj_clock_ns();
    dj_verdict_t worst = DJ_VERDICT_OK;
    int counts[DJ_VERDICT_COUNT] = {0};
    json_t *list = json_array();
    dj_exam_t *exam = calloc(1, sizeof *exam);
    if (!exam || !list) {
        free(exam);
        json_decref(list);
        return false;
    }
    exam->doctor = doctor;
    dj_questions_start(exam, questions_of(doctor));
    for (int i = 0; i < N_CHECKS; i++) {
        dj_finding_t finding = {0};
        uint64_t check_ns = dj_clock_ns();
        if (!is_wanted(doctor, &checks[i]))
            continue;
        dj_verdict_t verdict = checks[i].check(exam, &finding);
        worst = verdict > worst ? verdict : worst;
        counts[verdict]++;
        if (!doctor->as_json)
            print_line(checks[i].name, verdict, &finding, out);
        json_array_append_new(list, describe(&checks[i], verdict, &finding, ms_since(check_ns)));
    }
    dj_questions_end(exam);
    if (doctor->as_json)
        print_json(list, counts, worst, ms_since(start_ns), out);
    else
        fprintf(out, "\n%d ok, %d info, %d warn, %d fail\n", counts[DJ_VERDICT_OK],
                counts[DJ_VERDICT_INFO], counts[DJ_VERDICT_WARN], counts[DJ_VERDICT_FAIL]);
    json_decref(list);
    free(exam->info);
    free(exam);
    return worst != DJ_VERDICT_FAIL;
}
