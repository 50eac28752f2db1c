# Real processes. test_server starts and asks servers for the C programs here and in tests/client.
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
add_library(test_server STATIC ${CMAKE_CURRENT_SOURCE_DIR}/runtime/server.c)
target_compile_definitions(test_server PRIVATE DJINN_BIN="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}"
                           ALLOC_COUNT="$<TARGET_FILE:alloc_count>")
target_link_libraries(test_server PUBLIC PkgConfig::JANSSON)
