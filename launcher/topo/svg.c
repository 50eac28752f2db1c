/* svg.c - the machine as boxes in boxes, as lstopo draws it, and the layout in colours.
 *
 * Packages stand side by side, in each its NUMA nodes side by side: memory and cores above, devices
 * below, each GPU over the NIC of its rank. Under all of them hang the NVLinks: a bar where every
 * GPU is joined to every other, else a curve a pair. Then the legend, a line a rank. */
#include "launcher/topo/svg.h"

#include <stdlib.h>
#include <string.h>

#include "launcher/topo/topo.h"

#define PAD 10.0
#define CELL 24.0
#define DEVICE_WIDTH 92.0
#define DEVICE_HEIGHT 40.0
#define DEVICE_GAP 20.0 /* between a GPU and the NIC below it */
#define TITLE 22.0
#define HEAD 52.0
#define LEGEND_LINE 22.0
#define LEGEND_COLUMNS 100
#define LETTER 6.5                    /* width of one at size 11, about */
#define PLACES_MAX (DJ_NODES_MAX + 1) /* the last: devices near no single node */

#define BOLD "font-weight=\"bold\" fill=\"#333\""
#define PLAIN "fill=\"#333\""
#define FAINT "fill=\"#777\""
#define HALO BOLD " stroke=\"#fff\" stroke-width=\"5\" paint-order=\"stroke\""

typedef struct place {
    uint32_t n_cores, n_pairs;
    int32_t gpu[DJ_GPUS_MAX], nic[DJ_GPUS_MAX + DJ_NICS_MAX]; /* a column each; -1: nothing there */
    double x, width;
} place_t;

typedef struct picture {
    FILE *out;
    const dj_topology_t *topology;
    const dj_layout_t *layout;
    place_t place[PLACES_MAX];
    double width, top, cores_height, devices_height;
    double gpu_x[DJ_GPUS_MAX], nic_x[DJ_NICS_MAX]; /* middle of each, for the links */
    int32_t core_rank[DJ_CORES_MAX];               /* whose each core is; -1 */
    char core_mark[DJ_CORES_MAX];                  /* P, D, H; 0 */
    int32_t gpu_rank[DJ_GPUS_MAX];                 /* -1 */
} picture_t;

/* ---- whose is what ---- */

static bool lists(const char *cores, const cpu_set_t *processors)
{
    char text[DJ_THREAD_CORES_MAX];
    return cores[0] && dj_processors_format(processors, text, sizeof text) &&
           strcmp(text, cores) == 0;
}

static void find_owners(picture_t *picture)
{
    const dj_topology_t *topology = picture->topology;
    memset(picture->core_rank, 0xff, sizeof picture->core_rank);
    memset(picture->gpu_rank, 0xff, sizeof picture->gpu_rank);
    for (uint32_t i = 0; i < picture->layout->n; i++) {
        const dj_layout_rank_t *rank = &picture->layout->rank[i];
        if (rank->gpu >= 0)
            picture->gpu_rank[rank->gpu] = (int32_t)i;
        for (uint32_t core = 0; core < topology->n_cores && rank->share.bound; core++) {
            const cpu_set_t *processors = &topology->core[core].processors;
            cpu_set_t both;
            CPU_AND(&both, processors, &rank->share.processors);
            if (CPU_COUNT(&both) == 0)
                continue;
            picture->core_rank[core] = (int32_t)i;
            picture->core_mark[core] = lists(rank->share.progress_cores, processors)    ? 'P'
                                       : lists(rank->share.device_cores, processors)    ? 'D'
                                       : lists(rank->share.heartbeat_cores, processors) ? 'H'
                                                                                        : '\0';
        }
    }
}

static const char *color_of(const picture_t *picture, int32_t rank)
{
    if (rank < 0)
        return "#f4f4f4";
    return picture->layout->rank[rank].coordinates
               ? "#b9b9b9"
               : dj_svg_color((uint32_t)rank - picture->layout->rank[0].coordinates);
}

/* ---- which device stands where ---- */

static uint32_t place_index(int32_t node)
{
    return node < 0 ? PLACES_MAX - 1 : (uint32_t)node;
}

