# The suite's programs as a user starts them, driven from Python's standard library.
function(dj_suite_test name label)
  add_test(NAME benchmarks_${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/benchmarks/test_suite.py ${ARGN})
  set_tests_properties(benchmarks_${name} PROPERTIES LABELS ${label} SKIP_RETURN_CODE 77 TIMEOUT 240
                       ENVIRONMENT "LAUNCH_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
endfunction()
dj_suite_test(use unit WrongUse)
dj_suite_test(columns unit Columns)
dj_suite_test(planner unit Planner)
dj_suite_test(checked unit Checked)
dj_suite_test(ends unit Ends)
dj_suite_test(mpirun mpi Mpirun)
dj_suite_test(slurm slurm Slurm)
dj_suite_test(compare mpi Compare)
set_tests_properties(benchmarks_compare PROPERTIES TIMEOUT 300)

dj_test(benchmarks/test_osu.c LABEL unit LIBS dj_osu)
