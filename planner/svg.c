/* svg.c - drawing a plan. Coordinates are pixels of a page of WIDTH by HEIGHT; everything that
 * comes from a recording is escaped, so the document is well-formed whatever a tensor is called. */
#include "planner/svg.h"

#include <stdio.h>
#include <stdlib.h>

#include "planner/shape.h"

enum {
    WIDTH = 1280,
    HEIGHT = 720,
    LEFT = 92,
    RIGHT = 1092, /* of the plot; the legend stands beyond */
    TOP = 96,
    BOTTOM = 648,
    TEXT_PX = 11,
    TICKS = 6,
};

/* Of an 11-pixel character, on the generous side. */
static const double CHARACTER_PX = 6.3;

static const char *const colours[DJ_FAMILY_COUNT] = {
    [DJ_FAMILY_OTHER] = "#9aa3ad",       [DJ_FAMILY_POINTWISE] = "#7fb77e",
    [DJ_FAMILY_COPY] = "#c3c9d0",        [DJ_FAMILY_CREATE] = "#dcd6c8",
    [DJ_FAMILY_REDUCE] = "#d98880",      [DJ_FAMILY_NORM] = "#e3b04b",
    [DJ_FAMILY_SOFTMAX] = "#b58cc4",     [DJ_FAMILY_PRODUCT] = "#5b8fc7",
    [DJ_FAMILY_CONVOLUTION] = "#4aa3a2", [DJ_FAMILY_ATTENTION] = "#e58a4e",
    [DJ_FAMILY_EMBEDDING] = "#cfc04a",   [DJ_FAMILY_GATHER] = "#a9b665",
    [DJ_FAMILY_SCATTER] = "#8f9e4f",     [DJ_FAMILY_SORT] = "#c77fa0",
    [DJ_FAMILY_SCAN] = "#b3738c",        [DJ_FAMILY_POOL] = "#6fb7c9",
    [DJ_FAMILY_RESAMPLE] = "#86c5b3",    [DJ_FAMILY_LAYOUT] = "#aab4c8",
    [DJ_FAMILY_DISTANCE] = "#927fbf",    [DJ_FAMILY_TRANSFORM] = "#7d8fd1",
    [DJ_FAMILY_LOSS] = "#b85c5c",
};

typedef struct dj_box {
    uint32_t storage, first, last; /* steps */
    uint32_t node;                 /* that makes it */
    uint64_t offset, bytes;
    bool staged;
} dj_box_t;

typedef struct dj_picture {
    const dj_srg_t *srg;
    const dj_plan_t *plan;
    const dj_snapshot_program_t *names;
    dj_bytes_t *text;
    dj_box_t *boxes;
    uint32_t n_boxes;
    uint64_t *alive;
    uint64_t top_bytes; /* at the plot's upper edge */
} dj_picture_t;

static double x_of(const dj_picture_t *p, double step)
{
    double steps = p->plan->n_steps > 0 ? p->plan->n_steps : 1;
    return LEFT + (RIGHT - LEFT) * step / steps;
}

static double y_of(const dj_picture_t *p, double bytes)
{
    return BOTTOM - (BOTTOM - TOP) * bytes / (double)p->top_bytes;
}

/* Letters that mean something in XML, and bytes that may be no UTF-8. */
static void put_escaped(dj_bytes_t *text, const char *from, uint32_t limit)
{
    for (uint32_t i = 0; from[i] != '\0' && i < limit; i++) {
        unsigned char c = (unsigned char)from[i];
        const char *entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : NULL;
        if (entity != NULL)
            dj_bytes_printf(text, "%s", entity);
        else
            dj_bytes_put_u8(text, c < 0x20 || c > 0x7e ? '?' : c);
    }
}

static const char *size_text(uint64_t bytes, char text[24])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    uint32_t unit = 0;
    for (; value >= 1024 && unit < 4; unit++)
        value /= 1024;
    snprintf(text, 24,
             unit == 0 || value >= 100 || value == (double)(uint64_t)value ? "%.0f %s" : "%.1f %s",
             value, units[unit]);
    return text;
}

