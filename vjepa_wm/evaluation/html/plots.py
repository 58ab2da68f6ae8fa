"""Draws intervals and lines as SVG that is as wide as a phone and takes its colours from the page.

A series is told by its dashes as well as by its colour.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vjepa_wm.evaluation.html.elements import Markup, element, join, text
from vjepa_wm.evaluation.html.words import number

WIDTH, HEIGHT = 360, 210  # units of a drawing; one is about a pixel on a phone
LEFT, RIGHT, TOP, BOTTOM = 44, 18, 10, 36
STYLES = 6  # series the style sheet tells apart
_NAME_LENGTH = 42  # characters that fit above a bar

Range = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """A share with its interval: what it is of, and what to write beside and above it."""

    name: str
    style: int
    value: float
    low: float
    high: float
    written: str
    remark: str = ""


@dataclass(frozen=True)
class Line:
    """A line through points, with a band around it where there are bounds.

    Attributes:
        name: For the legend.
        style: Which of the styles of the page.
        x: In rising order.
        y: As many.
        low: Lower bounds, or empty.
        high: Upper bounds, or empty.
        has_points: Whether points are marked.
    """

    name: str
    style: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    has_points: bool = False


@dataclass(frozen=True)
class Axes:
    """What a plot's axes span and say.

    Attributes:
        x: Range.
        y: Range.
        x_label: Below the plot.
        is_share: Whether y is a share, written in %.
        marks: Places on the x axis to mark -> what is there.
        is_log: Whether equal factors of x are equally far apart; x is positive then.
    """

    x: Range
    y: Range
    x_label: str
    is_share: bool = False
    marks: Mapping[float, str] | None = None
    is_log: bool = False


def bars(rows: Sequence[Bar], description: str) -> Markup:
    """Draw shares with their intervals on one scale from 0 to 100 %."""
    step, top = 36, 2
    height = top + step * len(rows) + 20
    left, right = 8, WIDTH - 118  # the figures stand to the right

    def across(share: float) -> float:
        return left + (right - left) * share

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = across(share)
        parts.append(_segment("grid", x, top + 18, x, height - 18))
        anchor = "start" if share == 0 else ("end" if share == 1 else "middle")
        x += {"start": -4, "middle": 0, "end": 6}[anchor]
        parts.append(_label(x, height - 5, f"{100 * share:.0f} %", anchor))
    for index, row in enumerate(rows):
        y = top + step * index + 25
        low, high = across(row.low), across(row.high)
        remark = element("tspan.remark", f"  {row.remark}")
        name = element("title", row.name) + _cut(row.name) + remark
        named = _label(left, y - 11, Markup(name), "start", "name")
        figures = _label(WIDTH - 4, y + 4, row.written, "end", "value")
        band = {"x": _n(low), "y": _n(y - 4), "width": _n(max(high - low, 1)), "height": 8, "rx": 4}
        drawn = [
            element("rect.band", attributes=band),
            element("circle.dot", attributes={"cx": _n(across(row.value)), "cy": _n(y), "r": 5}),
        ]
        parts += [named, figures, element(f"g.s{row.style % STYLES}", *drawn)]
    return _drawing(parts, height, description)


def _cut(name: str) -> Markup:
    """Shorten a name that is wider than the drawing; its end tells runs apart."""
    return text(name if len(name) <= _NAME_LENGTH else f"\u2026{name[1 - _NAME_LENGTH :]}")


def lines(rows: Sequence[Line], axes: Axes, description: str) -> Markup:
    """Draw lines over common axes."""
    parts = _axes(axes)
    for row in rows:
        points = [(_x(x, axes), _y(y, axes)) for x, y in zip(row.x, row.y, strict=True)]
        drawn = []
        if row.low:
            up = [(_x(x, axes), _y(y, axes)) for x, y in zip(row.x, row.high, strict=True)]
            down = [(_x(x, axes), _y(y, axes)) for x, y in zip(row.x, row.low, strict=True)]
            around = f"{_path(up)} L{_path(down[::-1])[1:]} Z"
            drawn.append(element("path.area", attributes={"d": around}))
        drawn.append(element("path.line", attributes={"d": _path(points)}))
        if row.has_points:
            drawn += [
                _point(at, f"{row.name}: {number(y)} at {number(x)}")
                for at, x, y in zip(points, row.x, row.y, strict=True)
            ]
        parts.append(element(f"g.s{row.style % STYLES}", *drawn))
    return _drawing(parts, HEIGHT, description)


def whiskers(rows: Sequence[Line], axes: Axes, description: str) -> Markup:
    """Draw points with their bounds; those of different series stand beside each other."""
    parts = _axes(axes)
    for index, row in enumerate(rows):
        shift = 7 * (index - (len(rows) - 1) / 2)
        drawn = []
        for x, y, low, high in zip(row.x, row.y, row.low, row.high, strict=True):
            at = _x(x, axes) + shift
            drawn.append(_segment("whisker", at, _y(low, axes), at, _y(high, axes)))
            drawn.append(_point((at, _y(y, axes)), f"{row.name}: {100 * y:.0f} %", 4))
        parts.append(element(f"g.s{row.style % STYLES}", *drawn))
    return _drawing(parts, HEIGHT, description)


def legend(rows: Sequence[Line | Bar]) -> Markup:
    """Name the series above a plot."""
    keys = []
    for row in rows:
        line = element("path.line", attributes={"d": "M1 5 H25"})
        inside = element(f"g.s{row.style % STYLES}", line)
        size = {"viewBox": "0 0 26 10", "width": 26, "height": 10, "aria-hidden": "true"}
        keys.append(element("span", element("svg", inside, attributes=size), row.name))
    return element("div.legend", *keys)


def stairs(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the corners of a line that stays until it jumps."""
    across, up = [x[0]], [y[0]]
    for place, value in zip(x[1:], y[1:], strict=True):
        across += [place, place]
        up += [up[-1], value]
    return across, up


