foreach(file tensor ops rules program snapshot graph rewrite fit fold plan plan_improve cache
             cache_file bucket dump)
  dj_test(planner/test_${file}.c LABEL unit LIBS dj_planner)
endforeach()
dj_test(planner/test_shape.c LABEL unit TIMEOUT 300 LIBS dj_planner)
target_compile_definitions(planner_test_shape PRIVATE
  SHAPE_PYTHON="${CMAKE_SOURCE_DIR}/build/venv/bin/python"
  SHAPE_SCRIPT="${CMAKE_SOURCE_DIR}/tests/planner/shape_cases.py"
  SHAPE_OPS="${CMAKE_SOURCE_DIR}/planner/ops.def")
dj_test(planner/test_budget.c LABEL unit LIBS dj_planner)
dj_test(planner/test_srg.c LABEL unit LIBS dj_planner)
foreach(file graphs detect cut)
  dj_test(planner/test_${file}.c LABEL unit LIBS dj_planner)
  target_compile_definitions(planner_test_${file} PRIVATE DJINN_GRAPHS="${CMAKE_SOURCE_DIR}/tests/graphs")
endforeach()
# The example, and a shared object that is no plugin.
dj_test(planner/test_plugin.c LABEL unit LIBS dj_gpu)
add_dependencies(planner_test_plugin rankers djinn_client)
target_compile_definitions(planner_test_plugin PRIVATE
  PLUGIN_EXAMPLE="$<TARGET_FILE:rankers>" PLUGIN_NONE="$<TARGET_FILE:djinn_client>")
dj_test(planner/test_pack_tree.c LABEL unit LIBS dj_planner)
dj_test(planner/test_pack.c LABEL unit LIBS dj_cuts)
dj_test(planner/test_place.c LABEL unit LIBS dj_cuts)
dj_test(planner/test_svg.c LABEL unit LIBS dj_planner)
