"""The error budget: how many points of success the predictor costs, how many encoder and cost.

Between two rows that differ in one part only, the difference in success is what that part costs:

    mpc             predictor          latent cost     its planner
    true_dynamics   true simulator     latent cost     its planner
    simulator       true simulator     true distance   its planner, or one of its own
    100 %
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vjepa_wm.evaluation.episodes import Episode
from vjepa_wm.evaluation.statistics import PairedDifference, paired_rates, wilson_interval

ROWS = ("mpc", "true_dynamics", "simulator")


@dataclass(frozen=True)
class Loss:
    """What one part costs.

    Attributes:
        part: What differs between the two rows.
        mean: Success lost by it, a share in [-1, 1]; below 0 where the better part did worse.
        low: Lower end of the 95 % interval, over tasks: of paired proportions, of what the last row
            misses Wilson's.
        high: Upper end.
    """

    part: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ErrorBudget:
    """Where success was lost; the means add up to what `mpc` misses.

    Attributes:
        tasks: Number of tasks all three rows were run on.
        same_planner: Whether `simulator` planned as `mpc` does. Otherwise the planner cannot be
            told from encoder and cost.
        losses: By part, in the order of the path from pixels to plan.
    """

    tasks: int
    same_planner: bool
    losses: tuple[Loss, ...]


def error_budget(
    episodes: Mapping[str, Sequence[Episode]], *, same_planner: bool
) -> ErrorBudget | None:
    """Attribute the failures of `mpc`, on the tasks that all three rows were run on.

    Args:
        episodes: Row -> its episodes.
        same_planner: Whether `simulator` planned as `mpc` does.

    Returns:
        The budget; None unless all three rows are there, with two tasks in common, and none of them
        has episodes that were stopped: those failed for reasons of their own.
    """
    if not set(ROWS) <= episodes.keys():
        return None
    if any(episode.fault for row in ROWS for episode in episodes[row]):
        return None
    success = [{e.seed: e.is_success for e in episodes[row]} for row in ROWS]
    shared = sorted(set.intersection(*(set(row) for row in success)))
    if len(shared) < 2:
        return None
    steps = [[row[task] for task in shared] for row in success]
    parts = (
        ("predictor", "encoder and cost", "planner and horizon")
        if same_planner
        else ("predictor", "encoder, cost and planner", "beyond the simulator row")
    )
    found: list[PairedDifference] = [
        paired_rates(better, worse) for worse, better in zip(steps, steps[1:], strict=False)
    ]
    best = sum(steps[-1])  # beside it stand the 100 %, which are no estimate
    low, high = wilson_interval(best, len(shared))
    found.append(PairedDifference(1 - best / len(shared), 1 - high, 1 - low))
    losses = tuple(Loss(part, *loss) for part, loss in zip(parts, found, strict=True))
    return ErrorBudget(len(shared), same_planner, losses)


def budget_lines(budget: ErrorBudget, *, planner: str, simulator_planner: str) -> list[str]:
    """Lay a budget out as text.

    Args:
        budget: What was found.
        planner: The planner of `mpc` and `true_dynamics`, in words.
        simulator_planner: That of `simulator`.
    """
    lines = [f"points of success lost by mpc on {budget.tasks} tasks [95 %], planner {planner}"]
    for loss in budget.losses:
        mean, low, high = (100 * value for value in (loss.mean, loss.low, loss.high))
        lines.append(f"  {loss.part:<26} {mean:+4.0f} [{low:+.0f}, {high:+.0f}]")
    if not budget.same_planner:
        lines.append(
            f"  simulator planned with {simulator_planner}: 'simulator_planner=${{planner}}' gives "
            "it the planner of mpc, and tells planner from encoder and cost"
        )
    return lines