def spanning(values: Sequence[float]) -> Range:
    """Return a range around values, with some room; never empty."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about so many round numbers within a range."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def doublings(low: float, high: float) -> list[float]:
    """Return numbers within a range of which each is twice the one before, from a round one."""
    first = 10.0 ** math.floor(math.log10(low))
    count = math.floor(math.log2(high / first) + 1e-9)
    return [first * 2**k for k in range(count + 1) if first * 2**k >= low * (1 - 1e-9)]


def _axes(axes: Axes) -> list[Markup]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(*axes.y, 4):
        y = _y(value, axes)
        parts.append(_segment("grid", LEFT, y, right, y))
        written = f"{100 * value:.0f} %" if axes.is_share else _short(value)
        parts.append(_label(LEFT - 6, y + 4, written, "end"))
    for value in doublings(*axes.x) if axes.is_log else ticks(*axes.x):
        x = _x(value, axes)
        parts.append(_segment("axis", x, bottom, x, bottom + 4))
        parts.append(_label(x, bottom + 16, _short(value), "middle"))
    for value, name in (axes.marks or {}).items():
        x = _x(value, axes)
        is_left = x < (LEFT + right) / 2
        parts.append(_segment("mark", x, TOP, x, bottom))
        at = x + 5 if is_left else x - 5
        parts.append(_label(at, TOP + 9, name, "start" if is_left else "end"))
    parts.append(_segment("axis", LEFT, bottom, right, bottom))
    parts.append(_label((LEFT + right) / 2, HEIGHT - 4, axes.x_label, "middle"))
    return parts


def _short(value: float) -> str:
    return f"{value:g}".replace("-", "\u2212") if abs(value) >= 1e-9 else "0"


def _x(value: float, axes: Axes) -> float:
    low, high = axes.x
    if axes.is_log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return LEFT + (WIDTH - RIGHT - LEFT) * (value - low) / (high - low)


def _y(value: float, axes: Axes) -> float:
    low, high = axes.y
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low)


def _n(value: float) -> str:
    return f"{value:.1f}"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _point(at: tuple[float, float], said: str, radius: float = 2.5) -> Markup:
    place = {"cx": _n(at[0]), "cy": _n(at[1]), "r": radius}
    return element("circle.dot", element("title", said), attributes=place)


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    ends = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
    return element(f"line.{kind}", attributes=ends)


def _label(x: float, y: float, said: object, anchor: str, kind: str = "tick") -> Markup:
    place = {"x": _n(x), "y": _n(y), "text-anchor": anchor}
    return element(f"text.{kind}", said, attributes=place)


def _drawing(parts: Sequence[Markup], height: float, description: str) -> Markup:
    attributes = {
        "viewBox": f"0 0 {WIDTH} {height}",
        "role": "img",
        "aria-label": description,
    }
    return element("svg.plot", join(parts), attributes=attributes)
