"""The verb diagnose from options to files, on a tiny world model in a true environment."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vjepa_wm import diagnose
from vjepa_wm.data.recorder import Recorder
from vjepa_wm.data.trajectories import TrajectoryWriter
from vjepa_wm.files import read_json

FEW = "what=[rollout,costs,counterfactual,landscape,novelty]"
QUICK = ["frames=24", "windows=8", "pairs=12", "tried=3", "landscapes=1", "grid=3", "plans=2"]
QUICK += ["planner.num_samples=8", "planner.num_elites=2", "planner.iterations=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Hold trajectories of two_rooms and a random world model for them."""
    folder = tmp_path_factory.mktemp("diagnose")
    recorder = Recorder("envs:vjepa_wm/TwoRooms-v0", image_size=64, frame_skip=2)
    meta = recorder.meta(episodes=12, steps=12, seed=0)
    with TrajectoryWriter(folder / "data", meta) as writer:
        for episode in range(12):
            writer.add(recorder.episode(np.random.SeedSequence(episode), steps=12))
    recorder.close()
    tiny.save_world_model(folder)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path):
    """Run the verb with options in an empty folder and return what it wrote."""

    def run(*options: str) -> dict:
        given = ["env=two_rooms", f"model={folder}/model", f"data={folder}/data", "out=out"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["diagnose", *given, *QUICK, *options])
        diagnose.main()
        return read_json(tmp_path / "out" / diagnose.RESULTS_FILE)

    return run


def test_every_figure_is_made_printed_and_written(run, capsys) -> None:
    results = run()
    assert set(results["figures"]) == set(diagnose.FIGURES)
    assert results["skipped"] == {}
    shown = capsys.readouterr().out
    for figure in results["figures"].values():
        assert figure["title"] in shown and figure["advice"] in shown
        assert all(finding["name"] in shown for finding in figure["findings"])


def test_the_seed_decides_every_number(run) -> None:
    first, again, other = (run(f"seed={seed}", FEW)["figures"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_trajectories_without_states_leave_out_what_needs_them(run, tmp_path: Path, capsys) -> None:
    tiny.moving_squares(tmp_path / "squares", episodes=4, length=9, size=64, frame_skip=2)
    results = run(f"data={tmp_path}/squares", "what=[probe,actions]")
    assert set(results["figures"]) == {"actions"}
    assert results["skipped"] == {"probe": "what to probe is not known of squares"}
    assert "no probe: what to probe is not known of squares" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["what=prob"], "Did you mean 'probe'"),
        (["frames=1"], "frames: wanted at least 20"),
        (["distance=metrik"], "Did you mean 'metric'"),
        (["planner.horizon=7"], "planner.horizon: wanted at most 6, got 7"),
        (["context_len=9"], "context_len: wanted 1 to 6, got 9"),
        (["model=nowhere"], "unknown world model 'nowhere'"),
        (["data=nowhere"], "no trajectories at nowhere"),
    ],
)
def test_bad_options_end_with_one_line(run, capsys, tmp_path, options: list[str], said) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*options)
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_trajectories_of_other_actions_are_refused(run, tmp_path: Path, capsys) -> None:
    tiny.moving_squares(tmp_path / "squares", episodes=4, length=9, size=64)
    with pytest.raises(SystemExit):
        run(f"data={tmp_path}/squares")
    assert "has other actions than the world model" in capsys.readouterr().err
