/* network.c - asks the resolver, the routing table and the list of interfaces. */
#include "launcher/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

dj_status_t dj_network_split(const char *address, char host[DJ_ENDPOINT_TEXT_MAX],
                             char port[DJ_ENDPOINT_TEXT_MAX])
{
    const char *colon = strrchr(address, ':'), *start = address;
    size_t length = colon ? (size_t)(colon - address) : 0;
    if (colon && length >= 2 && address[0] == '[' && address[length - 1] == ']') {
        start++;
        length -= 2;
    }
    if (!colon || strlen(address) >= DJ_ENDPOINT_TEXT_MAX || strlen(colon + 1) >= 6 || !colon[1] ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || atoi(colon + 1) > UINT16_MAX)
        return dj_fail(DJ_ERR_INVALID, "'%.64s' is no address; it takes host:port", address);
    snprintf(host, DJ_ENDPOINT_TEXT_MAX, "%.*s", (int)length, start);
    snprintf(port, DJ_ENDPOINT_TEXT_MAX, "%s", colon + 1);
    return DJ_OK;
}

bool dj_network_is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

bool dj_network_is_any(const char *host)
{
    return !host[0] || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static dj_status_t format(const struct sockaddr *address, const char *port,
                          char text[DJ_ENDPOINT_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN];
    bool six = address->sa_family == AF_INET6;
    const void *bytes = six ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                            : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
    if (!inet_ntop(address->sa_family, bytes, host, sizeof host))
        return dj_fail(DJ_ERR_SYSTEM, "an address of family %d cannot be written",
                       address->sa_family);
    snprintf(text, DJ_ENDPOINT_TEXT_MAX, six ? "[%s]:%.5s" : "%s:%.5s", host, port);
    return DJ_OK;
}

static bool is_own(const struct ifaddrs *list, const struct sockaddr_in *address)
{
    for (const struct ifaddrs *at = list; at; at = at->ifa_next) {
        if (at->ifa_addr && at->ifa_addr->sa_family == AF_INET && !(at->ifa_flags & IFF_LOOPBACK) &&
            ((const struct sockaddr_in *)at->ifa_addr)->sin_addr.s_addr == address->sin_addr.s_addr)
            return true;
    }
    return false;
}

/* The address of the host name, where it is one of ours and not loopback. */
static bool by_name(const struct ifaddrs *list, const char *port, char text[DJ_ENDPOINT_TEXT_MAX])
{
    char name[256];
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    bool good = false;
    if (gethostname(name, sizeof name) != 0 || getaddrinfo(name, NULL, &hints, &found) != 0)
        return false;
    for (struct addrinfo *at = found; at && !good; at = at->ai_next)
        good = is_own(list, (const struct sockaddr_in *)at->ai_addr) &&
               format(at->ai_addr, port, text) == DJ_OK;
    freeaddrinfo(found);
    return good;
}

dj_status_t dj_network_first_listen(const char *configured, char listen[DJ_ENDPOINT_TEXT_MAX])
{
    char host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX];
    struct ifaddrs *list = NULL;
    dj_status_t status = dj_network_split(configured, host, port);
    if (status != DJ_OK)
        return status;
    if (!dj_network_is_loopback(host) && !dj_network_is_any(host)) {
        snprintf(listen, DJ_ENDPOINT_TEXT_MAX, "%s", configured);
        return DJ_OK;
    }
    if (getifaddrs(&list) != 0)
        return dj_fail(DJ_ERR_SYSTEM, "cannot list network interfaces: %s", strerror(errno));
    bool good = by_name(list, port, listen);
    const unsigned wanted = IFF_UP | IFF_RUNNING;
    for (const struct ifaddrs *at = list; at && !good; at = at->ifa_next)
        good = at->ifa_addr && at->ifa_addr->sa_family == AF_INET &&
               (at->ifa_flags & wanted) == wanted && !(at->ifa_flags & IFF_LOOPBACK) &&
               format(at->ifa_addr, port, listen) == DJ_OK;
    freeifaddrs(list);
    if (!good)
        return dj_fail(DJ_ERR_CONNECT, "the job spans several nodes, but this machine has no "
                                       "network interface besides loopback; set DJINN_LISTEN");
    return DJ_OK;
}

dj_status_t dj_network_facing(const char *peer, char listen[DJ_ENDPOINT_TEXT_MAX])
{
    char host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX];
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found = NULL;
    struct sockaddr_storage own;
    socklen_t own_size = sizeof own;
    dj_status_t status = dj_network_split(peer, host, port);
    if (status != DJ_OK)
        return status;
    int wrong = getaddrinfo(host, port, &hints, &found);
    if (wrong)
        return dj_fail(DJ_ERR_CONNECT, "rank 0's address %s: %s", peer, gai_strerror(wrong));
    int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
                getsockname(fd, (struct sockaddr *)&own, &own_size) == 0;
    if (!good)
        status = dj_fail(DJ_ERR_CONNECT, "no route to rank 0 at %s: %s", peer, strerror(errno));
    else
        status = format((struct sockaddr *)&own, "0", listen);
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
    return status;
}
