# Faults at random moments under load, with real processes. CTest runs short versions; the long ones are
# started by hand (docs/testing.md) and leave their logs in tests/campaign/results.
add_executable(campaign_client ${CMAKE_CURRENT_SOURCE_DIR}/campaign/client.c)
target_link_libraries(campaign_client PRIVATE djinn_client)
add_dependencies(campaign_client djinn-run djinn-rank djinn)

find_package(Python3 REQUIRED COMPONENTS Interpreter)
# dj_campaign(<name> <program> <words>...)
function(dj_campaign name program)
  add_test(NAME campaign_${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/campaign/${program} --bin
                   ${CMAKE_RUNTIME_OUTPUT_DIRECTORY} ${ARGN})
  set_tests_properties(campaign_${name} PROPERTIES LABELS unit SKIP_RETURN_CODE 77 TIMEOUT 240
                       RESOURCE_LOCK jobs)
endfunction()
dj_campaign(kills_shm kills --rounds 8 --transport shm --seed 1)
dj_campaign(kills_tcp kills --rounds 8 --transport tcp --seed 1)
dj_campaign(noise noise --seconds 8 --seed 1)
dj_campaign(cut_link cut_link --repetitions 5 --seed 1)
# It watches the rank's memory, and a sanitizer keeps freed memory for a while.
if(NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
  dj_campaign(slow_receiver slow_receiver --seconds 3)
  dj_campaign(slow_receiver_tcp slow_receiver --seconds 3 --transport tcp)
  # It compares latencies.
  set_tests_properties(campaign_slow_receiver campaign_slow_receiver_tcp PROPERTIES RESOURCE_LOCK "" RUN_SERIAL TRUE)
endif()
# The server's processes under each launcher; ranks, rank 0 and supervisors are killed in turn.
dj_campaign(launch_kills launch_kills --rounds 9 --seed 1)
dj_campaign(launch_kills_mpirun launch_kills --rounds 9 --seed 1 --under mpirun)
dj_campaign(launch_kills_srun launch_kills --rounds 9 --seed 1 --under srun)
set_tests_properties(campaign_launch_kills_mpirun PROPERTIES LABELS mpi)
set_tests_properties(campaign_launch_kills_srun PROPERTIES LABELS slurm)
