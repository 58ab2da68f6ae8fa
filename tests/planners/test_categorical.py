"""Discrete actions: sequences of choices with a known best one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from planners import CategoricalCEM
from tests.planners.world import generator

T, CHOICES = 5, (4, 2)
SECRET = torch.tensor([[3, 1], [0, 0], [2, 1], [1, 1], [3, 0]])  # (T, A)
PLANNER = CategoricalCEM(horizon=T, num_samples=128, num_elites=12, iterations=8)


def wrong_choices(secret: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the number of choices that differ from the secret ones `(B, T, A)`."""
    return lambda actions: (actions != secret[:, None]).sum((-1, -2)).float()


def secrets(count: int) -> Tensor:
    """Return `(count, T, A)` random best sequences."""
    columns = [torch.randint(n, (count, T), generator=generator(n)) for n in CHOICES]
    return torch.stack(columns, dim=-1)


def test_the_best_sequence_is_found_among_a_thousand_times_as_many() -> None:
    plan = PLANNER.plan(
        wrong_choices(secrets(6)), num_choices=CHOICES, batch_size=6, generator=generator()
    )
    assert plan.actions.dtype == torch.int64 and torch.equal(plan.actions, secrets(6))
    assert torch.equal(plan.mean.argmax(-1), plan.actions) and (plan.cost == 0).all()


def test_one_hot_actions_are_one_line_inside_the_cost() -> None:
    wanted = F.one_hot(SECRET[:, :1], 4).float()

    def cost(actions: Tensor) -> Tensor:
        return (F.one_hot(actions, 4) - wanted).square().sum((-1, -2, -3))

    plan = PLANNER.plan(cost, num_choices=[4], generator=generator())
    assert torch.equal(plan.actions[0], SECRET[:, :1])


def test_choices_exist_and_the_first_candidate_is_the_likeliest() -> None:
    seen = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return wrong_choices(SECRET[None])(actions)

    plan = PLANNER.plan(cost, num_choices=CHOICES, keep_history=True, generator=generator())
    for actions in seen:
        assert (actions >= 0).all() and (actions < torch.tensor(CHOICES)).all()
    assert {int(choice) for choice in seen[0][..., 0].unique()} == {0, 1, 2, 3}
    for record, candidates in zip(plan.history, seen[1:], strict=True):
        assert torch.equal(record.mean.argmax(-1), candidates[:, 0])
        torch.testing.assert_close(record.mean.sum(-1), torch.ones(1, T, 2))
        assert (record.mean[:, :, 1, 2:] == 0).all()  # the second entry has two choices
    assert seen[-1].shape[1] == 1


def test_a_plan_does_not_depend_on_its_batch() -> None:
    best, seeds = secrets(4), torch.tensor([5, 1, 5, -3])
    short = CategoricalCEM(horizon=T, num_samples=16, num_elites=4, iterations=2)
    options = {"num_choices": CHOICES}
    together = short.plan(wrong_choices(best), batch_size=4, seeds=seeds, **options)
    for b in range(4):
        one = slice(b, b + 1)
        alone = short.plan(wrong_choices(best[one]), seeds=seeds[one], **options)
        assert torch.equal(alone.actions[0], together.actions[b])
        torch.testing.assert_close(alone.mean[0], together.mean[b])


def test_warm_start_is_tried_first() -> None:
    calls = []

    def cost(actions: Tensor) -> Tensor:
        calls.append(actions)
        return wrong_choices(SECRET[None])(actions)

    plan = PLANNER.plan(cost, num_choices=CHOICES, warm_start=SECRET[None], deadline_ms=1e-6)
    assert len(calls) == 1 and torch.equal(calls[0][0, 0], SECRET)
    assert torch.equal(plan.actions[0], SECRET)
    share = (calls[0][:, 1:] == SECRET).float().mean((0, 1, 2))
    torch.testing.assert_close(share, torch.tensor([0.625, 0.75]), rtol=0, atol=0.1)


def test_a_share_of_every_probability_stays_uniform() -> None:
    planner = CategoricalCEM(horizon=T, momentum=0.0, uniform_share=0.2, iterations=9)
    plan = planner.plan(wrong_choices(SECRET[None]), num_choices=CHOICES, generator=generator())
    assert plan.mean[:, :, 0].amin() >= 0.05 - 1e-6
    torch.testing.assert_close(plan.mean[:, :, 0].amax(-1), torch.full((1, T), 0.85))


def test_non_finite_costs_lose() -> None:
    def cost(actions: Tensor) -> Tensor:
        costs = wrong_choices(SECRET[None])(actions)
        return torch.where(actions[..., 0, 1] == 1, torch.nan, costs)  # SECRET begins with 1

    with pytest.warns(RuntimeWarning, match="costs were NaN"):
        plan = PLANNER.plan(cost, num_choices=CHOICES, generator=generator())
    assert (plan.cost == 1).all() and torch.isfinite(plan.mean).all()
    with pytest.raises(RuntimeError, match="no finite cost at all for 1 of 1"):
        PLANNER.plan(lambda a: torch.full(a.shape[:2], torch.inf), num_choices=CHOICES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_choices": []}, "num_choices: wanted one count per entry"),
        ({"num_choices": [3, 0]}, "num_choices: wanted .* at least 1"),
        ({"num_choices": [1]}, "num_choices: wanted .* at least 2"),
        ({"warm_start": torch.zeros(1, T, 2)}, "warm_start: wanted int64"),
        ({"warm_start": [[0, 1]]}, "warm_start: wanted int64 .* got a list"),
        ({"warm_start": torch.zeros(1, T, 1, dtype=torch.int64)}, "warm_start: wanted int64"),
        ({"warm_start": torch.full((1, T, 2), 3)}, r"warm_start: wanted .* below \(4, 2\)"),
        ({"batch_size": 0}, "batch_size: wanted"),
        ({"deadline_ms": -1}, "deadline_ms: wanted"),
    ],
)
def test_wrong_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PLANNER.plan(wrong_choices(SECRET[None]), **{"num_choices": CHOICES, **options})


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_elites", 65), ("momentum", 1.0), ("uniform_share", 1.5), ("iterations", 0)],
)
def test_wrong_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: wanted .* got"):
        CategoricalCEM(**{"horizon": T, name: value})
