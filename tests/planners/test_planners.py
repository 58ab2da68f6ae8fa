"""Planners in an analytic world: a point with velocity control, quadratic costs, known optimum."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from planners import CEM, ICEM, Planner, RandomShooting, shift
from planners.noise import NoiseSource, colouring_matrix

T, A = 6, 2
LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 0.5])
EFFORT = 0.5
PLANNERS = {
    "cem": CEM(horizon=T),
    "icem": ICEM(horizon=T),
    "shooting": RandomShooting(horizon=T),
}


def reach(goals: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the cost of ending away from goals `(B, A)`, plus a little for effort."""

    def cost(actions: Tensor) -> Tensor:
        miss = actions.sum(dim=2) - goals[:, None]
        return (miss**2).sum(-1) + EFFORT * (actions**2).sum((-1, -2))

    return cost


def optimum(goals: Tensor) -> Tensor:
    """Return the optimal actions `(B, T, A)` of `reach`: the same at all steps, by symmetry."""
    return (goals / (T + EFFORT)).clamp(LOW, HIGH)[:, None].expand(-1, T, -1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_goals(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, A, generator=generator(seed)) * 4 - 2


@pytest.fixture(params=PLANNERS)
def planner(request: pytest.FixtureRequest) -> Planner:
    return PLANNERS[request.param]


@pytest.mark.parametrize(
    "planner",
    [
        CEM(horizon=T, num_samples=256, num_elites=24, iterations=25, min_std=0.01),
        ICEM(
            horizon=T, num_samples=256, num_elites=24, iterations=25, min_std=0.01, sample_decay=1.0
        ),
    ],
)
def test_the_known_optimum_is_reached(planner: Planner) -> None:
    goals = torch.tensor([[1.5, -2.0], [-3.0, 1.0], [20.0, -20.0]])  # the last one is out of reach
    cost = reach(goals)
    plan = planner.plan(cost, low=LOW, high=HIGH, batch_size=3, generator=generator())
    best = cost(optimum(goals)[:, None])[:, 0]
    torch.testing.assert_close(plan.cost, best, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(plan.actions, optimum(goals), rtol=0, atol=0.1)


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
        return planner.plan(cost, generator=generator(seed), **options).actions

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


def test_no_history_unless_asked_for(planner: Planner) -> None:
    assert planner.plan(reach(random_goals(1)), low=LOW, high=HIGH).history == ()


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


def test_deadline_returns_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, goals = [], random_goals(1)
    monkeypatch.setattr("planners.search.time.perf_counter", lambda: 0.03 * len(calls))

    def takes_30_ms(actions: Tensor) -> Tensor:
        calls.append(actions)
        return reach(goals)(actions)

    plan = CEM(horizon=T, iterations=50).plan(takes_30_ms, low=LOW, high=HIGH, deadline_ms=100)
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


def test_elites_of_infinite_cost_do_not_enter_the_fit() -> None:
    def only_the_mean(actions: Tensor) -> Tensor:
        costs = torch.full(actions.shape[:2], torch.inf)
        costs[:, 0] = 1.0
        return costs

    with pytest.warns(RuntimeWarning):
        plan = CEM(horizon=T).plan(only_the_mean, low=LOW, high=HIGH)
    torch.testing.assert_close(plan.mean[0, 0], (LOW + HIGH) / 2)


def test_a_problem_without_any_finite_cost_raises(planner: Planner) -> None:
    def cost(actions: Tensor) -> Tensor:
        costs = actions.sum((-1, -2))
        costs[1] = torch.nan
        return costs

    with pytest.raises(RuntimeError, match=r"1 of 3 problems \(first: \[1\]\)"):
        planner.plan(cost, low=LOW, high=HIGH, batch_size=3)


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


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"horizon": 0}, "horizon"),
        ({"num_samples": 4, "num_elites": 5}, "num_elites"),
        ({"num_samples": 64.0}, "num_samples"),
        ({"iterations": 0}, "iterations"),
        ({"init_std": 0.0}, "init_std"),
        ({"init_std": math.nan}, "init_std"),
        ({"min_std": 0.6}, "min_std"),
        ({"momentum": 1.0}, "momentum"),
        ({"noise_beta": -1.0}, "noise_beta"),
        ({"keep_elites": 1.5}, "keep_elites"),
        ({"sample_decay": 0.0}, "sample_decay"),
    ],
)
def test_wrong_settings_are_refused(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: wanted .* got"):
        ICEM(**{"horizon": T, **options})


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


def test_noise_is_standard_normal_and_independent_between_seeds_and_steps() -> None:
    # Neighbouring seeds are the hardest for a hash. Limits are 5 standard errors.
    count = 40_000
    source = NoiseSource(torch.arange(8), device=torch.device("cpu"), dtype=torch.float32)
    noise = source.normal(count)
    limit = 5 / math.sqrt(count)
    assert noise.mean(1).abs().max() < limit
    assert (noise.var(1) - 1).abs().max() < limit * math.sqrt(2)
    assert ((noise**4).mean(1) - 3).abs().max() < limit * math.sqrt(96)
    assert (torch.corrcoef(noise) - torch.eye(8)).abs().max() < limit
    assert (noise[:, 1:] * noise[:, :-1]).mean(1).abs().max() < limit
    assert (noise * source.normal(count)).mean(1).abs().max() < limit


def test_uniform_noise_fills_its_interval_evenly() -> None:
    source = NoiseSource(torch.tensor([0]), device=torch.device("cpu"), dtype=torch.float64)
    numbers = source.uniform(100_000)
    counts = torch.histc(numbers, bins=50, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert 20 < chi_square < 95  # 49 degrees of freedom; both ends are beyond 1 in 10 000


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 4.0])
def test_coloured_noise_has_the_spectrum_asked_for(beta: float) -> None:
    steps = 128
    source = NoiseSource(torch.tensor([0]), device=torch.device("cpu"), dtype=torch.float64)
    coloured = source.normal(2000, steps)[0] @ colouring_matrix(steps, beta).T
    torch.testing.assert_close(
        coloured.var(0), torch.ones(steps, dtype=torch.float64), rtol=0, atol=0.2
    )
    # A window without a jump at its ends, else the steep spectra leak into high frequencies.
    spectrum = torch.fft.rfft(coloured * torch.hann_window(steps)).abs().square().mean(0)
    k = torch.arange(6, 48)
    logs = torch.stack([k.log(), spectrum[k].log()])
    slope = torch.cov(logs)[0, 1] / logs[0].var()
    assert slope == pytest.approx(-beta, abs=0.15)


@pytest.mark.parametrize(("horizon", "beta"), [(1, 2.0), (100, 10.0)])
def test_colouring_works_at_the_extremes(horizon: int, beta: float) -> None:
    matrix = colouring_matrix(horizon, beta)
    torch.testing.assert_close((matrix**2).sum(1), torch.ones(horizon, dtype=torch.float64))


def test_icem_candidates_are_smoother_than_those_of_cem() -> None:
    def jerk(planner: Planner) -> float:
        seen = []

        def cost(actions: Tensor) -> Tensor:
            seen.append(actions)
            return actions.sum((-1, -2))

        planner.plan(cost, low=LOW, high=HIGH, generator=generator())
        return float(seen[0].diff(dim=2).square().mean())

    assert jerk(ICEM(horizon=T)) < 0.5 * jerk(CEM(horizon=T))