/* ---- what is drawn ---- */

static void meet(dj_picture_t *p, uint32_t *box_of, uint32_t storage, uint32_t step, uint32_t node)
{
    if (storage >= p->plan->n_storages || p->plan->offsets[storage] == DJ_OFFSET_NONE)
        return;
    if (box_of[storage] == DJ_SLOT_NONE) {
        box_of[storage] = p->n_boxes;
        p->boxes[p->n_boxes++] = (dj_box_t){.storage = storage,
                                            .first = step,
                                            .node = node,
                                            .offset = p->plan->offsets[storage],
                                            .bytes = p->srg->graph->storages[storage].bytes};
    }
    p->boxes[box_of[storage]].last = step;
}

static void meet_step(dj_picture_t *p, uint32_t *box_of, uint32_t step)
{
    uint32_t at = p->plan->steps[step].node;
    const dj_node_t *node = &p->srg->graph->nodes[at];
    for (uint32_t a = 0; a < node->call.n_args; a++)
        for (uint32_t j = 0;
             node->call.args[a].kind == DJ_ARG_TENSORS && j < node->call.args[a].count; j++)
            meet(p, box_of, node->call.args[a].operands[j].storage, step, at);
    for (uint32_t o = 0; o < node->n_outs; o++)
        meet(p, box_of, node->outs[o].storage, step, at);
    if (p->plan->steps[step].staging != DJ_OFFSET_NONE)
        p->boxes[p->n_boxes++] = (dj_box_t){.storage = node->outs[0].storage,
                                            .first = step,
                                            .last = step,
                                            .node = at,
                                            .offset = p->plan->steps[step].staging,
                                            .staged = true,
                                            .bytes = dj_view_dense_bytes(&node->outs[0].view)};
}

static dj_status_t find_boxes(dj_picture_t *p)
{
    size_t storages = (size_t)p->plan->n_storages + 1, steps = (size_t)p->plan->n_steps + 2;
    uint32_t *box_of = malloc(storages * sizeof *box_of);
    p->boxes = calloc(storages + steps, sizeof *p->boxes);
    p->alive = calloc(steps, sizeof *p->alive);
    if (box_of == NULL || p->boxes == NULL || p->alive == NULL) {
        free(box_of);
        return dj_fail(DJ_ERR_MEMORY, "no memory to draw %u steps", p->plan->n_steps);
    }
    memset(box_of, 0xff, storages * sizeof *box_of);
    for (uint32_t i = 0; i < p->plan->n_steps; i++)
        meet_step(p, box_of, i);
    for (uint32_t i = 0; i < p->n_boxes; i++) {
        p->alive[p->boxes[i].first] += p->boxes[i].bytes;
        p->alive[p->boxes[i].last + 1] -= p->boxes[i].bytes;
    }
    for (uint32_t i = 0; i < p->plan->n_steps; i++)
        p->alive[i + 1] += p->alive[i];
    free(box_of);
    return DJ_OK;
}

/* ---- drawing ---- */

/* Along the box where it is wide enough, else up it; false: neither. The size goes below the name.
 */
static bool put_label(dj_picture_t *p, const dj_box_t *box, const char *name)
{
    double x = x_of(p, box->first), width = x_of(p, box->last + 1) - x;
    double y = y_of(p, (double)(box->offset + box->bytes));
    double height = y_of(p, (double)box->offset) - y;
    double length = (double)strlen(name) * CHARACTER_PX + 8;
    char size[24];
    size_text(box->bytes, size);
    bool along = length <= width && height >= TEXT_PX + 3;
    bool two =
        along && height >= 2 * TEXT_PX + 8 && (double)strlen(size) * CHARACTER_PX + 8 <= width;
    if (!along && (length > height || width < TEXT_PX + 2))
        return false;
    if (along)
        dj_bytes_printf(p->text, "<text x='%.1f' y='%.1f'>", x + 4,
                        y + height / 2 + (two ? -2 : TEXT_PX / 2.0 - 1.5));
    else
        dj_bytes_printf(p->text, "<text transform='translate(%.1f %.1f) rotate(-90)'>",
                        x + width / 2 + TEXT_PX / 2.0 - 1.5, y + height - 4);
    put_escaped(p->text, name, 64);
    dj_bytes_printf(p->text, "</text>\n");
    if (two)
        dj_bytes_printf(p->text, "<text x='%.1f' y='%.1f' class='dim'>%s</text>\n", x + 4,
                        y + height / 2 + TEXT_PX, size);
    return true;
}

