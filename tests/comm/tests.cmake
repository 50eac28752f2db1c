dj_test(comm/test_messages.c LIBS dj_comm)
target_compile_definitions(comm_test_messages PRIVATE DJINN_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
dj_test(comm/test_exec.c LIBS dj_comm)
dj_test(comm/test_token.c LIBS dj_comm)
