"""Success against budget: which planner reaches as much with fewer imagined frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.comparison import Entry, difference, entries
from vjepa_wm.evaluation.saved import read_saved
from vjepa_wm.evaluation.statistics import wilson_interval
from vjepa_wm.evaluation.tables import aligned

AGENT = "mpc"


@dataclass(frozen=True)
class BudgetPoint:
    """An agent's success with one budget.

    Attributes:
        name: Folder of its run.
        planner: What searched, such as CEM.
        frames: Imagined per plan: candidates x planned steps.
        seconds: Per action, on the machine that measured it.
        entry: Success task by task.
    """

    name: str
    planner: str
    frames: float
    seconds: float
    entry: Entry

    @property
    def success(self) -> float:
        """Share of the goals reached."""
        return self.entry.successes / len(self.entry.success)

    def __str__(self) -> str:
        return f"{self.name}: {rate(self)} %, {self.frames:.0f} frames, {self.seconds:.3f} s/action"


def read_point(folder: Path) -> BudgetPoint:
    """Read what `evaluate` wrote of the agent mpc.

    Raises:
        DataError: A file is missing or damaged, or there is no such agent in it.
    """
    saved = read_saved(folder)
    found = {entry.agent: entry for entry in entries(folder, saved)}
    rows = {row["agent"]: row for row in saved.summary["rows"]}
    if AGENT not in found or rows[AGENT].get("frames_per_plan") is None:
        raise DataError(
            f"{folder}: wanted an evaluation of {AGENT} that counted frames_per_plan, got agents "
            f"{', '.join(found)}"
        )
    return BudgetPoint(
        name=folder.name,
        planner=planner_name(found[AGENT].settings["planner._target_"]),
        frames=rows[AGENT]["frames_per_plan"],
        seconds=rows[AGENT]["seconds_per_action"],
        entry=found[AGENT],
    )


def planner_name(target: object) -> str:
    """Name a planner by its class: planners.CEM is CEM."""
    return str(target).rpartition(".")[2]


def rate(point: BudgetPoint) -> str:
    """Success in percent with its Wilson 95 % interval."""
    low, high = wilson_interval(point.entry.successes, len(point.entry.success))
    return f"{100 * point.success:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def best(points: Sequence[BudgetPoint]) -> BudgetPoint:
    """The most successful point; of equally good ones that with the fewest frames."""
    return max(points, key=lambda point: (point.success, -point.frames))


def smallest(points: Sequence[BudgetPoint], *, least: float) -> BudgetPoint | None:
    """The point with the fewest frames that reaches at least this success; None without one."""
    enough = [point for point in points if point.success >= least - 1e-9]
    return min(enough, key=lambda point: (point.frames, -point.success), default=None)


def table(points: Sequence[BudgetPoint]) -> str:
    """Lay points out as text by rising budget, each beside the best of all."""
    top = best(points)
    lines = [["point", "frames", "s/action", "success % [95 %]", "against the best"]]
    for point in sorted(points, key=lambda point: (point.frames, point.name)):
        against = "the best" if point is top else beside(top, point)
        lines.append(
            [point.name, f"{point.frames:.0f}", f"{point.seconds:.3f}", rate(point), against]
        )
    return aligned(lines)


def beside(top: BudgetPoint, point: BudgetPoint) -> str:
    """Difference in success in points, with the interval of paired proportions."""
    found = difference(top.entry, point.entry).success
    if found is None:
        return "not comparable"
    mean, low, high = (100 * value for value in found)
    return f"{mean:+.0f} [{low:+.0f}, {high:+.0f}]"


def verdicts(points: Sequence[BudgetPoint], *, tolerance: float) -> Iterator[str]:
    """Say what the smallest good budget is, and what each planner needs beside the first one.

    Args:
        points: The first one's planner is the one others are held against.
        tolerance: Share of the goals that a smaller budget may lose.
    """
    by_planner: dict[str, list[BudgetPoint]] = {}
    for point in points:
        by_planner.setdefault(point.planner, []).append(point)
    top = best(points)
    least = smallest(points, least=top.success - tolerance)
    allowed = f"within {100 * tolerance:.0f} points"
    yield f"best: {top}"
    yield f"fewest frames {allowed} of it: {least}"
    (reference, its), *others = by_planner.items()
    wanted = best(its).success - tolerance
    base = smallest(its, least=wanted)
    yield f"{reference} comes {allowed} of its own best with {base.frames:.0f} frames"
    for planner, found in others:
        enough = smallest(found, least=wanted)
        if enough is None:
            yield f"{planner} does not at any budget here; its best is {best(found)}"
        else:
            share = enough.frames / base.frames
            yield f"{planner} does with {enough.frames:.0f}, {share:.2f} times as many"
