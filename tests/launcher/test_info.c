/* The table of `djinn info`: answers that are none, answers of other versions, answers that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "launcher/info.h"

static char *print(const char *json, dj_status_t expected)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    assert_int_equal(dj_info_print(json, out), expected);
    fclose(out);
    return text;
}

static void bad_answers(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "null",
        "[]",
        "7",
        "{\"ranks\": {}}",
        "{\"ranks\": 3}",
        "{\"rank\": []}",
        "{\"ranks\": [], \"ranks\": []}",
        "{\"ranks\": []} trailing",
        "\xff\xfe",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *text = print(bad[i], DJ_ERR_PROTOCOL);
        assert_string_equal(text, "");
        free(text);
    }
    char deep[8192];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    free(print(deep, DJ_ERR_PROTOCOL));
}

static void values_of_wrong_kinds_are_dashes(void **state)
{
    char *text = print("{\"ranks\": [7, {\"rank\": \"x\", \"role\": 3, \"text_bytes\": -5, "
                       "\"plan_hits\": 1.5, \"endpoint\": []}]}",
                       DJ_OK);
    const char *line = strstr(text, "endpoint\n");
    assert_non_null(line);
    for (line += strlen("endpoint\n"); *line; line++)
        assert_true(*line == '-' || *line == ' ' || *line == '\n');
    free(text);
}

static void nothing_reaches_the_terminal_raw(void **state)
{
    char *text = print("{\"version\": \"\\u001b[2J\", \"ranks\": "
                       "[{\"endpoint\": \"\\u001b]0;x\\u0007\", \"device\": \"h\\u00e4\"}]}",
                       DJ_OK);
    assert_null(strchr(text, 0x1b));
    assert_null(strchr(text, 0x07));
    assert_non_null(strstr(text, "djinn ?[2J at ?]0;x?, 1 rank\n"));
    free(text);
    free(print("{\"ranks\": []} \x1b[2J\x07", DJ_ERR_PROTOCOL)); /* the sentence quotes the answer */
    assert_null(strchr(dj_error_text(), 0x1b));
    assert_null(strchr(dj_error_text(), 0x07));
}

static void a_table(void **state)
{
    char *text = print(
        "{\"version\": \"0.1.0\", \"ranks_expected\": 4, \"ranks\": ["
        "{\"rank\": 0, \"role\": \"coordinator\", \"state\": \"serving\", \"endpoint\": \"e0\"},"
        "{\"rank\": 1, \"role\": \"worker\", \"state\": \"serving\", \"device\": \"host avx2\", "
        "\"threads\": 2, \"sessions\": 3, \"requests\": 400, \"text_bytes\": 94371840, "
        "\"data_bytes\": 1023, \"stack_peak_bytes\": 1536, \"plan_hits\": 90, \"plan_bytes\": 2048, "
        "\"plan_resizes\": 6, \"plan_misses\": 4, \"incarnation\": 1, \"endpoint\": \"e1\"},"
        "{\"rank\": 2, \"role\": \"worker\", \"state\": \"lost\"}]}",
        DJ_OK);
    assert_string_equal(text, "djinn 0.1.0 at e0, 3 of 4 ranks\n\n"
                              "rank  role         device                    threads  sessions  "
                              "requests      Text      Data     Stack  "
                              "   plans  plan hits  misses  restarts  endpoint\n"
                              "   0  coordinator  -                               -         -      "
                              "   -         -         -         -         -  "
                              "        -       -         -  e0\n"
                              "   1  worker       host avx2                       2         3      "
                              " 400     90.0M     1023B      1.5K      2.0K  "
                              "    90.0%       4         1  e1\n"
                              "   2  lost         -                               -         -      "
                              "   -         -         -         -         -  "
                              "        -       -         -  -\n");
    free(text);
}

/* Columns that only a GPU fills are there when one does. */
static void a_table_with_gpus(void **state)
{
    char *text = print("{\"version\": \"0.1.0\", \"ranks\": ["
                       "{\"rank\": 0, \"endpoint\": \"e0\"},"
                       "{\"rank\": 1, \"device\": \"NVIDIA H100\", \"gpu_utilization_percent\": 93, "
                       "\"gpu_memory_used_bytes\": 1073741824, \"gpu_memory_total_bytes\": 85899345920, "
                       "\"gpu_ecc_corrected\": 3, \"gpu_ecc_uncorrected\": 0, \"gpu_xid\": 79}]}",
                       DJ_OK);
    assert_non_null(strstr(text, "device                     GPU     GPU memory    ECC  Xid  threads"));
    assert_non_null(strstr(text, "NVIDIA H100                93%     1.0G/80.0G    3+0   79        -"));
    assert_null(strstr(text, "temp"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_answers),
        cmocka_unit_test(values_of_wrong_kinds_are_dashes),
        cmocka_unit_test(nothing_reaches_the_terminal_raw),
        cmocka_unit_test(a_table),
        cmocka_unit_test(a_table_with_gpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
