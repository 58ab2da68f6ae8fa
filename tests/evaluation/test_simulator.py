"""The simulator repeats what was recorded, and measures what the environment measures."""

import numpy as np
import pytest

from tests.evaluation import fake_env  # noqa: F401
from vjepa_wm.data.recorder import Recorder
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.simulator import Simulator

PUSH_T = "envs:vjepa_wm/PushT-v0"


@pytest.fixture(scope="module")
def simulator():
    with Simulator(PUSH_T, image_size=32, frame_skip=2) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def episode():
    recorder = Recorder(PUSH_T, image_size=32, frame_skip=2)
    recorded = recorder.episode(np.random.SeedSequence(3), steps=8)
    recorder.close()
    return recorded


def test_recorded_actions_lead_to_the_recorded_frames(simulator, episode) -> None:
    """Bit by bit, from the middle of an episode, whatever was tried before."""
    other = np.zeros((4, 2), np.float32)
    tried = np.stack([other, episode.actions[2:6]])
    pixels, states = simulator.outcomes(episode.sim_state[2], tried)
    assert np.array_equal(pixels[1], episode.pixels[3:7])
    assert np.array_equal(states[1], episode.sim_state[3:7])
    assert not np.array_equal(states[0], states[1])


def test_distances_are_in_thresholds(simulator, episode) -> None:
    start = episode.sim_state[0]
    goal = start.copy()
    goal[3] += 0.03  # one threshold of the block's position
    goal[5] += 0.35  # and one of its angle
    found = simulator.distances(np.stack([start, goal]), np.stack([goal, goal]))
    np.testing.assert_allclose(found, [2.0, 0.0], atol=1e-9)


def test_the_distance_after_actions_is_that_of_where_they_lead(simulator, episode) -> None:
    tried = episode.actions[None, 2:6]
    goal = episode.sim_state[0]
    after = simulator.distances_after(episode.sim_state[2], goal, tried)
    wanted = simulator.distances(episode.sim_state[6:7], goal[None])
    np.testing.assert_allclose(after, wanted, atol=1e-9)


def test_an_environment_that_does_not_tell_its_state_is_refused() -> None:
    with pytest.raises(DataError, match="has no get_sim_state"):
        Simulator("fake/Lame-v0", image_size=8, frame_skip=1)


def test_actions_side_by_side_are_taken_one_after_another(simulator, episode) -> None:
    """With a picture after all of a step."""
    start, goal, tried = episode.sim_state[2], episode.sim_state[0], episode.actions[None, 2:6]
    paired = tried.reshape(1, 2, 4)
    pixels, states = simulator.outcomes(start, paired)
    assert np.array_equal(pixels[0], episode.pixels[[4, 6]])
    assert np.array_equal(states[0], episode.sim_state[[4, 6]])
    after = simulator.distances_after(start, goal, paired)
    np.testing.assert_array_equal(after, simulator.distances_after(start, goal, tried))