static const char *bare_name(const char *name)
{
    const char *colons = strstr(name, "::");
    return colons != NULL ? colons + 2 : name;
}

static const char *given_name(const dj_picture_t *p, const dj_box_t *box)
{
    return p->names != NULL ? dj_snapshot_name(p->names, box->storage) : NULL;
}

static void draw_name(dj_picture_t *p, const dj_box_t *box)
{
    const char *given = given_name(p, box);
    char shown[48];
    snprintf(shown, sizeof shown, "%.46s",
             given != NULL ? given
                           : bare_name(dj_op_info(p->srg->graph->nodes[box->node].call.op)->name));
    if (given == NULL) /* the overload says nothing to a reader */
        shown[strcspn(shown, ".")] = '\0';
    if (!put_label(p, box, shown)) /* "native_layer_norm" is long, "norm" is not */
        put_label(p, box, dj_family_name(p->srg->nodes[box->node].family));
}

static void draw_box(dj_picture_t *p, const dj_box_t *box)
{
    const dj_node_t *node = &p->srg->graph->nodes[box->node];
    const char *given = given_name(p, box);
    char view[DJ_VIEW_TEXT] = "", size[24];
    double x = x_of(p, box->first), width = x_of(p, box->last + 1) - x;
    double y = y_of(p, (double)(box->offset + box->bytes));
    double height = y_of(p, (double)box->offset) - y;
    for (uint32_t o = 0; o < node->n_outs; o++)
        if (node->outs[o].storage == box->storage)
            dj_view_format(&node->outs[o].view, view, sizeof view);
    dj_bytes_printf(p->text,
                    "<rect x='%.2f' y='%.2f' width='%.2f' height='%.2f' fill='%s'%s><title>", x, y,
                    width, height, colours[p->srg->nodes[box->node].family],
                    box->staged ? " class='staged'" : "");
    put_escaped(p->text, given != NULL ? given : "", 255);
    dj_bytes_printf(p->text, "%s%%%u %s %s%s&#10;%s at %llu, steps %u to %u</title></rect>\n",
                    given != NULL ? " " : "", box->storage, dj_op_info(node->call.op)->name, view,
                    box->staged ? ", staged" : "", size_text(box->bytes, size),
                    (unsigned long long)box->offset, box->first, box->last);
}

/* A round step that gives at most TICKS ticks: a power of two, for bytes. */
static uint64_t byte_tick(uint64_t most)
{
    uint64_t tick = 1;
    while (most / tick > TICKS)
        tick *= 2;
    return tick;
}

static uint32_t step_tick(uint32_t most)
{
    static const uint32_t factors[] = {2, 5, 10};
    uint32_t tick = 1, decade = 1;
    for (uint32_t i = 0; most / tick > 10; i++) {
        tick = decade * factors[i % 3];
        decade *= i % 3 == 2 ? 10 : 1;
    }
    return tick;
}