/* Under a GPU: the NIC of its rank, else the nearest behind its switch, where it lies in this node
 * and stands nowhere yet. */
static int32_t nic_below(const picture_t *picture, uint32_t gpu, uint64_t used)
{
    const dj_topology_t *topology = picture->topology;
    int32_t rank = picture->gpu_rank[gpu], node = topology->gpu[gpu].node;
    int32_t own = rank >= 0 ? picture->layout->rank[rank].nic : -1;
    if (own >= 0 && topology->nic[own].node == node && !(used >> own & 1))
        return own;
    for (uint32_t i = 0; i < topology->n_nics && rank < 0; i++) {
        if (!(used >> i & 1) && topology->nic[i].node == node &&
            topology->gpu_nic[gpu][i] <= DJ_NEAR_BRIDGES)
            return (int32_t)i;
    }
    return -1;
}

static void place_devices(picture_t *picture)
{
    const dj_topology_t *topology = picture->topology;
    uint64_t used = 0;
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        place_t *place = &picture->place[place_index(topology->gpu[i].node)];
        int32_t nic = nic_below(picture, i, used);
        used |= nic >= 0 ? 1ull << nic : 0;
        place->gpu[place->n_pairs] = (int32_t)i;
        place->nic[place->n_pairs++] = nic;
    }
    for (uint32_t i = 0; i < topology->n_nics; i++) {
        place_t *place = &picture->place[place_index(topology->nic[i].node)];
        uint32_t at = 0;
        if (used >> i & 1)
            continue;
        while (at < place->n_pairs && place->nic[at] >= 0)
            at++;
        if (at == place->n_pairs && at < DJ_GPUS_MAX) {
            place->gpu[at] = -1;
            place->n_pairs++;
        }
        if (at < DJ_GPUS_MAX)
            place->nic[at] = (int32_t)i;
    }
}

/* ---- sizes ---- */

static uint32_t columns_of(const place_t *place)
{
    uint32_t columns = (uint32_t)((place->width - 2 * PAD) / CELL);
    return columns ? columns : 1;
}

static void measure_places(picture_t *picture)
{
    const dj_topology_t *topology = picture->topology;
    uint32_t rows = 0, gpus = topology->n_gpus, nics = topology->n_nics;
    for (uint32_t i = 0; i < topology->n_cores; i++)
        picture->place[topology->core[i].node].n_cores++;
    for (uint32_t i = 0; i < PLACES_MAX; i++) {
        place_t *place = &picture->place[i];
        uint32_t square = 4;
        while (square < 16 && square * square * 2 < place->n_cores)
            square += 2;
        double by_cores = square * CELL, by_devices = place->n_pairs * (DEVICE_WIDTH + 8) - 8;
        place->width = 2 * PAD + (by_cores > by_devices ? by_cores : by_devices);
        if (place->width < 165)
            place->width = 165;
        uint32_t here = (place->n_cores + columns_of(place) - 1) / columns_of(place);
        rows = here > rows ? here : rows;
    }
    picture->cores_height = rows * CELL + TITLE + PAD;
    picture->devices_height = (gpus ? DEVICE_HEIGHT + DEVICE_GAP : 0) + (nics ? DEVICE_HEIGHT : 0) +
                              (gpus + nics ? PAD : 0);
}

/* ---- boxes ---- */

static void draw_core(const picture_t *picture, uint32_t core, double x, double y)
{
    const cpu_set_t *processors = &picture->topology->core[core].processors;
    int32_t rank = picture->core_rank[core];
    uint32_t first = 0;
    char text[16];
    while (first < CPU_SETSIZE && !CPU_ISSET(first, processors))
        first++;
    dj_svg_box(picture->out, (dj_box_t){x + 1, y + 1, CELL - 2, CELL - 2}, 3,
               color_of(picture, rank), rank < 0 ? "#bbb" : "#666");
    snprintf(text, sizeof text, "%u", first);
    if (picture->core_mark[core])
        snprintf(text, sizeof text, "%c", picture->core_mark[core]);
    dj_svg_text(picture->out, x + CELL / 2, y + CELL / 2 + 4, picture->core_mark[core] ? 12 : 9,
                DJ_MIDDLE,
                picture->core_mark[core] ? BOLD
                : rank < 0               ? FAINT
                                         : PLAIN,
                4, text);
}

