"""What every planner keeps, whatever it does inside, in a world with a known optimum."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import planners
from planners import (
    CEM,
    ICEM,
    MPPI,
    CategoricalCEM,
    Constrained,
    Gradient,
    Planner,
    Polished,
    RandomShooting,
    shift,
)
from tests.planners.world import (
    HIGH,
    LOW,
    A,
    T,
    generator,
    optimum,
    random_goals,
    reach,
)

PLANNERS: dict[str, Planner] = {
    "cem": CEM(horizon=T),
    "icem": ICEM(horizon=T),
    "mppi": MPPI(horizon=T),
    "gradient": Gradient(horizon=T),
    "polished": Polished(search=CEM(horizon=T), polish=Gradient(horizon=T, num_starts=1)),
    "constrained": Constrained(planner=CEM(horizon=T), project=lambda actions: actions),
    "shooting": RandomShooting(horizon=T),
}
SEEDS = torch.tensor([1, 2])
LONG = {"num_samples": 256, "iterations": 25, "min_std": 0.01}
THOROUGH: dict[str, Planner] = {
    "cem": CEM(horizon=T, num_elites=24, **LONG),
    "icem": ICEM(horizon=T, num_elites=24, sample_decay=1.0, **LONG),
    "mppi": MPPI(horizon=T, **LONG),
    "gradient": Gradient(horizon=T, iterations=100),
    "polished": Polished(search=CEM(horizon=T), polish=Gradient(horizon=T, iterations=100)),
    "constrained": Constrained(planner=CEM(horizon=T, num_elites=24, **LONG), low=[-1.0, -2.0]),
}


def test_every_planner_exported_is_held_to_the_contract() -> None:
    exported = {getattr(planners, name) for name in planners.__all__}
    with_plan = {item for item in exported if hasattr(item, "plan") and item is not Planner}
    assert with_plan == {type(planner) for planner in PLANNERS.values()} | {CategoricalCEM}


@pytest.fixture(params=PLANNERS)
def planner(request: pytest.FixtureRequest) -> Planner:
    return PLANNERS[request.param]


@pytest.mark.parametrize("name", THOROUGH)
def test_the_known_optimum_is_reached(name: str) -> None:
    goals = torch.tensor([[1.5, -2.0], [-3.0, 1.0], [20.0, -20.0]])  # the last one is out of reach
    cost = reach(goals)
    plan = THOROUGH[name].plan(cost, low=LOW, high=HIGH, batch_size=3, generator=generator())
    best = cost(optimum(goals)[:, None])[:, 0]
    torch.testing.assert_close(plan.cost, best, rtol=1e-2, atol=3e-2)
    torch.testing.assert_close(plan.actions, optimum(goals), rtol=0, atol=0.15)


def test_shooting_approaches_the_optimum_with_its_samples() -> None:
    cost = reach(random_goals(16))

    def mean_cost(num_samples: int) -> float:
        planner = RandomShooting(horizon=T, num_samples=num_samples)
        plan = planner.plan(cost, low=LOW, high=HIGH, batch_size=16, generator=generator())
        return float(plan.cost.mean())

    best = float(cost(optimum(random_goals(16))[:, None]).mean())
    assert best < mean_cost(4096) < mean_cost(64) < mean_cost(4)


def test_cost_belongs_to_the_actions_returned(planner: Planner) -> None:
    cost = reach(random_goals(4))
    plan = planner.plan(cost, low=LOW, high=HIGH, batch_size=4, generator=generator())
    torch.testing.assert_close(plan.cost, cost(plan.actions[:, None])[:, 0])


def test_candidates_and_plans_stay_inside_the_bounds(planner: Planner) -> None:
    seen = []

    def outwards(actions: Tensor) -> Tensor:
        seen.append(actions)
        return -actions.abs().sum((-1, -2))

    outside = torch.full((2, T, A), 9.0)
    plan = planner.plan(outwards, low=LOW, high=HIGH, batch_size=2, warm_start=outside)
    for actions in [*seen, plan.actions, plan.mean]:
        assert (actions >= LOW).all() and (actions <= HIGH).all()
    assert any((actions == HIGH).any() for actions in seen)


def test_same_seed_same_plan_and_other_seed_another(planner: Planner) -> None:
    def run(seed: int) -> Tensor:
        cost = reach(random_goals(2))
        options = {"low": LOW, "high": HIGH, "batch_size": 2}
        plan = planner.plan(cost, generator=generator(seed), **options)
        return torch.stack([plan.actions, plan.mean, plan.std])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_a_plan_does_not_depend_on_its_batch(planner: Planner) -> None:
    goals, seeds = random_goals(5), torch.tensor([3, 1, 2**62, -7, 3])
    together = planner.plan(reach(goals), low=LOW, high=HIGH, batch_size=5, seeds=seeds)
    for b in range(5):
        cost = reach(goals[b : b + 1])
        alone = planner.plan(cost, low=LOW, high=HIGH, seeds=seeds[b : b + 1])
        torch.testing.assert_close(alone.actions[0], together.actions[b], rtol=0, atol=1e-6)


def test_a_batch_is_the_same_problems_one_after_another(planner: Planner) -> None:
    goals = random_goals(3)
    bounds = {"low": LOW, "high": HIGH}
    together = planner.plan(reach(goals), batch_size=3, generator=generator(), **bounds)
    one_generator = generator()
    for b in range(3):
        alone = planner.plan(reach(goals[b : b + 1]), generator=one_generator, **bounds)
        torch.testing.assert_close(alone.actions[0], together.actions[b], rtol=0, atol=1e-6)


def test_the_global_seed_counts_where_no_generator_is_given(planner: Planner) -> None:
    def run() -> Tensor:
        torch.manual_seed(5)
        return planner.plan(reach(random_goals(1)), low=LOW, high=HIGH).actions

    assert torch.equal(run(), run())


def test_warm_start_is_tried_first_and_helps(planner: Planner) -> None:
    goals = random_goals(8)
    cost = reach(goals)
    options = {"low": LOW, "high": HIGH, "batch_size": 8}
    cold = planner.plan(cost, generator=generator(), **options)
    warm = planner.plan(cost, generator=generator(), warm_start=optimum(goals), **options)
    best = cost(optimum(goals)[:, None])[:, 0]
    torch.testing.assert_close(warm.cost, best)
    assert (warm.cost <= cold.cost).all() and warm.cost.mean() < cold.cost.mean()


def test_no_history_unless_asked_for(planner: Planner) -> None:
    assert planner.plan(reach(random_goals(1)), low=LOW, high=HIGH).history == ()


def test_a_history_shows_what_was_tried_and_what_it_cost(planner: Planner) -> None:
    cost = reach(random_goals(2))
    plan = planner.plan(cost, low=LOW, high=HIGH, batch_size=2, keep_history=True)
    assert plan.history
    for record in plan.history:
        torch.testing.assert_close(record.costs, cost(record.candidates))
        elites = cost(record.elites(3))
        assert elites.shape[1] == min(3, record.costs.shape[1])
        assert (elites.diff(dim=1) >= 0).all()
        torch.testing.assert_close(elites[:, 0], record.costs.amin(1))
        assert record.mean.shape == record.std.shape == (2, T, A)
    so_far = torch.stack([record.cost for record in plan.history])
    assert (so_far.diff(dim=0) <= 0).all() and (plan.cost <= so_far[-1]).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_plans_are_the_same_in_every_gradient_mode(mode: Callable, planner: Planner) -> None:
    def run() -> Tensor:
        return planner.plan(reach(random_goals(2)), low=LOW, high=HIGH, batch_size=2, seeds=SEEDS)

    with mode():
        plan = run()
    assert torch.equal(plan.actions, run().actions) and not plan.actions.requires_grad


def test_double_precision_stays(planner: Planner) -> None:
    low, high = LOW.double(), HIGH.double()
    plan = planner.plan(reach(random_goals(1).double()), low=low, high=high, keep_history=True)
    for values in (plan.actions, plan.cost, plan.mean, plan.std, plan.history[0].candidates):
        assert values.dtype == torch.float64


def test_deadline_returns_the_best_so_far(
    monkeypatch: pytest.MonkeyPatch, planner: Planner
) -> None:
    calls, goals = [], random_goals(1)
    monkeypatch.setattr("planners.search.time.perf_counter", lambda: 0.03 * len(calls))

    def takes_30_ms(actions: Tensor) -> Tensor:
        calls.append(actions)
        return reach(goals)(actions)

    plan = planner.plan(takes_30_ms, low=LOW, high=HIGH, deadline_ms=100)
    assert len(calls) == 3  # a fourth would end at 120 ms
    cheapest = min(reach(goals)(actions).min() for actions in calls)
    torch.testing.assert_close(plan.cost[0], cheapest)


def test_one_iteration_runs_however_short_the_deadline(planner: Planner) -> None:
    plan = planner.plan(reach(random_goals(1)), low=LOW, high=HIGH, deadline_ms=1e-6)
    assert torch.isfinite(plan.cost).all()


def test_non_finite_costs_lose_and_are_counted(planner: Planner) -> None:
    bad = []

    def cost(actions: Tensor) -> Tensor:
        costs = reach(random_goals(3))(actions)
        costs[:, 1::3] = torch.nan
        costs[0, 2:4] = -torch.inf
        bad.append(int((~torch.isfinite(costs)).sum()))
        return costs

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = planner.plan(cost, low=LOW, high=HIGH, batch_size=3)
    assert len(caught) == 1 and str(caught[0].message).startswith(f"{sum(bad)} costs")
    assert caught[0].filename == __file__
    for values in (plan.actions, plan.cost, plan.mean, plan.std):
        assert torch.isfinite(values).all()


def test_a_problem_without_any_finite_cost_raises(planner: Planner) -> None:
    def cost(actions: Tensor) -> Tensor:
        costs = actions.sum((-1, -2))
        costs[1] = torch.nan
        return costs

    with pytest.raises(RuntimeError, match=r"1 of 3 problems \(first: \[1\]\)"):
        planner.plan(cost, low=LOW, high=HIGH, batch_size=3)


def test_a_warm_start_that_is_no_tensor_is_refused(planner: Planner) -> None:
    with pytest.raises(ValueError, match=r"warm_start: wanted shape \(B, T, A\) = .* got a list"):
        planner.plan(reach(random_goals(1)), low=LOW, high=HIGH, warm_start=[[0.0]])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda costs: costs.T,
        lambda costs: costs.mean(1),
        lambda costs: costs[..., None],
        lambda costs: costs.long(),
        lambda costs: costs.tolist(),
        lambda costs: costs.to("meta"),
    ],
)
def test_wrong_costs_are_refused(wrong: Callable, planner: Planner) -> None:
    with pytest.raises(ValueError, match=r"wanted floating costs \(B, N\) = \(2, .* got"):
        planner.plan(lambda actions: wrong(actions.sum((-1, -2))), low=LOW, high=HIGH, batch_size=2)


def test_half_precision_costs_are_fine(planner: Planner) -> None:
    plan = planner.plan(lambda actions: actions.sum((-1, -2)).bfloat16(), low=LOW, high=HIGH)
    assert plan.cost.dtype == plan.actions.dtype == torch.float32


def test_no_gradients_are_recorded(planner: Planner) -> None:
    weight = torch.ones((), requires_grad=True)
    plan = planner.plan(lambda actions: weight * actions.sum((-1, -2)), low=LOW, high=HIGH)
    assert not plan.cost.requires_grad


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([0.0, 0.0], [1.0, 0.0], "low < high"),
        ([0.0, -math.inf], [1.0, 1.0], "finite"),
        ([0.0, 0.0], [1.0, math.nan], "finite"),
        ([0.0], [1.0, 1.0], "same shape"),
        ([[0.0]], [[1.0]], r"shape \(A,\)"),
        ([0], [1], "float32"),
    ],
)
def test_wrong_bounds_are_refused(low: list, high: list, message: str, planner: Planner) -> None:
    with pytest.raises(ValueError, match=message):
        planner.plan(
            lambda actions: actions.sum((-1, -2)), low=torch.tensor(low), high=torch.tensor(high)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: wanted an int of at least 1, got 0"),
        ({"warm_start": torch.zeros(1, T + 1, A)}, r"warm_start: wanted shape .*\(1, 6, 2\)"),
        ({"warm_start": torch.full((1, T, A), torch.nan)}, "warm_start: wanted finite"),
        ({"deadline_ms": 0}, "deadline_ms: wanted a positive"),
        ({"seeds": torch.zeros(2, dtype=torch.int64)}, r"seeds: wanted int64 of shape \(1,\)"),
        ({"seeds": torch.zeros(1)}, "seeds: wanted int64"),
        ({"seeds": torch.zeros(1, dtype=torch.int64), "generator": generator()}, "got both"),
    ],
)
def test_wrong_arguments_are_refused(options: dict, message: str, planner: Planner) -> None:
    with pytest.raises(ValueError, match=message):
        planner.plan(lambda actions: actions.sum((-1, -2)), low=LOW, high=HIGH, **options)


def test_shift_drops_what_was_executed() -> None:
    actions = torch.arange(1.0, 9.0).reshape(1, 4, 2)
    assert shift(actions, 0).tolist() == actions.tolist()
    assert shift(actions, 1)[0, :, 0].tolist() == [3, 5, 7, 7]
    assert shift(actions, 2, fill="zero")[0, :, 1].tolist() == [6, 8, 0, 0]
    assert shift(actions, 9)[0, :, 0].tolist() == [7, 7, 7, 7]
    with pytest.raises(ValueError, match="steps"):
        shift(actions, -1)
    with pytest.raises(ValueError, match="fill"):
        shift(actions, 1, fill="mean")
