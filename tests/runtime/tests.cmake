# Real processes. test_server starts and asks servers for the C programs here and in tests/client.
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
add_library(test_server STATIC ${CMAKE_CURRENT_SOURCE_DIR}/runtime/server.c)
target_compile_definitions(test_server PRIVATE DJINN_BIN="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}"
                           ALLOC_COUNT="$<TARGET_FILE:alloc_count>"
                           SUPPRESSED="${CMAKE_CURRENT_SOURCE_DIR}/runtime/leaks.supp")
target_link_libraries(test_server PUBLIC PkgConfig::JANSSON)

# The client library's inside, for peers that are not what they should be.
get_target_property(client_sources djinn_client SOURCES)
list(TRANSFORM client_sources PREPEND ${CMAKE_SOURCE_DIR}/client/)
add_library(djinn_inside STATIC ${client_sources})
target_link_libraries(djinn_inside PUBLIC dj_comm dj_planner dj_base Threads::Threads)
add_executable(test_peer ${CMAKE_CURRENT_SOURCE_DIR}/runtime/peer.c)
target_link_libraries(test_peer PRIVATE djinn_inside)

# dj_processes_test(<name> <label> <file> <class>): Python's standard library drives real processes.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
function(dj_processes_test name label file class)
  cmake_parse_arguments(ARG "POISON" "" "" ${ARGN})
  add_test(NAME runtime_${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/runtime/${file} ${class})
  set_tests_properties(runtime_${name} PROPERTIES LABELS ${label} SKIP_RETURN_CODE 77 TIMEOUT 240
                       ENVIRONMENT "LIVE_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  if(ARG_POISON AND NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
    add_test(NAME runtime_${name}_poison
             COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/runtime/${file} ${class})
    set_tests_properties(
      runtime_${name}_poison PROPERTIES LABELS ${label} SKIP_RETURN_CODE 77 TIMEOUT 240 ENVIRONMENT
      "LIVE_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};LIVE_POISON=1;LIVE_PRELOAD=$<TARGET_FILE:alloc_count>")
  endif()
endfunction()
dj_processes_test(mpirun mpi test_workers.py Mpirun)
add_test(NAME runtime_many_ranks COMMAND ${Python3_EXECUTABLE}
         ${CMAKE_CURRENT_SOURCE_DIR}/runtime/test_workers.py ManyRanks)
set_tests_properties(runtime_many_ranks PROPERTIES LABELS unit TIMEOUT 240 RUN_SERIAL TRUE
                     ENVIRONMENT "LIVE_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
dj_processes_test(plans unit test_workers.py Plans POISON)
dj_processes_test(plan_files unit test_workers.py PlanFiles POISON)
dj_processes_test(ending unit test_ending.py Ending)
dj_processes_test(fencing unit test_ending.py Fencing)
add_test(NAME runtime_cut_coordinator COMMAND ${Python3_EXECUTABLE}
         ${CMAKE_CURRENT_SOURCE_DIR}/runtime/test_ending.py CutLink)
set_tests_properties(runtime_cut_coordinator PROPERTIES LABELS unit SKIP_RETURN_CODE 77 TIMEOUT 240
                     ENVIRONMENT "LIVE_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
dj_processes_test(sessions unit test_sessions.py Sessions POISON)
dj_processes_test(strangers unit test_strangers.py Strangers)
dj_processes_test(servers unit test_strangers.py Servers)

# dj_live_test() registers a program as it is, over tcp (TCP: mode remote), with every Stack poisoned
# and every allocation counted, and (BLIND) with a device whose memory the host cannot touch, (SLAB) and on
# direct paths, (CUDA) and with the CUDA device where its simulator is.
function(dj_live_test source)
  cmake_parse_arguments(ARG "TCP;BLIND;SLAB;CUDA" "" "LIBS" ${ARGN})
  string(REPLACE "/" "_" name ${source})
  string(REGEX REPLACE "\\.c$" "" name ${name})
  dj_test(${source} LABEL unit LIBS test_server ${ARG_LIBS})
  add_dependencies(${name} djinn-run djinn-rank alloc_count)
  if(ARG_TCP)
    add_test(NAME ${name}_tcp COMMAND ${name})
    set_tests_properties(${name}_tcp PROPERTIES LABELS unit TIMEOUT 240
                         ENVIRONMENT "TEST_MODE=remote")
  endif()
  # A sanitizer sees nothing of a blind device's memory, and its ranks are slow.
  if(ARG_BLIND AND NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
    add_dependencies(${name} djinn-rank-blind)
    add_test(NAME ${name}_blind COMMAND ${name})
    set_tests_properties(${name}_blind PROPERTIES LABELS unit TIMEOUT 240 ENVIRONMENT "TEST_BLIND=1")
    if(ARG_SLAB)
      add_test(NAME ${name}_slab COMMAND ${name})
      set_tests_properties(${name}_slab PROPERTIES LABELS unit TIMEOUT 240 ENVIRONMENT "TEST_BLIND=1;TEST_SLAB=1")
    endif()
  endif()
  if(ARG_CUDA AND TARGET simulator AND NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
    add_dependencies(${name} simulator)
    add_test(NAME ${name}_cuda COMMAND ${name})
    set_tests_properties(${name}_cuda PROPERTIES LABELS unit TIMEOUT 240 ENVIRONMENT "TEST_SIMULATED=1")
    add_test(NAME ${name}_cuda_poison COMMAND ${name})
    set_tests_properties(${name}_cuda_poison PROPERTIES LABELS unit TIMEOUT 240
                         ENVIRONMENT "TEST_SIMULATED=1;TEST_POISON=1")
  endif()
  if(NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
    add_test(NAME ${name}_poison COMMAND ${name})
    set_tests_properties(${name}_poison PROPERTIES LABELS unit TIMEOUT 240
                         ENVIRONMENT "TEST_POISON=1")
    if(ARG_BLIND)
      add_test(NAME ${name}_blind_poison COMMAND ${name})
      set_tests_properties(${name}_blind_poison PROPERTIES LABELS unit TIMEOUT 240
                           ENVIRONMENT "TEST_BLIND=2;TEST_POISON=1")
    endif()
  endif()
endfunction()
add_library(test_raw STATIC ${CMAKE_CURRENT_SOURCE_DIR}/runtime/raw.c)
target_link_libraries(test_raw PUBLIC test_server djinn_inside)
dj_live_test(runtime/test_hostile.c BLIND LIBS test_raw)
dj_live_test(runtime/test_hostile_puts.c BLIND SLAB CUDA LIBS test_raw)
dj_live_test(runtime/test_hostile_random.c BLIND LIBS test_raw)
dj_live_test(runtime/test_attach.c BLIND CUDA LIBS test_raw)
dj_live_test(runtime/test_parts.c BLIND LIBS test_raw)
if(NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
  dj_test(runtime/test_reaper.c LABEL unit LIBS test_server djinn_client)
  add_dependencies(runtime_test_reaper djinn-run djinn-rank-blind)
  set_tests_properties(runtime_test_reaper PROPERTIES ENVIRONMENT "TEST_BLIND=1;TEST_RELEASE_MS=400")
endif()
dj_test(runtime/test_ending.c LABEL unit LIBS test_raw)
add_dependencies(runtime_test_ending djinn-run djinn-rank)
dj_live_test(runtime/test_improve.c BLIND LIBS djinn_client dj_planner dj_base m)
target_sources(runtime_test_improve PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/runtime/hard_intervals.c)
dj_live_test(runtime/test_plan_memory.c LIBS djinn_client)
dj_processes_test(transfers unit test_workers.py Transfers)
dj_test(runtime/test_many_clients.c LABEL unit LIBS test_server djinn_client)
add_dependencies(runtime_test_many_clients djinn-run djinn-rank)
add_test(NAME runtime_test_many_clients_tcp COMMAND runtime_test_many_clients)
set_tests_properties(runtime_test_many_clients_tcp PROPERTIES LABELS unit TIMEOUT 240
                     ENVIRONMENT "TEST_MODE=remote")
set_tests_properties(runtime_test_many_clients runtime_test_many_clients_tcp
                     PROPERTIES RESOURCE_LOCK jobs)
# Links between ranks: each also waits for silences and restarts.
dj_test(runtime/test_links.c LABEL unit LIBS test_raw)
add_dependencies(runtime_test_links djinn-run djinn-rank alloc_count)
add_test(NAME runtime_test_links_tcp COMMAND runtime_test_links)
set_tests_properties(runtime_test_links_tcp PROPERTIES LABELS unit TIMEOUT 240
                     ENVIRONMENT "TEST_MODE=remote")
set_tests_properties(runtime_test_links runtime_test_links_tcp PROPERTIES RESOURCE_LOCK jobs)
if(NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
  add_dependencies(runtime_test_links djinn-rank-blind)
  add_test(NAME runtime_test_links_blind COMMAND runtime_test_links)
  set_tests_properties(runtime_test_links_blind PROPERTIES LABELS unit TIMEOUT 240 RESOURCE_LOCK jobs
                       ENVIRONMENT "TEST_BLIND=1")
endif()
dj_test(runtime/test_coordinator.c LABEL unit LIBS dj_runtime)
dj_test(runtime/test_relay.c LABEL unit LIBS test_server djinn_client)
add_dependencies(runtime_test_relay djinn-run djinn-rank)
add_test(NAME examples_matmul_relayed
         COMMAND env -i PATH=/usr/bin:/bin HOME=/nonexistent DJINN_TRANSPORTS=relay
                 $<TARGET_FILE:djinn-run> -q -n 3 -- $<TARGET_FILE:matmul>)
set_tests_properties(examples_matmul_relayed PROPERTIES LABELS unit TIMEOUT 240)
dj_test(runtime/test_bind.c LABEL unit LIBS dj_runtime)
dj_test(runtime/test_device_loss.c LABEL unit LIBS test_server djinn_client)
add_dependencies(runtime_test_device_loss djinn-run djinn-rank-blind)
dj_test(runtime/test_reading.c LABEL unit LIBS dj_runtime blind_device)
dj_test(runtime/test_direct.c LABEL unit LIBS dj_runtime blind_device)
