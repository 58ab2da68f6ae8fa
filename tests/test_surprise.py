"""The verb surprise from options to files, on a tiny world model in a true environment."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.films import LENGTH, pictures, write_folder, write_gif
from vjepa_wm import surprise
from vjepa_wm.data.videos import Timeline
from vjepa_wm.evaluation.html.report import page
from vjepa_wm.files import read_json


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, world_model_folder: Path, tmp_path: Path, capsys):
    """Run the verb with options in an empty folder and return what it printed."""

    def run(*options: str) -> str:
        given = ["env=two_rooms", f"model={world_model_folder}", "pairs=3", "out=out", *options]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["surprise", *given])
        surprise.main()
        return capsys.readouterr().out

    return run


def lines_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_twins_become_a_table_files_pictures_and_a_report(run, tmp_path: Path) -> None:
    shown = run("events=[nothing,vanishes,teleports_hidden,stays]")
    out = tmp_path / "out"
    results = read_json(out / "surprise.json")
    assert set(results["figures"]) == {"nothing", "vanishes", "teleports_hidden"}
    assert results["skipped"] == {"stays": "nothing is pushed here"}
    assert "no stays: nothing is pushed here" in shown and "AUROC" in shown
    control = results["figures"]["nothing"]["numbers"]
    for row in control["rows"].values():
        assert all(told["auroc"] == 0.5 and told["higher"] == 0 for told in row.values())
    assert control["gain"] == 0
    assert results["figures"]["teleports_hidden"]["numbers"]["frames_ahead"] == 3
    assert len(lines_of(out / "pairs.csv")) == 3 * 3
    assert len(lines_of(out / "frames.csv")) == 3 * 3 * 2 * 9
    for event in results["figures"]:
        with Image.open(out / f"{event}.png") as picture:
            assert picture.width > 500
    markup, problems = page([out])
    assert problems == [] and "Surprise of " in markup
    assert markup.count("data:image/png") == 3


def test_the_seed_decides_every_number(run, tmp_path: Path) -> None:
    found = []
    for seed in (1, 1, 2):
        run("events=disobeys", f"seed={seed}")
        found.append(lines_of(tmp_path / "out" / "pairs.csv"))
    assert found[0] == found[1] != found[2]


def test_recorded_episodes_get_a_curve_and_its_peaks(run, tmp_path: Path) -> None:
    tiny.moving_squares(tmp_path / "squares", episodes=4, length=9, size=64, frame_skip=2)
    shown = run(f"data={tmp_path}/squares", "episodes=[1,3]", "ahead=2")
    lines = lines_of(tmp_path / "out" / "episode_3.csv")
    assert len(lines) == 9 and (tmp_path / "out" / "episode_1.png").exists()
    assert lines[1]["predictor_mean"] == "" and float(lines[2]["predictor_mean"]) > 0
    assert [float(line["seconds"]) for line in lines[:2]] == [0.0, 0.1]
    highest = max(lines[2:], key=lambda line: float(line["predictor_largest"]))
    assert f"frame {highest['frame']} (" in shown


def test_videos_get_a_curve_of_change(run, tmp_path: Path) -> None:
    """A cut in the middle of a film is its most surprising frame."""
    still = pictures(moves=False, seed=0)[:1] * 4 + [Image.new("RGB", (32, 32), "white")] * 4
    encoder = ["model=null", "encoder=compact"]
    shown = run(f"video={write_folder(tmp_path / 'film', still)}", *encoder)
    lines = lines_of(tmp_path / "out" / "film.csv")
    assert len(lines) == 8 and "frame 4 (0.33 s)" in shown.splitlines()[1]
    assert float(lines[3]["copy_mean"]) == pytest.approx(0, abs=1e-5)
    gif = write_gif(tmp_path / "moving.gif", pictures(moves=True, seed=1))
    run(f"{gif}", *encoder, "fps=5")
    seconds = [float(line["seconds"]) for line in lines_of(tmp_path / "out" / "moving.csv")]
    steps = np.diff(seconds)
    np.testing.assert_allclose(steps, steps[0])  # evenly, or the choice itself would surprise
    assert len(seconds) == LENGTH // 2
    for fps in ("null", "12.0", "100"):  # no more than there are, and each once
        run(f"{gif}", *encoder, f"fps={fps}")
        assert len(lines_of(tmp_path / "out" / "moving.csv")) == LENGTH


def test_too_long_a_video_says_how_many_pictures_will_do(
    run, tmp_path: Path, capsys, monkeypatch
) -> None:
    """And with what it says it goes; a single picture is too short, whatever it lasts."""
    monkeypatch.setattr(surprise, "MOST_FRAMES", 5)
    gif = write_gif(tmp_path / "moving.gif", pictures(moves=True, seed=1))
    with pytest.raises(SystemExit):
        run(f"{gif}", "model=null")
    advice = capsys.readouterr().err.split("such as ")[1].strip()
    run(f"{gif}", "model=null", advice)
    assert len(lines_of(tmp_path / "out" / "moving.csv")) == LENGTH // 2
    instant = Timeline(np.zeros(1), 0.0, is_even=True)
    monkeypatch.setattr(surprise, "timeline", lambda *_, **__: instant)
    with pytest.raises(SystemExit):
        run(f"{gif}", "model=null")
    assert "wanted more than 1 frames, got 1" in capsys.readouterr().err


def test_videos_are_foreseen_without_actions(run, watcher_folder: Path, tmp_path: Path) -> None:
    """Each frame from those before, by a model that takes none."""
    gif = write_gif(tmp_path / "moving.gif", pictures(moves=True, seed=1))
    shown = run(f"{gif}", f"model={watcher_folder}", "ahead=2")
    assert f"foreseen by {watcher_folder}" in shown
    lines = lines_of(tmp_path / "out" / "moving.csv")
    assert len(lines) == LENGTH and lines[1]["predictor_mean"] == ""
    errors = [float(line["predictor_mean"]) for line in lines[2:]]
    assert min(errors) > 0 and errors != [float(line["copy_mean"]) for line in lines[2:]]


def test_things_that_hover_are_told_to_a_model_without_actions(
    run, watcher_folder: Path, tmp_path: Path
) -> None:
    shown = run("env=play", f"model={watcher_folder}", "events=[hovers,nothing,slides]")
    results = read_json(tmp_path / "out" / "surprise.json")
    assert set(results["figures"]) == {"hovers", "nothing"}
    assert "no slides: what moves by itself turns back here" in shown
    control = results["figures"]["nothing"]["numbers"]["rows"].values()
    assert all(told["auroc"] == 0.5 for row in control for told in row.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["events=vanish"], "Did you mean 'vanishes'"),
        (["evnts=all"], "Did you mean 'events'"),
        (["tokens=largst"], "Did you mean 'largest'"),
        (["pairs=1"], "pairs: wanted at least 2"),
        (["events=stays"], "no event is left: no stays"),
        (["events=vanishes", "before=0"], "frames before it"),
        (["events=vanishes", "ahead=9"], "frames ahead: wanted 1 to 6"),
        (["events=vanishes", "ahead=6", "before=3"], "before: wanted at least 6"),
        (["env.frame_skip=3"], "trained for 2, got 3"),
        (["video=a.gif", "data=b"], "wanted one of them at most"),
        (["video=nowhere.gif", "model=null"], "nowhere.gif is no video"),
        (["video=nowhere.gif"], "wanted a model that takes none, got"),
        (["model=null", "env=play"], "make one with python -m vjepa_wm.train_ac env=play"),
        (["data=nowhere"], "no trajectories at nowhere"),
    ],
)
def test_bad_options_end_with_one_line(run, capsys, tmp_path, options: list[str], said) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*options)
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_skips_frames_is_refused(run, tmp_path: Path, capsys) -> None:
    model = tiny.save_world_model(tmp_path / "pairs", actions_per_step=2)
    with pytest.raises(SystemExit):
        run(f"model={model}")
    assert "wanted one that foresees every frame" in capsys.readouterr().err


def test_episodes_that_are_not_there_are_refused(run, tmp_path: Path, capsys) -> None:
    tiny.moving_squares(tmp_path / "squares", episodes=4, length=9, size=64, frame_skip=2)
    with pytest.raises(SystemExit):
        run(f"data={tmp_path}/squares", "episodes=[4]")
    assert "episodes: wanted numbers from 0 to 3, got 4" in capsys.readouterr().err
