"""Success against budget: the best, the smallest that is good enough, and other planners beside."""

from pathlib import Path

import pytest

from tests.evaluation.test_comparison import write
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.html.report import page
from vjepa_wm.evaluation.sweeps import BudgetPoint, best, read_point, smallest, table, verdicts
from vjepa_wm.files import read_json, write_json


def point(folder: Path, solved: int, frames: float, *, planner: str = "CEM") -> BudgetPoint:
    """Write and read a run that solves the first so many of 20 tasks."""
    name = f"{planner}_{frames:.0f}"
    config = {"planner": {"_target_": f"planners.{planner}"}, "max_steps": 9}
    config |= {"env": {"id": "envs:vjepa_wm/Push-v0"}, "seed": 0, "model": "push"}
    run = write(folder / name, "1" * solved + "0" * (20 - solved), **config)
    summary = read_json(run / "summary.json")
    summary["rows"][0]["frames_per_plan"] = frames
    summary["config"]["tasks"] = "tuning"
    write_json(run / "summary.json", summary)
    return read_point(run)


@pytest.fixture
def points(tmp_path: Path) -> list[BudgetPoint]:
    """CEM at three budgets, iCEM that needs a quarter, MPPI that never gets there."""
    found = [point(tmp_path, solved, frames) for solved, frames in ((8, 96), (17, 384), (18, 1152))]
    found += [point(tmp_path, *pair, planner="ICEM") for pair in ((18, 96), (16, 192))]
    return [*found, point(tmp_path, 9, 1152, planner="MPPI")]


def test_a_point_is_what_evaluate_measured(tmp_path: Path) -> None:
    found = point(tmp_path, 17, 384)
    assert (found.planner, found.frames) == ("CEM", 384)
    assert found.seconds == pytest.approx(0.01)
    assert found.success == pytest.approx(0.85)
    assert str(found) == "CEM_384: 85 [64, 95] %, 384 frames, 0.010 s/action"


def test_of_equals_the_cheaper_is_best(points: list[BudgetPoint]) -> None:
    assert best(points).name == "ICEM_96"


def test_the_smallest_is_the_cheapest_that_is_good_enough(points: list[BudgetPoint]) -> None:
    cem = points[:3]
    assert smallest(cem, least=0.85).name == "CEM_384"
    assert smallest(cem, least=0.86).name == "CEM_1152"
    assert smallest(cem, least=0.95) is None


def test_planners_are_held_against_the_first(points: list[BudgetPoint]) -> None:
    said = list(verdicts(points, tolerance=0.05))
    assert said[0].startswith("best: ICEM_96")
    assert said[2] == "CEM comes within 5 points of its own best with 384 frames"
    assert said[3] == "ICEM does with 96, 0.25 times as many"
    assert said[4].startswith("MPPI does not at any budget here; its best is MPPI_1152: 45")


def test_the_table_rises_with_the_budget(points: list[BudgetPoint]) -> None:
    lines = table(points).splitlines()
    order = [line.split()[0] for line in lines[1:]]
    assert order == ["CEM_96", "ICEM_96", "ICEM_192", "CEM_384", "CEM_1152", "MPPI_1152"]
    assert lines[2].endswith("the best")
    assert "-50 [" in lines[1]  # 8 of the 18 that the best solves


def test_a_run_without_frames_is_no_point(tmp_path: Path) -> None:
    config = {"planner": {"_target_": "planners.CEM"}}
    with pytest.raises(DataError, match="counted frames_per_plan, got agents mpc"):
        read_point(write(tmp_path / "old", "10", **config))


def test_a_report_draws_success_over_the_budget(points: list[BudgetPoint], tmp_path: Path) -> None:
    markup, problems = page([tmp_path])
    assert not problems
    assert "success against budget" in markup
    assert "frames imagined per plan" in markup
    few, _ = page([tmp_path / "CEM_96", tmp_path / "CEM_384"])
    assert "success against budget" not in few
