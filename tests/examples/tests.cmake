# Programs as a user runs them, which check their own results (those in C: tests/client/tests.cmake).
# dj_program_test(<name> <label> <ranks> <command>...)
function(dj_program_test name label ranks)
  add_test(NAME ${name} COMMAND djinn-run -q -n ${ranks} -- ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} SKIP_RETURN_CODE 77 TIMEOUT 240
                       ENVIRONMENT "PYTHONPATH=${CMAKE_BINARY_DIR}/python;HF_HUB_OFFLINE=1")
endfunction()

dj_program_test(benchmarks_djinn_exec unit 1 $<TARGET_FILE:djinn_exec> -m 64:4096 -i 50 -x 10 -c)
if(TARGET djinn_torch)
  dj_program_test(examples_semantic_search torch 3 ${DJINN_PYTHON}
                  ${CMAKE_SOURCE_DIR}/examples/semantic_search.py --check)
endif()
