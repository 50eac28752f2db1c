# Jobs of a real Slurm cluster (slurm/testbed's), which each program raises for itself.
function(dj_slurm_test name)
  add_test(NAME slurm_${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/slurm/test_${name}.py)
  set_tests_properties(slurm_${name} PROPERTIES LABELS slurm SKIP_RETURN_CODE 77 TIMEOUT 120
                       ENVIRONMENT "LAUNCH_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
endfunction()
dj_slurm_test(launch)
dj_slurm_test(doctor)
