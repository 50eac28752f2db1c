/* door.h - the control thread's own state (door.c). */
#ifndef DJ_RUNTIME_DOOR_H
#define DJ_RUNTIME_DOOR_H

#include "runtime/coordinator.h"

typedef struct dj_connection {
    uint64_t id;
    uint32_t place; /* in the door's list */
    dj_control_t *control;
    uint8_t nonce[32];
    uint64_t admitted_ns;
    bool greeted, waits_for_worker;
    bool welcomed; /* heartbeats begin after the WELCOME: it must be the hello's first answer */
    uint32_t role, uid;
    dj_hash_t device_class; /* of a worker */
} dj_connection_t;

struct dj_door {
    int listen_fd;
    dj_connection_t **connections;
    uint32_t n_connections, strangers;
    uint64_t last_connection;
    dj_control_t *link; /* to the coordinator; NULL when lost or this is it */
    uint64_t link_retry_ns, beat_ns;
    bool announced;
    dj_coordinator_t coordinator;
};

/* Tells the supervisor that this rank serves, once. */
void dj_door_announce(dj_rank_t *rank);

#endif
