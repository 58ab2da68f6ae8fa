"""The part of a report that sets success beside the budget of the plans."""

from collections.abc import Mapping, Sequence
from typing import Any

from vjepa_wm.evaluation.html import plots
from vjepa_wm.evaluation.html.elements import Markup, figure
from vjepa_wm.evaluation.html.plots import Axes, Line, legend
from vjepa_wm.evaluation.html.runs import EvaluationRun
from vjepa_wm.evaluation.sweeps import AGENT, planner_name

_FEWEST = 3  # budgets that make a curve


def series_of(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what a curve is of: the planner, the model by its folder and weights, the tasks."""
    config, digest = summary["config"], summary["digests"]["model"]
    planner = planner_name(config["planner"]["_target_"])
    return planner, f"{config['model']} ({digest[:6]})", f"{config['tasks']} tasks"


def over_budget(title: str, group: Sequence[EvaluationRun]) -> Markup | None:
    """Draw the agent's success over the frames imagined per plan, planner by planner.

    Args:
        title: Which goals these are.
        group: Runs of the same goals; those that did not count frames are left out.

    Returns:
        The figure; None for fewer than three different budgets.
    """
    places: dict[tuple[str, ...], list[tuple[float, float, float, float]]] = {}
    for run in group:
        for row in run.summary["rows"]:
            if row["agent"] == AGENT and row.get("frames_per_plan"):
                point = (row["frames_per_plan"], row["success"], *row["interval"])
                places.setdefault(series_of(run.summary), []).append(point)
    if len({series[1:] for series in places}) == 1:  # one model, one list of tasks
        places = {series[:1]: points for series, points in places.items()}
    budgets = {point[0] for points in places.values() for point in points}
    if len(budgets) < _FEWEST:
        return None
    rows = [
        Line(", ".join(series), style, *map(list, zip(*sorted(points), strict=True)))
        for style, (series, points) in enumerate(places.items())
    ]
    axes = Axes(
        (min(budgets) / 1.3, max(budgets) * 1.3),
        (0.0, 1.0),
        "frames imagined per plan",
        is_share=True,
        is_log=True,
    )
    note = "Share of goals reached, with 95 % intervals (Wilson); frames are candidates x steps."
    said = f"{title}: success against budget"
    return figure(said, note, legend(rows), plots.whiskers(rows, axes, said))
