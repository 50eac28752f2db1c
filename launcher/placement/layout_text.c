/* layout_text.c - a layout as a table and a list of reasons. */
#include "launcher/placement/placement.h"

static const char *or_dash(const char *text)
{
    return text[0] ? text : "-";
}

static void print_row(const dj_layout_t *layout, uint32_t index, FILE *out)
{
    const dj_layout_rank_t *rank = &layout->rank[index];
    const dj_share_t *share = &rank->share;
    const char *role = rank->coordinates ? "coordinator" : layout->n == 1 ? "both" : "worker";
    fprintf(out, "%4u  %-11s", index, role);
    if (layout->devices)
        fprintf(out, "  %-12s  %-10s  %-4s  %-8s  %-8s  %-9s", or_dash(rank->gpu_name),
                or_dash(share->nic), or_dash(share->memory_node), or_dash(share->progress_cores),
                or_dash(share->device_cores), or_dash(share->heartbeat_cores));
    fprintf(out, "  %7u  %s\n", share->threads,
            share->bound && !share->cores[0] ? "a long list" : or_dash(share->cores));
}

void dj_layout_print(const dj_layout_t *layout, FILE *out)
{
    fprintf(out, "rank  role       %s  threads  cores\n",
            layout->devices ? "  GPU           NIC         node  progress  device    heartbeat"
                            : "");
    for (uint32_t i = 0; i < layout->n; i++)
        print_row(layout, i, out);
    fputc('\n', out);
    for (uint32_t i = 0; i < layout->n; i++)
        fprintf(out, "rank %u: %s\n", i, layout->rank[i].why);
}
