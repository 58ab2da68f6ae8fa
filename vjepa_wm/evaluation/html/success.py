"""The part of a report on success: how often, how soon and how near each agent came."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vjepa_wm.evaluation.html import plots
from vjepa_wm.evaluation.html.elements import Markup, element, figure, join, table
from vjepa_wm.evaluation.html.plots import Axes, Bar, Line, legend
from vjepa_wm.evaluation.html.runs import EvaluationRun
from vjepa_wm.evaluation.html.words import criterion, interval, length, number, percent
from vjepa_wm.evaluation.saved import EpisodeLine
from vjepa_wm.evaluation.statistics import wilson_interval

_AGENTS = (
    "random",
    "mpc",
    "simulator",
    "bc",
    "true_dynamics",
)  # have the same style in every report
_BINS = 4
_MIN_PER_BIN = 5
# Figures of a row of the summary that have a place of their own; others get a column.
_KNOWN = {
    "agent",
    "episodes",
    "successes",
    "success",
    "interval",
    "final_distance",
    "best_distance",
    "steps",
    "seconds_per_action",
    "seconds",
    "faults",
    "fault",  # among the warnings
}

Episodes = Sequence[EpisodeLine]


def styles(names: Sequence[str]) -> dict[str, int]:
    """Return the style of each agent: its own where it is known, else the next free one."""
    found = {name: place for place, name in enumerate(_AGENTS)}
    for name in names:
        found.setdefault(name, len(found))
    return {name: found[name] % plots.STYLES for name in names}


def bar(row: Mapping[str, Any], name: str, style: int) -> Bar:
    """Return the bar of one row of a summary."""
    low, high = row["interval"]
    written = f"{percent(row['success'])} {interval(low, high)}"
    return Bar(name, style, row["success"], low, high, written, f"n = {row['episodes']}")


def tiles(run: EvaluationRun) -> Markup:
    """Say the main figures of each agent, large."""
    style = styles(list(run.episodes))
    return element("div.tiles", *(_tile(row, style[row["agent"]]) for row in run.summary["rows"]))


def _tile(row: Mapping[str, Any], style: int) -> Markup:
    low, high = row["interval"]
    rest = [f"{row['successes']} of {row['episodes']} goals reached"]
    if row["steps"] is not None:
        rest.append(f"in {number(row['steps'])} steps on average")
    distances = [
        f"{criterion(name)[0]} {length(name, value)}"
        for name, value in row["final_distance"].items()
    ]
    big = element("small", f" {interval(low, high)}")
    return element(
        f"div.tile.s{style}",
        element("div.who", row["agent"]),
        element("div.big", percent(row["success"]), big),
        element("div.rest", " ".join(rest)),
        element("div.rest", "median at the end: " + ", ".join(distances)),
    )


def success_table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Lay all figures of the summary out, one line per agent."""
    criteria = list(rows[0]["final_distance"])
    further = [name for name in rows[0] if name not in _KNOWN]
    head = ["agent", "success, %", "95 % interval", "reached", "episodes"]
    for name in criteria:
        words, unit = criterion(name)
        unit = f", {unit}" if unit else ""
        head += [f"{words}{unit}: at the end", "nearest"]
    head += ["steps", "ms per action", "s in all", "stopped"]
    head += [name.replace("_", " ") for name in further]
    lines = []
    for row in rows:
        low, high = row["interval"]
        cells = [row["agent"], f"{100 * row['success']:.0f}", interval(low, high)]
        cells += [row["successes"], row["episodes"]]
        for name in criteria:
            cells += [number(row[kind][name]) for kind in ("final_distance", "best_distance")]
        cells += ["-" if row["steps"] is None else f"{row['steps']:.1f}"]
        cells += [number(1000 * row["seconds_per_action"]), f"{row['seconds']:.0f}", row["faults"]]
        lines.append(cells + [_cell(row[name]) for name in further])
    return table(head, lines)


def budget_table(budget: Mapping[str, Any]) -> Markup:
    """Show how many points of success each part costs, where that was worked out."""
    rows = []
    for loss in budget["losses"]:
        mean, low, high = (100 * loss[name] for name in ("mean", "low", "high"))
        points = f"{mean:+.0f} [{low:+.0f}, {high:+.0f}]".replace("-", "\u2212")
        rows.append([loss["part"], points])
    tasks = f"Of what mpc misses on {budget['tasks']} tasks, the points each part costs [95 %]."
    said = [element("h3", "Where success is lost"), element("p.soft", tasks)]
    return join([*said, table(["part", "points"], rows)])


