"""The verb diagnose from options to files, on a tiny world model in a true environment."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vjepa_wm import diagnose, load_world_model
from vjepa_wm.data.recorder import Recorder
from vjepa_wm.data.trajectories import TrajectoryWriter
from vjepa_wm.evaluation.charts import CAPTION
from vjepa_wm.evaluation.pictures import PANEL, SHOWN
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
        return read_json(tmp_path / "out" / diagnose.DIAGNOSTICS_FILE)

    return run


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Path:
    """The folder of an untrained decoder for the world model's encoder."""
    encoder = load_world_model(folder / "model", dtype="fp32").encoder
    return tiny.save_decoder(folder / "decoder", encoder)


def test_every_figure_is_made_printed_and_written(run, decoder: Path, capsys) -> None:
    results = run(f"decoder={decoder}")
    assert set(results["figures"]) == set(diagnose.FIGURES)
    assert results["skipped"] == {}
    shown = capsys.readouterr().out
    for figure in results["figures"].values():
        assert figure["title"] in shown and figure["advice"] in shown
        assert all(finding["name"] in shown for finding in figure["findings"])


def test_steps_of_several_actions_are_diagnosed(run, tmp_path: Path, decoder: Path) -> None:
    """What is simulated is what is imagined: frames lie two recorded steps apart."""
    model = tiny.save_world_model(tmp_path / "pairs", actions_per_step=2)
    results = run(f"model={model}", f"decoder={decoder}")
    assert set(results["figures"]) == set(diagnose.FIGURES) and results["skipped"] == {}


def test_the_seed_decides_every_number(run) -> None:
    first, again, other = (run(f"seed={seed}", FEW)["figures"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("options", "same"), [(["cost=l1"], "l1"), (["cost.l2_weight=0"], "metric")]
)
def test_the_cost_that_plans_are_made_with_is_judged(run, options: list[str], same: str) -> None:
    rows = run("what=costs", *options)["figures"]["costs"]["numbers"]["rows"]
    planned = rows.pop("planning cost")
    assert [name for name, row in rows.items() if row == planned] == [same]


def test_trajectories_without_states_leave_out_what_needs_them(run, tmp_path: Path, capsys) -> None:
    tiny.moving_squares(tmp_path / "squares", episodes=4, length=9, size=64, frame_skip=2)
    results = run(f"data={tmp_path}/squares", "what=[probe,actions]")
    assert set(results["figures"]) == {"actions"}
    assert results["skipped"] == {"probe": "what to probe is not known of squares"}
    assert "no probe: what to probe is not known of squares" in capsys.readouterr().out


def test_pictures_show_what_happened_beside_what_was_imagined(run, decoder, tmp_path) -> None:
    """Three rows per window: true frames, decoded ones, imagined ones; and a film of them."""
    options = ("what=pictures", "context_len=2", "planner.horizon=2")
    numbers = run(f"decoder={decoder}", *options)["figures"]["pictures"]["numbers"]
    assert {len(row) for row in numbers.values()} == {5}
    assert min(numbers["mean_picture"]) > 0
    with Image.open(tmp_path / "out" / "pictures.png") as picture:
        panels = np.asarray(picture).astype(int)
    height, width = PANEL + CAPTION + 8, PANEL + 8
    assert panels.shape == (3 * SHOWN * height - 8, 7 * width - 8, 3)
    cells = np.stack(
        [
            [panels[r * height + CAPTION :, c * width :][:PANEL, :PANEL] for c in range(7)]
            for r in range(3 * SHOWN)
        ]
    )
    true, decoded, imagined = (cells[row::3] for row in range(3))
    assert np.array_equal(decoded[:, :2], imagined[:, :2])  # what is observed is not imagined
    assert np.abs(decoded[:, 2:] - imagined[:, 2:]).max() > 0
    assert np.abs(true[:, 0] - true[:, -1]).max() > 50  # something moved
    with Image.open(tmp_path / "out" / "pictures.webp") as film:
        assert film.n_frames == 7


def test_without_a_decoder_pictures_are_left_out_with_a_reason(run, tmp_path, capsys) -> None:
    results = run("what=[actions,pictures]")
    assert set(results["figures"]) == {"actions"}
    assert "vjepa_wm.train_decoder" in results["skipped"]["pictures"]
    assert "no pictures: no decoder is given" in capsys.readouterr().out
    assert not (tmp_path / "out" / "pictures.png").exists()


def test_a_decoder_of_another_encoder_is_refused(run, tmp_path: Path, capsys) -> None:
    other = tiny.save_decoder(tmp_path / "other", tiny.encoder(pool=2))
    with pytest.raises(SystemExit):
        run(f"decoder={other}", "what=pictures")
    assert "digest: wanted 0, got" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_without_actions_is_refused(run, watcher_folder: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        run(f"model={watcher_folder}")
    assert "takes no actions, there are no plans to diagnose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["what=prob"], "Did you mean 'probe'"),
        (["frames=1"], "frames: wanted at least 20"),
        (["cost.distance=metrik"], "Did you mean 'metric'"),
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


def test_figures_of_the_same_model_are_added_to_those_before(run, decoder: Path) -> None:
    """What was measured anew is as it is now; with another option all begins again."""
    first = run("what=[novelty,pictures]")
    assert set(first["skipped"]) == {"pictures"}
    both = run("what=pictures", f"decoder={decoder}")
    assert list(both["figures"]) == ["novelty", "pictures"] and not both["skipped"]
    assert both["figures"]["novelty"] == first["figures"]["novelty"]
    assert both["config"]["what"] == ["novelty", "pictures"]
    without = run("what=actions")  # and without the decoder that drew the pictures
    assert list(without["figures"]) == ["novelty", "actions"]
    assert list(run("what=actions", "seed=1")["figures"]) == ["actions"]


def test_a_diagnosis_that_failed_is_not_taken_for_a_whole_one(run, tmp_path, monkeypatch) -> None:
    def fail(_: object) -> None:
        raise KeyboardInterrupt

    run("what=actions")
    monkeypatch.setitem(diagnose.FIGURES, "novelty", fail)
    with pytest.raises(SystemExit):
        run("what=[actions,novelty]", "seed=1")
    assert not (tmp_path / "out" / diagnose.DIAGNOSTICS_FILE).exists()
