"""Goal costs: closed forms, and which steps of a rollout count."""

import pytest
import torch
from torch import Tensor

from vjepa_wm.costs import DISTANCES, GoalCost
from vjepa_wm.errors import UnknownNameError
from vjepa_wm.metric import TemporalMetric


@pytest.fixture
def goal() -> Tensor:
    """Goals (2, 3, 4)."""
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def approaching(goal: Tensor) -> Tensor:
    """Return rollouts (2, 5, 3, 3, 4) whose offsets from the goal are n * (3, 2, 1)."""
    offset = torch.arange(5.0).view(5, 1) * torch.tensor([3.0, 2.0, 1.0])
    return goal[:, None, None] + offset.view(1, 5, 3, 1, 1)


@pytest.mark.parametrize(
    ("distance", "over_steps", "wanted"),
    [
        ("l1", "last", [0.0, 1.0, 2.0, 3.0, 4.0]),
        ("l1", "sum", [0.0, 2.0, 4.0, 6.0, 8.0]),
        ("l2", "last", [0.0, 1.0, 4.0, 9.0, 16.0]),
        ("l2", "sum", [0.0, 14 / 3, 56 / 3, 42.0, 224 / 3]),
    ],
)
def test_closed_forms(goal: Tensor, distance: str, over_steps: str, wanted: list[float]) -> None:
    costs = GoalCost(distance=distance, over_steps=over_steps)(approaching(goal), goal)
    torch.testing.assert_close(costs, torch.tensor([wanted, wanted]), atol=1e-4, rtol=1e-4)


def test_cosine_knows_directions_only(goal: Tensor) -> None:
    """0 for the same direction, 1 for a right angle, 2 for the opposite; scale is nothing."""
    across = torch.stack([-goal[..., 1], goal[..., 0], -goal[..., 3], goal[..., 2]], dim=-1)
    latents = torch.stack([7 * goal, across, -0.1 * goal], dim=1).unsqueeze(2)
    costs = GoalCost(distance="cosine", over_steps="last")(latents, goal)
    torch.testing.assert_close(costs, torch.tensor([[0.0, 1.0, 2.0]] * 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("distance", [*DISTANCES, "metric"])
def test_last_forgets_the_way_and_sum_rewards_being_early(goal: Tensor, distance: str) -> None:
    torch.manual_seed(0)
    metric = TemporalMetric(
        latent_dim=4,
        num_patches=3,
        hidden_dim=8,
        embed_dim=4,
        max_steps=5,
    ).requires_grad_(False)
    start = goal + torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    early = torch.stack([start, goal, goal], dim=1)
    late = torch.stack([start, start, goal], dim=1)
    astray = torch.stack([goal, goal, start], dim=1)
    latents = torch.stack([early, late, astray], dim=1)
    last = GoalCost(distance=distance, over_steps="last", metric=metric)(latents, goal)
    assert last[:, 0].tolist() == pytest.approx(last[:, 1].tolist(), abs=1e-6)
    assert (last[:, 2] > last[:, 0] + 0.01).all()
    early_cost, late_cost, _ = GoalCost(distance=distance, over_steps="sum", metric=metric)(
        latents, goal
    ).T
    assert (early_cost < late_cost - 0.001).all()


def test_each_problem_has_its_own_goal(goal: Tensor) -> None:
    latents = goal[:, None, None].expand(2, 3, 4, 3, 4)
    cost = GoalCost(distance="l1", over_steps="sum")
    assert float(cost(latents, goal).max()) == 0
    assert float(cost(latents, goal.flip(0)).min()) > 0.1


def test_an_unknown_distance_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'cosin'. Did you mean 'cosine'"):
        GoalCost(distance="cosin", over_steps="last")


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a temporal metric"):
        GoalCost(distance="metric", over_steps="last")
    with pytest.raises(ValueError, match="over_steps must be last or sum, got 'first'"):
        GoalCost(distance="l1", over_steps="first")
