/* test_path.c - the path that a connection took, as it says itself: by default, as asked for, and
 * to a server of another user, whose shared memory must be left alone. Each connection is made in a
 * process of its own, because a variable and a user id belong to a process. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/client/ops.h"
#include "tests/runtime/server.h"

enum { OTHER_USER = 65534, DIFFERS = 1, CANNOT_CONNECT, DOES_NOT_WORK, CANNOT_CHANGE };

static server_t server;

static int start(void **state)
{
    static const char *const words[] = {"--threads", "1", NULL};
    return server_start(&server, 1, words) ? 0 : -1;
}

static int stop(void **state)
{
    return server_stop(&server) ? 0 : -1;
}

static bool works(djinn_t *djinn)
{
    static float values[65536], back[65536];
    values[65535] = 3;
    djinn_tensor_t tensor = upload_vector(djinn, values, 65536);
    bool good = djinn_fetch(djinn, &tensor, back, sizeof(back)) == DJINN_OK && back[65535] == 3;
    djinn_release(tensor.storage);
    return good;
}

static int take_path(const char *transports, const char *mode, uid_t user, const char *expected)
{
    djinn_options_t options = server_options(&server);
    djinn_t *djinn;
    int answer = 0;
    options.mode = mode;
    setenv("DJINN_TRANSPORTS", transports, 1);
    if (user != getuid() && setuid(user) != 0)
        return CANNOT_CHANGE;
    if (djinn_connect(&options, &djinn) != DJINN_OK) {
        bool as_told = strcmp(djinn_error(), expected) == 0;
        fprintf(stderr, "%s%s\n", as_told ? "" : "unexpected: ", djinn_error());
        return as_told ? 0 : CANNOT_CONNECT;
    }
    if (strcmp(djinn_path(djinn), expected) != 0) {
        fprintf(stderr, "path: %s\n", djinn_path(djinn));
        answer = DIFFERS;
    } else if (djinn_rank(djinn) != 0 || !works(djinn)) {
        answer = DOES_NOT_WORK;
    }
    djinn_close(djinn);
    return answer;
}

static void expect(const char *transports, const char *mode, uid_t user, const char *path)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        _exit(take_path(transports, mode, user, path));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_true(server_is_empty(&server, 0));
}

static void one_host_and_user_share_memory(void **state)
{
    expect("auto", NULL, getuid(), "shm, because same host and user");
    expect("shm", NULL, getuid(), "shm, because same host and user");
}

static void tcp_is_taken_where_it_is_asked_for(void **state)
{
    expect("tcp", NULL, getuid(), "tcp, because tcp was asked for");
    expect("auto", "remote", getuid(), "tcp, because tcp was asked for");
}

static void another_users_memory_is_left_alone(void **state)
{
    if (getuid() != 0)
        skip();
    expect("auto", NULL, OTHER_USER, "tcp, because the peer runs as another user");
    expect("tcp", NULL, OTHER_USER, "tcp, because tcp was asked for");
    expect("shm", NULL, OTHER_USER,
           "shm was asked for, but the peer runs as another user: use --transports auto or tcp");
}

static djinn_status_t no_executor(void *context, const djinn_local_message_t *message)
{
    return DJINN_OK;
}

static void without_a_server_there_is_no_rank(void **state)
{
    djinn_t *djinn;
    assert_int_equal(djinn_connect_local(no_executor, NULL, &djinn), DJINN_OK);
    assert_int_equal(djinn_rank(djinn), -1);
    assert_string_equal(djinn_path(djinn), "local, because no server is used");
    djinn_close(djinn);
    assert_int_equal(djinn_rank(NULL), -1);
    assert_string_equal(djinn_path(NULL), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_host_and_user_share_memory),
        cmocka_unit_test(tcp_is_taken_where_it_is_asked_for),
        cmocka_unit_test(another_users_memory_is_left_alone),
        cmocka_unit_test(without_a_server_there_is_no_rank),
    };
    return server_verdict(cmocka_run_group_tests(tests, start, stop));
}
