/* control_socket.h - the sockets under control.c. Private to comm/.
 *
 * Addresses are "host:port" or "[v6]:port". Threads: pure. */
#ifndef DJ_COMM_CONTROL_SOCKET_H
#define DJ_COMM_CONTROL_SOCKET_H

#include <stdint.h>

#include "comm/messages.h"

#define DJ_CONTROL_PEER_TEXT 80

/* Non-blocking, close-on-exec, without delay, noticing a cut link; peer: the other side's address.
 */
dj_status_t dj_socket_prepare(int fd, char peer[DJ_CONTROL_PEER_TEXT]);
/* DJ_ERR_INVALID, DJ_ERR_CONNECT, DJ_ERR_DEADLINE. */
dj_status_t dj_socket_connect(const char *address, uint64_t deadline_ns, int *fd_p);
/* Cuts the connection when bytes stay unacknowledged, or the other side's window closed, for this long. */
void dj_socket_set_patience(int fd, uint32_t patience_ms);
/* Begins to connect to a numeric "host:port" and does not wait: DJ_OK and a non-blocking descriptor that becomes
 * writable when SO_ERROR tells the outcome. DJ_ERR_INVALID, DJ_ERR_CONNECT. */
dj_status_t dj_socket_begin(const char *address, int *fd_p);
/* Until one of `events` or an error is there: DJ_OK, DJ_ERR_DEADLINE, DJ_ERR_SYSTEM. */
dj_status_t dj_socket_wait(int fd, short events, uint64_t deadline_ns);

#endif
