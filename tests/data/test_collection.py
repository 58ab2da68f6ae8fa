"""A collection depends on its settings alone: not on workers, kills or extensions."""

import dataclasses
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from tests.data import fake_env
from vjepa_wm.data.collection import CollectSettings, collect
from vjepa_wm.data.recorder import HeldRandomPolicy, Recorder, make_env
from vjepa_wm.data.shards import ARRAYS
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.encoders.pixels import PixelTransform
from vjepa_wm.errors import DataError, UnknownNameError
from vjepa_wm.files import read_json, write_json

MODULE = fake_env.__name__
SETTINGS = CollectSettings(
    env_id=f"{MODULE}:fake/Point-v0", image_size=8, episodes=7, steps=6, shard_episodes=3
)


def settings(**changes: object) -> CollectSettings:
    """Return SETTINGS with some changed."""
    return CollectSettings(**{**vars(SETTINGS), **changes})


def assert_equal(first: Trajectories, second: Trajectories) -> None:
    """Compare every array of two datasets."""
    assert np.array_equal(first.lengths, second.lengths)
    for name in ARRAYS:
        everything = np.concatenate(getattr(first, name).shards)
        assert np.array_equal(everything, np.concatenate(getattr(second, name).shards))
    assert first.digest == second.digest


def test_workers_and_extension_change_nothing(tmp_path: Path) -> None:
    """One worker, three, and a dataset that grew in the middle of a shard are equal."""
    collect(settings(), tmp_path / "one", workers=1)
    collect(settings(), tmp_path / "three", workers=3)
    collect(settings(episodes=4), tmp_path / "grown")
    result = collect(settings(), tmp_path / "grown")
    assert result.frames == 4 * 7, "the full first shard is kept"
    one = Trajectories.open(tmp_path / "one")
    assert_equal(one, Trajectories.open(tmp_path / "three"))
    assert_equal(one, Trajectories.open(tmp_path / "grown"))
    assert collect(settings(), tmp_path / "one").frames == 0


def test_recorded_frames_follow_from_actions(tmp_path: Path) -> None:
    """T + 1 frames, action t between frames t and t + 1, copies and not views of one buffer."""
    recorder = Recorder(SETTINGS.env_id, image_size=8, frame_skip=2)
    episode = recorder.episode(np.random.SeedSequence(3), steps=6)
    assert episode.pixels.shape == (7, 8, 8, 3)
    moved = np.diff(episode.sim_state[:, :2], axis=0)
    assert np.allclose(moved, 2 * 0.1 * episode.actions, atol=1e-6)
    assert episode.pixels[:, 5, 5, 0].tolist() == [0, 2, 4, 6, 8, 10, 12]
    meta = recorder.meta(episodes=1, steps=6, seed=0)
    assert (meta.fps, meta.proprio_dim, meta.sim_state_dim) == (10.0, 2, 3)
    assert meta.action_meaning.startswith("displacement")


def test_seeds_give_different_episodes(tmp_path: Path) -> None:
    """No two episodes start alike."""
    collect(settings(), tmp_path / "a")
    trajectories = Trajectories.open(tmp_path / "a")
    starts = [tuple(trajectories.episode(index).proprio[0]) for index in range(7)]
    assert len(set(starts)) == 7


def test_foreign_environments_are_recorded(tmp_path: Path) -> None:
    """No pixels, proprio, state or policy of its own: pictures by render, ends respected."""
    foreign = settings(env_id=f"{MODULE}:fake/Foreign-v0", steps=20, episodes=5)
    collect(foreign, tmp_path / "f")
    trajectories = Trajectories.open(tmp_path / "f")
    assert set(trajectories.lengths) <= set(range(4, 10))
    episode = trajectories.episode(0)
    assert episode.pixels.shape[1:] == (8, 8, 3)
    assert episode.pixels[-1].max() == 0
    assert episode.proprio.shape[1] == episode.sim_state.shape[1] == 0


@pytest.mark.parametrize(("name", "shape"), [("Foreign", (20, 30, 3)), ("Wide", (5, 5, 3))])
def test_environments_are_asked_for_pictures_as_they_can_be(name: str, shape: tuple) -> None:
    """Also where a base class takes the options; a width of another meaning is left alone."""
    env = make_env(f"{MODULE}:fake/{name}-v0", image_size=8)
    env.reset(seed=0)
    assert env.render().shape == shape


def test_of_wide_pictures_the_middle_is_recorded_as_encoders_see_it() -> None:
    """Also of an environment that takes a size and has to be told to draw."""
    recorder = Recorder(f"{MODULE}:fake/Edge-v0", image_size=8)
    episode = recorder.episode(np.random.SeedSequence(0), steps=2)
    assert episode.pixels.shape == (3, 8, 8, 3)
    assert not episode.pixels.any(), "the red sides are outside the middle square"
    wide = torch.from_numpy(recorder.env.render()).movedim(-1, 0)[None]
    assert not PixelTransform().cut(wide, 8).any()


def test_what_wrappers_tell_is_heard() -> None:
    """A policy and a state on a wrapper count as the environment's own."""
    recorder = Recorder(f"{MODULE}:fake/Guided-v0", image_size=8)
    assert isinstance(recorder.policy, fake_env.WalkPolicy)
    episode = recorder.episode(np.random.SeedSequence(0), steps=2)
    assert np.diff(episode.sim_state[:, 0]).tolist() == [-1, -1]


