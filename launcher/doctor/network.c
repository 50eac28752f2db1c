/* network.c - interfaces, names, ports, what filters packets, RDMA ports. */
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

#include "launcher/doctor/check.h"
#include "launcher/network.h"

enum { PORTS_FEW = 2048, SPEED_SLOW_MBIT = 1000, DEVICES_MAX = 32, PORTS_MAX = 8 };

/* ---- interfaces ---- */

/* "eth0 10.0.0.2 (25000 Mbit/s)" */
static void add_interface(const dj_exam_t *exam, const struct ifaddrs *at, char *list, size_t room,
                          long long *speed_p)
{
    char host[INET_ADDRSTRLEN] = "", path[DJ_FILE_PATH_MAX], speed[48] = "";
    inet_ntop(AF_INET, &((const struct sockaddr_in *)at->ifa_addr)->sin_addr, host, sizeof host);
    snprintf(path, sizeof path, "/sys/class/net/%s/speed", at->ifa_name);
    if (dj_exam_number(exam, path, speed_p) && *speed_p > 0)
        snprintf(speed, sizeof speed, " (%lld Mbit/s)", *speed_p);
    dj_list_add(list, room, "%s %s%s", at->ifa_name, host, speed);
}

dj_verdict_t dj_check_interfaces(dj_exam_t *exam, dj_finding_t *finding)
{
    struct ifaddrs *all = NULL;
    char list[DJ_FINDING_MAX - 256] = "", listen[DJ_ENDPOINT_TEXT_MAX] = "", slow[64] = "";
    bool loopback = false;
    if (getifaddrs(&all) != 0)
        return dj_find(finding, DJ_VERDICT_FAIL, "look at ip address",
                       "network interfaces cannot be listed: %s", strerror(errno));
    for (const struct ifaddrs *at = all; at; at = at->ifa_next) {
        const unsigned wanted = IFF_UP | IFF_RUNNING;
        long long speed = -1;
        if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET ||
            (at->ifa_flags & wanted) != wanted)
            continue;
        if (at->ifa_flags & IFF_LOOPBACK)
            loopback = true;
        else
            add_interface(exam, at, list, sizeof list, &speed);
        if (speed > 0 && speed < SPEED_SLOW_MBIT)
            snprintf(slow, sizeof slow, "%s at %lld Mbit/s", at->ifa_name, speed);
    }
    freeifaddrs(all);
    if (!loopback)
        return dj_find(finding, DJ_VERDICT_FAIL, "ip link set lo up",
                       "the loopback interface is down; all of Djinn on one machine listens there");
    if (!list[0])
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "no network interface but loopback: this machine can serve itself alone");
    if (slow[0])
        return dj_find(finding, DJ_VERDICT_WARN,
                       "choose a faster one with --listen ADDRESS:0, or look at the cable",
                       "%s; %s is slow for tensors", list, slow);
    if (dj_network_first_listen(exam->doctor->config->listen, listen) != DJ_OK)
        return dj_find(finding, DJ_VERDICT_WARN, "set --listen ADDRESS:0", "%s; %s", list,
                       dj_error_text());
    return dj_find(finding, DJ_VERDICT_OK, "",
                   "%s; rank 0 of a job over several nodes listens at "
                   "%s (--listen chooses another)",
                   list, listen);
}

/* ---- names ---- */

static bool is_ours(const char *address)
{
    struct sockaddr_in own = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, address, &own.sin_addr) != 1)
        return false;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ours = fd >= 0 && bind(fd, (struct sockaddr *)&own, sizeof own) == 0;
    if (fd >= 0)
        close(fd);
    return ours;
}

dj_verdict_t dj_check_host_name(dj_exam_t *exam, dj_finding_t *finding)
{
    dj_ask_t *ask = &exam->asks[DJ_ASK_HOST];
    const char *remedy = "mend /etc/hosts or the site's DNS, or start rank 0 with --listen "
                         "ADDRESS:0";
    char name[256], wrong[128], address[64];
    dj_ask_state_t state = dj_ask_wait(ask);
    dj_ask_value(ask, "name", name, sizeof name);
    if (state == DJ_ASKED_NOT)
        return dj_find(finding, DJ_VERDICT_INFO, "", "the resolver was not asked (--quick)");
    if (state != DJ_ASKED_ANSWERED)
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "the resolver does not answer within %d s for our own name %s: starts wait "
                       "for it",
                       DJ_ASK_MS / 1000, name);
    if (dj_ask_value(ask, "error", wrong, sizeof wrong))
        return dj_find(finding, DJ_VERDICT_WARN, remedy, "our own name %s: %s", name, wrong);
    if (!dj_ask_value(ask, "address", address, sizeof address))
        return dj_find(finding, DJ_VERDICT_WARN, remedy, "our own name %s has no IPv4 address",
                       name);
    if (dj_network_is_loopback(address))
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "our own name %s stands for %s, so in a job over several nodes rank 0 "
                       "takes its first interface; --listen ADDRESS:0 chooses another",
                       name, address);
    if (!is_ours(address))
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "our own name %s stands for %s, which is no address of this machine", name,
                       address);
    return dj_find(finding, DJ_VERDICT_OK, "", "%s is %s", name, address);
}

