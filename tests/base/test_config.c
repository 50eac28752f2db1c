/* test_config.c - settings from defaults, environment and options; what is refused and how. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/config.h"
#include "tests/base/capture.h"

#define OPTIONS(...) ((char *[]){"program", __VA_ARGS__, NULL})

/* Loads with one option list; checks that a failure leaves the config untouched. */
static dj_status_t load(dj_config_t *config, char **argv, int *used_p)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    memset(config, 0x5a, sizeof *config);
    dj_config_t before = *config;
    dj_status_t status = dj_config_load(config, argc, argv, used_p);
    if (status != DJ_OK)
        assert_memory_equal(config, &before, sizeof before);
    return status;
}

static void refuse(char **argv, const char *sentence)
{
    dj_config_t config;
    int used = 0;
    assert_int_equal(load(&config, argv, &used), DJ_ERR_INVALID);
    if (!strstr(dj_error_text(), sentence))
        fail_msg("'%s' lacks '%s'", dj_error_text(), sentence);
}

static void unknown_options_name_the_nearest(void **state)
{
    refuse(OPTIONS("--heartbeat", "5"),
           "unknown option --heartbeat; the nearest is --heartbeat-ms");
    refuse(OPTIONS("--log-level=info"), "unknown option --log-level;");
    refuse(OPTIONS("--adress", "x:1"), "unknown option --adress; the nearest is --address");
    refuse(OPTIONS("--=4"), "unknown option --;");
    char huge[9000] = "--";
    memset(huge + 2, 'x', sizeof huge - 3);
    huge[sizeof huge - 1] = 0;
    refuse(OPTIONS(huge), "unknown option --xxx");
}

static void bad_numbers_are_refused(void **state)
{
    refuse(OPTIONS("--ranks", "many"),
           "--ranks: bad value 'many'; it takes a count from 1 to 4096");
    refuse(OPTIONS("--ranks="), "--ranks: bad value ''");
    refuse(OPTIONS("--ranks", "-1"), "bad value '-1'");
    refuse(OPTIONS("--ranks", " 1"), "bad value ' 1'");
    refuse(OPTIONS("--ranks", "0x10"), "bad value '0x10'");
    refuse(OPTIONS("--ranks", "0"), "bad value '0'");
    refuse(OPTIONS("--ranks", "5K"), "bad value '5K'");
    refuse(OPTIONS("--ranks", "4s"), "bad value '4s'");
    refuse(OPTIONS("--restarts=18446744073709551616"), "bad value '18446744073709551616'");
    refuse(OPTIONS("--text-bytes", "16777216T"), "--text-bytes: bad value '16777216T'");
    refuse(OPTIONS("--text-bytes", "1GB"), "bad value '1GB'; it takes bytes");
    refuse(OPTIONS("--deadline-ms", "1.5s"), "bad value '1.5s'; it takes a time");
    refuse(OPTIONS("--deadline-ms", "0"), "from 1ms to 24h (default '60s')");
    refuse(OPTIONS("--poison=maybe"), "--poison: bad value 'maybe'; it takes 0 or 1");
    refuse(OPTIONS("--ranks"), "option --ranks needs a value");
}

static void bad_words_are_refused(void **state)
{
    char huge[5000];
    refuse(OPTIONS("--auth", "nobody"), "--auth: bad value 'nobody'; it takes one of token|none");
    refuse(OPTIONS("--auth", "token|none"), "bad value 'token|none'");
    refuse(OPTIONS("--auth", "tok"), "bad value 'tok'");
    refuse(OPTIONS("--auth="), "bad value ''");
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = 0;
    refuse(OPTIONS("--token-file", huge), "--token-file: bad value 'xxx");
}

static void a_bad_variable_stops_the_start(void **state)
{
    dj_config_t config;
    setenv("DJINN_RANKS", "several", 1);
    assert_int_equal(load(&config, OPTIONS(NULL), NULL), DJ_ERR_INVALID);
    assert_non_null(strstr(dj_error_text(), "DJINN_RANKS: bad value 'several'"));
    int used;
    assert_int_equal(load(&config, OPTIONS("--threads=2"), &used), DJ_ERR_INVALID);
    unsetenv("DJINN_RANKS");
    assert_int_equal(load(&config, OPTIONS(NULL), NULL), DJ_OK);
}

