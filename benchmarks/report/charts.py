"""Draws bar charts and line charts as SVG, for light and dark pages."""

import math
from html import escape
from pathlib import Path
from typing import Any

Row = dict[str, Any]

STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #57606a } .title { font-weight: 600; font-size: 15px; fill: #24292f }
.bar { fill: #8c959f } .ours { fill: #1f883d } .axis { stroke: #afb8c1; stroke-width: 1; fill: none }
.line { fill: none; stroke-width: 2 } .c0 { stroke: #1f883d; fill: #1f883d } .c1 { stroke: #0969da; fill: #0969da }
.c2 { stroke: #bc4c00; fill: #bc4c00 } .c3 { stroke: #8250df; fill: #8250df } .c4 { stroke: #bf3989; fill: #bf3989 }
.line.c0, .line.c1, .line.c2, .line.c3, .line.c4 { fill: none } text.name { stroke: none }
@media (prefers-color-scheme: dark) { text { fill: #9198a1 } .title { fill: #f0f6fc } .bar { fill: #656c76 }
.ours { fill: #3fb950 } .axis { stroke: #3d444d } }
</style>"""


def format_figure(value: object) -> str:
    """Format a figure with three significant digits and thousands separators."""
    if isinstance(value, float):
        digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{min(digits, 3)}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw_bars(path: Path, title: str, rows: list[Row], label: str, columns: tuple[str, ...]) -> None:
    """Draw a bar for each row and column. Each column has its own scale. The rows of harvester are highlighted."""
    left, width, gap, line = 330, 130, 75, 24
    top = 66
    drawn = [_text(0, 18, title, "title")]
    for at, column in enumerate(columns):
        x = left + at * (width + gap)
        drawn.append(_text(x, 48, column))
        largest = max(parse_figure(row[column]) for row in rows) or 1.0
        for place, row in enumerate(rows):
            y = top + place * line
            long = max(1.0, width * parse_figure(row[column]) / largest)
            kind = "ours" if row[label] == "harvester" else "bar"
            drawn.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{long:.1f}" height="14" rx="2"/>')
            drawn.append(_text(x + long + 6, y + 12, format_figure(row[column])))
    drawn += [_text(0, top + place * line + 12, row[label]) for place, row in enumerate(rows)]
    _write(path, title, left + len(columns) * (width + gap), top + len(rows) * line + 6, drawn)


def draw_lines(path: Path, title: str, rows: list[Row], across: str, columns: list[str]) -> None:
    """Draw columns as lines over the column ``across``, with logarithmic axes."""
    left, top, width, height = 50, 44, 460, 240
    powers = [math.log10(row[column]) for row in rows for column in columns]
    lowest, highest = math.floor(min(powers)), math.ceil(max(powers))
    first, last = (math.log10(rows[at][across]) for at in (0, -1))

    def level(logarithm: float) -> float:
        return top + height * (highest - logarithm) / ((highest - lowest) or 1.0)

    def place(row: Row, column: str) -> tuple[float, float]:
        x = left + width * (math.log10(row[across]) - first) / ((last - first) or 1.0)
        return x, level(math.log10(row[column]))

    drawn = [_text(0, 18, title, "title")]
    drawn.append(f'<path class="axis" d="M{left} {top}V{top + height}H{left + width}"/>')
    for power in range(lowest, highest + 1):
        drawn.append(f'<path class="axis" d="M{left} {level(power):.0f}H{left + width}"/>')
        drawn.append(_text(0, level(power) + 4, f"{10.0**power:g}"))
    drawn += [_text(place(row, columns[0])[0] - 24, top + height + 20, format_figure(row[across])) for row in rows]
    for at, column in enumerate(columns):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(row, column) for row in rows))
        drawn.append(f'<polyline class="line c{at}" points="{points}"/>')
        drawn.append(_text(left + width + 16, top + 16 + 20 * at, column.split(",")[0], f"name c{at}"))
    _write(path, title, left + width + 120, top + height + 34, drawn)


def parse_figure(value: object) -> float:
    """Convert a figure, with or without a percent sign, to a number."""
    return float(str(value).rstrip("%"))


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def _write(path: Path, title: str, width: float, height: float, drawn: list[str]) -> None:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    path.write_text("\n".join([head, f"<title>{escape(title)}</title>", STYLE, *drawn, "</svg>", ""]))
