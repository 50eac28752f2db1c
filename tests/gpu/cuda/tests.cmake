# The CUDA device on the simulator, and its parts against a table of functions.
if(NOT COMMAND dj_cuda_test)
  return()
endif()
dj_cuda_test(gpu/cuda/test_ops.c TIMEOUT 600 LIBS dj_gpu)
# Reductions, norms and attention further, in both orders of threads.
foreach(seed 0 7)
  add_test(NAME gpu_cuda_rows_${seed}
           COMMAND gpu_cuda_test_ops --rows ${CMAKE_CURRENT_LIST_DIR}/rows_cases.txt)
  set_tests_properties(gpu_cuda_rows_${seed} PROPERTIES LABELS unit SKIP_RETURN_CODE 77 TIMEOUT 600
    ENVIRONMENT DJ_SIM_SEED=${seed}
    ENVIRONMENT_MODIFICATION "LD_LIBRARY_PATH=path_list_prepend:${CMAKE_BINARY_DIR}/bin/simulator")
endforeach()
foreach(file emit replay)
  dj_cuda_test(gpu/cuda/test_${file}.c LIBS dj_gpu)
endforeach()
include(${CMAKE_CURRENT_LIST_DIR}/abi.cmake)
foreach(file memory copies device)
  dj_cuda_test(gpu/cuda/test_${file}.c LIBS dj_gpu sim_cuda sim_nvidia-ml)
endforeach()
include(${CMAKE_CURRENT_LIST_DIR}/fakes/fakes.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/library.cmake)