static void draw_cores(const picture_t *picture, uint32_t node)
{
    const place_t *place = &picture->place[node];
    uint32_t at = 0, columns = columns_of(place);
    for (uint32_t i = 0; i < picture->topology->n_cores; i++) {
        if (picture->topology->core[i].node != node)
            continue;
        draw_core(picture, i, place->x + PAD + at % columns * CELL,
                  picture->top + TITLE + at / columns * CELL);
        at++;
    }
}

static void draw_gpu(picture_t *picture, uint32_t gpu, double x, double y)
{
    char text[32];
    int32_t rank = picture->gpu_rank[gpu];
    dj_svg_box(picture->out, (dj_box_t){x, y, DEVICE_WIDTH, DEVICE_HEIGHT}, 4,
               color_of(picture, rank), rank < 0 ? "#bbb" : "#333");
    const char *name = picture->topology->gpu[gpu].name;
    snprintf(text, sizeof text, "%s%s", strchr(name, ':') ? "" : "GPU ", name);
    dj_svg_text(picture->out, x + DEVICE_WIDTH / 2, y + 17, 11, DJ_MIDDLE, rank < 0 ? FAINT : BOLD,
                15, text);
    if (rank >= 0)
        snprintf(text, sizeof text, "rank %d", rank);
    else
        snprintf(text, sizeof text, "not used");
    dj_svg_text(picture->out, x + DEVICE_WIDTH / 2, y + 32, 10, DJ_MIDDLE, rank < 0 ? FAINT : PLAIN,
                15, text);
    picture->gpu_x[gpu] = x + DEVICE_WIDTH / 2;
}

/* "rank 3", "ranks 1, 4", "4 ranks", else why nobody uses it. */
static uint32_t describe_nic(const picture_t *picture, uint32_t nic, char *text, size_t room)
{
    uint32_t guests = 0, first = 0, last = 0;
    for (uint32_t i = 0; i < picture->layout->n; i++) {
        if (picture->layout->rank[i].nic != (int32_t)nic)
            continue;
        first = guests == 0 ? i : first;
        last = i;
        guests++;
    }
    if (guests > 2)
        snprintf(text, room, "%u ranks", guests);
    else if (guests == 2)
        snprintf(text, room, "ranks %u, %u", first, last);
    else if (guests == 1)
        snprintf(text, room, "rank %u", first);
    else if (!picture->topology->nic[nic].rdma)
        snprintf(text, room, "Ethernet");
    else
        snprintf(text, room, picture->topology->nic[nic].active ? "not used" : "no active port");
    return guests;
}

/* Its colour; a NIC of several ranks shows a band of each. */
static void draw_nic(picture_t *picture, uint32_t nic, double x, double y)
{
    char text[32];
    uint32_t guests = describe_nic(picture, nic, text, sizeof text), seen = 0;
    double band = (DEVICE_WIDTH - 24) / (guests ? guests : 1);
    const char *fill = guests > 1 ? "#ffffff" : "#f4f4f4";
    for (uint32_t i = 0; i < picture->layout->n && guests == 1; i++) {
        if (picture->layout->rank[i].nic == (int32_t)nic)
            fill = color_of(picture, (int32_t)i);
    }
    dj_svg_box(picture->out, (dj_box_t){x, y, DEVICE_WIDTH, DEVICE_HEIGHT}, 12, fill,
               guests ? "#333" : "#bbb");
    for (uint32_t i = 0; i < picture->layout->n && guests > 1; i++) {
        if (picture->layout->rank[i].nic == (int32_t)nic)
            dj_svg_box(picture->out, (dj_box_t){x + 12 + band * seen++, y + 34, band, 4}, 0,
                       color_of(picture, (int32_t)i), "none");
    }
    dj_svg_text(picture->out, x + DEVICE_WIDTH / 2, y + 16, 11, DJ_MIDDLE, guests ? BOLD : FAINT,
                14, picture->topology->nic[nic].name);
    dj_svg_text(picture->out, x + DEVICE_WIDTH / 2, y + 30, 10, DJ_MIDDLE, guests ? PLAIN : FAINT,
                18, text);
    picture->nic_x[nic] = x + DEVICE_WIDTH / 2;
}

