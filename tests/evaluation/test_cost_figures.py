"""Costs, landscapes and novelty in worlds where the truth is known."""

import numpy as np
import pytest
import torch

from planners import CEM
from tests.training.test_dynamics import MovingWorld
from vjepa_wm.costs import GoalCost
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.cost_figures import PLANNED, cost_figure
from vjepa_wm.evaluation.diagnostics import Windows
from vjepa_wm.evaluation.landscapes import draw_landscapes, grid_actions, landscape_figure, lowest
from vjepa_wm.evaluation.novelty import imagined_ends, novelty_figure, plan_to_ends
from vjepa_wm.world_model import ActionSpec

STEPS = 3


def distances(count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 8, (count, 2))


def each(count: int) -> np.ndarray:
    """Every triple of an episode of its own."""
    return np.arange(count)


def test_a_cost_that_grows_with_distance_is_perfect() -> None:
    found = cost_figure(
        {PLANNED: distances() ** 3}, distances(), episodes=each(200), apart=5, seed=0
    )
    row = found.rows[PLANNED]
    assert (row.correlation, row.near, row.order) == pytest.approx((1.0, 1.0, 1.0))
    assert not any(finding.is_bad for finding in found.findings())


def test_a_cost_that_knows_nothing_is_right_half_of_the_time() -> None:
    noise = np.random.default_rng(1).normal(size=(2000, 2))
    found = cost_figure(
        {PLANNED: noise, "l1": noise}, distances(2000), episodes=each(2000), apart=5, seed=0
    )
    row = found.rows[PLANNED]
    assert row.order == pytest.approx(0.5, abs=0.04)
    assert row.order_interval[1] - row.order_interval[0] == pytest.approx(0.045, abs=0.005)
    assert row.correlation_interval[0] < 0 < row.correlation_interval[1]
    planned, beside = found.findings()
    assert planned.is_bad and not beside.is_bad  # nobody plans with what stands beside


def test_a_cost_that_goes_flat_is_seen_to_order_near_frames_only() -> None:
    true = distances()
    flat = np.where(true < 3, true, 3 + np.random.default_rng(2).uniform(size=true.shape))
    row = cost_figure({"flat": flat}, true, episodes=each(200), apart=5, seed=0).rows["flat"]
    assert row.near == pytest.approx(1.0)
    assert row.correlation < 0.9


def test_triples_of_one_episode_are_no_more_than_one() -> None:
    """Told ten times over, an episode does not make the interval narrower."""
    true = distances(60)
    cost = true + np.random.default_rng(3).normal(scale=4, size=true.shape)
    rows = [
        cost_figure(
            {"l1": cost.repeat(times, axis=0)},
            true.repeat(times, axis=0),
            episodes=each(60).repeat(times),
            apart=5,
            seed=0,
        ).rows["l1"]
        for times in (1, 10)
    ]
    once, often = (row.correlation_interval[1] - row.correlation_interval[0] for row in rows)
    assert often == pytest.approx(once, rel=0.05)


def test_too_few_pairs_say_nothing() -> None:
    far = 10 + distances(20)[:, :1].repeat(2, axis=1)
    found = cost_figure({"l1": far}, far, episodes=each(20), apart=5, seed=0)
    assert (found.near_pairs, found.ordered_pairs) == (0, 0)
    assert found.rows["l1"].near is None and found.rows["l1"].order is None
    assert [finding.name for finding in found.findings()] == ["l1: rank correlation"]


class PointWorld(MovingWorld):
    """A world whose three tokens are the place (x, y, 0, 0); distances are Euclidean."""

    action_spec = ActionSpec((-1.0, -1.0, -1.0, -1.0), (1.0, 1.0, 1.0, 1.0), 1)