/* ---- ports ---- */

/* 0, or errno. */
static int try_listen(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST};
    struct addrinfo *found = NULL;
    int yes = 1, error = EINVAL;
    if (getaddrinfo(host[0] ? host : NULL, port, &hints, &found) != 0)
        return EADDRNOTAVAIL;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        bool good = bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 1) == 0;
        error = good ? 0 : errno;
        close(fd);
    }
    freeaddrinfo(found);
    return error;
}

static dj_verdict_t judge_listen(dj_finding_t *finding, const char *address, int error)
{
    if (error == EADDRINUSE)
        return dj_find(finding, DJ_VERDICT_FAIL,
                       "another port, or port 0 for any free one; ss -ltnp shows whose it is",
                       "the port of %s is taken", address);
    if (error == EACCES)
        return dj_find(finding, DJ_VERDICT_FAIL, "a port from 1024 on, or port 0",
                       "%s may be listened at by root alone", address);
    if (error == EADDRNOTAVAIL)
        return dj_find(finding, DJ_VERDICT_FAIL, "an address that ip address shows, or 127.0.0.1:0",
                       "%s is no address of this machine", address);
    return dj_find(finding, DJ_VERDICT_FAIL, "look at ip address and ss -ltnp",
                   "nobody can listen at %s: %s", address, strerror(error));
}

dj_verdict_t dj_check_listen(dj_exam_t *exam, dj_finding_t *finding)
{
    char host[DJ_ENDPOINT_TEXT_MAX], port[DJ_ENDPOINT_TEXT_MAX], outward[DJ_ENDPOINT_TEXT_MAX] = "";
    const char *configured = exam->doctor->config->listen;
    if (dj_network_split(configured, host, port) != DJ_OK)
        return dj_find(finding, DJ_VERDICT_FAIL, "--listen takes host:port", "%s", dj_error_text());
    int error = try_listen(host, port);
    const char *server = exam->doctor->server.address;
    if (error == EADDRINUSE && server && strcmp(server, configured) == 0)
        return dj_find(finding, DJ_VERDICT_OK, "", "the server itself listens at %s", configured);
    if (error)
        return judge_listen(finding, configured, error);
    if (strcmp(port, "0") != 0 || dj_network_first_listen(configured, outward) != DJ_OK)
        return dj_find(finding, DJ_VERDICT_OK, "", "%s is free", configured);
    if (dj_network_split(outward, host, port) == DJ_OK && (error = try_listen(host, port)) != 0)
        return judge_listen(finding, outward, error);
    return dj_find(finding, DJ_VERDICT_OK, "", "%s and %s can be listened at", configured, outward);
}

dj_verdict_t dj_check_ports(dj_exam_t *exam, dj_finding_t *finding)
{
    char text[64];
    unsigned low = 0, high = 0;
    if (!dj_exam_read(exam, "/proc/sys/net/ipv4/ip_local_port_range", text, sizeof text) ||
        sscanf(text, "%u %u", &low, &high) != 2 || high < low)
        return dj_find(finding, DJ_VERDICT_INFO, "", "the kernel tells no range of ports");
    if (high - low < PORTS_FEW)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "sysctl net.ipv4.ip_local_port_range='32768 60999'",
                       "the kernel gives only the ports %u to %u; every rank listens at several "
                       "and every connection takes one",
                       low, high);
    return dj_find(finding, DJ_VERDICT_OK, "",
                   "ranks get ports from %u to %u: a firewall between nodes must let them pass",
                   low, high);
}

