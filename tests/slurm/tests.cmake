# Jobs of a real Slurm cluster (slurm/testbed's), which each program raises for itself.
function(dj_slurm_test name file)
  add_test(NAME slurm_${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/slurm/${file} ${ARGN})
  set_tests_properties(slurm_${name} PROPERTIES LABELS slurm SKIP_RETURN_CODE 77 TIMEOUT 240
                       ENVIRONMENT "LAUNCH_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
endfunction()
dj_slurm_test(launch test_launch.py)
dj_slurm_test(doctor test_doctor.py)
dj_slurm_test(ends test_ends.py)
dj_slurm_test(join test_join.py)
dj_slurm_test(mpirun test_mpirun.py)
dj_slurm_test(testbed test_testbed.py)
dj_slurm_test(scripts test_scripts.py Scripts)
dj_slurm_test(examples test_scripts.py Examples)
