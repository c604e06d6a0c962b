#!/usr/bin/env python3
"""Draws the table of the ablations as bars: run | picture.py > batching.svg

One panel for each load, with the figure that the rule is about. What clipd does is the first bar, in colour.
"""

import sys
from collections import defaultdict
from html import escape

# For a word of the load: what is shown, and its column.
PANELS = {
    "bursts": ("99th percentile, ms", 5),
    "put together": ("99th percentile, ms", 5),
    "the same": ("images per second", 3),
    "twice": ("images done in time, per second", 3),
    "captions": ("texts per second", 3),
    "beside": ("99th percentile of the texts, ms", 5),
}
WIDTH, LEFT, BAR, GAP, HEAD = 760, 230, 20, 6, 46


def main():
    loads = defaultdict(list)
    for line in sys.stdin:
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.split("|")]
            loads[cells[1]].append(cells)
    shapes, top = [], 8
    for load, rows in loads.items():
        name, column = next(PANELS[word] for word in PANELS if word in load)
        values = [float(cells[column].split()[0]) for cells in rows]
        shapes.append(f'<text x="8" y="{top + 16}" class="load">{escape(load)}</text>')
        shapes.append(f'<text x="8" y="{top + 34}">{escape(name)}</text>')
        top += HEAD
        for cells, value in sorted(zip(rows, values), key=lambda each: "**" not in each[0][2]):
            own = "own" if "**" in cells[2] else "other"
            length = max(1, value / max(values) * (WIDTH - LEFT - 70))
            arm = escape(cells[2].replace("**", ""))
            shapes.append(f'<text x="{LEFT - 10}" y="{top + 15}" text-anchor="end">{arm}</text>')
            shapes.append(f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" class="{own}"/>')
            shapes.append(f'<text x="{LEFT + length + 8:.1f}" y="{top + 15}">{value:g}</text>')
            top += BAR + GAP
        top += 14
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">')
    print("<style>text { font: 13px sans-serif; fill: #333 } .load { font-weight: bold }")
    print(".own { fill: #2166ac } .other { fill: #b8b8b8 } .page { fill: #fff }</style>")
    print(f'<rect class="page" width="{WIDTH}" height="{top}"/>')
    print("\n".join(shapes))
    print("</svg>")


if __name__ == "__main__":
    main()
