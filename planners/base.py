"""What all planners share: the call, the plan, and the checks of settings.

Shapes: B problems, N candidates, T planned steps, A action width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from planners.noise import NoiseSource
from planners.search import Bounds, CostFunction, IterationRecord, Search, describe, resolve_seeds

PerAxis = float | Sequence[float]
"""One number for all entries of an action, or one per entry."""


@dataclass(frozen=True)
class Plan:
    """What a planner found.

    Attributes:
        actions: `(B, T, A)` the cheapest candidate that was evaluated, inside the bounds; or the
            mean of the last distribution, where the planner was told to return that.
        cost: `(B,)` what the cost function said of exactly these actions.
        mean: `(B, T, A)` centre of the last distribution; not the plan, but a good warm start.
        std: `(B, T, A)` its spread, in action units.
        num_evaluated: How many candidates of each problem the cost function was asked about.
        history: One record per iteration that ran; empty unless asked for.
    """

    actions: Tensor
    cost: Tensor
    mean: Tensor
    std: Tensor
    num_evaluated: int
    history: tuple[IterationRecord, ...] = ()


class Planner(ABC):
    """Searches for the actions of least cost; knows neither model nor environment.

    Attributes:
        horizon: Number of planned steps T.
    """

    horizon: int

    def plan(
        self,
        cost_fn: CostFunction,
        *,
        low: Tensor,
        high: Tensor,
        batch_size: int = 1,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
        seeds: Tensor | None = None,
        deadline_ms: float | None = None,
        keep_history: bool = False,
    ) -> Plan:
        """Find cheap actions for B problems at once.

        The search runs on the device and in the dtype of `low`. A problem's random numbers follow
        from its own seed, so its plan is the one it would get alone, whatever the batch. Planning
        B problems with a generator is planning them one after another with that generator.

        Args:
            cost_fn: Maps candidates `(B, N, T, A)` to costs `(B, N)`, lower is better. The same
                candidate must always cost the same. Gradients are off while it runs, except in
                planners that follow them.
            low: `(A,)` smallest action.
            high: `(A,)` largest action.
            batch_size: Number of problems B.
            warm_start: `(B, T, A)` actions the search starts around, such as the last plan after
                `shift`; None starts in the middle of the bounds.
            generator: CPU generator the seeds are drawn from; None uses torch's global one.
            seeds: `(B,)` int64 seeds, one per problem, instead of a generator.
            deadline_ms: Return the best found when a further iteration would likely end later
                than this many milliseconds after the call. The first iteration always runs.
            keep_history: Whether the plan carries a record of every iteration.

        Returns:
            The plan, its actions inside the bounds.

        Raises:
            ValueError: An argument, or what `cost_fn` returned, has the wrong shape or type.
            RuntimeError: All costs of some problem were NaN or infinite.
        """
        bounds = Bounds(low, high)
        check_count("batch_size", batch_size)
        seeds = resolve_seeds(seeds, generator, batch_size)
        noise = NoiseSource(seeds, device=low.device, dtype=low.dtype)
        search = Search(cost_fn, bounds, noise, deadline_ms, keep_history)
        with torch.no_grad():
            start = self._start(bounds, batch_size, warm_start)
            mean, std = self._search(search, start)
            actions, cost = search.finish()
        return Plan(actions, cost, mean, std, search.num_evaluated, tuple(search.history))

    @abstractmethod
    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate candidates around start `(B, T, A)`; return the last mean and std, like it.

        Start, mean, std and candidates are points of `search.space`, where a planner around this
        one may have left out some entries of an action. Candidates go through its `project`.
        """

    def _start(self, bounds: Bounds, batch_size: int, warm_start: Tensor | None) -> Tensor:
        """Return the `(B, T, A)` actions to start from, inside the bounds."""
        shape = (batch_size, self.horizon, len(bounds.low))
        if warm_start is None:
            return bounds.centre.expand(shape).clone()
        fits = isinstance(warm_start, Tensor) and tuple(warm_start.shape) == shape
        if not fits or warm_start.device != bounds.low.device:
            raise ValueError(
                f"warm_start: wanted shape (B, T, A) = {shape} on {bounds.low.device}, "
                f"got {describe(warm_start)}"
            )
        if not torch.isfinite(warm_start).all():
            raise ValueError("warm_start: wanted finite actions, got NaN or infinity in it")
        return bounds.clip(warm_start.to(bounds.low.dtype))


def shift(actions: Tensor, steps: int, *, fill: Literal["last", "zero"] = "last") -> Tensor:
    """Drop the first steps of a plan and fill up its end: the next plan's warm start.

    Args:
        actions: `(..., T, A)` planned actions or their mean.
        steps: How many were executed, at least 0; from T on all is fill.
        fill: What follows the plan: its last action again, or zeros.

    Returns:
        `(..., T, A)` a new tensor.

    Raises:
        ValueError: A negative number of steps, or an unknown fill.
    """
    if steps < 0:
        raise ValueError(f"steps: wanted at least 0, got {steps}")
    if fill not in ("last", "zero"):
        raise ValueError(f'fill: wanted "last" or "zero", got {fill!r}')
    steps = min(steps, actions.shape[-2])
    last = actions[..., -1:, :] if fill == "last" else torch.zeros_like(actions[..., -1:, :])
    filling = last.expand(*actions.shape[:-2], steps, actions.shape[-1])
    return torch.cat([actions[..., steps:, :], filling], dim=-2)


def check_count(name: str, value: int) -> None:
    """Raise ValueError unless the value is an int of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: wanted an int of at least 1, got {value!r}")


def numbers(name: str, value: PerAxis) -> tuple[float, ...]:
    """Return the numbers of a setting, one or more.

    Raises:
        ValueError: There is none, or it is something else.
    """
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if not values or not all(isinstance(number, int | float) for number in values):
        raise ValueError(f"{name}: wanted a number or a list of them, got {value!r}")
    return values


def axis_values(name: str, value: PerAxis, *, like: Tensor) -> float | Tensor:
    """Return a setting's one number, or its one number per entry of `like` `(A,)`.

    Raises:
        ValueError: There are neither one nor A numbers.
    """
    values = numbers(name, value)
    if len(values) == 1:
        return values[0]
    if len(values) != len(like):
        raise ValueError(
            f"{name}: wanted 1 number or {len(like)}, one per searched entry of an action, "
            f"got {len(values)}"
        )
    return like.new_tensor(values)
