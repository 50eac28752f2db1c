/* The exchange through a file: nothing there, remains of another job, files that others could have
 * made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>
#include <cmocka.h>

#include "launcher/exchange_file.h"
#include "launcher/home.h"
#include "runtime/base/clock.h"

static char home[] = "/tmp/djinn-exchange-XXXXXX";

static uint64_t soon(void)
{
    return dj_clock_ns() + 30 * DJ_NS_PER_MS;
}

static void put(const char *job, const char *text, mode_t mode)
{
    char path[DJ_PATH_MAX];
    FILE *file;
    assert_int_equal(dj_home_path(job, path), DJ_OK);
    unlink(path);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
}

static void nothing_there(void **state)
{
    dj_meeting_t meeting;
    assert_int_equal(dj_exchange_file_read("none", &meeting, soon()), DJ_ERR_DEADLINE);
    dj_exchange_file_remove("none");
}

static void files_not_to_be_believed(void **state)
{
    dj_meeting_t meeting;
    char path[DJ_PATH_MAX], other[DJ_PATH_MAX];
    put("job-open", "127.0.0.1:1 aa\n", 0644);
    assert_int_equal(dj_exchange_file_read("open", &meeting, soon()), DJ_ERR_AUTH);
    put("job-empty", "", 0600);
    assert_int_equal(dj_exchange_file_read("empty", &meeting, soon()), DJ_ERR_CORRUPT);
    put("job-half", "127.0.0.1:1", 0600);
    assert_int_equal(dj_exchange_file_read("half", &meeting, soon()), DJ_ERR_CORRUPT);
    put("job-old", "127.0.0.1:1 aa\n", 0600);
    assert_int_equal(dj_home_path("job-old", path), DJ_OK);
    struct utimbuf times = {time(NULL) - 3600, time(NULL) - 3600};
    assert_int_equal(utime(path, &times), 0);
    assert_int_equal(dj_exchange_file_read("old", &meeting, soon()), DJ_ERR_DEADLINE);
    assert_int_equal(dj_home_path("job-link", other), DJ_OK);
    assert_int_equal(symlink(path, other), 0);
    assert_int_equal(dj_exchange_file_read("link", &meeting, soon()), DJ_ERR_DEADLINE);
    assert_int_equal(dj_home_path("job-folder", path), DJ_OK);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(dj_exchange_file_read("folder", &meeting, soon()), DJ_ERR_DEADLINE);
}

static void there_and_gone(void **state)
{
    dj_meeting_t sent = {.endpoint = "127.0.0.1:4123", .lifeline = "[::1]:9"}, got;
    char path[DJ_PATH_MAX];
    struct stat info;
    memset(sent.token, 'a', 64);
    assert_int_equal(dj_exchange_file_write("slurm/../7", &sent), DJ_OK);
    assert_int_equal(dj_home_path("job-slurm____7", path), DJ_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(dj_exchange_file_read("slurm/../7", &got, soon()), DJ_OK);
    assert_string_equal(got.endpoint, sent.endpoint);
    assert_string_equal(got.token, sent.token);
    assert_string_equal(got.lifeline, sent.lifeline);
    dj_exchange_file_remove("slurm/../7");
    assert_int_equal(stat(path, &info), -1);
}

static int make_home(void **state)
{
    return mkdtemp(home) && setenv("HOME", home, 1) == 0 ? 0 : -1;
}

static int remove_home(void **state)
{
    char command[sizeof home + 16];
    snprintf(command, sizeof command, "rm -rf %s", home);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_there),
        cmocka_unit_test(files_not_to_be_believed),
        cmocka_unit_test(there_and_gone),
    };
    return cmocka_run_group_tests(tests, make_home, remove_home);
}
