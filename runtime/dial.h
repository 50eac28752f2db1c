/* dial.h - one dial: a thread that connects to a rank's door, says HELLO as a peer, hands over, and ends.
 *
 * The outcome comes to the progress thread as DJ_COMMAND_DIALLED with the dial's number: on success by way
 * of the control thread, which then owns the connection; command->hello says whom it leads to, what was
 * agreed in `features` and the endpoint's number in `generation`, command->address the peer's address. */
#ifndef DJ_RUNTIME_DIAL_H
#define DJ_RUNTIME_DIAL_H

#include "runtime/rank.h"

enum { DJ_DIAL_MS = 1000 };

typedef struct dj_dial {
    struct dj_dial *next;
    dj_rank_t *rank;
    pthread_t thread;
    uint64_t number;
    uint32_t target, incarnation;
    char endpoint[DJ_ENDPOINT_TEXT_MAX];
    dj_hello_t hello;
    const void *address;   /* the comm's */
    dj_command_t *command; /* the outcome; handed over at the end */
} dj_dial_t;

/* `hello` brings rank, incarnation, generation and features. DJ_ERR_MEMORY, DJ_ERR_SYSTEM. */
dj_status_t dj_dial_start(dj_rank_t *rank, dj_dial_t **dials_p, uint64_t number, uint32_t target,
                          uint32_t incarnation, const char *endpoint, const dj_hello_t *hello);
/* Waits for its thread and frees it; nothing when there is no such dial. */
void dj_dial_join(dj_dial_t **dials_p, uint64_t number);

#endif
