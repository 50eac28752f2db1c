"""One comparison as an SVG: the curves over size on a log axis, the ratio below.

Written by hand, so that nothing needs to be installed; readable on light and dark pages, because it brings its
own background.
"""

import math
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 760, 74, 26
TOP, UPPER, GAP, LOWER, BOTTOM = 84, 270, 46, 120, 52
HEIGHT = TOP + UPPER + GAP + LOWER + BOTTOM
INK, FAINT, GRID, PAPER = "#1f2933", "#66717e", "#e3e8ee", "#ffffff"
COLOURS = {"djinn": "#0f766e", "ucx": "#c2410c", "mpi": "#6d5bd0"}
FONT = "font-family=\"'Helvetica Neue', Helvetica, Arial, sans-serif\""


def colour_of(side):
    return COLOURS[side.split(",")[0]]


def bytes_text(size):
    for unit, scale in (("M", 1 << 20), ("K", 1 << 10)):
        if size >= scale:
            return f"{size / scale:g}{unit}"
    return f"{size:g}"


def number_text(value):
    if value >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


class Axis:
    """Maps values to a stretch of pixels by their logarithm."""

    def __init__(self, low, high, begin, end):
        self.begin, self.end = begin, end
        self.low, self.high = math.log(low), math.log(high)
        if self.high == self.low:
            self.low, self.high = self.low - 1, self.high + 1

    def __call__(self, value):
        return self.begin + (math.log(value) - self.low) / (self.high - self.low) * (self.end - self.begin)


def decades(low, high):
    """1, 10, 100... within the range; with 2 and 5 where few fit."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1,) if last - first > 3 else (1, 2, 5)
    found = [m * 10.0 ** e for e in range(first, last + 1) for m in steps]
    return [value for value in found if low <= value <= high]


def ratio_ticks(low, high):
    fine, coarse = (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2), (0.125, 0.25, 0.5, 1, 2, 4, 8, 16)
    return [value for value in (fine if high / low < 3 else coarse) if low <= value <= high]


def text(x, y, words, anchor="start", size=12, colour=INK, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}" '
            f'font-weight="{weight}">{escape(words)}</text>')


def line(x1, y1, x2, y2, colour=GRID, width=1, dash=""):
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width}"{dashes}/>')


def curve(points, colour):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
    return (f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2" '
            f'stroke-linejoin="round"/>{dots}')


def band(points_low, points_high, colour):
    if len(points_low) < 2:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points_low + points_high[::-1])
    return f'<polygon points="{path}" fill="{colour}" fill-opacity="0.14" stroke="none"/>'


def frame(parts, axis_x, sizes, top, height, ticks, axis_y, name):
    for value in ticks:
        y = axis_y(value)
        parts.append(line(LEFT, y, WIDTH - RIGHT, y))
        parts.append(text(LEFT - 9, y + 4, number_text(value), "end", 11, FAINT))
    for size in sizes:
        parts.append(line(axis_x(size), top, axis_x(size), top + height))
    middle = top + height / 2
    parts.append(f'<text x="20" y="{middle:.1f}" transform="rotate(-90 20 {middle:.1f})" '
                 f'text-anchor="middle" font-size="12" fill="{FAINT}">{escape(name)}</text>')


def size_ticks(sizes):
    """Powers of four (of sixteen, when there are many) over the range."""
    low, high = math.log2(min(sizes)), math.log2(max(sizes))
    step = 1 if high - low <= 10 else 2
    return [2 ** e for e in range(math.ceil(low), math.floor(high) + 1) if e % step == 0]


def draw_upper(parts, curves, axis_x, unit):
    values = [v for rows in curves.values() for row in rows for v in row[1:]]
    low, high = min(values) / 1.25, max(values) * 1.25
    axis = Axis(low, high, TOP + UPPER, TOP)
    sizes = [row[0] for rows in curves.values() for row in rows]
    frame(parts, axis_x, size_ticks(sizes), TOP, UPPER, decades(low, high), axis, unit)
    for side, rows in curves.items():
        parts.append(band([(axis_x(s), axis(q1)) for s, _, q1, _ in rows],
                          [(axis_x(s), axis(q3)) for s, _, _, q3 in rows], colour_of(side)))
    for side, rows in curves.items():
        parts.append(curve([(axis_x(s), axis(m)) for s, m, _, _ in rows], colour_of(side)))


def draw_lower(parts, ratios, axis_x, better):
    top = TOP + UPPER + GAP
    values = [v for rows in ratios.values() for row in rows for v in row[1:]] + [1]
    low, high = max(min(values), 0.1) / 1.12, min(max(values), 16) * 1.12
    axis = Axis(low, high, top + LOWER, top)
    sizes = [row[0] for rows in ratios.values() for row in rows]
    frame(parts, axis_x, size_ticks(sizes), top, LOWER, ratio_ticks(low, high), axis, "ratio to peer")
    parts.append(line(LEFT, axis(1), WIDTH - RIGHT, axis(1), INK, 1.2, "5 4"))
    parts.append(text(WIDTH - RIGHT, top - 8, better, "end", 11, FAINT))
    for side, rows in ratios.items():
        cut = [(s, *(max(low, min(v, high)) for v in rest)) for s, *rest in rows]
        parts.append(band([(axis_x(s), axis(l)) for s, _, l, _ in cut],
                          [(axis_x(s), axis(h)) for s, _, _, h in cut], colour_of(side)))
        parts.append(curve([(axis_x(s), axis(m)) for s, m, _, _ in cut], colour_of(side)))
    for size in size_ticks(sizes):
        parts.append(text(axis_x(size), top + LOWER + 18, bytes_text(size), "middle", 11, FAINT))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, top + LOWER + 38, "message size, bytes", "middle", 12,
                      FAINT))


def draw_legend(parts, labels):
    x = LEFT
    for side, label in labels.items():
        parts.append(line(x, TOP - 17, x + 20, TOP - 17, colour_of(side), 2.6))
        parts.append(f'<circle cx="{x + 10}" cy="{TOP - 17}" r="3" fill="{colour_of(side)}"/>')
        parts.append(text(x + 26, TOP - 13, label))
        x += 48 + 6.1 * len(label)


def draw(title, subtitle, unit, better, labels, curves, ratios):
    """`labels`: side → what the legend says. `curves`: side → [(size, median, lower quartile, upper quartile)].
    `ratios`: peer → [(size, median, low, high)]. The SVG as text; sizes and values are above 0."""
    sizes = [row[0] for rows in curves.values() for row in rows]
    low, high = min(sizes), max(sizes)
    axis_x = Axis(low, high, LEFT + 12, WIDTH - RIGHT - 12)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
             f'height="{HEIGHT}" {FONT} role="img" aria-label="{escape(title)}">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
             text(LEFT, 28, title, size=17, weight="600"), text(LEFT, 47, subtitle, size=12, colour=FAINT)]
    draw_legend(parts, labels)
    draw_upper(parts, curves, axis_x, unit)
    if any(ratios.values()):
        draw_lower(parts, {side: rows for side, rows in ratios.items() if rows}, axis_x, better)
    parts.append("</svg>")
    return "\n".join(part for part in parts if part) + "\n"
