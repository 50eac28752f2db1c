foreach(file tensor ops program graph plan cache)
  dj_test(planner/test_${file}.c LABEL unit LIBS dj_planner)
endforeach()
