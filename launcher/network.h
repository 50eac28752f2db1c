/* network.h - which of this machine's addresses others can reach.
 *
 * Every rank listens on one concrete address, because it tells others the address that it is bound
 * to. On one machine that is 127.0.0.1. In a job of several nodes, rank 0 takes the address of its
 * host name or of its first network interface, and every other rank the one that faces rank 0. */
#ifndef DJ_LAUNCHER_NETWORK_H
#define DJ_LAUNCHER_NETWORK_H

#include <stdbool.h>

#include "comm/messages.h"

/* Splits "host:port" or "[host]:port". DJ_ERR_INVALID. */
dj_status_t dj_network_split(const char *address, char host[DJ_ENDPOINT_TEXT_MAX],
                             char port[DJ_ENDPOINT_TEXT_MAX]);
bool dj_network_is_loopback(const char *host); /* 127.x, ::1, localhost */
bool dj_network_is_any(const char *host);      /* 0.0.0.0, ::, empty */
/* "10.1.2.3:0": what rank 0 of a job over several nodes should listen on, given what was
 * configured. DJ_ERR_CONNECT: this machine has no network but loopback. */
dj_status_t dj_network_first_listen(const char *configured, char listen[DJ_ENDPOINT_TEXT_MAX]);
/* "10.1.2.4:0": our side of a connection to `peer` ("host:port"); nothing is sent. DJ_ERR_CONNECT.
 */
dj_status_t dj_network_facing(const char *peer, char listen[DJ_ENDPOINT_TEXT_MAX]);

#endif