def test_held_random_actions_fill_the_bounds_and_are_held() -> None:
    """Mean hold of 1 to 8 steps, uniform over the box."""
    policy = HeldRandomPolicy(np.array([0.0, -2.0]), np.array([1.0, 2.0]))
    policy.reset(np.random.default_rng(0))
    actions = np.array([policy.act() for _ in range(9000)])
    held = (np.diff(actions, axis=0) == 0).all(axis=1).mean()
    assert 0.74 < held < 0.82
    assert np.allclose(actions.min(axis=0), [0, -2], atol=0.02)
    assert np.allclose(actions.max(axis=0), [1, 2], atol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5}, "steps: wanted 5, it has 6"),
        ({"seed": 1}, "seed: wanted 1, it has 0"),
        ({"image_size": 16}, r"image_size: wanted \(16, 16\), it has \(8, 8\)"),
        ({"episodes": 2}, "already has 4 episodes, wanted 2"),
        ({"episodes": 9, "shard_episodes": 2}, "has 3 episodes, wanted 2"),
    ],
)
def test_a_folder_is_not_mixed(changes: dict, message: str, tmp_path: Path) -> None:
    """Other settings for the same folder are refused, and the folder stays usable."""
    collect(settings(episodes=4), tmp_path / "a")
    with pytest.raises(DataError, match=message):
        collect(settings(**{"episodes": 4, **changes}), tmp_path / "a")
    assert Trajectories.open(tmp_path / "a").num_episodes == 4


def test_a_damaged_shard_is_collected_again(tmp_path: Path, caplog) -> None:
    """With a warning, and equal to what it was."""
    collect(settings(), tmp_path / "a")
    digest = Trajectories.open(tmp_path / "a").digest
    path = tmp_path / "a" / "shards" / "00001" / "pixels.npy"
    path.write_bytes(path.read_bytes()[:-100])
    assert collect(settings(), tmp_path / "a").frames == 3 * 7
    assert "00001" in caplog.text
    assert Trajectories.open(tmp_path / "a").digest == digest


def test_a_failing_environment_is_reported(tmp_path: Path) -> None:
    """The worker's own message reaches the caller; finished shards stay."""
    failing = settings(env_id=f"{MODULE}:fake/Failing-v0", shard_episodes=1)
    with pytest.raises(DataError, match="RuntimeError: the point fell off the table.*fake_env"):
        collect(failing, tmp_path / "a")
    assert [path.name for path in (tmp_path / "a" / "shards").iterdir()] == ["00000", "00001"]


@pytest.mark.parametrize(
    ("env_id", "kind", "message"),
    [
        (f"{MODULE}:fake/Piont-v0", UnknownNameError, "Did you mean 'fake/Point-v0'"),
        (f"{MODULE}:fake/Discrete-v0", DataError, "wanted actions in a bounded Box"),
        ("no_such_module:X-v0", DataError, "No module named 'no_such_module'"),
    ],
)
def test_unusable_environments_are_refused(env_id: str, kind: type, message: str) -> None:
    """Before any process starts."""
    with pytest.raises(kind, match=message):
        Recorder(env_id, image_size=8)


def test_proprio_that_is_no_vector_is_named() -> None:
    recorder = Recorder(f"{MODULE}:fake/Foreign-v0", image_size=8)
    for wrong, got in (({"arm": 1.0}, "got dict"), (np.zeros((2, 2)), r"got shape \(2, 2\)")):
        obs = {"pixels": np.zeros((8, 8, 3), np.uint8), "proprio": wrong}
        with pytest.raises(DataError, match=f"proprio: wanted a vector of numbers, {got}"):
            recorder._look(obs)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            gymnasium.error.DependencyNotInstalled("pygame is not installed"),
            "cannot be drawn: pygame is not installed",
        ),
        (NotImplementedError(), "gives no pictures: wanted an observation with 'pixels'"),
    ],
)
def test_what_cannot_be_drawn_says_what_is_wanted(
    error: Exception, message: str, monkeypatch
) -> None:
    def render(env: gymnasium.Env) -> None:
        raise error

    recorder = Recorder(f"{MODULE}:fake/Foreign-v0", image_size=8)
    monkeypatch.setattr(type(recorder.env.unwrapped), "render", render)
    with pytest.raises(DataError, match=message):
        recorder.episode(np.random.SeedSequence(0), steps=2)


def test_a_collection_of_before_bounds_were_rounded_goes_on(tmp_path: Path) -> None:
    settings = CollectSettings(f"{MODULE}:fake/Point-v0", image_size=8, episodes=2, steps=3)
    collect(settings, tmp_path, workers=1)
    meta = read_json(tmp_path / "meta.json")
    meta["action_low"] = [bound - 5e-8 for bound in meta["action_low"]]
    write_json(tmp_path / "meta.json", meta)
    collect(dataclasses.replace(settings, episodes=4), tmp_path, workers=1)
    trajectories = Trajectories.open(tmp_path)
    assert trajectories.num_episodes == 4
    assert list(trajectories.meta.action_low) == meta["action_low"]
