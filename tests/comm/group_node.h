/* group_node.h - nodes that form a group: the fixture of the group tests, over node.h.
 *
 * Every node has an endpoint to every other before a test begins; a link's EOF is the news of a
 * death, as a control socket's is in djinn. */
#ifndef DJ_TESTS_COMM_GROUP_NODE_H
#define DJ_TESTS_COMM_GROUP_NODE_H

#include "comm/group.h"
#include "node.h"

typedef struct member {
    node_t *node;
    dj_group_t *group;
    bool dead[NODES_MAX];
    uint64_t delivered;
    void (*on_delivery)(struct member *member, uint32_t origin, const void *data, uint64_t bytes);
    void *state;
} member_t;

static inline dj_status_t member_message(void *context, const dj_incoming_t *incoming,
                                         void **memory_p, void **token_p)
{
    member_t *member = ((node_t *)context)->state;
    return dj_group_message(member->group, incoming, memory_p, token_p);
}

/* Looks at the links first: death is told by its own words alone. */
static inline dj_status_t member_reach(void *context, uint32_t other, dj_endpoint_t **endpoint_p)
{
    member_t *member = context;
    node_t *node = member->node;
    char word;
    if (!member->dead[other] && recv(node->links[other], &word, 1, MSG_DONTWAIT | MSG_PEEK) == 0) {
        member->dead[other] = true;
        dj_endpoint_close(node->endpoints[other]);
    }
    if (member->dead[other])
        return dj_fail(DJ_ERR_PEER_DIED, "member %u has ended", other);
    *endpoint_p = node->endpoints[other];
    return DJ_OK;
}

static inline void member_deliver(void *context, uint32_t origin, const void *data, uint64_t bytes)
{
    member_t *member = context;
    ++member->delivered;
    if (member->on_delivery)
        member->on_delivery(member, origin, data, bytes);
}

static inline void member_open(member_t *member, node_t *node, uint32_t radix)
{
    member->node = node;
    node->state = member;
    node_open(node, member_message);
    const dj_group_options_t options = {.comm = node->comm,
                                        .members = (uint32_t)node->count,
                                        .me = (uint32_t)node->number,
                                        .reach = member_reach,
                                        .deliver = member_deliver,
                                        .context = member,
                                        .radix = radix};
    CHECK(dj_group_create(&options, &member->group) == DJ_OK);
    for (int i = 0; i < node->count; ++i)
        if (i != node->number)
            node_join(node, i);
}

static inline uint64_t in_ms(uint64_t ms)
{
    return dj_clock_ns() + ms * DJ_NS_PER_MS;
}

/* Answers those who are behind until all links have ended or been heard: nobody leaves early. */
static inline void member_close(member_t *member)
{
    node_t *node = member->node;
    uint64_t until_ns = in_ms(10000);
    for (int i = 0; i < node->count; ++i)
        if (i != node->number)
            send(node->links[i], "e", 1, MSG_NOSIGNAL);
    for (int i = 0; i < node->count; ++i) {
        char word;
        while (i != node->number && !node_heard(node, i, &word)) {
            dj_comm_wait(node->comm, 0, 1);
            dj_group_progress(member->group);
            CHECK(dj_clock_ns() < until_ns);
        }
    }
    node_close(node);
    dj_group_destroy(member->group);
}

static inline uint8_t pattern(uint64_t round, uint64_t at)
{
    return (uint8_t)(at * 31 + at / 251 + round * 7);
}

static inline void fill(uint8_t *data, uint64_t bytes, uint64_t round)
{
    for (uint64_t i = 0; i < bytes; ++i)
        data[i] = pattern(round, i);
}

static inline void check_filled(const uint8_t *data, uint64_t bytes, uint64_t round)
{
    for (uint64_t i = 0; i < bytes; ++i)
        if (data[i] != pattern(round, i)) {
            fprintf(stderr, "node %d: byte %llu of %llu of round %llu differs\n", node_number,
                    (unsigned long long)i, (unsigned long long)bytes, (unsigned long long)round);
            CHECK(!"data");
        }
}

#endif
