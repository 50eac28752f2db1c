/* echo_rank.c - the smallest rank: serves on the inherited socket and tells who it is.
 *
 * It stands where djinn-rank stands (--rank-program), so that the launcher is tested with real
 * processes and without UCX. Each connection gets one line about this rank and then its own bytes
 * back. ECHO_FAULT makes it misbehave: "exit" (ends with 7 before it serves), "crash" (dies by
 * SIGABRT before it serves, in incarnations 0 and 1), "stubborn" (does not end at SIGTERM), "slow" (ends 2 s after SIGTERM), "mute" (incarnations above 0
 * never say that they serve). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/config.h"

enum { PEERS = 16 };

static volatile sig_atomic_t ending;

static void end(int number)
{
    ending = 1;
}

static void greet(int fd, const dj_config_t *config)
{
    dprintf(fd,
            "rank=%llu ranks=%llu incarnation=%llu pid=%d threads=%llu cores=%s "
            "coordinator=%s token=%s text_bytes=%llu gpu=%s memory_node=%s progress=%s device=%s "
            "heartbeat=%s net_devices=%s\n",
            (unsigned long long)config->rank, (unsigned long long)config->ranks,
            (unsigned long long)config->incarnation, (int)getpid(),
            (unsigned long long)config->threads, config->cores, config->coordinator, config->token,
            (unsigned long long)config->text_bytes, config->gpu, config->memory_node,
            config->progress_cores, config->device_cores, config->heartbeat_cores,
            config->net_devices);
}

static void serve(const dj_config_t *config)
{
    struct pollfd polled[PEERS + 1] = {{.fd = (int)config->listen_fd, .events = POLLIN}};
    nfds_t n = 1;
    while (!ending) {
        if (poll(polled, n, 1000) < 0)
            continue;
        for (nfds_t i = n; i-- > 1;) {
            char bytes[4096];
            if (!polled[i].revents)
                continue;
            ssize_t size = recv(polled[i].fd, bytes, sizeof bytes, MSG_DONTWAIT);
            if (size > 0 && send(polled[i].fd, bytes, (size_t)size, MSG_NOSIGNAL) == size)
                continue;
            close(polled[i].fd);
            polled[i] = polled[--n];
        }
        if (polled[0].revents) {
            int fd = accept4((int)config->listen_fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd < 0)
                continue;
            greet(fd, config);
            if (n == PEERS + 1)
                close(fd);
            else
                polled[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
    }
}

int main(int argc, char **argv)
{
    dj_config_t config;
    int used;
    if (dj_config_load(&config, argc, argv, &used) != DJ_OK || used != argc) {
        fprintf(stderr, "echo_rank: %s\n", dj_error_text());
        return 2;
    }
    const char *fault = dj_environment("ECHO_FAULT");
    fault = fault ? fault : "";
    if (strcmp(fault, "exit") == 0)
        return 7;
    if (strcmp(fault, "crash") == 0 && config.incarnation < 2)
        abort();
    struct sigaction action = {.sa_handler = strcmp(fault, "stubborn") == 0 ? SIG_IGN : end};
    sigaction(SIGTERM, &action, NULL);
    bool mute = strcmp(fault, "mute") == 0 && config.incarnation > 0;
    if (!mute && write((int)config.ready_fd, "ready\n", 6) != 6)
        return 1;
    close((int)config.ready_fd);
    serve(&config);
    if (strcmp(fault, "slow") == 0)
        sleep(2);
    return 0;
}
