# CUDA on the CPU, where the CUDA device is built.
get_property(DJINN_HAS_CUDA GLOBAL PROPERTY DJINN_HAS_CUDA)
if(NOT DJINN_HAS_CUDA)
  return()
endif()
add_subdirectory(${CMAKE_CURRENT_LIST_DIR})
get_property(DJINN_CUDA_HOME GLOBAL PROPERTY DJINN_CUDA_HOME)

# dj_gpu_test(<name> <seconds> <command>...): on a GPU; skipped where no driver is. One at a time.
function(dj_gpu_test name seconds)
  add_test(NAME ${name}_gpu COMMAND ${ARGN})
  set_tests_properties(${name}_gpu PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT ${seconds} RUN_SERIAL TRUE)
endfunction()

# dj_cuda_test(<room>/test_<file>.c [LABEL label] [TIMEOUT s] [SEED n] LIBS <targets>...): a CMocka program whose CUDA
# is the simulated one. With SEED it runs once more, with another order of threads, blocks and streams. One that links
# no part of the simulator runs once more on a GPU, where there is one, and is installed.
set(DJ_SIMULATOR_PATH "LD_LIBRARY_PATH=path_list_prepend:${CMAKE_BINARY_DIR}/bin/simulator")
function(dj_cuda_test source)
  cmake_parse_arguments(SIM "" "LABEL;TIMEOUT;SEED" "LIBS" ${ARGN})
  if(NOT SIM_TIMEOUT)
    set(SIM_TIMEOUT 120)
  endif()
  if(NOT SIM_LABEL)
    set(SIM_LABEL unit)
  endif()
  dj_test(${source} LABEL ${SIM_LABEL} TIMEOUT ${SIM_TIMEOUT} LIBS ${SIM_LIBS})
  string(REPLACE "/" "_" name ${source})
  string(REGEX REPLACE "\\.c$" "" name ${name})
  target_include_directories(${name} SYSTEM PRIVATE ${DJINN_CUDA_HOME}/include)
  add_dependencies(${name} simulator)
  if("${SIM_LIBS}" MATCHES "sim_") # the simulator is not installed
    get_property(programs DIRECTORY PROPERTY DJINN_TEST_PROGRAMS)
    list(REMOVE_ITEM programs ${name})
    set_property(DIRECTORY PROPERTY DJINN_TEST_PROGRAMS ${programs})
  else()
    dj_gpu_test(${name} ${SIM_TIMEOUT} ${name})
  endif()
  set_tests_properties(${name} PROPERTIES ENVIRONMENT_MODIFICATION "${DJ_SIMULATOR_PATH}")
  if(SIM_SEED)
    add_test(NAME ${name}_seed COMMAND ${name})
    set_tests_properties(${name}_seed PROPERTIES LABELS ${SIM_LABEL} SKIP_RETURN_CODE 77 TIMEOUT ${SIM_TIMEOUT}
      ENVIRONMENT_MODIFICATION "${DJ_SIMULATOR_PATH};DJ_SIM_SEED=set:${SIM_SEED}")
  endif()
endfunction()

dj_cuda_test(gpu/simulator/test_emulate.c SEED 7 LIBS sim_cuda sim_nvrtc)
dj_cuda_test(gpu/simulator/test_simulator.c SEED 7 LIBS sim_cuda sim_nvrtc sim_nvidia-ml)
