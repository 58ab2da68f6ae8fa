"""Constraints: nothing that is evaluated or returned breaks them, and the search goes on inside."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from planners import CEM, ICEM, MPPI, Constrained, Gradient, Planner, Polished, RandomShooting
from tests.planners.world import T, generator, total

LOW, HIGH = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([1.0, 0.5, 3.0])
BOUNDS = {"low": LOW, "high": HIGH}
INSIDE: dict[str, Planner] = {
    "cem": CEM(horizon=T),
    "cem_mean": CEM(horizon=T, returns="mean"),
    "icem": ICEM(horizon=T),
    "mppi": MPPI(horizon=T),
    "gradient": Gradient(horizon=T),
    "polished": Polished(search=CEM(horizon=T), polish=Gradient(horizon=T, num_starts=1)),
    "shooting": RandomShooting(horizon=T),
    "nested": Constrained(planner=CEM(horizon=T), low=[-0.3, -2.0, -0.1]),
}


@pytest.fixture(params=INSIDE)
def inside(request: pytest.FixtureRequest) -> Planner:
    return INSIDE[request.param]


def to_goal(goal: list[float]) -> Callable[[Tensor], Tensor]:
    """Return the squared distance of every step's action to one point."""
    return lambda actions: (actions - torch.tensor(goal)).square().sum((-1, -2))


def ball(actions: Tensor) -> Tensor:
    """Allow actions of length 0.5 at most."""
    return actions * (0.5 / actions.norm(dim=-1, keepdim=True).clamp(min=0.5))


