"""What is CEM's and iCEM's own."""

import math

import pytest
import torch
from torch import Tensor

from planners import CEM, ICEM, Planner
from tests.planners.world import BOUNDS, HIGH, LOW, T, generator, random_goals, reach, total


def test_cost_never_rises_and_the_spread_shrinks_to_its_floor() -> None:
    planner = CEM(horizon=T, iterations=12, min_std=0.05)
    cost = reach(random_goals(4))
    plan = planner.plan(
        cost, low=LOW, high=HIGH, batch_size=4, generator=generator(), keep_history=True
    )
    costs = torch.stack([record.cost for record in plan.history])
    assert len(costs) == 12 and (costs.diff(dim=0) <= 0).all()
    floor = 0.05 * (HIGH - LOW) / 2
    assert (plan.std >= floor).all() and (plan.std < 0.2 * (HIGH - LOW) / 2).all()
    assert torch.equal(plan.history[-1].mean, plan.mean)


def test_the_last_mean_is_evaluated() -> None:
    # With one elite and no momentum, the mean of the elites is that elite.
    planner = CEM(horizon=T, num_elites=1, momentum=0.0, iterations=1)
    cost = reach(random_goals(1))
    seen = []

    def watched(actions: Tensor) -> Tensor:
        seen.append(actions)
        return cost(actions)

    plan = planner.plan(watched, low=LOW, high=HIGH)
    assert torch.equal(seen[-1], plan.mean[:, None]) and torch.equal(plan.actions, plan.mean)


def test_momentum_is_the_weight_of_the_old_mean() -> None:
    def mean(momentum: float) -> Tensor:
        planner = CEM(horizon=T, iterations=1, momentum=momentum)
        return planner.plan(reach(random_goals(1)), low=LOW, high=HIGH, generator=generator()).mean

    centre = (LOW + HIGH) / 2
    torch.testing.assert_close(mean(0.75) - centre, 0.25 * (mean(0.0) - centre))


def test_icem_needs_fewer_samples_than_cem() -> None:
    goals = random_goals(64)
    options = {"low": LOW, "high": HIGH, "batch_size": 64, "generator": generator()}
    evaluated = []

    def cost(actions: Tensor) -> Tensor:
        evaluated.append(actions.shape[1])
        return reach(goals)(actions)

    cem = CEM(horizon=T, num_samples=64).plan(cost, **options)
    cem_evaluated, evaluated[:] = sum(evaluated), []
    icem = ICEM(horizon=T, num_samples=32).plan(cost, **options)
    assert sum(evaluated) <= 0.5 * cem_evaluated
    assert icem.cost.mean() < cem.cost.mean()


def test_icem_samples_decay_to_twice_the_elites() -> None:
    counts = []

    def cost(actions: Tensor) -> Tensor:
        counts.append(actions.shape[1])
        return actions.sum((-1, -2))

    ICEM(horizon=T, num_samples=40, num_elites=8, iterations=4, sample_decay=0.5).plan(
        cost, low=LOW, high=HIGH
    )
    assert counts == [40, 20, 16, 16, 1]  # the last is the mean alone


def test_elites_carried_over_stay_in_the_fit() -> None:
    # Costs rise by 100 each iteration, so the elites stay those of the first one.
    calls = []

    def rising(actions: Tensor) -> Tensor:
        calls.append(len(calls) * 100.0)
        return actions.sum((-1, -2)) + calls[-1]

    planner = ICEM(horizon=T, num_elites=4, keep_elites=1.0, momentum=0.0, iterations=3)
    plan = planner.plan(rising, low=LOW, high=HIGH, keep_history=True)
    assert torch.equal(plan.history[0].mean, plan.history[2].mean)


