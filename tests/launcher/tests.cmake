add_executable(echo_rank ${CMAKE_CURRENT_SOURCE_DIR}/launcher/echo_rank.c)
target_link_libraries(echo_rank PRIVATE dj_base)
