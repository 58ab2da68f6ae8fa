"""The verb probe from options to files: videos with classes, and states of a true environment."""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import films, tiny
from vjepa_wm import probe
from vjepa_wm.data.collection import CollectSettings, collect
from vjepa_wm.data.recorder import Recorder
from vjepa_wm.data.trajectories import Trajectories, TrajectoryWriter
from vjepa_wm.files import read_json
from vjepa_wm.probing import videos

QUICK = ["epochs=0", "min_steps=60", "batch_size=32", "draws=1", "percents=[100]", "num_frames=4"]
QUICK += ["learning_rates=[0.01,0.003]"]
SMALL = ("head.num_heads=2", "head.mlp_ratio=1.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold an encoder, videos of two classes, and trajectories of two_rooms."""
    folder = tmp_path_factory.mktemp("probe")
    tiny.save_world_model(folder)
    films.write_classes(folder / "videos", videos=40)
    recorder = Recorder("envs:vjepa_wm/TwoRooms-v0", image_size=32, frame_skip=2)
    with TrajectoryWriter(folder / "data", recorder.meta(episodes=12, steps=12, seed=0)) as writer:
        for episode in range(12):
            writer.add(recorder.episode(np.random.SeedSequence(episode), steps=12))
    recorder.close()
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path):
    """Run the verb with options in an empty folder and return what it wrote."""

    def run(*options: str, head: tuple[str, ...] = SMALL) -> dict:
        given = [f"encoder.checkpoint={folder}/encoder", f"data={folder}/data", "out=out"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["probe", *given, *QUICK, *head, *options])
        probe.main()
        return read_json(tmp_path / "out" / "probe.json")

    return run


def means(results: dict, metric: str) -> dict[str, float]:
    """Encoder -> mean of a figure, of results with one share of the labels."""
    return {s["encoder"]: s["mean"] for s in results["summaries"] if s["metric"] == metric}


def test_motion_is_told_from_rest_and_shuffled_labels_are_not(run, folder: Path, capsys) -> None:
    options = [f"videos={folder}/videos", "validation_share=0.2", "test_share=0.4"]
    options += ["beside=[random]"]
    results = run(*options)
    assert results["clips"] == {"train": 32, "validation": 16, "test": 32}
    assert results["chance"] == 0.5
    found = means(results, "accuracy")
    assert set(found) == {"tiny", "random"}
    assert max(found.values()) > 0.8
    assert "accuracy by chance: 0.500" in capsys.readouterr().out
    control = means(run(*options, "shuffle_labels=true", "draws=3"), "accuracy")
    assert all(value < 0.72 for value in control.values())
    assert "the labels are shuffled" in capsys.readouterr().out