static void draw_pair(picture_t *picture, const place_t *place, uint32_t at)
{
    double x = place->x + PAD + at * (DEVICE_WIDTH + 8);
    double nic_y = picture->top + picture->cores_height;
    double gpu_y = nic_y + (picture->topology->n_nics ? DEVICE_HEIGHT + DEVICE_GAP : 0);
    int32_t gpu = place->gpu[at], nic = place->nic[at];
    if (gpu >= 0)
        draw_gpu(picture, (uint32_t)gpu, x, gpu_y);
    if (nic >= 0)
        draw_nic(picture, (uint32_t)nic, x, nic_y);
}

/* From the NIC of each rank here down to its GPU: thick behind one switch. */
static void join_pairs(const picture_t *picture, int32_t node)
{
    const dj_topology_t *topology = picture->topology;
    double y = picture->top + picture->cores_height + DEVICE_HEIGHT;
    for (uint32_t i = 0; i < picture->layout->n; i++) {
        int32_t gpu = picture->layout->rank[i].gpu, nic = picture->layout->rank[i].nic;
        if (gpu < 0 || nic < 0 || topology->gpu[gpu].node != node ||
            topology->nic[nic].node != node)
            continue;
        dj_svg_line(picture->out, picture->nic_x[nic], y, picture->gpu_x[gpu], y + DEVICE_GAP,
                    topology->gpu_nic[gpu][nic] == DJ_NEAR_SWITCH ? 3 : 1, "#555");
    }
}

static void draw_place(picture_t *picture, uint32_t index)
{
    place_t *place = &picture->place[index];
    char text[64] = "near no single node";
    double height = picture->cores_height + picture->devices_height;
    dj_svg_box(picture->out, (dj_box_t){place->x, picture->top, place->width, height}, 5, "#f3ead9",
               "#a89f8d");
    if (index < picture->topology->n_nodes) {
        const dj_numa_t *node = &picture->topology->node[index];
        snprintf(text, sizeof text, "NUMA node %u", node->os_index);
        if (node->memory_bytes)
            snprintf(text, sizeof text, "NUMA node %u, %.0f GB", node->os_index,
                     (double)node->memory_bytes / 1e9);
        draw_cores(picture, index);
    }
    dj_svg_text(picture->out, place->x + PAD, picture->top + 16, 11, DJ_LEFT, BOLD, 40, text);
    for (uint32_t i = 0; i < place->n_pairs; i++)
        draw_pair(picture, place, i);
    join_pairs(picture, index == PLACES_MAX - 1 ? -1 : (int32_t)index);
}

/* ---- links ---- */

static double draw_bar(const picture_t *picture, double y, uint32_t mbps)
{
    char text[96];
    double left = picture->width, right = 0;
    for (uint32_t i = 0; i < picture->topology->n_gpus; i++) {
        double x = picture->gpu_x[i];
        left = x < left ? x : left;
        right = x > right ? x : right;
        dj_svg_line(picture->out, x, y - PAD, x, y + 26, 3, "#2f7d32");
    }
    dj_svg_box(picture->out, (dj_box_t){left - 20, y + 26, right - left + 40, 26}, 6, "#d7ecd8",
               "#2f7d32");
    snprintf(text, sizeof text, "NVLink: every GPU to every other, %.0f GB/s", mbps / 1000.0);
    dj_svg_text(picture->out, (left + right) / 2, y + 43, 12, DJ_MIDDLE, BOLD, 90, text);
    return y + 26 + 26 + PAD;
}

static bool are_neighbours(const picture_t *picture, uint32_t a, uint32_t b)
{
    int32_t x = picture->gpu_rank[a], y = picture->gpu_rank[b];
    return x >= 0 && y >= 0 && (x - y == 1 || y - x == 1);
}

