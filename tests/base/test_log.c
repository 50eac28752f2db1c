/* test_log.c - the level specification and the shape of a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <regex.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "runtime/base/log.h"
#include "tests/base/capture.h"

#define DJ_LOG_MODULE "comm"
#define LINES 2000

static bool matches(const char *text, const char *pattern)
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

static char *init_output(const char *spec)
{
    capture_t capture = capture_begin(STDERR_FILENO);
    dj_log_init(spec, "rank 3");
    return capture_end(&capture);
}

static void unknown_words_are_reported_and_the_rest_holds(void **state)
{
    char *text = init_output("inof,comm=debug,=trace,gpu=loud,a_module_name_far_too_long=info");
    assert_true(matches(text, " rank 3 log warn: .*'inof' '=trace' 'gpu=loud' 'a_module"));
    assert_true(dj_log_enabled("comm", DJ_LOG_DEBUG));
    assert_true(dj_log_enabled("gpu", DJ_LOG_WARN));
    assert_false(dj_log_enabled("gpu", DJ_LOG_INFO));
    free(text);

    char huge[4000]; /* words beyond what is kept or reported */
    for (unsigned i = 0; i < sizeof huge; i++)
        huge[i] = i % 5 == 4 ? ',' : 'x';
    huge[sizeof huge - 1] = 0;
    text = init_output(huge);
    assert_true(strlen(text) < 600);
    free(text);
    char many[4000] = "";
    for (unsigned i = 0; i < 200; i++)
        sprintf(many + strlen(many), "module%u=info,", i);
    text = init_output(many);
    assert_true(matches(text, "'module32=info'"));
    free(text);
}

static void silence_means_warn(void **state)
{
    const char *const silent[] = {NULL, "", ",", " , ,"};
    for (unsigned i = 0; i < sizeof silent / sizeof silent[0]; i++) {
        char *text = init_output(silent[i]);
        assert_string_equal(text, "");
        free(text);
        assert_true(dj_log_enabled("comm", DJ_LOG_WARN));
        assert_false(dj_log_enabled("comm", DJ_LOG_INFO));
    }
}

static void a_module_may_be_louder_or_quieter(void **state)
{
    free(init_output("info, comm=trace,gpu=error,comm=debug"));
    assert_true(dj_log_enabled("comm", DJ_LOG_DEBUG));
    assert_false(dj_log_enabled("comm", DJ_LOG_TRACE)); /* the later word wins */
    assert_false(dj_log_enabled("gpu", DJ_LOG_WARN));
    assert_true(dj_log_enabled("gpu", DJ_LOG_ERROR));
    assert_true(dj_log_enabled("runtime", DJ_LOG_INFO));
    assert_false(dj_log_enabled("runtime", DJ_LOG_DEBUG));
}

static void a_line_has_its_prefix_and_no_control_bytes(void **state)
{
    dj_log_init("info", "rank 3");
    capture_t capture = capture_begin(STDERR_FILENO);
    dj_log(INFO, "peer %s left", "a\nb\x1b[0m");
    dj_log(DEBUG, "unseen");
    char *text = capture_end(&capture);
    assert_true(matches(text, "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{6}Z rank 3 comm info: "
                              "peer a\\?b\\?\\[0m left\n$"));
    free(text);
}

static void a_long_line_is_cut_and_ended(void **state)
{
    char huge[5000];
    memset(huge, 'y', sizeof huge - 1);
    huge[sizeof huge - 1] = 0;
    dj_log_init("info", "a name of far more than thirty-one bytes");
    capture_t capture = capture_begin(STDERR_FILENO);
    dj_log(WARN, "%s", huge);
    char *text = capture_end(&capture);
    assert_true(strlen(text) == 1023 && text[1022] == '\n');
    assert_non_null(strstr(text, " a name of far more than thirty- comm warn: yyy"));
    free(text);
}

/* A packet socket keeps the borders between writes. */
static void a_line_is_one_write(void **state)
{
    int pair[2], saved = dup(STDERR_FILENO);
    char line[2048];
    dj_log_init("info", "rank 3");
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    assert_int_equal(dup2(pair[1], STDERR_FILENO), STDERR_FILENO);
    dj_log(INFO, "first");
    dj_log(INFO, "second");
    dup2(saved, STDERR_FILENO);
    ssize_t size = recv(pair[0], line, sizeof line, MSG_DONTWAIT);
    assert_true(size > 10);
    assert_memory_equal(line + size - 12, "info: first\n", 12);
    assert_true(recv(pair[0], line, sizeof line, MSG_DONTWAIT) > 10);
    assert_int_equal(recv(pair[0], line, sizeof line, MSG_DONTWAIT), -1);
    close(pair[0]);
    close(pair[1]);
    close(saved);
}

static pthread_barrier_t start;

static void *log_lines(void *argument)
{
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < LINES; i++)
        dj_log(INFO, "%s", (const char *)argument);
    return NULL;
}

static void lines_of_threads_stay_whole(void **state)
{
    pthread_t threads[2];
    dj_log_init("info", NULL);
    pthread_barrier_init(&start, NULL, 2);
    capture_t capture = capture_begin(STDERR_FILENO);
    pthread_create(&threads[0], NULL, log_lines, "aaaaaaaaaaaaaaaaaaaa");
    pthread_create(&threads[1], NULL, log_lines, "bbbbbbbbbbbbbbbbbbbb");
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    pthread_barrier_destroy(&start);
    char *text = capture_end(&capture), *rest = text;
    unsigned lines = 0;
    for (char *line; (line = strsep(&rest, "\n")) && *line; lines++)
        assert_true(matches(line, "^[^ ]{27} comm info: (a{20}|b{20})$"));
    assert_int_equal(lines, 2 * LINES);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_words_are_reported_and_the_rest_holds),
        cmocka_unit_test(silence_means_warn),
        cmocka_unit_test(a_module_may_be_louder_or_quieter),
        cmocka_unit_test(a_line_has_its_prefix_and_no_control_bytes),
        cmocka_unit_test(a_long_line_is_cut_and_ended),
        cmocka_unit_test(a_line_is_one_write),
        cmocka_unit_test(lines_of_threads_stay_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