static void draw_axes(dj_picture_t *p)
{
    char size[24];
    uint64_t tick = byte_tick(p->top_bytes);
    for (uint64_t bytes = 0; bytes <= p->top_bytes; bytes += tick) {
        double y = y_of(p, (double)bytes);
        dj_bytes_printf(p->text,
                        "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' class='grid'/>\n"
                        "<text x='%d' y='%.1f' class='axis' text-anchor='end'>%s</text>\n",
                        LEFT, RIGHT, y, y, LEFT - 10, y + 4, size_text(bytes, size));
    }
    uint32_t step = step_tick(p->plan->n_steps);
    for (uint32_t i = 0; i <= p->plan->n_steps; i += step)
        dj_bytes_printf(p->text,
                        "<line x1='%.1f' x2='%.1f' y1='%d' y2='%d' class='tick'/>\n"
                        "<text x='%.1f' y='%d' class='axis' text-anchor='middle'>%u</text>\n",
                        x_of(p, i), x_of(p, i), BOTTOM, BOTTOM + 5, x_of(p, i), BOTTOM + 20, i);
    dj_bytes_printf(p->text,
                    "<text x='%d' y='%d' class='name' text-anchor='middle'>step</text>\n"
                    "<text transform='translate(24 %d) rotate(-90)' class='name' "
                    "text-anchor='middle'>bytes of the slab</text>\n",
                    (LEFT + RIGHT) / 2, BOTTOM + 44, (TOP + BOTTOM) / 2);
}

static void draw_alive(dj_picture_t *p)
{
    dj_bytes_printf(p->text, "<path class='alive' d='M%d %d", LEFT, BOTTOM);
    for (uint32_t i = 0; i < p->plan->n_steps; i++)
        dj_bytes_printf(p->text, "V%.1fH%.1f", y_of(p, (double)p->alive[i]), x_of(p, i + 1));
    dj_bytes_printf(p->text, "V%d'/>\n", BOTTOM);
}

/* Peak and bound at the right edge; where they are one line, it is said once. */
static void draw_limits(dj_picture_t *p)
{
    const dj_plan_t *plan = p->plan;
    char size[24];
    double peak = y_of(p, (double)plan->peak_bytes), bound = y_of(p, (double)plan->bound_bytes);
    bool together = bound - peak < 16;
    if (plan->bound_bytes < plan->peak_bytes)
        dj_bytes_printf(p->text, "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' class='bound'/>\n",
                        LEFT, RIGHT, bound, bound);
    dj_bytes_printf(p->text,
                    "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' class='peak'/>\n"
                    "<text x='%d' y='%.1f' class='peaked'>peak %s</text>\n",
                    LEFT, RIGHT, peak, peak, RIGHT + 8, peak + 4,
                    size_text(plan->peak_bytes, size));
    dj_bytes_printf(p->text, "<text x='%d' y='%.1f' class='axis'>bound %s</text>\n", RIGHT + 8,
                    (together ? peak + 16 : bound) + 4, size_text(plan->bound_bytes, size));
}

static void draw_legend(dj_picture_t *p)
{
    uint32_t counts[DJ_FAMILY_COUNT] = {0};
    double y = HEIGHT / 2.0; /* the upper half is for peak and bound */
    for (uint32_t i = 0; i < p->n_boxes; i++)
        counts[p->srg->nodes[p->boxes[i].node].family]++;
    dj_bytes_printf(p->text, "<text x='%d' y='%.1f' class='name'>made by</text>\n", RIGHT + 24, y);
    for (uint32_t i = 0; i < DJ_FAMILY_COUNT; i++) {
        if (counts[i] == 0)
            continue;
        y += 20;
        dj_bytes_printf(
            p->text,
            "<rect x='%d' y='%.1f' width='13' height='13' rx='2' fill='%s'/>"
            "<text x='%d' y='%.1f' class='axis'>%s <tspan class='dim'>%u</tspan></text>\n",
            RIGHT + 24, y - 11, colours[i], RIGHT + 44, y, dj_family_name((uint8_t)i), counts[i]);
    }
    y += 24;
    dj_bytes_printf(p->text,
                    "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' class='alive'/>"
                    "<text x='%d' y='%.1f' class='axis'>bytes alive</text>\n",
                    RIGHT + 24, RIGHT + 37, y - 4, y - 4, RIGHT + 44, y);
}

