/* check.h - what one check of the doctor sees and says.
 *
 * A check is a function of an examination: it reads files below the root, looks at its own limits
 * and variables, and takes the answers of other programs from ask.h, which were asked
 * before the first check so that they work beside one another. It writes a sentence, and a next
 * step when something is wrong, and returns the verdict. What files, variables and programs say is
 * untrusted text: it is cut, and dj_find() makes what cannot be printed a '?'.
 *
 * Threads: one. */
#ifndef DJ_LAUNCHER_DOCTOR_CHECK_H
#define DJ_LAUNCHER_DOCTOR_CHECK_H

#include "comm/fabric.h"
#include "comm/path.h"
#include "launcher/doctor/doctor.h"
#include "launcher/doctor/ask.h"

enum {
    DJ_FINDING_MAX = 1024,
    DJ_FILE_PATH_MAX = 1024,
};

/* In the order of what is worse. INFO: nothing to judge; the text says what was seen, or why
 * nothing was looked at. */
typedef enum dj_verdict {
    DJ_VERDICT_INFO,
    DJ_VERDICT_OK,
    DJ_VERDICT_WARN,
    DJ_VERDICT_FAIL,
    DJ_VERDICT_COUNT,
} dj_verdict_t;

typedef struct dj_finding {
    char text[DJ_FINDING_MAX], next[DJ_FINDING_MAX];
} dj_finding_t;

typedef struct dj_exam {
    const dj_doctor_t *doctor;
    dj_ask_t asks[DJ_ASK_COUNT];
    char *info; /* the server's description of itself, asked once; NULL: none */
    bool info_asked;
    int64_t info_sent_ms, info_got_ms; /* real clock around the question */
} dj_exam_t;

typedef struct dj_check {
    const char *name, *group;
    dj_verdict_t (*check)(dj_exam_t *exam, dj_finding_t *finding);
    unsigned asks; /* bits 1 << DJ_ASK_*: what must have been asked before */
    const char *about;
} dj_check_t;

/* Writes the sentence and the next step ("": none) and returns the verdict. */
dj_verdict_t dj_find(dj_finding_t *finding, dj_verdict_t verdict, const char *next,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Replaces the next step. */
void dj_advise(dj_finding_t *finding, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Adds to a list in `text`, ", " between; what has no room is left out. */
void dj_list_add(char *text, size_t room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- files below the root (files.c reads mounts, the rest is here for all) ---- */

/* root + the formatted path; cut when it is too long, so that it is not found. */
const char *dj_exam_path(const dj_exam_t *exam, char path[DJ_FILE_PATH_MAX], const char *format,
                         ...) __attribute__((format(printf, 3, 4)));
bool dj_exam_exists(const dj_exam_t *exam, const char *path);
/* The file as a string without its last newline; false and "" when it cannot be read. */
bool dj_exam_read(const dj_exam_t *exam, const char *path, char *text, size_t room);
bool dj_exam_number(const dj_exam_t *exam, const char *path, long long *number_p);
/* Names in a folder, sorted, at most `most`; hidden ones are left out. How many. */
enum { DJ_ENTRY_MAX = 64 };
int dj_exam_entries(const dj_exam_t *exam, const char *folder, char (*names)[DJ_ENTRY_MAX],
                    int most);

/* The type of the file system that holds an absolute path ("nfs4"), by the mount table; "?". */
const char *dj_exam_file_system(const dj_exam_t *exam, const char *path, char *type, size_t room);
bool dj_is_shared_file_system(const char *type);

/* The effective limit of a cgroup file, v1 or v2: the lowest on the way up to the mount. `parse`
 * makes a file's text a number, negative for no limit. -1: none. `folder` gets the cgroup that
 * sets it. */
typedef struct dj_cgroup_file {
    const char *controller; /* "memory" */
    const char *v1, *v2;    /* "memory.limit_in_bytes", "memory.max" */
} dj_cgroup_file_t;
double dj_cgroup_limit(const dj_exam_t *exam, const dj_cgroup_file_t *file,
                       double (*parse)(const dj_exam_t *exam, const char *folder, const char *text),
                       char folder[DJ_FILE_PATH_MAX], bool *is_v2_p);

/* ---- judgements that are pure, for tests ---- */

/* `skew_ms` against the server (0 where none is known), the kernel's word whether time is kept. */
dj_verdict_t dj_judge_clock(bool synchronised, bool has_server, long long skew_ms,
                            dj_finding_t *finding);
/* What is known of a UCX version: NULL when nothing is. */
const char *dj_judge_ucx(unsigned major, unsigned minor, const char **next_p);

/* What decides how GPU memory travels. */
typedef struct dj_gpu_way {
    dj_path_facts_t facts;        /* of the system: rdma, peermem, shm, tcp, transports */
    dj_fabric_t fabric;           /* of UCX */
    bool dma_buf, rdma, vmm_rdma; /* the driver's attributes */
} dj_gpu_way_t;
dj_verdict_t dj_judge_gpu_memory(const dj_gpu_way_t *way, dj_finding_t *finding);

/* ---- the checks, by file ---- */

#define DJ_CHECK(name) dj_verdict_t dj_check_##name(dj_exam_t *exam, dj_finding_t *finding)
/* software.c */
DJ_CHECK(ucx);
DJ_CHECK(ucx_settings);
DJ_CHECK(programs);
DJ_CHECK(torch);
/* gpu.c */
DJ_CHECK(gpu_devices);
DJ_CHECK(gpu_driver);
DJ_CHECK(gpu_memory);
DJ_CHECK(gpu_health);
/* memory.c */
DJ_CHECK(shared_memory);
DJ_CHECK(cma);
DJ_CHECK(huge_pages);
DJ_CHECK(numa_balancing);
/* limits.c */
DJ_CHECK(open_files);
DJ_CHECK(locked_memory);
DJ_CHECK(processes);
DJ_CHECK(cgroup_memory);
DJ_CHECK(cgroup_cpus);
/* machine.c */
DJ_CHECK(kernel);
DJ_CHECK(container);
DJ_CHECK(governor);
/* network.c */
DJ_CHECK(interfaces);
DJ_CHECK(host_name);
DJ_CHECK(listen);
DJ_CHECK(ports);
DJ_CHECK(firewall);
DJ_CHECK(rdma);
/* launch.c */
DJ_CHECK(launch);
DJ_CHECK(pmix);
DJ_CHECK(open_mpi);
/* slurm.c */
DJ_CHECK(slurm);
DJ_CHECK(slurm_mpi);
DJ_CHECK(slurm_limits);
DJ_CHECK(munge);
/* files.c */
DJ_CHECK(home);
DJ_CHECK(weights);
/* server.c */
DJ_CHECK(path);
DJ_CHECK(server);
DJ_CHECK(clock);
#undef DJ_CHECK

#endif
