# The CUDA device on the simulator, and its parts against a table of functions.
if(NOT COMMAND dj_cuda_test)
  return()
endif()
dj_cuda_test(gpu/cuda/test_ops.c TIMEOUT 600 LIBS dj_gpu)
# Reductions, norms and attention further, in both orders of threads.
foreach(seed 0 7)
  add_test(NAME gpu_cuda_rows_${seed}
           COMMAND gpu_cuda_test_ops --rows ${CMAKE_CURRENT_LIST_DIR}/rows_cases.txt)
  set_tests_properties(gpu_cuda_rows_${seed} PROPERTIES LABELS unit SKIP_RETURN_CODE 77 TIMEOUT 600
    ENVIRONMENT DJ_SIM_SEED=${seed}
    ENVIRONMENT_MODIFICATION "LD_LIBRARY_PATH=path_list_prepend:${CMAKE_BINARY_DIR}/bin/simulator")
endforeach()
# Rows made at random against the reference, and the table's against PyTorch, which alone judges what the host has no
# kernel for.
add_test(NAME gpu_cuda_random_cases
         COMMAND python3 ${CMAKE_CURRENT_SOURCE_DIR}/gpu/random_cases.py $<TARGET_FILE:gpu_cuda_test_ops> 2)
set(judged gpu_cuda_random_cases)
if(EXISTS ${CMAKE_SOURCE_DIR}/build/venv/bin/python)
  add_test(NAME gpu_cuda_kernel_cases
           COMMAND ${CMAKE_SOURCE_DIR}/build/venv/bin/python
                   ${CMAKE_CURRENT_SOURCE_DIR}/gpu/kernel_cases.py $<TARGET_FILE:gpu_cuda_test_ops>)
  list(APPEND judged gpu_cuda_kernel_cases)
endif()
set_tests_properties(${judged} PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT OMP_NUM_THREADS=1
  ENVIRONMENT_MODIFICATION "LD_LIBRARY_PATH=path_list_prepend:${CMAKE_BINARY_DIR}/bin/simulator")
foreach(file emit replay short watch)
  dj_cuda_test(gpu/cuda/test_${file}.c LIBS dj_gpu)
endforeach()
include(${CMAKE_CURRENT_LIST_DIR}/abi.cmake)
foreach(file memory weights copies device slab)
  dj_cuda_test(gpu/cuda/test_${file}.c LIBS dj_gpu sim_cuda sim_nvidia-ml)
endforeach()
include(${CMAKE_CURRENT_LIST_DIR}/fakes/fakes.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/library.cmake)

# Ranks whose device is the simulated GPU; the launcher sees the GPUs of a recorded machine.
set(machine "HWLOC_XMLFILE=${CMAKE_SOURCE_DIR}/tests/topologies/dgx-a100.xml;HWLOC_THISSYSTEM=0;DJ_SIM_MEMORY=12g")
dj_cuda_test(gpu/cuda/test_rank.c LIBS test_server djinn_client dj_gpu dj_planner dj_base)
set_tests_properties(gpu_cuda_test_rank PROPERTIES ENVIRONMENT "${machine}" RESOURCE_LOCK jobs)
add_dependencies(gpu_cuda_test_rank djinn-run djinn-rank alloc_count)

# dj_cuda_ranks_test(<name> <label> <seconds> <command>...): a program beside two ranks, on the simulator and on a GPU.
function(dj_cuda_ranks_test name label seconds)
  set(command djinn-run -q -n 2 --device cuda --stack-bytes 1G -- ${ARGN})
  set(python "PYTHONPATH=${CMAKE_BINARY_DIR}/python;HF_HUB_OFFLINE=1;OMP_NUM_THREADS=1")
  add_test(NAME ${name} COMMAND ${command})
  set_tests_properties(${name} PROPERTIES LABELS ${label} SKIP_RETURN_CODE 77 TIMEOUT ${seconds}
    ENVIRONMENT "${machine};${python}" ENVIRONMENT_MODIFICATION "${DJ_SIMULATOR_PATH}")
  dj_gpu_test(${name} ${seconds} sh -c "ls /dev/nvidia[0-9]* >/dev/null 2>&1 || exit 77; exec \"$@\"" sh
              $<TARGET_FILE:djinn-run> -q -n 2 --device cuda -- ${ARGN})
  set_tests_properties(${name}_gpu PROPERTIES ENVIRONMENT "${python}")
endfunction()
dj_cuda_ranks_test(gpu_cuda_selftest unit 120 $<TARGET_FILE:djinn-selftest>)
if(TARGET djinn_torch)
  dj_cuda_ranks_test(gpu_cuda_generate torch 120 ${DJINN_PYTHON} ${CMAKE_SOURCE_DIR}/examples/generate.py
                     --small --check --tokens 8)
  dj_cuda_ranks_test(gpu_cuda_models torch 120 ${DJINN_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/models.py)
endif()

# Rows made at random, on a GPU; and under NVIDIA's tools that look for wrong accesses and races.
dj_gpu_test(gpu_cuda_random_cases 300 ${CMAKE_CURRENT_LIST_DIR}/on_gpu rows
            ${CMAKE_CURRENT_SOURCE_DIR}/gpu/random_cases.py $<TARGET_FILE:gpu_cuda_test_ops> 1)
foreach(tool memcheck racecheck synccheck initcheck)
  dj_gpu_test(gpu_cuda_${tool} 600 ${CMAKE_CURRENT_LIST_DIR}/on_gpu ${tool} $<TARGET_FILE:gpu_cuda_test_ops>)
endforeach()

# All of it in one go, on a machine that has a GPU and little else.
install(PROGRAMS ${CMAKE_SOURCE_DIR}/scripts/gpu-check ${CMAKE_CURRENT_LIST_DIR}/on_gpu
        ${CMAKE_CURRENT_LIST_DIR}/models.py ${CMAKE_CURRENT_SOURCE_DIR}/gpu/random_cases.py
        DESTINATION ${DJINN_TESTS_DIR} COMPONENT tests)
