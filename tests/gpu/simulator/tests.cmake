# CUDA on the CPU, where the CUDA device is built.
get_property(DJINN_HAS_CUDA GLOBAL PROPERTY DJINN_HAS_CUDA)
if(NOT DJINN_HAS_CUDA)
  return()
endif()
add_subdirectory(${CMAKE_CURRENT_LIST_DIR})
get_property(DJINN_CUDA_HOME GLOBAL PROPERTY DJINN_CUDA_HOME)

# dj_cuda_test(<room>/test_<file>.c [LABEL label] [TIMEOUT s] LIBS <targets>...): a CMocka program whose CUDA is the
# simulated one.
function(dj_cuda_test source)
  dj_test(${source} ${ARGN})
  string(REPLACE "/" "_" name ${source})
  string(REGEX REPLACE "\\.c$" "" name ${name})
  target_include_directories(${name} SYSTEM PRIVATE ${DJINN_CUDA_HOME}/include)
  add_dependencies(${name} simulator)
  # Not installed: the simulator is not.
  get_property(programs DIRECTORY PROPERTY DJINN_TEST_PROGRAMS)
  list(REMOVE_ITEM programs ${name})
  set_property(DIRECTORY PROPERTY DJINN_TEST_PROGRAMS ${programs})
  set_tests_properties(${name} PROPERTIES ENVIRONMENT_MODIFICATION
                       "LD_LIBRARY_PATH=path_list_prepend:${CMAKE_BINARY_DIR}/bin/simulator")
endfunction()

dj_cuda_test(gpu/simulator/test_simulator.c LIBS sim_cuda sim_nvrtc sim_nvidia-ml)

# Once more with another order of threads, blocks and streams.
add_test(NAME gpu_simulator_test_simulator_seed COMMAND gpu_simulator_test_simulator)
set_tests_properties(gpu_simulator_test_simulator_seed PROPERTIES LABELS unit SKIP_RETURN_CODE 77 TIMEOUT 120
  ENVIRONMENT DJ_SIM_SEED=7
  ENVIRONMENT_MODIFICATION "LD_LIBRARY_PATH=path_list_prepend:${CMAKE_BINARY_DIR}/bin/simulator")