static void draw_head(dj_picture_t *p, const char *title)
{
    const dj_plan_t *plan = p->plan;
    char size[24], activations[24];
    double ratio = plan->bound_bytes > 0 ? (double)plan->peak_bytes / (double)plan->bound_bytes : 1;
    uint8_t phase = p->srg->verdict.phase;
    bool dense = (RIGHT - LEFT) < 4 * (double)plan->n_steps;
    dj_bytes_printf(
        p->text,
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' font-family=\"Inter, "
        "'Segoe UI', 'DejaVu Sans', "
        "sans-serif\">\n<style>text{fill:#2b3440}.axis{font-size:12px;fill:#5b6673}"
        ".name{font-size:12px;font-weight:600;fill:#414c59}.dim{fill-opacity:.6}"
        ".names text{font-size:%dpx;fill:#14202c;pointer-events:none}"
        ".grid{stroke:#e8ebef}.tick{stroke:#9aa3ad}.boxes rect{stroke:#fff;stroke-width:%s}"
        ".boxes rect:hover{stroke:#14202c;stroke-width:1.5}.staged{fill-opacity:.55}"
        ".alive{fill:none;stroke:#14202c;stroke-opacity:.4;stroke-width:1.1}"
        ".peak{stroke:#b3261e;stroke-width:1.5}.peaked{font-size:12px;font-weight:600;fill:#b3261e}"
        ".bound{stroke:#b3261e;stroke-width:1.2;stroke-dasharray:5 4}</style>\n"
        "<rect width='%d' height='%d' fill='#fff'/>\n",
        WIDTH, HEIGHT, TEXT_PX, dense ? ".3" : ".8", WIDTH, HEIGHT);
    dj_bytes_printf(p->text, "<text x='%d' y='42' font-size='21' font-weight='600'>", LEFT);
    put_escaped(p->text, title, 100);
    dj_bytes_printf(
        p->text,
        "</text>\n<text x='%d' y='66' font-size='13' fill-opacity='.75'>%s%speak %s, %.3f "
        "of the least possible, holding %u tensors of %s over %u steps</text>\n",
        LEFT, phase > 0 ? dj_phase_name(phase) : "", phase > 0 ? ", " : "",
        size_text(plan->peak_bytes, size), ratio, p->n_boxes,
        size_text(p->srg->bytes[DJ_LIFE_ACTIVATION], activations), plan->n_steps);
}

static void draw(dj_picture_t *p, const char *title)
{
    char size[24];
    draw_head(p, title);
    draw_axes(p);
    dj_bytes_printf(p->text, "<g class='boxes'>\n");
    if (p->plan->workspace_bytes > 0)
        dj_bytes_printf(p->text,
                        "<rect x='%d' y='%.2f' width='%d' height='%.2f' fill='#eef0f3'><title>"
                        "workspace, %s</title></rect>\n",
                        LEFT, y_of(p, (double)p->plan->workspace_bytes), RIGHT - LEFT,
                        BOTTOM - y_of(p, (double)p->plan->workspace_bytes),
                        size_text(p->plan->workspace_bytes, size));
    for (uint32_t i = 0; i < p->n_boxes; i++)
        draw_box(p, &p->boxes[i]);
    dj_bytes_printf(p->text, "</g>\n");
    draw_alive(p);
    dj_bytes_printf(p->text, "<g class='names'>\n");
    for (uint32_t i = 0; i < p->n_boxes; i++)
        draw_name(p, &p->boxes[i]);
    dj_bytes_printf(p->text, "</g>\n");
    draw_limits(p);
    draw_legend(p);
    dj_bytes_printf(p->text, "</svg>\n");
}

dj_status_t dj_plan_draw(const dj_srg_t *srg, const dj_plan_t *plan, const char *title,
                         const dj_snapshot_program_t *names, dj_bytes_t *text)
{
    dj_picture_t picture = {.srg = srg, .plan = plan, .names = names, .text = text};
    uint64_t peak = plan->peak_bytes;
    picture.top_bytes = peak > 0 ? peak + peak / 24 + 1 : 1;
    dj_status_t status = find_boxes(&picture);
    if (status == DJ_OK) {
        draw(&picture, title);
        if (text->failed)
            status = dj_fail(DJ_ERR_MEMORY, "no memory for a picture of %u steps", plan->n_steps);
    }
    free(picture.boxes);
    free(picture.alive);
    return status;
}
