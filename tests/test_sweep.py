"""sweep: lines of options become points, each measured once, and a table says what they cost."""

import sys
from pathlib import Path

import pytest

from vjepa_wm import sweep
from vjepa_wm.errors import SettingError, UnknownNameError, VjepaWmError
from vjepa_wm.files import read_json


def test_values_are_tried_in_all_combinations() -> None:
    line = "planner=icem planner.num_samples=16,32 planner.iterations=1,2 cost.over_steps=last"
    points = sweep.expand([line, "planner=gradient"], common="seed=3")
    assert list(points)[:2] == [
        "planner-icem_num_samples-16_iterations-1_cost.over_steps-last",
        "planner-icem_num_samples-16_iterations-2_cost.over_steps-last",
    ]
    assert len(points) == 5
    assert points["planner-gradient"] == ["planner=gradient", "seed=3"]


def test_what_no_point_can_set_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'planner\.num_samples'"):
        sweep.expand(["planner.num_sample=3"], common="")
    with pytest.raises(SettingError, match="level is an option of the sweep itself"):
        sweep.expand(["seed=1"], common="level=far")
    with pytest.raises(SettingError, match="at least one line"):
        sweep.expand([], common="")


def test_what_is_common_has_one_value() -> None:
    with pytest.raises(VjepaWmError):
        sweep.expand(["planner=icem"], common="replan_every=1,2")


def test_a_sweep_measures_each_point_once(
    world_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    """Three budgets, the last one added later: only that is measured then."""

    def run(samples: str) -> str:
        line = f"planner.num_elites=2 planner.iterations=1 planner.num_samples={samples}"
        common = "max_steps=2 planner.horizon=2"
        options = [f"points=['{line}']", f"common='{common}'", f"model={world_model_folder}"]
        options += ["env=reacher", "episodes=2", f"out={tmp_path / 'sweep'}"]
        monkeypatch.setattr(sys, "argv", ["sweep", *options])
        sweep.main()
        return capfd.readouterr().out

    first = run("2,4")
    assert "2 points, 0 of them measured before" in first
    assert "best: " in first
    second = run("2,4,8")
    assert "3 points, 2 of them measured before" in second
    assert "1/1 num_elites-2_iterations-1_num_samples-8" in second
    frames = {}
    for samples in (2, 4, 8):
        folder = tmp_path / "sweep" / f"num_elites-2_iterations-1_num_samples-{samples}"
        (row,) = read_json(folder / "summary.json")["rows"]
        frames[samples] = row["frames_per_plan"]
    assert frames == {2: 6, 4: 10, 8: 18}  # the last mean is a candidate, too; two steps each
    assert "success against budget" in (tmp_path / "sweep" / "report.html").read_text()
