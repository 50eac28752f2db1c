dj_test(comm/test_messages.c LIBS dj_comm)
target_compile_definitions(comm_test_messages PRIVATE DJINN_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
dj_test(comm/test_exec.c LIBS dj_comm)
dj_test(comm/test_token.c LIBS dj_comm)
dj_test(comm/test_control.c LIBS dj_comm)
dj_test(comm/test_endpoint.c LIBS dj_comm)
dj_test(comm/test_endpoint_loss.c LIBS dj_comm)
dj_test(comm/test_comm.c LIBS dj_comm)
dj_test(comm/test_group.c LIBS dj_comm)
dj_test(comm/test_staging.c LIBS dj_comm)
dj_test(comm/test_staging_wire.c LIBS dj_comm)

# cmake -DDJINN_FUZZ=ON -DCMAKE_C_COMPILER=clang; the sources are compiled again, instrumented.
option(DJINN_FUZZ "build the libFuzzer targets (clang)" OFF)
if(DJINN_FUZZ)
  add_executable(fuzz_messages
    fuzz/fuzz_messages.c
    ${CMAKE_SOURCE_DIR}/comm/messages.c
    ${CMAKE_SOURCE_DIR}/comm/exec.c
    ${CMAKE_SOURCE_DIR}/comm/token.c)
  target_compile_options(fuzz_messages PRIVATE -fsanitize=fuzzer,address,undefined)
  target_link_options(fuzz_messages PRIVATE -fsanitize=fuzzer,address,undefined)
  target_link_libraries(fuzz_messages PRIVATE dj_base)
  add_test(NAME fuzz_messages COMMAND fuzz_messages -max_total_time=20 -max_len=65536)
  set_tests_properties(fuzz_messages PROPERTIES LABELS fuzz)
endif()
