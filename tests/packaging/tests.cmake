# Each makes what it tests, of the build that is there; a sanitizer's libraries are for no package.
if("${CMAKE_C_FLAGS}" MATCHES "fsanitize" OR DJINN_FUZZ)
  return()
endif()
find_package(Python3 REQUIRED COMPONENTS Interpreter)
foreach(name install tarball deb)
  add_test(NAME packaging_${name}
           COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/packaging/test_${name}.py)
  set_tests_properties(packaging_${name} PROPERTIES LABELS pack SKIP_RETURN_CODE 77 TIMEOUT 240
                       ENVIRONMENT "PACK_BUILD=${CMAKE_BINARY_DIR}" RESOURCE_LOCK build)
endforeach()