static double depth_of(const picture_t *picture, uint32_t a, uint32_t b)
{
    double span = picture->gpu_x[b] - picture->gpu_x[a];
    return 24 + 0.16 * (span < 0 ? -span : span);
}

/* A curve a pair, as wide as it is fast. First those that join no neighbouring ranks, paler; then
 * those that do, and their figures. */
static double draw_curves(const picture_t *picture, double y)
{
    const dj_topology_t *topology = picture->topology;
    uint32_t fastest = 0, pairs = 0;
    double lowest = 0;
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        for (uint32_t k = 0; k < topology->n_gpus; k++)
            fastest = topology->nvlink_mbps[i][k] > fastest ? topology->nvlink_mbps[i][k] : fastest;
    }
    for (uint32_t turn = 0; turn < 3; turn++) {
        for (uint32_t i = 0; i < topology->n_gpus; i++) {
            for (uint32_t k = i + 1; k < topology->n_gpus; k++) {
                char text[32];
                uint32_t mbps = topology->nvlink_mbps[i][k];
                double depth = depth_of(picture, i, k);
                if (mbps == 0 || are_neighbours(picture, i, k) != (turn > 0))
                    continue;
                pairs++;
                lowest = depth > lowest ? depth : lowest;
                snprintf(text, sizeof text, "%.0f GB/s", mbps / 1000.0);
                if (turn < 2)
                    dj_svg_curve(picture->out, picture->gpu_x[i], picture->gpu_x[k], y - PAD, depth,
                                 1 + 3.0 * mbps / fastest, turn ? "#2f7d32" : "#b9d9ba");
                else
                    dj_svg_text(picture->out, (picture->gpu_x[i] + picture->gpu_x[k]) / 2,
                                y - PAD + depth + 3, 10, DJ_MIDDLE, HALO, 16, text);
            }
        }
    }
    if (pairs == 0)
        return y;
    dj_svg_text(picture->out, PAD, y + lowest + 14, 11, DJ_LEFT, FAINT, 160,
                "Green: NVLink, the faster the wider; dark and with a figure between neighbouring "
                "ranks, pale between others.");
    return y + lowest + 20;
}

/* ---- the legend ---- */

static void describe_rank(const dj_layout_t *layout, uint32_t index, char *text, size_t room)
{
    const dj_layout_rank_t *rank = &layout->rank[index];
    const char *nic = rank->share.nic[0] ? rank->share.nic : "no RDMA NIC";
    int used = snprintf(text, room, "rank %u", index);
    if (rank->gpu_name[0])
        used += snprintf(text + used, room - (size_t)used, ": %s, %s", rank->gpu_name, nic);
    if (rank->share.bound && rank->share.cores[0])
        snprintf(text + used, room - (size_t)used, "%s processors %s",
                 rank->gpu_name[0] ? "," : ":", rank->share.cores);
}

/* The lower end of it. */
static double draw_legend(picture_t *picture, double y)
{
    const dj_layout_t *layout = picture->layout;
    char text[1200], verdict[128];
    size_t longest = 0, farthest = 0;
    dj_topo_verdict(layout, verdict, sizeof verdict);
    dj_svg_text(picture->out, PAD, y, 12, DJ_LEFT, BOLD, 200, verdict);
    for (uint32_t i = 0; i < layout->n; i++) {
        size_t why = strlen(layout->rank[i].why);
        describe_rank(layout, i, text, sizeof text);
        longest = strlen(text) > longest ? strlen(text) : longest;
        farthest = why > farthest ? why : farthest;
    }
    longest = longest > LEGEND_COLUMNS ? LEGEND_COLUMNS : longest;
    double second = PAD + 48 + LETTER * (double)longest;
    for (uint32_t i = 0; i < layout->n; i++) {
        double line = y + (i + 1) * LEGEND_LINE;
        describe_rank(layout, i, text, sizeof text);
        dj_svg_box(picture->out, (dj_box_t){PAD, line - 12, 16, 16}, 3,
                   color_of(picture, (int32_t)i), "#666");
        dj_svg_text(picture->out, PAD + 24, line, 11, DJ_LEFT, PLAIN, LEGEND_COLUMNS, text);
        dj_svg_text(picture->out, second, line, 11, DJ_LEFT, FAINT, 150, layout->rank[i].why);
    }
    double line = y + (layout->n + 1) * LEGEND_LINE;
    dj_svg_text(
        picture->out, PAD, line, 11, DJ_LEFT, FAINT, 200,
        layout->devices
            ? "A square is a core with the number of its first processor. P, D, H: the cores of "
              "a rank's progress, device and heartbeat threads. White: free."
            : "A square is a core with the number of its first processor. White: free.");
    double right = second + LETTER * (double)farthest + PAD;
    picture->width = right > picture->width ? right : picture->width;
    return line + PAD;
}

