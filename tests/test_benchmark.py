"""The verb benchmark: each figure is there, means something, and is written down."""

from pathlib import Path

import pytest

from vjepa_wm import benchmark
from vjepa_wm.files import read_json

TINY = ["env=reacher", "frames=3", "episodes=6", "plans=2", "planner.horizon=2"]
TINY += ["planner.num_samples=8", "planner.num_elites=2", "planner.iterations=1"]


@pytest.fixture
def run(world_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the verb in an empty folder."""

    def run(*options: str) -> None:
        monkeypatch.chdir(tmp_path)
        options = (f"model={world_model_folder}", *options)
        monkeypatch.setattr("sys.argv", ["benchmark", *TINY, *options])
        benchmark.main()

    return run


def test_rendering_and_planning_are_measured(run, tmp_path: Path, capsys) -> None:
    run("what=[render,plan]", "out=speed")
    written = read_json(tmp_path / "speed" / "benchmark.json")
    assert list(written["results"]) == ["render", "plan"]
    render, plan = written["results"].values()
    assert render["times cheaper"] == pytest.approx(
        render["MuJoCo default, 64 px, cpu-ms"] / render["fast, 64 px, cpu-ms"]
    )
    assert plan["seconds per plan"] == pytest.approx(2 * plan["seconds per control step"])
    shares = [value for name, value in plan.items() if name.startswith("share")]
    assert len(shares) == 4
    assert min(shares[:3]) > 0
    assert sum(shares) >= 1 - 1e-9
    assert written["config"]["planner"]["num_samples"] == 8
    assert "cores" in written["device"]
    assert written["versions"]["torch"]
    shown = capsys.readouterr().out.split("\n")
    assert shown[0].startswith("reacher on ")
    assert sum(line.startswith(("  render", "  plan")) for line in shown) == len(render) + len(plan)


def test_collecting_is_measured_with_one_and_two_workers(run, tmp_path: Path) -> None:
    """On an environment without pictures of MuJoCo; the trajectories are gone afterwards."""
    fake = ["env.name=fake", "env.id=tests.data.fake_env:fake/Point-v0", "env.image_size=8"]
    run("what=collect", *fake)
    figures = read_json(tmp_path / "runs" / "benchmark" / "fake" / "benchmark.json")["results"]
    assert set(figures["collect"]) == {"frames/s, 1 workers", "frames/s, 2 workers"}
    assert min(figures["collect"].values()) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("what=[render,colect]", "unknown benchmark 'colect'. Did you mean 'collect'"),
        ("wat=render", "unknown option 'wat'. Did you mean 'what'"),
        ("frames=0", "frames: wanted at least 1, got 0"),
        ("plans=0", "plans: wanted at least 1, got 0"),
        ("replan_every=3", "replan_every must be between 1 and horizon 2"),
        ("model=reachr", "unknown world model 'reachr'. Did you mean 'reacher'"),
    ],
)
def test_bad_options_end_with_one_line(run, option: str, said: str, capsys, tmp_path: Path) -> None:
    what = [] if option.startswith("what") else ["what=plan"]
    with pytest.raises(SystemExit) as exit_info:
        run(*what, option)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
