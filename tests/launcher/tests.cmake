# Real processes, driven from Python's standard library; echo_rank stands in for djinn-rank.
add_executable(echo_rank ${CMAKE_CURRENT_SOURCE_DIR}/launcher/echo_rank.c)
target_link_libraries(echo_rank PRIVATE dj_base)

find_package(Python3 REQUIRED COMPONENTS Interpreter)
function(dj_launch_test name label file)
  add_test(NAME launcher_${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/launcher/${file} ${ARGN})
  set_tests_properties(launcher_${name} PROPERTIES LABELS ${label} SKIP_RETURN_CODE 77 TIMEOUT 120
                       ENVIRONMENT "LAUNCH_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
endfunction()
dj_launch_test(use unit test_launch.py WrongUse)
dj_launch_test(command unit test_launch.py Command)
dj_launch_test(ranks unit test_launch.py Ranks)
dj_launch_test(ends unit test_launch.py Ends)
dj_launch_test(cores unit test_launch.py Cores)
dj_launch_test(played unit test_places.py Played)
dj_launch_test(mpirun mpi test_places.py Mpirun)

dj_test(launcher/test_info.c LABEL unit LIBS dj_info)
dj_test(launcher/test_network.c LABEL unit LIBS dj_launcher)
dj_test(launcher/test_exchange_file.c LABEL unit LIBS dj_launcher)
dj_test(launcher/test_placement.c LABEL unit LIBS dj_launcher)
dj_launch_test(djinn unit test_djinn.py Words)
dj_launch_test(doctor unit test_djinn.py Doctor)
dj_launch_test(real_ranks unit test_djinn.py RealRanks)
dj_launch_test(real_mpirun mpi test_djinn.py RealMpirun.test_nine_ranks)
dj_launch_test(nodes mpi test_places.py SeveralNodes)
dj_launch_test(slurm slurm test_slurm.py Slurm)
