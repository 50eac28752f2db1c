/* svg_draw.c - the pens. */
#include "launcher/topo/svg.h"

void dj_svg_open(FILE *out, double width, double height)
{
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
            "height=\"%.0f\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\">\n",
            width, height, width, height);
    dj_svg_box(out, (dj_box_t){0, 0, width, height}, 0, "#ffffff", "none");
}

void dj_svg_close(FILE *out)
{
    fputs("</svg>\n", out);
}

void dj_svg_box(FILE *out, dj_box_t box, double round, const char *fill, const char *line)
{
    fprintf(out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"%.1f\" fill=\"%s\" "
            "stroke=\"%s\"/>\n",
            box.x, box.y, box.width, box.height, round, fill, line);
}

static void put(FILE *out, char letter)
{
    if (letter == '<')
        fputs("&lt;", out);
    else if (letter == '>')
        fputs("&gt;", out);
    else if (letter == '&')
        fputs("&amp;", out);
    else
        fputc(letter >= ' ' && letter <= '~' ? letter : '?', out);
}

void dj_svg_text(FILE *out, double x, double y, double size, dj_anchor_t anchor, const char *style,
                 uint32_t columns, const char *text)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\"%s %s>", x, y, size,
            anchor == DJ_MIDDLE ? " text-anchor=\"middle\"" : "", style);
    for (uint32_t i = 0; text[i] && i < columns; i++)
        put(out, text[i]);
    fputs("</text>\n", out);
}

void dj_svg_line(FILE *out, double x1, double y1, double x2, double y2, double width,
                 const char *color)
{
    fprintf(out,
            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
            "stroke-width=\"%.1f\"/>\n",
            x1, y1, x2, y2, color, width);
}

void dj_svg_curve(FILE *out, double x1, double x2, double y, double depth, double width,
                  const char *color)
{
    /* A cubic curve reaches three quarters of the way to its handles. */
    fprintf(out,
            "<path d=\"M %.1f %.1f C %.1f %.1f %.1f %.1f %.1f %.1f\" fill=\"none\" stroke=\"%s\" "
            "stroke-width=\"%.1f\"/>\n",
            x1, y, x1, y + depth / 0.75, x2, y + depth / 0.75, x2, y, color, width);
}

const char *dj_svg_color(uint32_t n)
{
    static const char *const colors[] = {
        "#7fb3e6", "#f6a96c", "#8fd19e", "#e58a93", "#b8a1e3", "#d8c08a", "#f2a7d3", "#7dd3d8",
        "#e3d766", "#5f8dd3", "#d98f4e", "#6bb07a", "#c46a7a", "#9479c9", "#a58c62", "#c06fa8",
    };
    return colors[n % (sizeof colors / sizeof colors[0])];
}
