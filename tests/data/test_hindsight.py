"""Pairs of frames: goals lie later in the same episode, as far as asked, and no farther."""

import numpy as np
import pytest

from vjepa_wm.data.hindsight import HindsightPairs
from vjepa_wm.errors import DataError

LENGTHS = np.array([5, 1, 3, 8])
EPISODE_OF = np.repeat(np.arange(4), LENGTHS)


def test_goals_are_later_frames_of_the_same_episode() -> None:
    """All of them come up, as often at the end of an episode as at its start."""
    pairs = HindsightPairs(LENGTHS, max_steps=3)
    assert len(pairs) == 4 + 0 + 2 + 7
    frames, goals = pairs.sample(np.random.default_rng(0), 4000)
    assert (EPISODE_OF[frames] == EPISODE_OF[goals]).all()
    assert set(goals - frames) == {1, 2, 3}
    found, counts = np.unique(frames, return_counts=True)
    assert found.tolist() == [0, 1, 2, 3, 6, 7, 9, 10, 11, 12, 13, 14, 15]
    assert counts.min() > 0.7 * counts.max()
    assert set(goals[frames == 3]) == {4}  # the episode ends there
    assert set(goals[frames == 9]) == {10, 11, 12}


def test_only_the_episodes_asked_for() -> None:
    pairs = HindsightPairs(LENGTHS, max_steps=100, episodes=np.array([0, 2]))
    frames, goals = pairs.sample(np.random.default_rng(0), 500)
    assert set(EPISODE_OF[frames]) == {0, 2}
    assert set(goals - frames) == {1, 2, 3, 4}


def test_the_generator_decides() -> None:
    pairs = HindsightPairs(LENGTHS, max_steps=3)
    drawn = [pairs.sample(np.random.default_rng(seed), 50) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(DataError, match="goal steps: wanted at least 1, got 0"):
        HindsightPairs(LENGTHS, max_steps=0)
    with pytest.raises(DataError, match="none of 1 episodes has two frames"):
        HindsightPairs(LENGTHS, max_steps=3, episodes=np.array([1]))