def test_states_are_probed_and_written_in_three_ways(run, folder, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder / "encoder", other)
    beside = f"beside=[random,pixels,{other}]"
    results = run("clips=80", "percents=[10,100]", "draws=2", "min_steps=5", beside)
    found = means(results, "R2 mean")
    assert set(found) == {"tiny", str(other), "random", "pixels"}
    assert found[str(other)] == found["tiny"]  # the same weights by another name
    assert results["skipped"] == {} and results["chance"] == 0.0
    names = {"R2 mean", "R2 robot_position_m", "R2 robot_velocity_m_s", "R2 door_y_m"}
    metrics = {s["metric"] for s in results["summaries"]}
    assert names < metrics and "rmse robot_velocity_m_s" in metrics
    assert len(results["outcomes"]) == 4 * 2 * 2
    assert all(s["interval"] and s["draws"] == 2 for s in results["summaries"])
    with open(tmp_path / "out" / "probe.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results["outcomes"]) * len(metrics)
    assert (tmp_path / "out" / "probe.png").exists()
    shown = capsys.readouterr().out
    assert all(name in shown for name in names) and "rmse" not in shown


def test_labels_of_a_corpus_are_told(run, tmp_path: Path, capsys) -> None:
    options = {"num_frames": 24, "kinds": ["slide", "swing"], "shadow_share": 0.0}
    settings = CollectSettings(
        "envs:vjepa_wm/Play-v0", image_size=16, episodes=40, steps=23, env_options=options
    )
    collect(settings, tmp_path / "play")
    given = [f"data={tmp_path}/play", "beside=[pixels]", "min_steps=40", "validation_share=0.2"]
    results = run(*given, "label=event", "num_frames=8")
    assert results["clips"]["test"] == len(Trajectories.open(tmp_path / "play").split()[1])
    assert set(means(results, "accuracy")) == {"tiny", "pixels"}
    assert f"{tmp_path}/play, event" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(*given, "label=evnt")
    assert "Did you mean 'event'" in capsys.readouterr().err
    states = run(*given, "clips=40", "min_steps=2")
    assert "R2 object_place_widths" in {s["metric"] for s in states["summaries"]}


def test_states_are_read_by_ridge_without_training(run, tmp_path: Path) -> None:
    results = run("clips=80", "draws=2", head=("head=ridge",))
    assert {s["interval"] for s in results["summaries"]} == {None}
    assert {outcome["setting"] for outcome in results["outcomes"]} == {None}
    with open(tmp_path / "out" / "probe.csv", newline="") as file:
        assert {row["learning_rate"] for row in csv.DictReader(file)} == {""}


def test_beside_a_larger_encoder_videos_are_read_as_large_as_that_sees_them(
    run, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    config = read_json(folder / "encoder" / "config.json") | {"image_size": 96}
    network = tiny.randomise(tiny.VideoViT(**config["vit"]))
    tiny.save_checkpoint(tmp_path / "large", {"encoder": network}, config)
    read, sides = videos.read_pictures, set()

    def spy(*given, side: int):
        sides.add(side)
        return read(*given, side=side)

    monkeypatch.setattr(videos, "read_pictures", spy)
    results = run(f"videos={folder}/videos", f"beside=[{tmp_path}/large]", "min_steps=2")
    assert sides == {96}
    assert set(means(results, "accuracy")) == {"tiny", f"{tmp_path}/large"}


def test_clips_are_encoded_once_whatever_the_head(run, tmp_path: Path, monkeypatch) -> None:
    first = run("clips=80", "min_steps=5")
    caches = sorted(path.name for path in (tmp_path / "data" / "features").iterdir())
    assert len(caches) == 3
    monkeypatch.setattr("vjepa_wm.probing.cache._write_shard", None)  # would fail if called
    again = run("clips=80", "min_steps=5")
    assert again["summaries"] == first["summaries"]
    other = run("clips=80", "min_steps=5", head=("head=linear",))
    assert other["summaries"] != first["summaries"]


def test_videos_that_cannot_be_used_are_counted_and_listed(run, folder, tmp_path, capsys) -> None:
    root = films.write_classes(tmp_path / "videos", videos=4)
    for index in range(6):
        (root / "still" / f"damaged{index}.gif").write_bytes(b"GIF89a")
    results = run(f"videos={root}", "beside=[]", "min_steps=2")
    assert len(results["skipped"]) == 6
    shown = capsys.readouterr().out
    assert "6 videos skipped" in shown and shown.count("damaged: ") == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["head=atentive"], "Did you mean 'attentive'"),
        (["beside=[randon]"], "Did you mean 'random'"),
        (["videos=nowhere"], "no folder of videos at nowhere"),
        (["data=nowhere"], "no trajectories at nowhere"),
        (["label=event"], "keeps no labels"),
        (["label=event", "videos=nowhere"], "not of videos"),
        (["clip=movie"], "clip: wanted one of auto, video, frames"),
        (["num_frames=3"], "num_frames: wanted a multiple of 2"),
        (["percents=[0]"], "percents: wanted numbers above 0"),
        (["test_share=1.0"], "validation_share and test_share"),
        (["head.num_heads=5"], "num_heads: 5 does not divide"),
        (["device=cuda:99"], "no device 'cuda:99' here"),
    ],
)
def test_bad_options_end_with_one_line(run, capsys, tmp_path, options: list[str], said) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*options)
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
