"""Gradient descent: Adam's very steps, several valleys, costs that have no gradient."""

import pytest
import torch
from torch import Tensor

from planners import CEM, Gradient, Plan, Polished, RandomShooting
from tests.planners.world import BOUNDS, A, T, generator, optimum, random_goals, reach

WIDE = {"low": torch.full((A,), -100.0), "high": torch.full((A,), 100.0)}


def test_the_steps_are_those_of_adam() -> None:
    cost = reach(random_goals(3))
    start = torch.randn(3, T, A, generator=generator())
    planner = Gradient(horizon=T, num_starts=1, iterations=20, learning_rate=0.001)
    plan = planner.plan(cost, **WIDE, batch_size=3, warm_start=start, keep_history=True)
    leaf = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([leaf], lr=0.1)  # 0.001 of half a range of 100
    for record in plan.history:
        torch.testing.assert_close(record.candidates[:, 0], leaf.detach(), rtol=1e-4, atol=1e-4)
        adam.zero_grad()
        cost(leaf[:, None]).sum().backward()
        adam.step()


def test_the_number_of_starts_does_not_change_the_first_ones_way() -> None:
    def way(num_starts: int) -> list[Tensor]:
        planner = Gradient(horizon=T, num_starts=num_starts, iterations=5)
        plan = planner.plan(reach(random_goals(1)), **BOUNDS, keep_history=True)
        return [record.candidates[:, 0] for record in plan.history]

    for alone, among_others in zip(way(1), way(6), strict=True):
        torch.testing.assert_close(alone, among_others)


def two_valleys(actions: Tensor) -> Tensor:
    """A shallow valley at -0.5 and a deep one at 0.5, in each entry."""
    return ((actions**2 - 0.25) ** 2 - 0.05 * actions).sum((-1, -2))


def test_other_starts_find_a_deeper_valley() -> None:
    bounds = {"low": torch.tensor([-1.0]), "high": torch.tensor([1.0])}

    def plan(num_starts: int) -> Plan:
        planner = Gradient(horizon=2, num_starts=num_starts, learning_rate=0.02)
        start = torch.full((1, 2, 1), -0.6)
        return planner.plan(two_valleys, **bounds, warm_start=start, generator=generator())

    torch.testing.assert_close(plan(1).actions, torch.full((1, 2, 1), -0.45), rtol=0, atol=0.05)
    torch.testing.assert_close(plan(16).actions, torch.full((1, 2, 1), 0.55), rtol=0, atol=0.05)


def test_polish_starts_at_the_best_and_ends_at_the_bottom() -> None:
    goals = random_goals(8)
    cost, search = reach(goals), CEM(horizon=T)
    options = {**BOUNDS, "batch_size": 8}
    found = search.plan(cost, generator=generator(), **options)
    polish = Gradient(horizon=T, num_starts=1, learning_rate=0.02)
    planner = Polished(search=search, polish=polish)
    plan = planner.plan(cost, generator=generator(), keep_history=True, **options)
    assert torch.equal(plan.history[3].candidates[:, 0], found.actions)
    best = cost(optimum(goals)[:, None])[:, 0]
    assert (plan.cost - best).mean() < 0.1 * (found.cost - best).mean()


@pytest.mark.parametrize(
    "without",
    [
        lambda actions: actions.detach().sum((-1, -2)),
        torch.no_grad()(lambda actions: actions.sum((-1, -2))),
        lambda actions: torch.from_numpy(actions.detach().numpy().sum((-1, -2))),
        lambda actions: torch.ones(actions.shape[:2], requires_grad=True),
    ],
)
def test_costs_without_gradient_are_refused(without) -> None:
    with pytest.raises(ValueError, match="differentiably on the actions, got .* without a grad"):
        Gradient(horizon=T).plan(without, **BOUNDS)


def test_a_gradient_that_is_not_finite_stops_its_sequence_only() -> None:
    # The root's gradient is infinite at 0, where the first start is, and fine elsewhere.
    bounds = {"low": torch.tensor([-1.0]), "high": torch.tensor([1.0])}

    def cost(actions: Tensor) -> Tensor:
        return ((actions - 0.3).square() + 0.5 * actions.abs().sqrt()).sum((-1, -2))

    plan = Gradient(horizon=1).plan(cost, **bounds, generator=generator(), keep_history=True)
    ways = torch.stack([record.candidates[0, :, 0, 0] for record in plan.history])
    assert torch.isfinite(ways).all() and (ways[:, 0] == 0).all()
    assert (ways[0, 1:] != ways[-1, 1:]).all()


def test_different_horizons_are_refused() -> None:
    with pytest.raises(ValueError, match="polish: wanted the horizon of search = 3, got 4"):
        Polished(search=RandomShooting(horizon=3), polish=Gradient(horizon=4))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("horizon", 0),
        ("num_starts", 0),
        ("iterations", 1.5),
        ("learning_rate", 0),
        ("init_std", -1),
    ],
)
def test_wrong_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: wanted .* got"):
        Gradient(**{"horizon": T, name: value})
