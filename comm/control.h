/* control.h - the control socket: frames over TCP, with deadlines, and nothing that can block a server.
 *
 * dj_control_t is one connection. Blocking calls (clients, hello, tools) take an absolute deadline;
 * the server's control thread reads without blocking and gets whole frames.
 *
 * SIGPIPE never rises (MSG_NOSIGNAL). TCP_NODELAY and TCP_USER_TIMEOUT are set, so that a cut link is
 * noticed.
 *
 * Threads: one reader and one writer at a time; sends take a lock of their own, so any thread may
 * send. */
#ifndef DJ_COMM_CONTROL_H
#define DJ_COMM_CONTROL_H

#include "comm/messages.h"
#include "runtime/base/bytes.h"

typedef struct dj_control dj_control_t;

/* Listening socket on "host:port" (port 0: any); the bound address comes back in endpoint. The
 * descriptor is non-blocking and closes on exec. DJ_ERR_INVALID, DJ_ERR_CONNECT. */
dj_status_t dj_control_listen(const char *address, int *fd_p, char endpoint[DJ_ENDPOINT_TEXT_MAX]);
/* The address a listening descriptor is bound to. */
dj_status_t dj_control_endpoint(int fd, char endpoint[DJ_ENDPOINT_TEXT_MAX]);
/* DJ_ERR_CONNECT names address and cause (which errno has, too: ECONNREFUSED when nobody listens),
 * DJ_ERR_DEADLINE. */
dj_status_t dj_control_connect(const char *address, uint64_t deadline_ns, dj_control_t **control_p);
/* Takes an accepted descriptor over. */
dj_status_t dj_control_adopt(int fd, dj_control_t **control_p);
void dj_control_close(dj_control_t *control);
int dj_control_fd(const dj_control_t *control);
/* "127.0.0.1:41234" of the other side, for messages. */
const char *dj_control_peer(const dj_control_t *control);

/* Sends one frame: a struct and an optional tail. Waits at most until the deadline for room.
 * DJ_ERR_PEER_DIED, DJ_ERR_DEADLINE. */
dj_status_t dj_control_send(dj_control_t *control, dj_message_t type, const void *body,
                            uint32_t body_bytes, const void *tail, uint32_t tail_bytes,
                            uint64_t deadline_ns);

/* The same without waiting, for a thread that serves many: what the socket does not take now is kept (a copy)
 * and leaves with dj_control_flush() or before the next frame. How much is kept is the caller's to bound.
 * DJ_ERR_PEER_DIED, DJ_ERR_MEMORY. */
dj_status_t dj_control_post(dj_control_t *control, dj_message_t type, const void *body,
                            uint32_t body_bytes, const void *tail, uint32_t tail_bytes);
/* DJ_OK: nothing is kept any more; DJ_IN_PROGRESS: call again when the descriptor is writable. */
dj_status_t dj_control_flush(dj_control_t *control);
uint64_t dj_control_unsent(const dj_control_t *control); /* bytes kept; the posting thread alone */

/* One whole frame, checked by dj_frame_check(); body points into the connection's buffer until the
 * next call, aligned to 8 bytes. DJ_ERR_PEER_DIED at the end of the stream, DJ_ERR_DEADLINE,
 * DJ_ERR_PROTOCOL... */
dj_status_t dj_control_receive(dj_control_t *control, uint64_t deadline_ns, dj_frame_t *frame,
                               const void **body_p);
/* The same without waiting: DJ_IN_PROGRESS when no whole frame is here yet. */
dj_status_t dj_control_try_receive(dj_control_t *control, dj_frame_t *frame, const void **body_p);

/* The peer's next CHALLENGE with sequence 0 begins both sequences anew and ends all trust: behind the relay
 * another rank speaks. */
void dj_control_may_restart(dj_control_t *control);
/* How long bytes may stay unread at the other side before the connection is cut; 2 s until called. */
void dj_control_set_patience(dj_control_t *control, uint32_t patience_ms);
/* Gives the descriptor up and frees the rest. -1 and nothing done, when bytes lie here that were received and
 * not taken, or posted and not sent. */
int dj_control_release(dj_control_t *control);

/* From now on frames up to DJ_FRAME_BYTES_MAX are accepted (dj_frame_check's `authenticated`). */
void dj_control_trust(dj_control_t *control);
uint64_t dj_control_last_heard_ns(const dj_control_t *control);

/* The client's half of the hello: receives the CHALLENGE, fills proof, sends, returns the answer frame
 * (WELCOME, REDIRECT or INFO-ready WELCOME); a REFUSE becomes its status and sentence. A WELCOME makes the connection
 * trusted (dj_control_trust). */
dj_status_t dj_control_greet(dj_control_t *control, const uint8_t token[32], dj_hello_t *hello,
                             const void *address, uint64_t deadline_ns, dj_frame_t *frame,
                             const void **body_p);

/* A REFUSE as its status, with its sentence made harmless for a terminal; DJ_ERR_PROTOCOL for a status that is none. */
dj_status_t dj_control_refused(const dj_control_t *control, const dj_refuse_t *refuse);

/* What tells two processes that they can share memory: boot id, IPC and PID namespace. */
uint64_t dj_host_identity(void);

/* 64 hexadecimal digits to 32 bytes; DJ_ERR_INVALID. */
dj_status_t dj_token_parse(const char *text, uint8_t token[32]);
/* From the file (regular, owned by us, mode without group or others); DJ_ERR_FILE, DJ_ERR_AUTH with
 * the next step. */
dj_status_t dj_token_read(const char *path, uint8_t token[32]);
/* Makes and writes a new one (mode 0600, folder 0700). */
dj_status_t dj_token_write(const char *path, const uint8_t token[32]);
void dj_token_format(const uint8_t token[32], char text[65]);

#endif