def watched(cost: Callable[[Tensor], Tensor]) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Return the cost and the list into which it puts what it sees."""
    seen: list[Tensor] = []

    def watching(actions: Tensor) -> Tensor:
        seen.append(actions.detach().clone())
        return cost(actions)

    return watching, seen


def test_entries_are_held_and_the_others_searched_as_if_alone(inside: Planner) -> None:
    if isinstance(inside, Constrained):
        pytest.skip("its own bounds are for three entries")
    cost, seen = watched(to_goal([0.3, -0.4, 1.0]))
    planner = Constrained(planner=inside, low=[-0.5, 0.25, -3.0], high=[1.0, 0.25, 0.5])
    options = {"batch_size": 2, "keep_history": True}
    start = torch.tensor([0.6, 0.0, -1.0]).expand(2, T, 3)
    plan = planner.plan(cost, **BOUNDS, warm_start=start, generator=generator(), **options)
    low, high = torch.tensor([-0.5, -3.0]), torch.tensor([1.0, 0.5])
    goal = torch.tensor([0.3, 1.0])
    alone = inside.plan(
        lambda actions: (actions - goal).square().sum((-1, -2)) + T * 0.65**2,
        low=low,
        high=high,
        warm_start=start[..., [0, 2]],
        generator=generator(),
        **options,
    )
    for actions in [*seen, plan.actions, plan.mean, plan.history[0].mean]:
        assert (actions[..., 1] == 0.25).all()
        assert (actions[..., [0, 2]] >= low).all() and (actions[..., [0, 2]] <= high).all()
    torch.testing.assert_close(plan.actions[..., [0, 2]], alone.actions, rtol=0, atol=1e-4)
    torch.testing.assert_close(plan.std[..., [0, 2]], alone.std, rtol=0, atol=1e-4)
    assert (plan.std[..., 1] == 0).all() and (plan.history[0].std[..., 1] == 0).all()


def test_a_projection_holds_for_all_that_is_tried_and_returned(inside: Planner) -> None:
    cost, seen = watched(to_goal([0.9, 0.4, 2.0]))
    outside = torch.full((2, T, 3), 0.5)
    planner = Constrained(planner=inside, project=ball)
    plan = planner.plan(cost, **BOUNDS, batch_size=2, warm_start=outside, generator=generator())
    for actions in [*seen, plan.actions]:
        assert actions.norm(dim=-1).max() <= 0.5 + 1e-6
    torch.testing.assert_close(plan.cost, cost(plan.actions[:, None])[:, 0])


@pytest.mark.parametrize(
    "inside",
    [
        CEM(horizon=T, iterations=20, min_std=0.01),
        CEM(horizon=T, iterations=20, min_std=0.01, returns="mean"),
        ICEM(horizon=T, iterations=20, min_std=0.01, sample_decay=1.0),
        MPPI(horizon=T, iterations=40, init_std=0.2),
        Gradient(horizon=T, iterations=60),
    ],
)
def test_the_optimum_on_the_border_is_found(inside: Planner) -> None:
    goal = torch.tensor([0.9, 0.4, 2.0])
    cost = to_goal(goal.tolist())
    plan = Constrained(planner=inside, project=ball).plan(cost, **BOUNDS, generator=generator())
    best = cost((0.5 * goal / goal.norm()).expand(1, 1, T, 3))
    start = cost(torch.zeros(1, 1, T, 3))
    assert (plan.cost - best) / (start - best) < 0.06


@pytest.mark.parametrize("name", ["cem", "cem_mean", "mppi"])
def test_a_mean_of_allowed_actions_that_is_not_allowed_is_moved(name: str) -> None:
    """A ring: the mean of two points on it lies within it."""

    def ring(actions: Tensor) -> Tensor:
        safe = torch.where(actions.norm(dim=-1, keepdim=True) > 0, actions, 1e-3)
        return 0.5 * safe / safe.norm(dim=-1, keepdim=True)

    cost, seen = watched(to_goal([0.0, 0.0, 2.0]))
    plan = Constrained(planner=INSIDE[name], project=ring).plan(cost, **BOUNDS)
    for actions in [*seen, plan.actions]:
        lengths = actions.norm(dim=-1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, 0.5))


def test_constraints_inside_one_another_hold_together() -> None:
    inner = Constrained(planner=CEM(horizon=T), low=[-1.0, 0.0, -0.1], high=[1.0, 0.0, 3.0])
    cost, seen = watched(total)
    plan = Constrained(planner=inner, project=ball).plan(cost, **BOUNDS)
    for actions in [*seen, plan.actions]:
        assert (actions[..., 1] == 0).all() and (actions[..., 2] >= -0.1).all()
        assert actions.norm(dim=-1).max() <= 0.5 + 1e-6
    against = Constrained(planner=CEM(horizon=T), low=[-1.0, -2.0, 0.4])
    with pytest.raises(ValueError, match="project: wanted finite actions within"):
        Constrained(planner=against, project=ball).plan(total, **BOUNDS)


def test_plans_do_not_depend_on_their_batch() -> None:
    goals = torch.randn(3, 1, 1, 3, generator=generator())
    planner = Constrained(planner=ICEM(horizon=T), low=[0.0, -2.0, 0.0], project=ball)
    seeds = torch.arange(3)

    def plan(part: slice) -> Tensor:
        def cost(actions: Tensor) -> Tensor:
            return (actions - goals[part]).square().sum((-1, -2))

        count = len(seeds[part])
        return planner.plan(cost, **BOUNDS, batch_size=count, seeds=seeds[part]).actions

    alone = torch.cat([plan(slice(b, b + 1)) for b in range(3)])
    torch.testing.assert_close(plan(slice(None)), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("project", "message"),
    [
        (
            lambda actions: actions * torch.nan,
            r"project: wanted finite actions within .* got \[nan",
        ),
        (lambda actions: actions + 5, "project: wanted finite actions within .* got"),
        (lambda actions: actions[:, :1], r"project: wanted actions \(B, N, T, A\) = .* got shape"),
        (lambda actions: None, "project: wanted actions .* got a NoneType"),
    ],
)
def test_wrong_projections_are_refused(project: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Constrained(planner=CEM(horizon=T), project=project).plan(total, **BOUNDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": [0.0, 0.0]}, "low: wanted A = 3 numbers, got 2"),
        ({"low": [0.0, 0.0, 0.0], "high": [1.0]}, "high: wanted 3 numbers, .* got 1"),
        ({"low": [0.0, 0.4, 0.0], "high": [1.0, 0.3, 1.0]}, "wanted low <= high everywhere"),
        ({"low": [2.0, 0.0, 0.0]}, "wanted bounds that overlap"),
        ({"low": [0.0] * 3, "high": [0.0] * 3}, "wanted low < high in some entry"),
        ({"low": "abc"}, "low: wanted a number or a list"),
    ],
)
def test_wrong_bounds_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Constrained(planner=CEM(horizon=T), **options).plan(total, **BOUNDS)


def test_lists_of_the_planner_inside_are_for_the_entries_searched() -> None:
    low, high = [-1.0, 0.0, -3.0], [1.0, 0.0, 3.0]
    planner = Constrained(planner=CEM(horizon=T, init_std=[0.5, 0.1]), low=low, high=high)
    plan = planner.plan(total, **BOUNDS, deadline_ms=1e-6)
    assert plan.actions.shape == (1, T, 3)
    wrong = Constrained(planner=CEM(horizon=T, init_std=[0.5, 0.1, 0.5]), low=low, high=high)
    with pytest.raises(ValueError, match="init_std: wanted 1 number or 2, .* got 3"):
        wrong.plan(total, **BOUNDS)
