/* capture.h - what a function writes to a descriptor, as a string: for tests of output. */
#ifndef DJ_TESTS_BASE_CAPTURE_H
#define DJ_TESTS_BASE_CAPTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct capture {
    FILE *file;
    int target_fd, saved_fd;
} capture_t;

static inline capture_t capture_begin(int target_fd)
{
    capture_t capture = {.file = tmpfile(), .target_fd = target_fd};
    fflush(NULL);
    capture.saved_fd = dup(target_fd);
    if (!capture.file || capture.saved_fd < 0 || dup2(fileno(capture.file), target_fd) < 0)
        exit(1);
    return capture;
}

/* The caller frees the string. */
static inline char *capture_end(capture_t *capture)
{
    fflush(NULL);
    dup2(capture->saved_fd, capture->target_fd);
    close(capture->saved_fd);
    long size = lseek(fileno(capture->file), 0, SEEK_END);
    char *text = calloc(1, (size_t)size + 1);
    if (!text || pread(fileno(capture->file), text, (size_t)size, 0) != size)
        exit(1);
    fclose(capture->file);
    return text;
}

#endif