dj_verdict_t dj_check_firewall(dj_exam_t *exam, dj_finding_t *finding)
{
    char text[4096];
    const char *remedy = "nothing on one machine; between nodes, let the cluster's own network "
                         "pass, or the ports that the check 'ports' names";
    if (dj_exam_exists(exam, "/run/firewalld"))
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "firewalld runs here: other nodes may not reach the ranks");
    if (dj_exam_read(exam, "/etc/ufw/ufw.conf", text, sizeof text) && strstr(text, "ENABLED=yes"))
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "ufw is enabled here: other nodes may not reach the ranks");
    if (dj_exam_read(exam, "/proc/net/ip_tables_names", text, sizeof text) &&
        strstr(text, "filter"))
        return dj_find(finding, DJ_VERDICT_WARN, remedy,
                       "iptables has a table 'filter': other nodes may not reach the ranks");
    if (dj_exam_exists(exam, "/sys/module/nf_tables"))
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "nf_tables is loaded; nft list ruleset (as root) shows whether it filters");
    return dj_find(finding, DJ_VERDICT_OK, "", "no sign of a packet filter");
}

/* ---- RDMA ---- */

typedef struct ports {
    int active, idle;
    char list[DJ_FINDING_MAX - 256];
} ports_t;

static void see_device(const dj_exam_t *exam, const char *device, ports_t *ports)
{
    char names[PORTS_MAX][DJ_ENTRY_MAX], path[DJ_FILE_PATH_MAX], state[64], rate[64];
    snprintf(path, sizeof path, "/sys/class/infiniband/%.63s/ports", device);
    int n = dj_exam_entries(exam, path, names, PORTS_MAX);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "/sys/class/infiniband/%.63s/ports/%.63s/state", device,
                 names[i]);
        dj_exam_read(exam, path, state, sizeof state);
        snprintf(path, sizeof path, "/sys/class/infiniband/%.63s/ports/%.63s/rate", device,
                 names[i]);
        dj_exam_read(exam, path, rate, sizeof rate);
        bool active = strstr(state, "ACTIVE") != NULL;
        ports->active += active;
        ports->idle += !active;
        const char *word = strchr(state, ' ') ? strchr(state, ' ') + 1 : state;
        dj_list_add(ports->list, sizeof ports->list, "%s:%s %s%s%s", device, names[i],
                    word[0] ? word : "?", rate[0] ? " " : "", rate);
    }
}

/* The first character device through which a process speaks to a card, or "". */
static bool may_open_verbs(const dj_exam_t *exam, char path[DJ_FILE_PATH_MAX])
{
    char names[DEVICES_MAX][DJ_ENTRY_MAX];
    int n = dj_exam_entries(exam, "/dev/infiniband", names, DEVICES_MAX);
    path[0] = '\0';
    for (int i = 0; i < n; i++)
        if (strncmp(names[i], "uverbs", 6) == 0)
            return access(dj_exam_path(exam, path, "/dev/infiniband/%s", names[i]), R_OK | W_OK) ==
                   0;
    return false;
}

dj_verdict_t dj_check_rdma(dj_exam_t *exam, dj_finding_t *finding)
{
    char names[DEVICES_MAX][DJ_ENTRY_MAX], path[DJ_FILE_PATH_MAX];
    ports_t ports = {0};
    int n = dj_exam_entries(exam, "/sys/class/infiniband", names, DEVICES_MAX);
    if (n == 0)
        return dj_find(finding, DJ_VERDICT_INFO, "",
                       "no RDMA device; between hosts the path is "
                       "tcp");
    for (int i = 0; i < n; i++)
        see_device(exam, names[i], &ports);
    if (ports.active == 0)
        return dj_find(finding, DJ_VERDICT_WARN,
                       "ibstat shows the ports; a cable, or InfiniBand's subnet manager (opensm)",
                       "RDMA devices, but no port is active: %s", ports.list);
    if (!may_open_verbs(exam, path))
        return dj_find(finding, DJ_VERDICT_WARN,
                       path[0] ? "an administrator's udev rule makes it 0666; a container needs "
                                 "--device /dev/infiniband"
                               : "load ib_uverbs; a container needs --device /dev/infiniband",
                       "%s; but %s%s: UCX cannot use RDMA", ports.list,
                       path[0] ? path : "there is no /dev/infiniband/uverbs*",
                       path[0] ? " may not be opened" : "");
    if (ports.idle > 0)
        return dj_find(finding, DJ_VERDICT_OK, "", "%d of %d ports are active: %s", ports.active,
                       ports.active + ports.idle, ports.list);
    return dj_find(finding, DJ_VERDICT_OK, "", "%s", ports.list);
}