def _cell(value: object) -> str:
    """Write a figure this page knows nothing about."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(_cell(part) for part in value)}]"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return number(value) if is_number else str(value)


def charts(run: EvaluationRun) -> Markup:
    """Draw success: in all, over steps, over the distance at the end and over that at the start."""
    first = next(iter(run.episodes.values()))[0]
    drawn = [reached(run), over_steps(run)]
    drawn += [over_final(run, name) for name in first.final]
    drawn += [over_start(run, name) for name in first.start]
    return element("div.plots", *(chart for chart in drawn if chart))


def reached(run: EvaluationRun) -> Markup:
    """Draw the share of goals reached with its interval."""
    style = styles(list(run.episodes))
    rows = [bar(row, row["agent"], style[row["agent"]]) for row in run.summary["rows"]]
    note = "Dot: share of episodes; bar: its 95 % interval (Wilson)."
    return figure("Goals reached", note, plots.bars(rows, "success of each agent"))


def over_steps(run: EvaluationRun) -> Markup:
    """Draw the share of episodes solved within so many steps."""
    most = int(run.summary["config"]["max_steps"])
    style = styles(list(run.episodes))
    rows = [
        solved_within(agent, style[agent], found, float(most))
        for agent, found in run.episodes.items()
    ]
    note = "Share of episodes; bands are 95 % intervals (Wilson), step by step."
    axes = Axes((0.0, float(most)), (0.0, 1.0), "environment steps", is_share=True)
    title = "Solved within so many steps"
    return figure(title, note, legend(rows), plots.lines(rows, axes, title))


def solved_within(name: str, style: int, found: Episodes, most: float) -> Line:
    """Return the share of episodes solved within so many steps, from 0 to `most`."""
    steps = [float(line.steps) if line.is_success else np.inf for line in found]
    return _share(name, style, steps, most)


def over_final(run: EvaluationRun, name: str) -> Markup:
    """Draw the share of episodes that end within a distance of the goal."""
    words, unit = criterion(name)
    furthest = max(line.final[name] for found in run.episodes.values() for line in found)
    marks = {}
    if "criteria" in run.summary and name in run.summary["criteria"]:
        wanted = float(run.summary["criteria"][name])
        furthest = max(furthest, 1.2 * wanted)
        marks = {wanted: "wanted"}
    furthest = furthest or 1.0
    style = styles(list(run.episodes))
    rows = [
        _share(agent, style[agent], [line.final[name] for line in found], furthest)
        for agent, found in run.episodes.items()
    ]
    axes = Axes((0.0, furthest), (0.0, 1.0), f"{words}, {unit}" if unit else words, True, marks)
    title = f"Ended within a distance: {words}"
    note = "Share of episodes, whether or not the goal was held."
    return figure(title, note, legend(rows), plots.lines(rows, axes, title))


def _share(agent: str, style: int, values: Sequence[float], most: float) -> Line:
    """Return the share of values that are at most x, for x from 0 to `most`."""
    total = len(values)
    places = sorted({0.0, most, *(value for value in values if value <= most)})
    counts = [sum(value <= place for value in values) for place in places]
    bounds = [wilson_interval(count, total) for count in counts]
    across, share = plots.stairs(places, [count / total for count in counts])
    _, low = plots.stairs(places, [bound[0] for bound in bounds])
    _, high = plots.stairs(places, [bound[1] for bound in bounds])
    return Line(agent, style, across, share, low, high)


def over_start(run: EvaluationRun, name: str) -> Markup | None:
    """Draw success over the distance at the start; None for too few episodes."""
    everything = [line for found in run.episodes.values() for line in found]
    fewest = min(len(found) for found in run.episodes.values())
    count = min(_BINS, fewest // _MIN_PER_BIN)
    if count < 2 or any(name not in line.start for line in everything):
        return None
    distances = np.array([line.start[name] for line in everything])
    edges = np.unique(np.quantile(distances, np.linspace(0, 1, count + 1)))
    style = styles(list(run.episodes))
    rows = [
        _binned(agent, style[agent], found, name, edges) for agent, found in run.episodes.items()
    ]
    words, unit = criterion(name)
    axes = Axes(
        plots.spanning(edges.tolist()),
        (0.0, 1.0),
        f"{words} at the start, {unit}" if unit else f"{words} at the start",
        is_share=True,
    )
    title = f"Success by how far the goal was: {words}"
    note = f"{len(edges) - 1} groups of about equal size, with 95 % intervals (Wilson)."
    return figure(title, note, legend(rows), plots.whiskers(rows, axes, title))


def _binned(agent: str, style: int, found: Episodes, name: str, edges: np.ndarray) -> Line:
    """Return an agent's success in each group of start distances, at the group's median."""
    distances = np.array([line.start[name] for line in found])
    solved = np.array([line.is_success for line in found])
    groups = np.digitize(distances, edges[1:-1])
    x, y, low, high = [], [], [], []
    for group in np.unique(groups):
        chosen = groups == group
        count, total = int(solved[chosen].sum()), int(chosen.sum())
        bounds = wilson_interval(count, total)
        x.append(float(np.median(distances[chosen])))
        y.append(count / total)
        low.append(bounds[0])
        high.append(bounds[1])
    return Line(agent, style, x, y, low, high)
