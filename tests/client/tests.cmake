# Clients of a real server, through libdjinn as a program links it. dj_live_test() registers a program
# as it is, over tcp (mode remote) and with every Stack poisoned, every allocation counted.
function(dj_live_test source)
  cmake_parse_arguments(ARG "TCP" "" "LIBS" ${ARGN})
  string(REPLACE "/" "_" name ${source})
  string(REGEX REPLACE "\\.c$" "" name ${name})
  dj_test(${source} LABEL unit TIMEOUT 60 LIBS test_server ${ARG_LIBS})
  target_link_libraries(${name} PRIVATE PkgConfig::JANSSON)
  add_dependencies(${name} djinn-run djinn-rank alloc_count)
  if(ARG_TCP)
    add_test(NAME ${name}_tcp COMMAND ${name})
    set_tests_properties(${name}_tcp PROPERTIES LABELS unit TIMEOUT 60
                         ENVIRONMENT "TEST_MODE=remote")
  endif()
  if(NOT "${CMAKE_C_FLAGS}" MATCHES "fsanitize")
    add_test(NAME ${name}_poison COMMAND ${name})
    set_tests_properties(${name}_poison PROPERTIES LABELS unit TIMEOUT 60
                         ENVIRONMENT "TEST_POISON=1")
  endif()
endfunction()

dj_live_test(client/test_requests.c TCP LIBS djinn_client)
dj_live_test(client/test_honesty.c LIBS djinn_client)
