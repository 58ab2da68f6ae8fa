"""The agent whose frames are simulated: with an encoder that sees all, it needs no predictor."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from planners import CEM
from tests.evaluation.fake_env import STEP_M, PointGoalEnv
from tests.evaluation.test_episodes import POINT, tasks_of, without_time
from vjepa_wm.agent import MPCAgent
from vjepa_wm.costs import Effort, GoalCost, ProprioCost
from vjepa_wm.data.recorder import make_env
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.episodes import Episode, EpisodeRunner
from vjepa_wm.evaluation.true_dynamics import (
    SimulatedFutures,
    TrueDynamicsAgent,
    reads_last_frame_only,
)
from vjepa_wm.world_model import ActionSpec, WorldModel


class Eye(nn.Module):
    """Latents (B, T, 1, 2): the position that the first pixel tells. Counts frames."""

    frame_bytes = 2**24  # a hundred frames do not fit at once

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(80.0))
        self.num_frames = 0

    def encode(self, pixels: Tensor) -> Tensor:
        self.num_frames += len(pixels)
        return (pixels[:, :, 0, :1, :2].float() - 128) / self.scale.detach()


class Blind:
    """A predictor nobody may ask."""

    max_frames = 8
    proprio_dim = None

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim


def seeing(*, frame_skip: int = 1, actions_per_step: int = 1) -> WorldModel:
    """A world model without dynamics."""
    spec = ActionSpec((-1.0, -1.0), (1.0, 1.0), frame_skip, actions_per_step=actions_per_step)
    return WorldModel(Eye(), Blind(spec.width), action_spec=spec)


def cost(over_steps: str = "sum") -> GoalCost:
    return GoalCost(distance="l2", over_steps=over_steps)


def run(num_envs: int, over_steps: str = "sum") -> list[Episode]:
    runner = EpisodeRunner(POINT, num_envs=num_envs, image_size=8)
    agent = TrueDynamicsAgent(
        runner.envs,
        seeing(),
        CEM(horizon=3, num_samples=32),
        cost(over_steps),
        context_len=1,
        replan_every=1,
    )
    return runner.run(agent, tasks_of("far", 4), max_steps=30)


def test_it_reaches_every_goal_whatever_the_batch() -> None:
    episodes = run(4)
    assert all(episode.is_success for episode in episodes)
    assert without_time(episodes) == without_time(run(3))


def point_at(x: float, y: float) -> PointGoalEnv:
    env = make_env(POINT, image_size=8).unwrapped
    env.reset(options={"start": np.array([x, y, 0.0]), "goal": np.ones(3)})
    return env


def test_costs_are_those_of_the_frames_that_would_be_seen() -> None:
    """Of each problem's own environment, actions repeated, and nothing is disturbed."""
    envs, world = [point_at(0.0, 0.1), point_at(-0.3, 0.2)], seeing(frame_skip=2)
    actions = torch.rand(2, 5, 3, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    goal = torch.tensor([[[0.5, 0.5]], [[0.0, -0.5]]])
    starts = torch.tensor(np.stack([env.position for env in envs])).float()
    places = starts[:, None, None] + 2 * STEP_M * actions.cumsum(dim=2)
    places = ((128 + 80 * places).round() - 128) / 80  # as pixels tell it
    wanted = (places - goal[:, None]).square().mean(dim=-1)  # (B, N, T)
    futures = SimulatedFutures(envs, world)
    summed = futures.costs(actions, goal=goal, cost=cost("sum"))
    torch.testing.assert_close(summed, wanted.mean(dim=-1), atol=1e-5, rtol=0)
    assert world.encoder.num_frames == 2 * 5 * 3
    last = futures.costs(actions, goal=goal, cost=cost("last"))
    torch.testing.assert_close(last, wanted[..., -1], atol=1e-5, rtol=0)
    assert world.encoder.num_frames == 2 * 5 * (3 + 1)  # the frames before are not even drawn
    assert [env.num_steps for env in envs] == [0, 0]


def test_actions_of_a_step_are_taken_one_after_another() -> None:
    """With a frame after the last of them."""
    actions = torch.rand(1, 5, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    goal = torch.tensor([[[0.5, 0.5]]])
    found = []
    for count in (1, 2):
        world = seeing(actions_per_step=count)
        futures = SimulatedFutures([point_at(0.0, 0.1)], world)
        steps = actions.reshape(1, 5, 4 // count, 2 * count)
        found.append(futures.costs(steps, goal=goal, cost=cost("last")))
        assert world.encoder.num_frames == 5
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    futures.costs(steps, goal=goal, cost=cost("sum"))
    assert world.encoder.num_frames == 5 + 5 * 2


def test_costs_that_are_not_known_get_every_frame() -> None:
    assert reads_last_frame_only(cost("last"))
    assert not reads_last_frame_only(cost("sum"))
    assert not reads_last_frame_only(cost("last") + Effort())
    assert not reads_last_frame_only(ProprioCost(over_steps="last"))


def test_proprio_is_the_true_one() -> None:
    """A cost on proprio gets what the robot would sense, where the world model knows proprio."""
    world = seeing()
    world.integrate = torch.nn.Identity()  # as where the predictor takes proprio
    actions = torch.ones(1, 2, 3, 2)

    def farthest(latents: Tensor, goal: Tensor, proprio: Tensor) -> Tensor:
        assert proprio.shape == (1, 2, 3, 2)
        return proprio[..., 0].amax(dim=-1)

    futures = SimulatedFutures([point_at(0.2, 0.0)], world)
    found = futures.costs(actions, goal=torch.zeros(1, 1, 2), cost=farthest)
    torch.testing.assert_close(found, torch.full((1, 2), 0.5))


def test_an_environment_that_cannot_be_simulated_is_refused(monkeypatch) -> None:
    monkeypatch.delattr(PointGoalEnv, "simulate_obs")
    envs = [make_env(POINT, image_size=8)]
    with pytest.raises(DataError, match="fake/PointGoal-v0 has no simulate_obs"):
        TrueDynamicsAgent(envs, seeing(), CEM(horizon=3), cost(), context_len=1, replan_every=1)


def test_the_noise_is_that_of_the_agent_it_stands_beside() -> None:
    """Its first plan is the one `MPCAgent` makes with a predictor that is right."""
    env = point_at(0.0, 0.0)
    world = seeing()
    world.observe = lambda context, past_actions, proprio: SimulatedFutures([env], world)
    options = {"context_len": 1, "replan_every": 1, "seed": 5}
    planner = CEM(horizon=3, num_samples=16)
    wrapped = make_env(POINT, image_size=8)
    wrapped.unwrapped.reset(options={"start": np.zeros(3), "goal": np.ones(3)})
    agents = [
        MPCAgent(world, planner, cost(), **options),
        TrueDynamicsAgent([wrapped], world, planner, cost(), **options),
    ]
    obs = {"pixels": env._obs(env.position)["pixels"][None]}
    goal = env._obs(np.array([0.4, -0.2]))["pixels"][None]
    first, second = [agent.reset(goal=goal) or agent.act(obs) for agent in agents]
    np.testing.assert_array_equal(first, second)
