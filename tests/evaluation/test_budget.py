"""The error budget: losses add up, and are taken on the same tasks."""

import dataclasses

import pytest

from tests.evaluation.test_report import episode
from vjepa_wm.evaluation.budget import budget_lines, error_budget
from vjepa_wm.evaluation.episodes import Episode
from vjepa_wm.evaluation.statistics import wilson_interval


def row(solved: str) -> list[Episode]:
    """Episodes of tasks 0, 1, ... with a 1 for each that succeeds."""
    return [episode(mark == "1", steps, 0.1) for steps, mark in enumerate(solved)]


ROWS = {
    "mpc": row("1100000000"),
    "true_dynamics": row("1111100000"),
    "simulator": row("1111111110"),
}


def test_losses_add_up_to_what_mpc_misses() -> None:
    budget = error_budget(ROWS, same_planner=True)
    parts = [(loss.part, round(loss.mean, 6)) for loss in budget.losses]
    assert parts == [("predictor", 0.3), ("encoder and cost", 0.4), ("planner and horizon", 0.1)]
    for loss in budget.losses:
        assert loss.low <= loss.mean <= loss.high
    assert budget.losses[1].high > 0.5
    low, high = wilson_interval(9, 10)
    assert (budget.losses[2].low, budget.losses[2].high) == pytest.approx((1 - high, 1 - low))
    lines = budget_lines(budget, planner="CEM horizon 6", simulator_planner="CEM horizon 6")
    assert "lost by mpc on 10 tasks [95 %], planner CEM horizon 6" in lines[0]
    assert lines[1].split()[:2] == ["predictor", "+30"]
    assert len(lines) == 4


def test_another_planner_of_the_simulator_is_said() -> None:
    budget = error_budget(ROWS, same_planner=False)
    assert [loss.part for loss in budget.losses][1:] == [
        "encoder, cost and planner",
        "beyond the simulator row",
    ]
    lines = budget_lines(budget, planner="CEM", simulator_planner="ICEM")
    assert "simulator planned with ICEM: 'simulator_planner=${planner}'" in lines[-1]


def test_only_tasks_of_all_rows_count() -> None:
    """A costly row of fewer episodes narrows the others to its tasks."""
    budget = error_budget({**ROWS, "true_dynamics": row("1111")}, same_planner=True)
    assert budget.tasks == 4
    assert [loss.mean for loss in budget.losses] == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("missing", list(ROWS))
def test_without_one_of_the_rows_there_is_none(missing: str) -> None:
    rest = {name: found for name, found in ROWS.items() if name != missing}
    assert error_budget(rest, same_planner=True) is None
    assert error_budget({**rest, missing: row("1")}, same_planner=True) is None


def test_where_agents_broke_nothing_is_said_of_the_parts() -> None:
    broken = [dataclasses.replace(episode, fault="agent, step 0") for episode in row("00")]
    assert (
        error_budget({**ROWS, "simulator": [*broken, *row("11111111")]}, same_planner=True) is None
    )
