"""What is written is what is read; what is damaged or contradictory is refused by name."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from vjepa_wm.data.shards import Episode
from vjepa_wm.data.trajectories import (
    Trajectories,
    TrajectoryMeta,
    TrajectoryWriter,
    split_episodes,
)
from vjepa_wm.errors import DataError

META = TrajectoryMeta(
    env_id="mine",
    image_size=(4, 6),
    fps=10.0,
    action_low=(-1.0, 0.0),
    action_high=(1.0, 2.0),
    proprio_dim=3,
)


def make_episode(length: int, seed: int = 0) -> Episode:
    """Return a random episode that fits META."""
    rng = np.random.default_rng(seed)
    return Episode(
        pixels=rng.integers(0, 256, (length, 4, 6, 3), dtype=np.uint8),
        actions=rng.uniform([-1, 0], [1, 2], (length - 1, 2)),
        proprio=rng.normal(size=(length, 3)),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write seven episodes of different lengths into three shards."""
    with TrajectoryWriter(tmp_path / "mine", META, shard_episodes=3) as writer:
        for length in range(2, 9):
            writer.add(make_episode(length, seed=length))
    return tmp_path / "mine"


def test_episodes_come_back_as_written(folder: Path) -> None:
    """Across shard borders, with actions one shorter than frames."""
    trajectories = Trajectories.open(folder)
    assert trajectories.num_episodes == 7
    assert trajectories.num_frames == sum(range(2, 9))
    for index, length in enumerate(range(2, 9)):
        wanted, got = make_episode(length, seed=length), trajectories.episode(index)
        assert np.array_equal(got.pixels, wanted.pixels)
        assert np.array_equal(got.actions, wanted.actions.astype(np.float32))
        assert np.array_equal(got.proprio, wanted.proprio.astype(np.float32))
        assert got.sim_state.shape == (length, 0)


def test_windows_pair_frames_with_the_actions_between(folder: Path) -> None:
    """A window is a stretch of one episode."""
    trajectories = Trajectories.open(folder)
    batch = trajectories.windows(8).sample(np.random.default_rng(0), 2)
    episode = trajectories.episode(6)
    for row in range(2):
        assert np.array_equal(batch.pixels[row], episode.pixels)
        assert np.array_equal(batch.actions[row], episode.actions)
        assert np.array_equal(batch.proprio[row], episode.proprio)


def test_digest_names_the_contents(folder: Path, tmp_path: Path) -> None:
    """Equal contents have equal digests, one other pixel another."""

    def write(name: str, value: int) -> str:
        episode = make_episode(4)
        episode.pixels[0, 0, 0, 0] = value
        with TrajectoryWriter(tmp_path / name, META) as writer:
            writer.add(episode)
        return Trajectories.open(tmp_path / name).digest

    assert write("a", 1) == write("b", 1) != write("c", 2)


def _nan_action(episode: Episode) -> Episode:
    episode.actions[1, 0] = np.nan
    return episode


