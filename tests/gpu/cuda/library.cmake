# What NVIDIA's libraries compute: on the simulated ones, and where there are none.
set(bare ${CMAKE_BINARY_DIR}/bin/simulator_bare)
file(MAKE_DIRECTORY ${bare})
foreach(file libcuda.so.1 libnvrtc.so.13 libnvidia-ml.so.1)
  file(CREATE_LINK ${CMAKE_BINARY_DIR}/bin/simulator/${file} ${bare}/${file} SYMBOLIC)
endforeach()
foreach(place simulator simulator_bare)
  add_test(NAME gpu_cuda_library_cases_${place}
           COMMAND gpu_cuda_test_ops --rows ${CMAKE_CURRENT_LIST_DIR}/library_cases.txt)
  set_tests_properties(gpu_cuda_library_cases_${place} PROPERTIES LABELS unit TIMEOUT 300 SKIP_RETURN_CODE 77
                       ENVIRONMENT_MODIFICATION
                       "LD_LIBRARY_PATH=path_list_prepend:${CMAKE_BINARY_DIR}/bin/${place}")
endforeach()

# What is told to them.
dj_test(gpu/cuda/test_blas.c LABEL unit LIBS dj_gpu)
target_include_directories(gpu_cuda_test_blas SYSTEM PRIVATE ${DJINN_CUDA_HOME}/include)
