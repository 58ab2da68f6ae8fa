"""The plain planner, baseline of the fast one: other computations, the same numbers."""

import dataclasses

import pytest
import torch

from planners import CEM
from vjepa_wm.benchmarks.rollout import Problem, RolloutSettings, world_models
from vjepa_wm.costs import GoalCost
from vjepa_wm.token_predictor import TokenPredictor

SETTINGS = RolloutSettings(
    size="tiny",
    contexts=(1, 3),
    candidates={2: 3},
    dtype=torch.float32,
    memory_mb=64.0,
    repeats=1,
    device="cpu",
)


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("horizon", [1, 5, 8])
def test_plans_are_those_of_the_cached_planner(context: int, horizon: int) -> None:
    """Of several rounds, each drawn around the elites of the one before."""
    ours, plain = world_models(SETTINGS)
    problem = Problem.drawn(ours, context=context, device="cpu")
    planner = CEM(horizon=horizon, num_samples=12, num_elites=3, iterations=3, returns="mean")
    found, wanted = (problem.planning(planner, model)() for model in (ours, plain))
    torch.testing.assert_close(found.actions, wanted.actions, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.cost, wanted.cost, atol=1e-5, rtol=1e-5)
    assert found.std.min() > 0  # the candidates differed, and the cost told them apart


def test_chunks_change_nothing() -> None:
    ours, plain = world_models(dataclasses.replace(SETTINGS, memory_mb=1e-3))
    problem = Problem.drawn(ours, context=3, device="cpu")
    planner = CEM(horizon=2, num_samples=6, num_elites=2, iterations=2)
    found, wanted = (problem.planning(planner, model)() for model in (ours, plain))
    torch.testing.assert_close(found.actions, wanted.actions, atol=1e-4, rtol=1e-4)


def test_several_problems_and_costs_of_poses() -> None:
    """Poses that were moved one by one are those moved together."""
    ours, plain = world_models(SETTINGS)
    one = Problem.drawn(ours, context=2, device="cpu")
    context = torch.cat([one.context, one.context.flip(1)])
    past, proprio = one.past_actions.repeat(2, 1, 1), one.proprio.repeat(2, 1, 1)
    actions = 0.1 * torch.randn(2, 4, 3, 7, generator=torch.Generator().manual_seed(0))
    arguments = (context, past, actions, proprio)

    def last_pose(latents: torch.Tensor, goal: torch.Tensor, proprio: torch.Tensor) -> torch.Tensor:
        return proprio[:, :, -1].square().sum(-1)

    for cost in (GoalCost(distance="l1", over_steps="sum"), last_pose):
        goal = one.goal.repeat(2, 1, 1)
        found, wanted = (model.costs(*arguments, goal=goal, cost=cost) for model in (ours, plain))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        assert found.std() > 0


def test_both_use_the_same_tensors() -> None:
    ours, plain = world_models(SETTINGS)
    assert isinstance(plain.predictor, TokenPredictor)
    pairs = zip(ours.predictor.parameters(), plain.predictor.parameters(), strict=True)
    assert all(own.data_ptr() == other.data_ptr() for own, other in pairs)
