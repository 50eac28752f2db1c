foreach(file status log config bytes hash table queue)
  dj_test(base/test_${file}.c LABEL unit LIBS dj_base)
endforeach()
dj_test(base/test_reader_fuzz.c LABEL fuzz LIBS dj_base)
target_compile_definitions(base_test_config PRIVATE
                           CONFIGURATION_PAGE="${CMAKE_SOURCE_DIR}/docs/configuration.md")

# Writes docs/configuration.md anew: print_configuration > docs/configuration.md
add_executable(print_configuration ${CMAKE_CURRENT_SOURCE_DIR}/base/print_configuration.c)
target_link_libraries(print_configuration PRIVATE dj_base)
