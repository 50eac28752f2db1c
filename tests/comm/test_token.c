/* test_token.c - a token file is refused unless it is ours, private, regular and exactly a token.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/control.h"

static const char good[] = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
static char folder[] = "/tmp/djinn-token-XXXXXX";
static char path[128];

static void write_file(const char *text, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void test_parse_refuses(void **state)
{
    uint8_t token[32];
    char text[65];
    assert_int_equal(dj_token_parse("", token), DJ_ERR_INVALID);
    memcpy(text, good, 65);
    text[63] = '\0';
    assert_int_equal(dj_token_parse(text, token), DJ_ERR_INVALID);
    for (int i = 0; i < 64; ++i) {
        memcpy(text, good, 65);
        text[i] = "gG/:@`\x80 "[i % 8];
        assert_int_equal(dj_token_parse(text, token), DJ_ERR_INVALID);
    }
    char longer[70];
    snprintf(longer, sizeof(longer), "%s0", good);
    assert_int_equal(dj_token_parse(longer, token), DJ_ERR_INVALID);
}

static void test_parse_and_format(void **state)
{
    uint8_t token[32];
    char text[65];
    assert_int_equal(dj_token_parse(good, token), DJ_OK);
    assert_int_equal(token[1], 0x11);
    assert_int_equal(token[31], 0xff);
    dj_token_format(token, text);
    assert_string_equal(text, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
}

static void test_read_refuses(void **state)
{
    uint8_t token[32];
    unlink(path);
    assert_int_equal(dj_token_read(path, token), DJ_ERR_FILE);
    assert_non_null(strstr(dj_error_text(), path));
    assert_int_equal(dj_token_read(folder, token), DJ_ERR_FILE);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(dj_token_read(path, token), DJ_ERR_FILE); /* and does not hang */
    for (mode_t mode = 0; mode < 0100; ++mode) {
        if (mode == 0)
            continue;
        write_file(good, 0600 | mode);
        assert_int_equal(dj_token_read(path, token), DJ_ERR_AUTH);
    }
    assert_non_null(strstr(dj_error_text(), "600"));
    static const char *const bad[] = {"", "\n", "short", "no hexadecimal digits in here, but 64 of",
                                      "00112233445566778899aabbccddeeff"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); ++i) {
        write_file(bad[i], 0600);
        assert_int_equal(dj_token_read(path, token), DJ_ERR_INVALID);
    }
    char twice[140];
    snprintf(twice, sizeof(twice), "%s%s", good, good);
    write_file(twice, 0600);
    assert_int_equal(dj_token_read(path, token), DJ_ERR_INVALID);
}

static void test_read_refuses_a_file_of_another_user(void **state)
{
    uint8_t token[32];
    if (geteuid() != 0)
        skip();
    write_file(good, 0600);
    assert_int_equal(chown(path, 1234, 1234), 0);
    assert_int_equal(dj_token_read(path, token), DJ_ERR_AUTH);
}

static void test_write_then_read(void **state)
{
    uint8_t token[32], back[32];
    struct stat info;
    char inner[160];
    for (int i = 0; i < 32; ++i)
        token[i] = (uint8_t)(i * 7);
    snprintf(inner, sizeof(inner), "%s/new/token", folder);
    assert_int_equal(dj_token_write(inner, token), DJ_OK);
    assert_int_equal(stat(inner, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(dj_token_read(inner, back), DJ_OK);
    assert_memory_equal(token, back, 32);
    assert_int_equal(dj_token_write(inner, token), DJ_OK); /* again, over it */
    unlink(inner);
    *strrchr(inner, '/') = '\0';
    assert_int_equal(stat(inner, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(rmdir(inner), 0); /* nothing was left beside it */
    assert_int_equal(dj_token_write("/proc/none/token", token), DJ_ERR_FILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_parse_and_format),
        cmocka_unit_test(test_read_refuses),
        cmocka_unit_test(test_read_refuses_a_file_of_another_user),
        cmocka_unit_test(test_write_then_read),
    };
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof(path), "%s/token", folder);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(folder);
    return failed;
}
