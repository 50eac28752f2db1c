/* svg.h - boxes, lines and words of a picture; svg.c lays them out. */
#ifndef DJ_LAUNCHER_TOPO_SVG_H
#define DJ_LAUNCHER_TOPO_SVG_H

#include <stdint.h>
#include <stdio.h>

typedef struct dj_box {
    double x, y, width, height;
} dj_box_t;

typedef enum dj_anchor { DJ_LEFT, DJ_MIDDLE } dj_anchor_t;

void dj_svg_open(FILE *out, double width, double height);
void dj_svg_close(FILE *out);
void dj_svg_box(FILE *out, dj_box_t box, double round, const char *fill, const char *line);
/* At most `columns` characters of the text. Whatever it holds is shown, never obeyed. */
void dj_svg_text(FILE *out, double x, double y, double size, dj_anchor_t anchor, const char *style,
                 uint32_t columns, const char *text);
void dj_svg_line(FILE *out, double x1, double y1, double x2, double y2, double width,
                 const char *color);
/* Hangs from (x1, y) to (x2, y), `depth` below at its lowest. */
void dj_svg_curve(FILE *out, double x1, double x2, double y, double depth, double width,
                  const char *color);
/* Of rank n; the coordinator is grey. */
const char *dj_svg_color(uint32_t n);

#endif
