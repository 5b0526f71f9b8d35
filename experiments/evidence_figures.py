"""Line figures as SVG, on white, each line named at its end. The same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

Scale = Callable[[float], float]
INK, FAINT = "#333", "#ddd"
COLOURS = {
    "mix": "#0b3d91", "mix-and-replay": "#4a5fb0", "direct": "#1f6ab5", "clean": "#0f7684", "iterative": "#7b5fb5",
    "teacher-in-student-format": "#1b7837", "teacher": "#557a12", "rft": "#b84e00", "rft-all": "#9c3f6e",
    "bare-retry": "#856000", "wrong-hints": "#707070", "sft": "#a63a3a", "prompt": "#5c5c5c", "base": "#111111",
}  # fmt: skip
"""Each also colours the label of its line, so each has a contrast of at least 4.5 to 1 with white."""
SHORT = {"teacher-in-student-format": "teacher, own format"}
"""What a label has no room for."""
SHADES = ("#1d77c2", "#1c66a8", "#1a548c", "#15406c", "#0b2440")
LABEL_GAP = 13.0
TOP, BOTTOM, LEFT = 34, 44, 40
CHARACTER = 6.1
"""Width of a character of a label, on average: a wide guess, as a browser's font is not known here."""


@dataclass(frozen=True)
class Line:
    """`points`: (x, y, low, high), shares; the interval is drawn as a band where `band`. `level`: a flat line."""

    name: str
    points: Sequence[tuple[float, float, float, float]] = ()
    level: float | None = None
    colour: str = ""
    strong: bool = False
    band: bool = False

    @property
    def stroke(self) -> str:
        return self.colour or COLOURS.get(self.name, "#707070")

    @property
    def end(self) -> float:
        return self.points[-1][1] if self.level is None else self.level


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `width` and `height` are of the axes, labels besides; `ticks`: None: by decades of money."""

    title: str
    lines: Sequence[Line]
    width: int
    height: int
    x_title: str
    ticks: Sequence[float] | None = None
    labels: bool = True
    range: tuple[float, float] | None = None
    shown: list[Line] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", [line for line in self.lines if line.points or line.level is not None])

    @property
    def whole_width(self) -> int:
        longest = max((len(_label(line)) for line in self.shown), default=0)
        return LEFT + self.width + (round(26 + CHARACTER * longest) if self.labels else 16)

    @property
    def whole_height(self) -> int:
        return TOP + self.height + BOTTOM


def span(lines: Sequence[Line]) -> tuple[float, float]:
    """The range of shares that holds all lines, in whole tens of percent."""
    values = [
        value for line in lines for _, y, low, high in line.points for value in ((y, low, high) if line.band else (y,))
    ]
    values += [line.level for line in lines if line.level is not None]
    low, high = math.floor(10 * min(values) + 1e-9) / 10, math.ceil(10 * max(values) - 1e-9) / 10
    return max(0.0, low), min(1.0, max(high, low + 0.1))


def money_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 in every decade between the two; only 1s where these would be too many."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return inside if len(inside) <= 8 else [tick for tick in inside if f"{tick:e}".startswith("1.0")]


def spread(wanted: Sequence[float], low: float, high: float, gap: float = LABEL_GAP) -> list[float]:
    """Places as near as may be to the wanted ones, `gap` apart and within the two ends where there is room."""
    order = sorted(range(len(wanted)), key=lambda at: (wanted[at], at))
    groups: list[list[float]] = []  # of neighbours that touch: [sum of wanted tops, count]
    for rank, at in enumerate(order):
        groups.append([wanted[at] - rank * gap, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] >= groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += count
    tops = [total / count for total, count in groups for _ in range(int(count))]
    most = high - gap * (len(wanted) - 1)
    placed = [0.0] * len(wanted)
    for rank, (at, top) in enumerate(zip(order, tops, strict=True)):
        placed[at] = max(low, min(most, top)) + rank * gap
    return placed


def figure(panels: Sequence[Panel], columns: int, about: str) -> str:
    """The panels in rows of so many, as SVG text."""
    rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    width = max(sum(panel.whole_width for panel in row) for row in rows) + 8
    height = sum(max(panel.whole_height for panel in row) for row in rows) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{escape(about)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    top = 4
    for row in rows:
        left = 4
        for panel in row:
            parts += [f'<g transform="translate({left} {top})">', *_panel(panel), "</g>"]
            left += panel.whole_width
        top += max(panel.whole_height for panel in row)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    """Axes, lines, labels."""
    low, high = panel.range or span(panel.shown)
    xs = [x for line in panel.shown for x, *_ in line.points]
    first, last = (min(xs), max(xs)) if xs else (1.0, 2.0)
    if panel.ticks is None:
        first, last = math.log10(first) - 0.04, math.log10(last) + 0.04

    def x(value: float) -> float:
        place = math.log10(value) if panel.ticks is None else value
        return LEFT + panel.width * (place - first) / ((last - first) or 1)

    def y(share: float) -> float:
        return TOP + panel.height * (high - share) / (high - low)

    parts = [f'<text x="{LEFT}" y="16" font-weight="bold">{escape(panel.title)}</text>']
    for tick in range(round(100 * low), round(100 * high) + 1, 10):
        at = y(tick / 100)
        parts.append(f'<path d="M{LEFT} {at:.1f}h{panel.width}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick}</text>')
    floor = TOP + panel.height
    for tick in money_ticks(10**first, 10**last) if panel.ticks is None else panel.ticks:
        parts.append(f'<path d="M{x(tick):.1f} {floor}v4" stroke="{INK}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{floor + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path d="M{LEFT} {floor}h{panel.width}" stroke="{INK}"/>')
    middle = LEFT + panel.width / 2
    parts.append(f'<text x="{middle:.1f}" y="{floor + 34}" text-anchor="middle">{escape(panel.x_title)}</text>')
    for line in sorted(panel.shown, key=lambda each: each.strong):  # what matters lies on top
        parts += _drawn(line, panel, x, y)
    return parts + (_labels(panel, x, y) if panel.labels else [])


def _drawn(line: Line, panel: Panel, x: Scale, y: Scale) -> list[str]:
    """The line with its points, and its band."""
    if line.level is not None:
        at = f"M{LEFT} {y(line.level):.1f}h{panel.width}"
        return [f'<path d="{at}" stroke="{line.stroke}" stroke-width="1.3" stroke-dasharray="5 4" fill="none"/>']
    parts = []
    if line.band:
        upper = [f"{x(at):.1f} {y(high):.1f}" for at, _, _, high in line.points]
        lower = [f"{x(at):.1f} {y(low):.1f}" for at, _, low, _ in reversed(line.points)]
        parts.append(f'<path d="M{"L".join(upper + lower)}Z" fill="{line.stroke}" fill-opacity="0.14"/>')
    through = "L".join(f"{x(at):.1f} {y(share):.1f}" for at, share, *_ in line.points)
    width = 2.8 if line.strong else 1.5
    parts.append(f'<path d="M{through}" stroke="{line.stroke}" stroke-width="{width}" fill="none"/>')
    radius = 3.4 if line.strong else 2.4
    parts += [
        f'<circle cx="{x(at):.1f}" cy="{y(share):.1f}" r="{radius}" fill="{line.stroke}"/>'
        for at, share, *_ in line.points
    ]
    return parts


def _labels(panel: Panel, x: Scale, y: Scale) -> list[str]:
    """Name and last value of each line at the right, with a thin line to where it ends."""
    edge = LEFT + panel.width
    places = spread([y(line.end) for line in panel.shown], TOP, TOP + panel.height)
    parts = []
    for line, place in zip(panel.shown, places, strict=True):
        start = edge if line.level is not None else x(line.points[-1][0]) + 4
        parts.append(
            f'<path d="M{start:.1f} {y(line.end):.1f}L{edge + 4} {y(line.end):.1f}L{edge + 16} {place:.1f}" '
            f'stroke="{line.stroke}" stroke-width="0.7" stroke-opacity="0.6" fill="none"/>'
        )
        weight = ' font-weight="bold"' if line.strong else ""
        parts.append(
            f'<text x="{edge + 19}" y="{place + 4:.1f}" fill="{line.stroke}"{weight}>{escape(_label(line))}</text>'
        )
    return parts


def _label(line: Line) -> str:
    return f"{SHORT.get(line.name, line.name)} {100 * line.end:.0f}"
