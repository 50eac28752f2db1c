# Clients of a real server, through libdjinn as a program links it.
dj_live_test(client/test_requests.c TCP LIBS djinn_client)
dj_live_test(client/test_weights.c LIBS djinn_client)
