"""What is MPPI's own: the meaning of the temperature, and of a fixed spread."""

import pytest
import torch
from torch import Tensor

from planners import MPPI, Constrained
from tests.planners.world import BOUNDS, T, generator, random_goals, reach, total


def first_round(temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the candidates (N, T, A) of one iteration, their costs (N) and the mean (T, A)."""
    planner = MPPI(horizon=T, iterations=1, temperature=temperature)
    plan = planner.plan(reach(random_goals(1)), **BOUNDS, generator=generator(), keep_history=True)
    record = plan.history[0]
    return record.candidates[0], record.costs[0], record.mean[0]


def test_towards_zero_only_the_best_counts_and_towards_infinity_all_count_alike() -> None:
    candidates, costs, cold = first_round(1e-6)
    torch.testing.assert_close(cold, candidates[costs.argmin()])
    candidates, _, hot = first_round(1e6)
    torch.testing.assert_close(hot, candidates.mean(0), rtol=0, atol=1e-4)


def test_the_temperature_divides_the_cost() -> None:
    candidates, costs, mean = first_round(2.0)
    weights = torch.exp(-costs / 2.0)
    wanted = (weights[:, None, None] * candidates).sum(0) / weights.sum()
    torch.testing.assert_close(mean, wanted)


def test_an_offset_of_the_cost_changes_nothing() -> None:
    def plan(offset: float) -> Tensor:
        cost = reach(random_goals(1))
        planner = MPPI(horizon=T)
        return planner.plan(lambda a: cost(a) + offset, **BOUNDS, generator=generator()).actions

    torch.testing.assert_close(plan(0.0), plan(1000.0), rtol=0, atol=1e-2)


def test_the_spread_is_fitted_or_kept() -> None:
    half = (BOUNDS["high"] - BOUNDS["low"]) / 2
    kept = MPPI(horizon=T, update_std=False).plan(total, **BOUNDS, generator=generator())
    torch.testing.assert_close(kept.std, (0.5 * half).expand(1, T, 2))
    fitted = MPPI(horizon=T, update_std=True, temperature=0.1).plan(
        total, **BOUNDS, generator=generator()
    )
    assert (fitted.std < 0.95 * kept.std).all() and (fitted.std >= 0.05 * half).all()


def test_a_projection_is_not_blamed_for_a_problem_without_any_finite_cost() -> None:
    def cost(actions: Tensor) -> Tensor:
        costs = total(actions)
        costs[1] = torch.nan
        return costs

    planner = Constrained(planner=MPPI(horizon=T), project=lambda actions: actions)
    with pytest.raises(RuntimeError, match=r"no finite cost .* 1 of 2 problems \(first: \[1\]\)"):
        planner.plan(cost, **BOUNDS, batch_size=2, generator=generator())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature: wanted a positive number, got"):
        MPPI(horizon=T, temperature=temperature)
