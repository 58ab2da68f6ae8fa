"""Floor and ceiling: random actions that do not look, and a planner that knows everything."""

import numpy as np
import pytest

from planners import CEM, RandomShooting
from tests.evaluation.test_episodes import POINT, tasks_of, without_time
from vjepa_wm.evaluation.agents import RandomAgent, SimulatorAgent
from vjepa_wm.evaluation.episodes import EpisodeRunner

LOW, HIGH = np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32)


def random_actions(agent: RandomAgent, count: int, *, steps: int) -> np.ndarray:
    """Let an agent act in `count` episodes: (steps,count,2)."""
    agent.reset(goal=np.zeros((count, 8, 8, 3), np.uint8))
    return np.stack([agent.act({}) for _ in range(steps)])


def test_random_actions_fill_their_bounds_smoothly() -> None:
    actions = random_actions(RandomAgent(LOW, HIGH), 50, steps=200)
    assert actions.dtype == np.float32
    assert (actions >= LOW).all() and (actions <= HIGH).all()
    centred = (actions - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)
    assert np.abs(centred.mean(axis=(0, 1))).max() < 0.1
    assert (centred.std(axis=(0, 1)) > 0.4).all()
    for entry in (0, 1):
        now, after = centred[:-1, :, entry].ravel(), centred[1:, :, entry].ravel()
        assert np.corrcoef(now, after)[0, 1] > 0.7


def test_random_episodes_differ_and_do_not_depend_on_the_batch() -> None:
    whole = random_actions(RandomAgent(LOW, HIGH, seed=3), 4, steps=5)
    agent = RandomAgent(LOW, HIGH, seed=3)
    parts = [random_actions(agent, 2, steps=5) for _ in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert len(np.unique(whole[0, :, 0])) == 4
    assert not np.array_equal(random_actions(RandomAgent(LOW, HIGH, seed=4), 4, steps=5), whole)


def run_simulator(num_envs: int, **options) -> list:
    runner = EpisodeRunner(POINT, num_envs=num_envs, image_size=8)
    agent = SimulatorAgent(runner.envs, CEM(horizon=4, num_samples=32), **options)
    return runner.run(agent, tasks_of("far", 6), max_steps=25)


def test_the_true_simulator_reaches_every_goal() -> None:
    episodes = run_simulator(6, replan_every=2)
    assert all(episode.is_success for episode in episodes)
    assert without_time(episodes) == without_time(run_simulator(6, replan_every=2))
    assert without_time(episodes) == without_time(run_simulator(4, replan_every=2))


class Spy(RandomShooting):
    """Keeps the number of problems and the candidates of every plan."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.batch_sizes: list[int] = []

    def plan(self, cost_fn, **options):
        self.batch_sizes.append(options["batch_size"])
        return super().plan(cost_fn, **options)


def test_only_active_episodes_are_planned_for_and_only_when_due() -> None:
    runner = EpisodeRunner(POINT, num_envs=3, image_size=8)
    far = {"level": "far"}
    goals = np.stack([e.reset(seed=0, options=far)[1]["goal"]["pixels"] for e in runner.envs])
    planner = Spy(horizon=3, num_samples=64)
    agent = SimulatorAgent(runner.envs, planner, replan_every=2, frame_skip=3)
    agent.reset(goal=goals)
    masks = [np.array([True, True, True])] * 6 + [np.array([True, False, False])] * 6
    actions = [agent.act({}, is_active=mask) for mask in masks]
    assert planner.batch_sizes == [3, 1]
    for first in range(0, 12, 3):
        held = [action[0] for action in actions[first : first + 3]]
        assert np.array_equal(held[0], held[1]) and np.array_equal(held[0], held[2])
    assert not np.array_equal(actions[0][0], actions[3][0])
    np.testing.assert_array_equal(actions[11][1:], actions[5][1:])


def test_repeated_actions_are_tried_out_repeated() -> None:
    """With ten steps per action the best action is a tenth of the way, not all of it."""
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    start, goal = np.zeros(3), np.array([0.5, -0.25, 0.0])
    runner.envs[0].reset(options={"start": start, "goal": goal})
    agent = SimulatorAgent(
        runner.envs, CEM(horizon=1, num_samples=256, iterations=8), replan_every=1, frame_skip=10
    )
    agent.reset(goal=np.zeros((1, 8, 8, 3), np.uint8))
    for _ in range(10):
        runner.envs[0].step(agent.act({})[0])
    # Costs are averaged over the ten steps, so that the best of it goes a little too far.
    np.testing.assert_allclose(runner.envs[0].unwrapped.position, [0.71, -0.36], rtol=0, atol=0.03)


def test_more_steps_than_planned_are_refused() -> None:
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    for replan_every in (0, 5):
        with pytest.raises(ValueError, match="replan_every: wanted 1 to horizon 4"):
            SimulatorAgent(runner.envs, CEM(horizon=4), replan_every=replan_every)