/* ---- all of it ---- */

static double draw_packages(picture_t *picture)
{
    const dj_topology_t *topology = picture->topology;
    double x = PAD, height = picture->cores_height + picture->devices_height;
    picture->top = HEAD + TITLE + PAD;
    for (uint32_t package = 0; package < topology->n_packages; package++) {
        double left = x;
        char text[32];
        x += PAD;
        for (uint32_t i = 0; i < topology->n_nodes; i++) {
            if (topology->node[i].package != package)
                continue;
            picture->place[i].x = x;
            x += picture->place[i].width + PAD;
        }
        if (x == left + PAD)
            x += 60; /* a package without a node */
        dj_svg_box(picture->out, (dj_box_t){left, HEAD + PAD, x - left, height + TITLE + PAD}, 6,
                   "#e9edf2", "#8a95a5");
        snprintf(text, sizeof text, "Package %u", package);
        dj_svg_text(picture->out, left + PAD, HEAD + PAD + 16, 12, DJ_LEFT, BOLD, 40, text);
        for (uint32_t i = 0; i < topology->n_nodes; i++) {
            if (topology->node[i].package == package)
                draw_place(picture, i);
        }
        x += PAD;
    }
    if (picture->place[PLACES_MAX - 1].n_pairs > 0) {
        picture->place[PLACES_MAX - 1].x = x;
        draw_place(picture, PLACES_MAX - 1);
    }
    return picture->top + height + PAD;
}

static double total_width(const picture_t *picture)
{
    const dj_topology_t *topology = picture->topology;
    double width = PAD + topology->n_packages * 2 * PAD;
    for (uint32_t i = 0; i < topology->n_nodes; i++)
        width += picture->place[i].width + PAD;
    if (picture->place[PLACES_MAX - 1].n_pairs > 0)
        width += picture->place[PLACES_MAX - 1].width + PAD;
    return width < 960 ? 960 : width;
}

/* The size is known when all is drawn: the boxes wait in memory for the line above them. */
dj_status_t dj_topo_svg(const dj_topology_t *topology, const dj_layout_t *layout, FILE *out)
{
    char title[200], *body = NULL;
    size_t size;
    picture_t *picture = calloc(1, sizeof *picture);
    FILE *memory = picture ? open_memstream(&body, &size) : NULL;
    if (!memory) {
        free(picture);
        return dj_fail(DJ_ERR_MEMORY, "no memory for the picture");
    }
    *picture = (picture_t){.out = memory, .topology = topology, .layout = layout};
    find_owners(picture);
    place_devices(picture);
    measure_places(picture);
    picture->width = total_width(picture);
    dj_svg_text(memory, PAD, 24, 16, DJ_LEFT, BOLD, 100, topology->source);
    dj_topo_title(topology, title, sizeof title);
    dj_svg_text(memory, PAD, 44, 12, DJ_LEFT, PLAIN, 160, title);
    double y = draw_packages(picture);
    uint32_t even = dj_topo_even_links(topology);
    y = even ? draw_bar(picture, y, even) : draw_curves(picture, y);
    y = draw_legend(picture, y + LEGEND_LINE);
    bool good = fclose(memory) == 0;
    if (good) {
        dj_svg_open(out, picture->width, y);
        fputs(body, out);
        dj_svg_close(out);
    }
    free(body);
    free(picture);
    if (!good)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the picture");
    return ferror(out) ? dj_fail(DJ_ERR_FILE, "cannot write the picture") : DJ_OK;
}