static void warn_of(const char *variable, const char *sentence)
{
    dj_config_t config;
    setenv(variable, "1", 1);
    capture_t capture = capture_begin(STDERR_FILENO);
    dj_status_t status = load(&config, OPTIONS(NULL), NULL);
    char *text = capture_end(&capture);
    unsetenv(variable);
    assert_int_equal(status, DJ_OK);
    if (!strstr(text, sentence))
        fail_msg("'%s' lacks '%s'", text, sentence);
    free(text);
}

static void an_unknown_variable_warns_with_the_nearest(void **state)
{
    char huge[300] = "DJINN_";
    warn_of("DJINN_TREADS", "warn: unknown variable DJINN_TREADS is ignored; the nearest name is "
                            "DJINN_THREADS");
    warn_of("DJINN_MODEL_ROOT", "the nearest name is DJINN_MODEL_ROOTS");
    warn_of("DJINN_threads", "unknown variable DJINN_threads is ignored");
    warn_of("DJINN_", "unknown variable DJINN_ is ignored");
    memset(huge + 6, 'X', sizeof huge - 7);
    warn_of(huge, "unknown variable DJINN_XXX");
}

static void defaults_are_those_of_the_table(void **state)
{
    dj_config_t config;
    assert_int_equal(load(&config, OPTIONS(NULL), NULL), DJ_OK);
    assert_string_equal(config.address, "");
    assert_string_equal(config.auth, "token");
    assert_int_equal(config.ranks, 1);
    assert_int_equal(config.deadline_ms, 60000);
    assert_int_equal(config.heartbeat_ms, 100);
    assert_true(config.stack_bytes == 8ull << 30);
    assert_false(config.poison);
}

static void options_win_over_the_environment(void **state)
{
    dj_config_t config;
    int used = 0;
    setenv("DJINN_RANKS", "3", 1);
    setenv("DJINN_TEXT_BYTES", "5m", 1);
    setenv("DJINN_POISON", "Yes", 1);
    dj_status_t status = load(&config, OPTIONS("--ranks", "8", "--suspect-ms=2S"), &used);
    unsetenv("DJINN_RANKS");
    unsetenv("DJINN_TEXT_BYTES");
    unsetenv("DJINN_POISON");
    assert_int_equal(status, DJ_OK);
    assert_int_equal(used, 4);
    assert_int_equal(config.ranks, 8);
    assert_int_equal(config.text_bytes, 5 << 20);
    assert_int_equal(config.suspect_ms, 2000);
    assert_true(config.poison);
}

static void options_end_at_the_first_other_word(void **state)
{
    dj_config_t config;
    int used = 0;
    assert_int_equal(load(&config, OPTIONS("--poison", "train.py", "--ranks", "2"), &used), DJ_OK);
    assert_int_equal(used, 2);
    assert_true(config.poison);
    assert_int_equal(config.ranks, 1);
    assert_int_equal(load(&config, OPTIONS("--ranks=2", "--", "--ranks", "3"), &used), DJ_OK);
    assert_int_equal(used, 2);
    assert_int_equal(config.ranks, 2);
    assert_int_equal(load(&config, OPTIONS("--help", "--nonsense"), &used), DJ_OK);
    assert_int_equal(used, 1);
    assert_int_equal(load(&config, OPTIONS("--token_file", "--version"), &used), DJ_OK);
    assert_string_equal(config.token_file, "--version"); /* a value, not a question */
}

static void options_go_on_after_a_program_s_own_words(void **state)
{
    dj_config_t config;
    char **argv = OPTIONS("--ranks", "2", "-n", "--threads", "5", "--nonsense");
    int at = 0;
    assert_int_equal(dj_config_load(&config, 6, argv, &at), DJ_OK);
    assert_int_equal(at, 3);
    at = 4;
    assert_int_equal(dj_config_options(&config, 6, argv, &at), DJ_OK);
    assert_int_equal(at, 6);
    assert_int_equal(config.ranks, 2);
    assert_int_equal(config.threads, 5);
    assert_int_equal(dj_config_options(&config, 7, argv, &at), DJ_ERR_INVALID);
    assert_int_equal(at, 6);
}

static void strings_outlive_their_source(void **state)
{
    dj_config_t config, again;
    char word[] = "--address=node7:4100";
    int used;
    setenv("DJINN_CORES", "0-3", 1);
    assert_int_equal(load(&config, OPTIONS(word), &used), DJ_OK);
    assert_int_equal(load(&again, OPTIONS(word), &used), DJ_OK);
    setenv("DJINN_CORES", "9-9", 1);
    unsetenv("DJINN_CORES");
    memset(word, 0, sizeof word);
    assert_string_equal(config.address, "node7:4100");
    assert_string_equal(config.cores, "0-3");
    assert_ptr_equal(config.address, again.address); /* kept once */
}

