/* control_socket.c - making, naming and waiting for the TCP sockets of the control channel. */
#include "comm/control_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/control.h"
#include "runtime/base/clock.h"

/* Bytes unacknowledged for this long mean a cut link. */
#define USER_TIMEOUT_MS 2000
#define BACKLOG 1024

dj_status_t dj_socket_wait(int fd, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = dj_clock_ns();
        if (now_ns >= deadline_ns)
            return DJ_ERR_DEADLINE;
        uint64_t left_ms = (deadline_ns - now_ns + DJ_NS_PER_MS - 1) / DJ_NS_PER_MS;
        struct pollfd entry = {.fd = fd, .events = events};
        int ready = poll(&entry, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (ready > 0)
            return DJ_OK;
        if (ready < 0 && errno != EINTR)
            return dj_fail(DJ_ERR_SYSTEM, "poll: %s", strerror(errno));
    }
}

static dj_status_t make_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return dj_fail(DJ_ERR_SYSTEM, "cannot prepare descriptor %d: %s", fd, strerror(errno));
    return DJ_OK;
}

static void format_address(const struct sockaddr_storage *address, socklen_t size, char *text,
                           size_t text_size)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    bool bracket = address->ss_family == AF_INET6;
    if (getnameinfo((const struct sockaddr *)address, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(text, text_size, "a local socket");
    else
        snprintf(text, text_size, bracket ? "[%s]:%s" : "%s:%s", host, port);
}

void dj_socket_set_patience(int fd, uint32_t patience_ms)
{
    unsigned timeout_ms = patience_ms;
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

dj_status_t dj_socket_prepare(int fd, char peer[DJ_CONTROL_PEER_TEXT])
{
    dj_status_t status = make_nonblocking(fd);
    if (status != DJ_OK)
        return status;
    /* Not fatal: a Unix socket has neither option. */
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    dj_socket_set_patience(fd, USER_TIMEOUT_MS);
    struct sockaddr_storage address = {0}; /* a Unix socket without a name fills in only its family */
    socklen_t size = sizeof(address);
    if (getpeername(fd, (struct sockaddr *)&address, &size) != 0)
        return dj_fail(DJ_ERR_PEER_DIED, "the connection ended before it was looked at: %s",
                       strerror(errno));
    format_address(&address, size, peer, DJ_CONTROL_PEER_TEXT);
    return DJ_OK;
}

/* Cuts "host:port" at its last colon and looks both up. */
static dj_status_t resolve(const char *address, int flags, struct addrinfo **found_p)
{
    char host[NI_MAXHOST];
    const char *colon = strrchr(address, ':');
    size_t host_size = colon ? (size_t)(colon - address) : 0;
    if (!colon || host_size == 0 || host_size >= sizeof(host) || colon[1] == '\0')
        return dj_fail(DJ_ERR_INVALID, "address \"%s\" is not host:port", address);
    memcpy(host, address, host_size);
    host[host_size] = '\0';
    if (host[0] == '[' && host[host_size - 1] == ']') {
        host[host_size - 1] = '\0';
        memmove(host, host + 1, host_size - 1);
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    int error = getaddrinfo(host, colon + 1, &hints, found_p);
    if (error != 0)
        return dj_fail(DJ_ERR_CONNECT, "address \"%s\": %s", address, gai_strerror(error));
    return DJ_OK;
}

/* Returns a descriptor, or -1 with *error_p. */
static int connect_one(const struct addrinfo *target, uint64_t deadline_ns, int *error_p)
{
    int fd = socket(target->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *error_p = errno;
    if (fd < 0)
        return -1;
    socklen_t size = sizeof(*error_p);
    if (connect(fd, target->ai_addr, target->ai_addrlen) == 0)
        return fd;
    *error_p = errno;
    if (*error_p == EINPROGRESS) {
        *error_p = ETIMEDOUT;
        if (dj_socket_wait(fd, POLLOUT, deadline_ns) == DJ_OK &&
            getsockopt(fd, SOL_SOCKET, SO_ERROR, error_p, &size) == 0 && *error_p == 0)
            return fd;
    }
    close(fd);
    return -1;
}

dj_status_t dj_socket_connect(const char *address, uint64_t deadline_ns, int *fd_p)
{
    struct addrinfo *found = NULL;
    dj_status_t status = resolve(address, 0, &found);
    if (status != DJ_OK)
        return status;
    int fd = -1, error = 0;
    for (const struct addrinfo *at = found; at && fd < 0; at = at->ai_next)
        fd = connect_one(at, deadline_ns, &error);
    freeaddrinfo(found);
    if (fd >= 0) {
        *fd_p = fd;
        return DJ_OK;
    }
    if (error == ETIMEDOUT && dj_clock_ns() >= deadline_ns)
        return dj_fail(DJ_ERR_DEADLINE,
                       "%s did not accept a connection in time; is the host "
                       "reachable?",
                       address);
    status = dj_fail(DJ_ERR_CONNECT, "cannot connect to %s: %s; is djinn-server running there?",
                     address, strerror(error));
    errno = error;
    return status;
}

dj_status_t dj_socket_begin(const char *address, int *fd_p)
{
    struct addrinfo *found = NULL;
    dj_status_t status = resolve(address, AI_NUMERICHOST, &found);
    if (status != DJ_OK)
        return status;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS)) {
        status = dj_fail(DJ_ERR_CONNECT, "cannot connect to %s: %s", address, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    freeaddrinfo(found);
    if (status == DJ_OK)
        *fd_p = fd;
    return status;
}

static int listen_one(const struct addrinfo *target, int *error_p)
{
    int on = 1;
    int fd = socket(target->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        bind(fd, target->ai_addr, target->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    *error_p = errno;
    if (fd >= 0)
        close(fd);
    return -1;
}

dj_status_t dj_control_listen(const char *address, int *fd_p, char endpoint[DJ_ENDPOINT_TEXT_MAX])
{
    struct addrinfo *found = NULL;
    dj_status_t status = resolve(address, AI_PASSIVE, &found);
    if (status != DJ_OK)
        return status;
    int fd = -1, error = 0;
    for (const struct addrinfo *at = found; at && fd < 0; at = at->ai_next)
        fd = listen_one(at, &error);
    freeaddrinfo(found);
    if (fd < 0)
        return dj_fail(DJ_ERR_CONNECT,
                       "cannot listen on %s: %s; choose another address with "
                       "--listen",
                       address, strerror(error));
    status = dj_control_endpoint(fd, endpoint);
    if (status != DJ_OK) {
        close(fd);
        return status;
    }
    *fd_p = fd;
    return DJ_OK;
}

dj_status_t dj_control_endpoint(int fd, char endpoint[DJ_ENDPOINT_TEXT_MAX])
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0 ||
        (address.ss_family != AF_INET && address.ss_family != AF_INET6))
        return dj_fail(DJ_ERR_INVALID, "descriptor %d is not a TCP socket", fd);
    format_address(&address, size, endpoint, DJ_ENDPOINT_TEXT_MAX);
    return DJ_OK;
}
