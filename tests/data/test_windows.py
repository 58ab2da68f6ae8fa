"""Windows lie inside episodes, and gathering them gives what indexing the flat array gives."""

import numpy as np
import pytest

from vjepa_wm.data.windows import FrameArrays, WindowIndex, gather_actions
from vjepa_wm.errors import DataError

LENGTHS = np.array([5, 2, 9, 7, 3])


def arrays_in_shards() -> tuple[np.ndarray, FrameArrays]:
    """Return one flat array and the same in two shards, cut between episodes."""
    flat = np.random.default_rng(0).normal(size=(LENGTHS.sum(), 4)).astype(np.float32)
    cut = int(LENGTHS[:2].sum())
    return flat, FrameArrays([flat[:cut], flat[cut:]])


@pytest.mark.parametrize(("num_frames", "stride"), [(1, 1), (3, 1), (3, 2), (2, 4)])
def test_every_window_that_fits_is_listed_once(num_frames: int, stride: int) -> None:
    """The index is what a loop over episodes and positions finds."""
    first = np.cumsum(LENGTHS) - LENGTHS
    wanted = [
        [begin + start + stride * step for step in range(num_frames)]
        for begin, length in zip(first, LENGTHS, strict=True)
        for start in range(length - (num_frames - 1) * stride)
    ]
    index = WindowIndex(LENGTHS, num_frames=num_frames, stride=stride)
    assert index.frames(np.arange(len(index))).tolist() == wanted


def test_windows_of_chosen_episodes_stay_in_them() -> None:
    """Windows of validation episodes never touch training frames."""
    owner = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    index = WindowIndex(LENGTHS, num_frames=3, episodes=np.array([2, 4]))
    owners = owner[index.sample(np.random.default_rng(0), 200)]
    assert set(owners.ravel()) == {2, 4}
    assert (owners == owners[:, :1]).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_gather_equals_indexing_the_flat_array(stride: int) -> None:
    """Shards do not change what is read."""
    flat, shards = arrays_in_shards()
    frames = WindowIndex(LENGTHS, num_frames=3, stride=stride).sample(np.random.default_rng(1), 50)
    assert np.array_equal(shards.gather(frames), flat[frames])


def test_actions_with_a_stride_are_concatenated_in_order() -> None:
    """Between frames f and f + 2 lie the actions of f and of f + 1."""
    flat, shards = arrays_in_shards()
    frames = WindowIndex(LENGTHS, num_frames=3, stride=2).sample(np.random.default_rng(2), 20)
    got = gather_actions(shards, frames, stride=2)
    wanted = np.concatenate([flat[frames[:, :-1]], flat[frames[:, :-1] + 1]], axis=-1)
    assert np.array_equal(got, wanted)


def test_windows_longer_than_every_episode_are_refused() -> None:
    """The message says how long the window and the longest episode are."""
    with pytest.raises(DataError, match="spans 13 frames, the longest of 5 episodes has 9"):
        WindowIndex(LENGTHS, num_frames=4, stride=4)