static char *printed(void (*print)(void))
{
    capture_t capture = capture_begin(STDOUT_FILENO);
    print();
    return capture_end(&capture);
}

static void every_row_is_in_help_and_page(void **state)
{
    char *help = printed(dj_config_print_help), *page = printed(dj_config_print_markdown);
    char option[160];
    unsigned rows = 0;
    dj_config_row_t row;
#define X(name, kind, standard, allowed, text)                                                     \
    assert_true(dj_config_row(rows++, &row));                                                      \
    assert_string_equal(row.help, text);                                                           \
    assert_string_equal(row.initial, standard);                                                    \
    assert_true(row.is_flag == (strcmp(#kind, "FLAG") == 0));                                      \
    assert_non_null(strstr(help, text));                                                           \
    snprintf(option, sizeof option, "| `%s` | `%s` |", row.option, row.variable);                  \
    assert_non_null(strstr(page, option));                                                         \
    assert_memory_equal(row.variable, "DJINN_", 6);                                                \
    assert_int_equal(strlen(row.variable), 6 + strlen(#name));
    DJ_CONFIG_LIST(X)
#undef X
    assert_false(dj_config_row(rows, &row));
    for (char *line = help, *end; (end = strchr(line, '\n')); line = end + 1)
        assert_true(end - line <= 100);
    free(help);
    free(page);
}

static void a_row_says_group_and_choices(void **state)
{
    dj_config_row_t first, row;
    assert_true(dj_config_row(0, &first));
    assert_string_equal(first.group, "Finding a server");
    assert_string_equal(first.choices, "");
    unsigned at = 0;
    while (dj_config_row(at, &row) && strcmp(row.option, "--device") != 0)
        at++;
    assert_string_equal(row.choices, "host|cuda");
    assert_string_equal(row.group, "Starting a server");
    while (dj_config_row(at + 1, &row))
        at++;
    assert_true(dj_config_row(at, &row));
    assert_string_equal(row.group, "Set by the supervisor for its ranks");
    while (dj_config_row(at, &row) && strcmp(row.option, "--sessions") != 0)
        at--;
    assert_string_equal(row.choices, ""); /* a range is none */
}

static void the_page_in_docs_is_current(void **state)
{
    char *page = printed(dj_config_print_markdown), kept[32768];
    FILE *file = fopen(CONFIGURATION_PAGE, "r");
    assert_non_null(file);
    kept[fread(kept, 1, sizeof kept - 1, file)] = 0;
    fclose(file);
    assert_string_equal(kept, page); /* else: print_configuration > docs/configuration.md */
    free(page);
}

static void foreign_variables_are_read_here(void **state)
{
    setenv("BASE_TEST_FOREIGN", "", 1);
    assert_null(dj_environment("BASE_TEST_FOREIGN"));
    setenv("BASE_TEST_FOREIGN", "x", 1);
    assert_string_equal(dj_environment("BASE_TEST_FOREIGN"), "x");
    unsetenv("BASE_TEST_FOREIGN");
    assert_null(dj_environment("BASE_TEST_FOREIGN"));
}

/* The test states its own environment, whatever it was started in. */
static int forget_settings(void **state)
{
#define X(name, ...) #name,
    static const char *const names[] = {DJ_CONFIG_LIST(X)};
#undef X
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        char variable[80];
        snprintf(variable, sizeof variable, "DJINN_%s", names[i]);
        for (char *at = variable; *at; at++)
            *at = *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at;
        unsetenv(variable);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_options_name_the_nearest),
        cmocka_unit_test(bad_numbers_are_refused),
        cmocka_unit_test(bad_words_are_refused),
        cmocka_unit_test(a_bad_variable_stops_the_start),
        cmocka_unit_test(an_unknown_variable_warns_with_the_nearest),
        cmocka_unit_test(defaults_are_those_of_the_table),
        cmocka_unit_test(options_win_over_the_environment),
        cmocka_unit_test(options_end_at_the_first_other_word),
        cmocka_unit_test(options_go_on_after_a_program_s_own_words),
        cmocka_unit_test(strings_outlive_their_source),
        cmocka_unit_test(every_row_is_in_help_and_page),
        cmocka_unit_test(a_row_says_group_and_choices),
        cmocka_unit_test(the_page_in_docs_is_current),
        cmocka_unit_test(foreign_variables_are_read_here),
    };
    return cmocka_run_group_tests(tests, forget_settings, NULL);
}