class PointSimulator:
    """The truth of it; states are latents of one token."""

    def distances(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.linalg.norm(states - goals, axis=-1)

    def outcomes(self, state: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        states = state + actions.cumsum(axis=1)
        return states[:, :, None, None, :], states  # "pixels" (K, T, 1, 1, 4)

    def distances_after(self, state, goal, actions: np.ndarray) -> np.ndarray:
        return self.distances(state + actions.sum(axis=1), goal)


def point_windows(count: int = 6) -> Windows:
    """Return windows in which the point moves by actions of the first two axes."""
    rng = np.random.default_rng(0)
    actions = np.zeros((count, 1 + STEPS, 4), np.float32)
    actions[:, :, :2] = rng.uniform(-1, 1, (count, 1, 2))
    states = np.zeros((count, 2 + STEPS, 4))
    states[:, 1:] = actions.cumsum(axis=1)
    return Windows(
        pixels=np.zeros((count, 2 + STEPS, 8, 8, 3), np.uint8),
        latents=torch.from_numpy(states).float().unsqueeze(2).expand(-1, -1, 3, -1),
        actions=torch.from_numpy(actions),
        proprio=torch.zeros(count, 2 + STEPS, 0),
        sim_state=states,
        episodes=np.arange(count),
        context_len=2,
    )


def encode(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).float().flatten(1, 2).expand(-1, 3, -1)


def landscapes(world: PointWorld, *, count: int = 3) -> list:
    cost = GoalCost(distance="l2", over_steps="last")
    simulator = PointSimulator()
    return draw_landscapes(
        world, point_windows(), simulator, cost, encode=encode, count=count, side=5
    )


def test_a_perfect_world_has_the_true_landscape() -> None:
    scapes = landscapes(PointWorld())
    figure = landscape_figure(scapes)
    assert figure.states == 3
    assert figure.imagined_correlation == pytest.approx([1.0] * 3)
    assert figure.imagined_regret == figure.encoded_regret == [0.0] * 3
    assert min(figure.blind_regret) > 0
    assert scapes[0].draw().size[0] > scapes[0].draw().size[1]


def test_a_world_that_ignores_actions_is_told_from_a_bad_encoder() -> None:
    figure = landscape_figure(landscapes(PointWorld(hears=0.0)))
    assert figure.imagined_correlation == [0.0] * 3
    assert figure.encoded_correlation == pytest.approx([1.0] * 3)
    assert all(finding.is_bad for finding in figure.findings())


def test_grid_rows_are_the_second_axis() -> None:
    low, high = np.array([-1.0, -2.0, -4.0]), np.array([1.0, 2.0, 8.0])
    axes, actions = grid_actions(low, high, side=3, horizon=2)
    assert axes.tolist() == [[-1, 0, 1], [-2, 0, 2]]
    assert actions.shape == (9, 2, 3)
    assert actions.reshape(3, 3, 2, 3)[2, 0, 1].tolist() == [-1, 2, 2]
    assert lowest(np.array([[3, 2], [1, 4]])) == (1, 0)
    with pytest.raises(DataError, match="two action axes"):
        grid_actions(low[:1], high[:1], side=3, horizon=2)


def test_windows_that_go_nowhere_have_no_landscape() -> None:
    still = point_windows()
    still.sim_state[:] = 0
    cost = GoalCost(distance="l2", over_steps="last")
    with pytest.raises(DataError, match="raise windows="):
        draw_landscapes(PointWorld(), still, PointSimulator(), cost, encode=encode, count=1, side=3)


def test_plans_of_a_perfect_world_end_at_the_goal() -> None:
    planner = CEM(horizon=STEPS, num_samples=200, num_elites=20, iterations=12, min_std=0.0)
    cost = GoalCost(distance="l2", over_steps="last")
    world, windows = PointWorld(), point_windows()
    plans = plan_to_ends(world, windows, planner, cost, count=4, seed=0)
    assert plans.shape == (4, STEPS, 4)
    ends = imagined_ends(world, windows, plans).detach()
    torch.testing.assert_close(ends, windows.latents[:4, -1], atol=0.1, rtol=0)


def test_novelty_counts_in_distances_of_true_frames() -> None:
    """True frames lie 1 from the data, recorded futures too, planned ones 3."""
    data = torch.zeros(10, 1, 2)
    true = torch.tensor([[1.0, 0.0]]).expand(8, 1, 2)
    said = {"episodes": np.arange(8), "seed": 0}
    figure = novelty_figure(3 * true, true, true, data, **said)
    assert (figure.planned, figure.recorded) == pytest.approx((3.0, 1.0))
    assert figure.findings()[0].is_bad
    assert not novelty_figure(true, true, true, data, **said).findings()[0].is_bad
