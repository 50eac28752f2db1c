# The CUDA device on the simulator, and its parts against a table of functions.
if(NOT COMMAND dj_cuda_test)
  return()
endif()
dj_cuda_test(gpu/cuda/test_ops.c TIMEOUT 600 LIBS dj_gpu)
foreach(file emit replay)
  dj_cuda_test(gpu/cuda/test_${file}.c LIBS dj_gpu)
endforeach()
include(${CMAKE_CURRENT_LIST_DIR}/abi.cmake)
