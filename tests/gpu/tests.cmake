foreach(file segment text host_device gemm matmul kernels)
  dj_test(gpu/test_${file}.c LABEL unit LIBS dj_gpu)
endforeach()

# The same cases against PyTorch, where its environment is, and rows made at random.
if(EXISTS ${CMAKE_SOURCE_DIR}/build/venv/bin/python)
  foreach(seed "" 1)
    add_test(NAME gpu_kernel_cases${seed}
             COMMAND ${CMAKE_SOURCE_DIR}/build/venv/bin/python
                     ${CMAKE_CURRENT_SOURCE_DIR}/gpu/kernel_cases.py $<TARGET_FILE:gpu_test_kernels> ${seed})
    set_tests_properties(gpu_kernel_cases${seed} PROPERTIES LABELS unit TIMEOUT 240 ENVIRONMENT OMP_NUM_THREADS=1)
  endforeach()
endif()

# And rows made at random, against the reference.
add_test(NAME gpu_random_cases
         COMMAND python3 ${CMAKE_CURRENT_SOURCE_DIR}/gpu/random_cases.py
                 $<TARGET_FILE:gpu_test_kernels> 1)
set_tests_properties(gpu_random_cases PROPERTIES LABELS unit TIMEOUT 300)

# The texts of fused kernels are CUDA, for the lowest and the highest architecture.
if(TARGET dj_cuda)
  add_executable(gpu_cuda_write_kernels ${CMAKE_CURRENT_SOURCE_DIR}/gpu/cuda/write_kernels.c)
  target_link_libraries(gpu_cuda_write_kernels PRIVATE dj_gpu)
  add_test(NAME gpu_cuda_fused_texts
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/gpu/cuda/compile_kernels.sh ${DJINN_NVCC} ${CMAKE_SOURCE_DIR}
                   $<TARGET_FILE:gpu_cuda_write_kernels> ${DJINN_CUDA_ARCHITECTURES})
  set_tests_properties(gpu_cuda_fused_texts PROPERTIES LABELS unit TIMEOUT 300)
  get_filename_component(nvcc ${DJINN_NVCC} REALPATH)
  get_filename_component(cuda ${nvcc}/../../include ABSOLUTE)
  dj_test(gpu/cuda/test_fuse.c LABEL unit LIBS dj_gpu)
  dj_test(gpu/cuda/test_jit.c LABEL unit LIBS dj_gpu)
  target_include_directories(gpu_cuda_test_jit SYSTEM PRIVATE ${cuda})
  dj_test(gpu/cuda/test_fused_values.c LABEL unit LIBS dj_gpu ${CMAKE_DL_LIBS})
  target_compile_definitions(gpu_cuda_test_fused_values PRIVATE DJ_SOURCE_FOLDER="${CMAKE_SOURCE_DIR}"
                             DJ_CUDA_INCLUDE="${cuda}")
endif()

# Ranks whose device's memory the host cannot touch (blind_device.h), for tests that run with TEST_BLIND.
add_library(blind_device STATIC ${CMAKE_CURRENT_SOURCE_DIR}/gpu/blind_device.c)
target_link_libraries(blind_device PUBLIC dj_gpu dj_planner dj_base Threads::Threads)
add_executable(djinn-rank-blind ${CMAKE_SOURCE_DIR}/launcher/rank_main.c
               ${CMAKE_CURRENT_SOURCE_DIR}/gpu/blind_rank.c)
target_link_libraries(djinn-rank-blind PRIVATE dj_runtime blind_device)
# Its first thread has a rank's name, which alloc_count knows.
set_target_properties(djinn-rank-blind PROPERTIES OUTPUT_NAME djinn-rank
                      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/blind)
# And ranks with the CUDA device on its simulator, for those that run with TEST_SIMULATED.
configure_file(${CMAKE_CURRENT_SOURCE_DIR}/gpu/simulated_rank
               ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/simulated/djinn-rank COPYONLY)
dj_test(gpu/test_data.c LABEL unit LIBS blind_device dj_gpu)
dj_test(gpu/test_shelf.c LABEL unit LIBS blind_device dj_gpu)
dj_test(gpu/test_bounce.c LABEL unit LIBS blind_device dj_gpu)

# The CUDA device on the simulator of CUDA.
include(${CMAKE_CURRENT_SOURCE_DIR}/gpu/simulator/tests.cmake)
include(${CMAKE_CURRENT_SOURCE_DIR}/gpu/cuda/tests.cmake OPTIONAL)

# The CUDA device's kernels by themselves, on the CPU: device code as C++, each thread a fiber, which sanitizers do not
# follow.
if(TARGET dj_cuda AND NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
  enable_language(CXX)
  dj_test(gpu/cuda/test_index.c LABEL unit TIMEOUT 300 LIBS dj_gpu ${CMAKE_DL_LIBS})
  set(kernels ${CMAKE_SOURCE_DIR}/gpu/cuda/kernels)
  set(sources ${kernels}/index.cu ${kernels}/layout.cu ${kernels}/scan.cu)
  list(APPEND sources ${CMAKE_CURRENT_SOURCE_DIR}/gpu/simulator/emulate.cpp)
  set_source_files_properties(${sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS
    "-fno-sanitize=all;-ffp-contract=off;-fno-strict-aliasing;-Wno-unknown-pragmas;-Wno-unused-function")
  target_sources(gpu_cuda_test_index PRIVATE ${sources})
  target_include_directories(gpu_cuda_test_index SYSTEM PRIVATE ${cuda})
  set_target_properties(gpu_cuda_test_index PROPERTIES ENABLE_EXPORTS ON)
  # The same with blocks, warps and lanes in another order.
  add_test(NAME gpu_cuda_test_index_shuffled COMMAND gpu_cuda_test_index)
  set_tests_properties(gpu_cuda_test_index_shuffled PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT DJ_SIM_SEED=12345)
endif()
