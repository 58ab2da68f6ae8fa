"""The part of a report on training: every number of ``metrics.jsonl`` over the steps."""

import math
import re
from collections.abc import Mapping, Sequence

from vjepa_wm.evaluation.html import plots
from vjepa_wm.evaluation.html.elements import Markup, element, figure
from vjepa_wm.evaluation.html.plots import Axes, Line, legend
from vjepa_wm.evaluation.html.runs import TrainingRun
from vjepa_wm.evaluation.html.words import number

_AXES = {"step", "minutes"}
_HORIZON = re.compile(r"h(\d+)_(\w+)")  # open-loop error so many model steps ahead
_OPEN_LOOP, _ERRORS, _LOSSES = "Open-loop error", "Errors", "Losses"
_HELD_OUT = "held_out_"
_PARTS = ("", "predictor", "metric", "integrator")  # in this order, before any others
_MAX_POINTS = 40  # beyond which points are not marked

Lines = Sequence[Mapping[str, float]]


def curves(run: TrainingRun) -> Markup:
    """Draw the curves of each part of a training."""
    parts = []
    for name in dict.fromkeys((*_PARTS, *run.curves)):
        if name not in run.curves:
            continue
        lines = run.curves[name]
        parts.append(element("h3", name or "curves"))
        last = lines[-1]
        minutes = f" in {number(last['minutes'])} minutes" if "minutes" in last else ""
        parts.append(element("p.soft", f"{last['step']:.0f} steps{minutes}"))
        groups = grouped(lines)
        parts.append(element("div.plots", *(_chart(*group, lines) for group in groups.items())))
    return element("div", *parts)


def grouped(lines: Lines) -> dict[str, list[str]]:
    """Put numbers that are read beside each other into one plot: title -> names."""
    names = list(dict.fromkeys(name for line in lines for name in line if name not in _AXES))
    horizons = [int(found[1]) for name in names if (found := _HORIZON.fullmatch(name))]
    groups: dict[str, list[str]] = {}
    for name in names:
        found = _HORIZON.fullmatch(name)
        if found and int(found[1]) not in (min(horizons), max(horizons)):
            continue  # the first and the last horizon tell what those between do
        groups.setdefault(_title(name, names), []).append(name)
    return dict(sorted(groups.items(), key=lambda group: _place(group[0])))


def _place(title: str) -> int:
    """Return how early a plot comes: errors, losses, then the others as they were recorded."""
    firsts = (_OPEN_LOOP, _ERRORS, _LOSSES)
    return next((place for place, first in enumerate(firsts) if title.startswith(first)), 3)


def _said(name: str) -> str:
    """Write the name of a number in words."""
    return name.replace("_", " ")


def _title(name: str, names: Sequence[str]) -> str:
    """Return the plot a number belongs to, among others of these names."""
    if found := _HORIZON.fullmatch(name):
        steps = "1 model step" if found[1] == "1" else f"{found[1]} model steps"
        return f"{_OPEN_LOOP}, {steps} ahead"
    stem = name.removeprefix(_HELD_OUT)
    if name.endswith("loss") and {stem, _HELD_OUT + stem} <= set(names):
        return f"{_LOSSES}: {_said(stem)}"
    if name.endswith("loss"):
        return _LOSSES
    if name.endswith("_error"):
        return _ERRORS
    stem = _said(re.sub(r"_\d+$", "", name))
    return stem[:1].upper() + stem[1:]


def _chart(title: str, names: Sequence[str], lines: Lines) -> Markup:
    rows = []
    for style, name in enumerate(names):
        points = [
            (line["step"], line[name])
            for line in lines
            if name in line and math.isfinite(line[name])
        ]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        found = _HORIZON.fullmatch(name)
        said = _said(found[2] if found else name)
        # Grey is for what is known without training.
        place = 0 if said.startswith("copy") else (style % (plots.STYLES - 1)) + 1
        rows.append(Line(said, place, x, y, has_points=len(x) <= _MAX_POINTS))
    if not rows:
        return figure(title, "no finite number was recorded")
    axes = Axes(
        (0.0, max(1.0, *(row.x[-1] for row in rows))),
        plots.spanning([value for row in rows for value in row.y]),
        "training steps",
    )
    last = "; ".join(f"{row.name} {number(row.y[-1])}" for row in rows)
    return figure(title, f"last: {last}", legend(rows), plots.lines(rows, axes, title))