def test_elites_of_infinite_cost_do_not_enter_the_fit() -> None:
    def only_the_mean(actions: Tensor) -> Tensor:
        costs = torch.full(actions.shape[:2], torch.inf)
        costs[:, 0] = 1.0
        return costs

    with pytest.warns(RuntimeWarning):
        plan = CEM(horizon=T).plan(only_the_mean, low=LOW, high=HIGH)
    torch.testing.assert_close(plan.mean[0, 0], (LOW + HIGH) / 2)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"horizon": 0}, "horizon"),
        ({"num_samples": 4, "num_elites": 5}, "num_elites"),
        ({"num_samples": 64.0}, "num_samples"),
        ({"iterations": 0}, "iterations"),
        ({"init_std": 0.0}, "init_std"),
        ({"init_std": math.nan}, "init_std"),
        ({"min_std": 0.9}, "min_std"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": [0.1, 1.0]}, "momentum"),
        ({"momentum_std": -0.1}, "momentum_std"),
        ({"momentum": []}, "momentum"),
        ({"init_std": [0.1, "0.2"]}, "init_std"),
        ({"init_std": [0.5, 0.1], "min_std": [0.5, 0.2]}, "min_std"),
        ({"returns": "median"}, "returns"),
        ({"returns": "mean", "deadband": -1.0}, "deadband"),
        ({"deadband": 0.1}, "deadband"),
        ({"noise_beta": -1.0}, "noise_beta"),
        ({"keep_elites": 1.5}, "keep_elites"),
        ({"sample_decay": 0.0}, "sample_decay"),
    ],
)
def test_wrong_settings_are_refused(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: wanted .* got"):
        ICEM(**{"horizon": T, **options})


def test_icem_candidates_are_smoother_than_those_of_cem() -> None:
    def jerk(planner: Planner) -> float:
        seen = []

        def cost(actions: Tensor) -> Tensor:
            seen.append(actions)
            return actions.sum((-1, -2))

        planner.plan(cost, low=LOW, high=HIGH, generator=generator())
        return float(seen[0].diff(dim=2).square().mean())

    assert jerk(ICEM(horizon=T)) < 0.5 * jerk(CEM(horizon=T))


def one_round(**settings) -> tuple[Tensor, Tensor]:
    """Return mean and std `(T, A)` after one iteration, in units of half the range."""
    planner = CEM(horizon=T, iterations=1, min_std=0.0, init_std=0.8, **settings)
    plan = planner.plan(reach(random_goals(1)), **BOUNDS, generator=generator())
    half = (HIGH - LOW) / 2
    return ((plan.mean - (LOW + HIGH) / 2) / half)[0], (plan.std / half)[0]


def test_momenta_of_mean_and_spread_and_of_entries_are_apart() -> None:
    fresh_mean, fresh_std = one_round(momentum=0.0)
    mean, std = one_round(momentum=[0.25, 0.0], momentum_std=[0.0, 0.75])
    torch.testing.assert_close(mean[:, 0], 0.75 * fresh_mean[:, 0])
    torch.testing.assert_close(mean[:, 1], fresh_mean[:, 1])
    torch.testing.assert_close(std[:, 0], fresh_std[:, 0])
    torch.testing.assert_close(std[:, 1], 0.25 * fresh_std[:, 1] + 0.75 * 0.8)


def test_entries_have_their_own_first_spread_and_floor() -> None:
    seen = []

    def cost(actions: Tensor) -> Tensor:
        seen.append((actions - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2))
        return total(actions)

    planner = CEM(horizon=T, num_samples=500, init_std=[0.02, 0.2], min_std=[0.0, 0.2])
    plan = planner.plan(cost, **BOUNDS, generator=generator())
    spread = seen[0].std((0, 1, 2))
    torch.testing.assert_close(spread, torch.tensor([0.02, 0.2]), rtol=0.1, atol=0)
    assert (plan.std[..., 0] < 0.04).all()
    torch.testing.assert_close(plan.std[..., 1], torch.full((1, T), 0.2 * 1.25))


def test_the_mean_is_returned_rounded_and_costed_as_it_is() -> None:
    cost = reach(torch.tensor([[1.0, -6.0]]))  # best at 0.15 and -0.92 per step
    options = {"horizon": T, "iterations": 10, "momentum": 0.0, "returns": "mean"}
    options |= {"init_std": 0.5, "min_std": 0.05}
    plan = CEM(**options).plan(cost, **BOUNDS, generator=generator())
    assert torch.equal(plan.actions, plan.mean)
    rounded = CEM(deadband=[0.25, 0.1], **options).plan(cost, **BOUNDS, generator=generator())
    assert torch.equal(rounded.mean, plan.mean) and (plan.actions[..., 0] > 0.05).all()
    assert (rounded.actions[..., 0] == 0).all()
    assert torch.equal(rounded.actions[..., 1], plan.actions[..., 1])
    torch.testing.assert_close(rounded.cost, cost(rounded.actions[:, None])[:, 0])
    assert (rounded.cost > plan.cost).all()  # not the cheapest, and yet the plan


def test_a_mean_without_finite_cost_is_not_returned() -> None:
    def all_but_the_mean(actions: Tensor) -> Tensor:
        alone = actions.shape[1] == 1
        return total(actions) + (torch.nan if alone else 0)

    with pytest.warns(RuntimeWarning):
        plan = CEM(horizon=T, returns="mean").plan(all_but_the_mean, **BOUNDS)
    assert torch.isfinite(plan.cost).all()


def test_a_mean_is_returned_at_the_deadline_too() -> None:
    planner = CEM(horizon=T, returns="mean", iterations=50)
    plan = planner.plan(reach(random_goals(1)), **BOUNDS, deadline_ms=1e-6)
    assert torch.equal(plan.actions, plan.mean)


@pytest.mark.parametrize("name", ["init_std", "min_std", "momentum", "momentum_std", "deadband"])
def test_a_list_must_have_a_number_per_entry(name: str) -> None:
    settings = {"min_std": 0.0, name: [0.1] * 3, "init_std": [0.1] * 3}
    planner = CEM(horizon=T, returns="mean", **settings)
    with pytest.raises(ValueError, match="wanted 1 number or 2, .* got 3"):
        planner.plan(total, **BOUNDS)


def test_means_stay_inside_the_bounds_to_the_last_bit() -> None:
    # The mean of 24 equal elites is not always that number in floating point.
    high = torch.tensor([0.1, 0.7])
    planner = CEM(horizon=T, num_samples=48, num_elites=24, init_std=9.0, momentum=0.0)
    plan = planner.plan(lambda actions: -total(actions), low=-high, high=high, batch_size=50)
    assert (plan.mean <= high).all() and (plan.actions <= high).all()


@pytest.mark.parametrize("width", [1, 3])
def test_coloured_noise_does_not_depend_on_the_batch(width: int) -> None:
    """To the last bit, also where products of matrices would round otherwise."""
    low, high, seeds = -torch.ones(width), torch.ones(width), torch.arange(37)
    planner = ICEM(horizon=6, num_samples=16, num_elites=4, iterations=2)

    def cost(actions: Tensor) -> Tensor:
        return (actions - 0.3).square().sum((-1, -2))

    together = planner.plan(cost, low=low, high=high, batch_size=37, seeds=seeds).actions
    alone = [planner.plan(cost, low=low, high=high, seeds=seed[None]).actions for seed in seeds]
    assert torch.equal(together, torch.cat(alone))