def _large_action(episode: Episode) -> Episode:
    episode.actions[2] = [0.0, 2.5]
    return episode


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_nan_action, "actions: 1 of 4 rows hold NaN or infinity, the first is row 1"),
        (_large_action, r"actions: 1 of 4 are out of bounds, the first is row 2: .*got \[0.0, 2.5"),
        (lambda e: e._replace(actions=e.actions[1:]), r"wanted shape \(4, 2\), got \(3, 2\)"),
        (lambda e: e._replace(pixels=e.pixels / 255.0), "pixels: wanted uint8 in 0..255"),
        (lambda e: e._replace(proprio=None), r"proprio: wanted shape \(5, 3\)"),
        (lambda e: make_episode(2)._replace(pixels=e.pixels[:1]), "at least 2 frames, got 1"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(spoil, message: str, tmp_path: Path) -> None:
    """The message says what was wanted and what was got."""
    writer = TrajectoryWriter(tmp_path / "x", META)
    with pytest.raises(DataError, match=message):
        writer.add(spoil(make_episode(5)))


def test_a_block_that_fails_leaves_no_dataset(tmp_path: Path) -> None:
    """Half a recording is not taken for a whole one."""
    with pytest.raises(KeyError), TrajectoryWriter(tmp_path / "x", META) as writer:
        writer.add(make_episode(3))
        raise KeyError
    with pytest.raises(DataError, match="no trajectories"):
        Trajectories.open(tmp_path / "x")


def test_a_recording_of_nothing_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="at least one episode, none was added"),
        TrajectoryWriter(tmp_path / "x", META),
    ):
        pass


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _resave(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize("name", ["pixels", "actions", "proprio", "sim_state", "lengths"])
@pytest.mark.parametrize("damage", [_cut, _resave, Path.unlink])
def test_a_damaged_file_is_named(folder: Path, name: str, damage) -> None:
    """Cut off, missing or shorter than the others; the message says what to delete."""
    path = folder / "shards" / "00001" / f"{name}.npy"
    if name == "sim_state" and damage is _cut:
        path.write_bytes(path.read_bytes()[:50])
    else:
        damage(path)
    with pytest.raises(DataError, match=rf"{path}.* Delete the folder {path.parent}"):
        Trajectories.open(folder)


def test_missing_shards_are_noticed(folder: Path) -> None:
    """At the end and in the middle."""
    (folder / "shards" / "00002").rename(folder / "away")
    with pytest.raises(DataError, match="wanted 7 episodes, got 6"):
        Trajectories.open(folder)
    (folder / "away").rename(folder / "shards" / "00002")
    (folder / "shards" / "00001").rename(folder / "away")
    with pytest.raises(DataError, match="00001 is missing"):
        Trajectories.open(folder)


def test_meta_round_trip_and_damage(tmp_path: Path) -> None:
    """Unknown fields, other versions and cut files are refused."""
    META.write(tmp_path)
    assert TrajectoryMeta.read(tmp_path) == META
    path = tmp_path / "meta.json"
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(DataError, match="not valid JSON"):
        TrajectoryMeta.read(tmp_path)
    path.write_text(json.dumps({**json.loads(whole), "colour": 1}))
    with pytest.raises(DataError, match="unknown fields: colour"):
        TrajectoryMeta.read(tmp_path)
    path.write_text(json.dumps({**json.loads(whole), "format_version": 9}))
    with pytest.raises(DataError, match="wanted format_version 1, got 9"):
        TrajectoryMeta.read(tmp_path)
    with pytest.raises(DataError, match="low < high"):
        dataclasses.replace(META, action_low=(1.0, 5.0))


@pytest.mark.parametrize("count", [2, 3, 7, 50, 2000])
def test_split_is_a_stable_tenth(count: int) -> None:
    """A partition, about 10 % validation, and no episode changes sides as others are added."""
    train, validation = split_episodes(count)
    assert sorted([*train, *validation]) == list(range(count))
    assert 1 <= len(validation) <= max(1, round(0.1 * count) + 1)
    if count >= 50:
        assert len(validation) >= round(0.1 * count) - 1
        longer = set(split_episodes(2 * count)[1])
        assert set(validation) == {index for index in longer if index < count}


def test_one_episode_is_for_training() -> None:
    """There is nothing to split."""
    train, validation = split_episodes(1)
    assert (len(train), len(validation)) == (1, 0)


def test_frames_are_of_their_episodes(tmp_path: Path) -> None:
    with TrajectoryWriter(tmp_path / "x", META, shard_episodes=2) as writer:
        for length in (3, 2, 4):
            writer.add(make_episode(length))
    trajectories = Trajectories.open(tmp_path / "x")
    frames = np.arange(trajectories.lengths.sum())
    assert (
        trajectories.episodes_of(frames).tolist()
        == np.repeat(range(3), trajectories.lengths).tolist()
    )


def test_bounds_are_taken_as_spaces_give_them(tmp_path: Path) -> None:
    low, high = np.array(META.action_low), np.array(META.action_high)
    sides = [*META.image_size]
    meta = dataclasses.replace(META, action_low=low, action_high=high, image_size=sides)
    assert meta == META
    with TrajectoryWriter(tmp_path / "x", meta) as writer:
        episode = make_episode(3)
        writer.add(episode._replace(pixels=list(episode.pixels), actions=episode.actions.tolist()))
    assert Trajectories.open(tmp_path / "x").num_episodes == 1
    for wrong, said in (
        ({"image_size": 64}, "a list"),
        ({"image_size": (64,)}, "height and width"),
        ({"fps": float("nan")}, "fps: wanted a number above 0, got nan"),
        ({"fps": 0}, "fps: wanted a number above 0"),
        ({"frame_skip": 0}, "frame_skip: wanted at least 1, got 0"),
    ):
        with pytest.raises(DataError, match=said):
            dataclasses.replace(META, **wrong)
