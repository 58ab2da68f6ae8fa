"""How far apart the frames of a clip are, in recorded steps or in seconds; what is cut out."""

from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vjepa_wm.data.videos import Timeline, UnreadableError
from vjepa_wm.errors import SettingError
from vjepa_wm.pretraining.clips import Augment, ClipSteps

TEN_A_SECOND = Timeline(np.arange(20) / 10, 2.0, is_even=True)
TWENTY_A_SECOND = Timeline(np.arange(40) / 20, 2.0, is_even=True)
HELD = Timeline(np.array([0.0, 0.1, 0.9]), 1.0, is_even=False)


@pytest.mark.parametrize("place", [0.0, 0.31, 0.5, 0.999])
def test_a_step_in_seconds_is_the_same_at_every_frame_rate(place: float) -> None:
    steps = ClipSteps([1], [0.2])
    slow, fast = (
        steps.pictures(times, num_frames=4, which=0, place=place)
        for times in (TEN_A_SECOND, TWENTY_A_SECOND)
    )
    assert np.diff(slow).tolist() == [2, 2, 2]
    assert np.diff(fast).tolist() == [4, 4, 4]
    assert slow[0] >= 0 and slow[-1] < 20 and fast[-1] < 40
    assert (fast // 2).tolist() == slow.tolist()


def test_strides_count_pictures_and_reach_both_ends() -> None:
    steps = ClipSteps([0, 3])
    first = steps.pictures(TEN_A_SECOND, num_frames=4, which=1, place=0.0)
    last = steps.pictures(TEN_A_SECOND, num_frames=4, which=1, place=0.9999)
    assert first.tolist() == [0, 3, 6, 9]
    assert last.tolist() == [10, 13, 16, 19]
    still = steps.pictures(TEN_A_SECOND, num_frames=4, which=0, place=0.9999)
    assert still.tolist() == [19] * 4


def test_what_is_shown_for_long_comes_again() -> None:
    steps = ClipSteps([1], [0.0, 0.25])
    assert steps.pictures(HELD, num_frames=4, which=1, place=0.5).tolist() == [1, 1, 1, 1]
    assert len(set(steps.pictures(HELD, num_frames=4, which=0, place=0.5).tolist())) == 1


def test_videos_have_to_be_as_long_as_the_longest_clip() -> None:
    ClipSteps([0, 5]).check(TEN_A_SECOND, num_frames=4)
    with pytest.raises(UnreadableError, match="too short: 20 pictures, wanted 25"):
        ClipSteps([1, 8]).check(TEN_A_SECOND, num_frames=4)
    ClipSteps([9], [0.5]).check(TEN_A_SECOND, num_frames=5)
    with pytest.raises(UnreadableError, match="too short: 2.00 s, wanted 2.40 s"):
        ClipSteps([1], [0.1, 0.8]).check(TEN_A_SECOND, num_frames=4)


def test_seconds_of_trajectories_are_recorded_steps(tmp_path: Path) -> None:
    """At 10 frames per second; what is finer than they were recorded is refused."""
    trajectories = tiny.moving_squares(tmp_path, episodes=2, length=5, size=8)
    assert ClipSteps([0, 1]).recorded(trajectories) == [0, 1]
    assert ClipSteps([7], [0, 0.1, 0.2, 0.42]).recorded(trajectories) == [0, 1, 2, 4]
    for step, nearest in ((0.03, "0.1"), (0.14, "0.1")):
        with pytest.raises(
            SettingError, match=f"seconds={step:g}.*10 frames.*nearest is {nearest}"
        ):
            ClipSteps([1], [step]).recorded(trajectories)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="strides: wanted one or more numbers"):
        ClipSteps([])
    with pytest.raises(SettingError, match=r"seconds: wanted .* at least 0, got \[-1\]"):
        ClipSteps([1], [-1])
    with pytest.raises(SettingError, match=r"augment.area: wanted \[low, high\]"):
        Augment(area=(0.5, 0.2))
    with pytest.raises(SettingError, match="augment.area: wanted shares of at most 1"):
        Augment(area=(0.5, 2.0))


def test_cuts_are_as_large_as_they_should_be() -> None:
    """Of a wide picture, in all places, half of them mirrored."""
    augment = Augment(area=(0.25, 0.5), aspect=(0.8, 1.25))
    cuts = augment.draw(np.random.default_rng(0), 400)
    boxes = np.array([cut.box((300, 200)) for cut in cuts])
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 300).all() and (boxes[:, 3] <= 200).all()
    share = width * height / (300 * 200)
    assert 0.24 < share.min() < 0.27 and 0.48 < share.max() < 0.51
    assert 0.79 < (width / height).min() < 0.83 and 1.2 < (width / height).max() < 1.27
    assert boxes[:, 0].min() < 10 and boxes[:, 2].max() > 290
    assert 150 < sum(cut.mirrored for cut in cuts) < 250
    middle = Augment(area=None, flip=False).draw(np.random.default_rng(0), 3)
    assert [cut.box((300, 200)) for cut in middle] == [(50, 0, 250, 200)] * 3
    assert not any(cut.mirrored for cut in middle)
