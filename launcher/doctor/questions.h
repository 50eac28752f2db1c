/* questions.h - which programs and functions the doctor asks (the rows of dj_ask_id_t). */
#ifndef DJ_LAUNCHER_DOCTOR_QUESTIONS_H
#define DJ_LAUNCHER_DOCTOR_QUESTIONS_H

#include "launcher/doctor/check.h"

/* Starts the questions whose bits 1 << DJ_ASK_* are set. */
void dj_questions_start(dj_exam_t *exam, unsigned asks);
/* Waits for those that no check waited for. */
void dj_questions_end(dj_exam_t *exam);

/* The functions among them: each writes "key=value" lines to standard output; probe.c. */
void dj_probe_cuda(const void *nothing);
void dj_probe_pmix(const void *nothing);
void dj_probe_host(const void *nothing);

/* The folders that DJ_ASK_FILES looks at: for each i "I-path=", then "I-error=" or "I-mode=",
 * "I-uid=", "I-writable=". 0 is ~/.djinn, 1 its token, 2 the home folder, then the model roots. */
enum { DJ_FOLDERS_FIXED = 3, DJ_FOLDERS_MAX = 16 };
typedef struct dj_folders {
    int count;
    char paths[DJ_FOLDERS_MAX][DJ_FILE_PATH_MAX];
} dj_folders_t;
void dj_folders_list(const dj_exam_t *exam, dj_folders_t *folders);
void dj_probe_files(const void *folders);

#endif
