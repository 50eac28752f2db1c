# liballoc_count.so is preloaded into ranks by tests that watch replays; the probe proves that it counts.
add_library(alloc_count SHARED ${CMAKE_CURRENT_SOURCE_DIR}/tools/alloc_count.c)
# The compiler must not turn a body of calloc() into a call of calloc().
target_compile_options(alloc_count PRIVATE -fno-builtin)
add_executable(probe_alloc_count ${CMAKE_CURRENT_SOURCE_DIR}/tools/probe_alloc_count.c)
target_compile_options(probe_alloc_count PRIVATE -fno-builtin)
target_link_libraries(probe_alloc_count PRIVATE Threads::Threads)
add_test(NAME tools_alloc_count_absent COMMAND probe_alloc_count absent)
set_tests_properties(tools_alloc_count_absent PROPERTIES LABELS unit TIMEOUT 60)
if(NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
  # A sanitizer has an allocator of its own, which nothing may be loaded before.
  add_test(NAME tools_alloc_count COMMAND probe_alloc_count)
  set_tests_properties(tools_alloc_count PROPERTIES LABELS unit TIMEOUT 60
                       ENVIRONMENT "LD_PRELOAD=$<TARGET_FILE:alloc_count>")
endif()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME tools_docs
         COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/tools/check_docs.py)
set_tests_properties(tools_docs PROPERTIES LABELS unit TIMEOUT 60)

# docs/cuda.md names every function that has never run on a GPU.
add_test(NAME tools_cuda_functions
         COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/tools/cuda_functions.py --check)
set_tests_properties(tools_cuda_functions PROPERTIES LABELS unit TIMEOUT 240)
