/* roster.c - the control thread's part in links (runtime/links.h): who is where, and whose connection ended.
 *
 * The coordinator tells every worker of each worker that comes or goes, and one that comes of all others. A
 * worker passes rows on to its progress thread, which owns the links. */
#include <stdlib.h>
#include <string.h>

#include "runtime/door.h"

void dj_roster_tell(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    dj_roster_t row;
    if (!door->coordinator.news)
        return;
    door->coordinator.news = false;
    for (uint32_t i = 1; i < DJ_WORKERS_MAX; i++) {
        if (!dj_coordinator_news(&door->coordinator, i, &row))
            continue;
        for (uint32_t at = door->n_connections; at-- > 0;)
            if (at < door->n_connections && door->connections[at]->role == DJ_ROLE_WORKER)
                dj_door_send(rank, door->connections[at], DJ_MESSAGE_ROSTER, &row, sizeof(row),
                             NULL, 0);
    }
}

bool dj_roster_tell_all(dj_rank_t *rank, dj_connection_t *c)
{
    dj_roster_t row;
    for (uint32_t i = 1; i < DJ_WORKERS_MAX; i++)
        if (dj_coordinator_row(&rank->door->coordinator, i, &row) &&
            !dj_door_send(rank, c, DJ_MESSAGE_ROSTER, &row, sizeof(row), NULL, 0))
            return false;
    return true;
}

void dj_roster_take(dj_rank_t *rank, const dj_roster_t *row)
{
    dj_command_t *command = dj_door_command(DJ_COMMAND_ROSTER, 0);
    if (row->rank == rank->rank && row->incarnation == rank->incarnation && !rank->door->announced)
        dj_door_announce(rank); /* rank 0 has registered it */
    if (!command)
        return;
    command->hello.rank = row->rank;
    command->hello.incarnation = row->incarnation;
    command->address_bytes = sizeof(row->endpoint);
    memcpy(command->address, row->endpoint, sizeof(row->endpoint));
    dj_door_post_command(rank, command);
}
