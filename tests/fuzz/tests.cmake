# cmake --preset fuzz (clang, -DDJINN_FUZZ=ON): libFuzzer targets over everything that takes foreign bytes.
# The whole tree is compiled instrumented (see the root), but only the targets are meant to be built there:
# cmake --build build/fuzz --target fuzz. Each test runs the committed corpus and then explores for a while.
if(NOT DJINN_FUZZ)
  return()
endif()
add_custom_target(fuzz)
add_executable(fuzz_seeds ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/seeds.c)
target_link_libraries(fuzz_seeds PRIVATE dj_planner dj_comm dj_base PkgConfig::CMOCKA)
add_dependencies(fuzz fuzz_seeds)

# A whole rank over a device that computes nothing: the host device's kernels are for GCC.
get_target_property(fuzz_rank_sources dj_runtime SOURCES)
list(TRANSFORM fuzz_rank_sources PREPEND ${CMAKE_SOURCE_DIR}/runtime/)
add_library(fuzz_rank STATIC ${fuzz_rank_sources} ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/fake_device.c)
foreach(source data poison segment shelf bounce text)
  target_sources(fuzz_rank PRIVATE ${CMAKE_SOURCE_DIR}/gpu/${source}.c)
endforeach()
target_link_libraries(fuzz_rank PUBLIC dj_comm dj_planner dj_base PkgConfig::JANSSON)

# dj_fuzz(<name> <seconds> LIBS <targets>...)
function(dj_fuzz name seconds)
  cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
  add_executable(fuzz_${name} ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/fuzz_${name}.c)
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_LIBS})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzz fuzz_${name})
  add_test(NAME fuzz_${name}
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/run --build ${CMAKE_BINARY_DIR} --seconds
                   ${seconds} ${name})
  set_tests_properties(fuzz_${name} PROPERTIES LABELS fuzz TIMEOUT 240 SKIP_RETURN_CODE 77)
endfunction()
dj_fuzz(frames 7 LIBS dj_comm)
dj_fuzz(greet 7 LIBS dj_info dj_comm)
dj_fuzz(info 5 LIBS dj_info)
dj_fuzz(door 8 LIBS fuzz_rank)
dj_fuzz(lifeline 6 LIBS dj_launcher)
dj_fuzz(data 8 LIBS dj_comm)
dj_fuzz(group 6 LIBS dj_comm)
dj_fuzz(program 8 LIBS dj_planner)
dj_fuzz(snapshot 6 LIBS dj_planner)
dj_fuzz(cache_file 6 LIBS dj_planner)
dj_fuzz(worker 10 LIBS fuzz_rank)
dj_fuzz(weights 7 LIBS fuzz_rank)
