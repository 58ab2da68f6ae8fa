"""Clips: from all sets alike, from training episodes only, at even strides."""

from pathlib import Path

import numpy as np
import pytest

from vjepa_wm.data.shards import Episode
from vjepa_wm.data.trajectories import Trajectories, TrajectoryMeta, TrajectoryWriter
from vjepa_wm.errors import DataError
from vjepa_wm.pretraining.clips import ClipSampler, validation_frames


def labelled(folder: Path, label: int, lengths: list[int]) -> Trajectories:
    """Write frames whose three channels say set, episode and time."""
    meta = TrajectoryMeta(
        env_id="labels", image_size=(4, 4), fps=1.0, action_low=(-1.0,), action_high=(1.0,)
    )
    with TrajectoryWriter(folder, meta) as writer:
        for number, length in enumerate(lengths):
            pixels = np.zeros((length, 4, 4, 3), np.uint8)
            pixels[..., 0], pixels[..., 1] = label, number
            pixels[..., 2] = np.arange(length)[:, None, None]
            writer.add(Episode(pixels, np.zeros((length - 1, 1), np.float32)))
    return Trajectories.open(folder)


@pytest.fixture
def sets(tmp_path: Path) -> list[Trajectories]:
    lengths = [[12 + number % 3 for number in range(30)], [9] * 5]
    return [labelled(tmp_path / str(i), i, rows) for i, rows in enumerate(lengths)]


def test_clips_are_what_they_are_said_to_be(sets) -> None:
    sampler = ClipSampler(sets, num_frames=3, strides=[1, 2, 4])
    rng = np.random.default_rng(0)
    strides, episodes = set(), (set(), set())
    for _ in range(60):
        clips, source = sampler.sample(rng, 7)
        assert clips.shape == (7, 3, 4, 4, 3)
        assert source.tolist() == [0, 0, 0, 0, 1, 1, 1]
        assert (clips[..., 0] == source.view(-1, 1, 1, 1)).all()
        for clip, part in zip(clips[:, :, 0, 0].int(), source.tolist(), strict=True):
            assert len(clip[:, 1].unique()) == 1
            episodes[part].add(int(clip[0, 1]))
            steps = clip[:, 2].diff().unique()
            assert len(steps) == 1
            strides.add(int(steps))
    assert strides == {1, 2, 4}
    for part, trajectories in zip(episodes, sets, strict=True):
        assert part == set(trajectories.split()[0].tolist())


def test_validation_frames_are_held_out_and_cut_to_the_shortest(sets) -> None:
    held_out = sets[0].split()[1][:2]
    frames = validation_frames(sets[0], num_episodes=2)
    length = min(12 + int(number) % 3 for number in held_out)
    assert frames.shape == (len(held_out), length, 4, 4, 3)
    assert frames[:, 0, 0, 0, 1].tolist() == held_out.tolist()
    assert frames[0, :, 0, 0, 2].tolist() == list(range(length))


def test_a_single_episode_leaves_nothing_to_validate_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds out no episode of its 1"):
        validation_frames(labelled(tmp_path / "one", 0, [5]), num_episodes=2)
