"""What all planners share: the plan, the checks, the clock and the best candidate so far.

Shapes: B problems, N candidates, T planned steps, A action width.
"""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from planners.noise import NoiseSource

CostFunction = Callable[[Tensor], Tensor]
"""Maps candidates `(B, N, T, A)` to costs `(B, N)`, lower is better; row b belongs to problem b."""


@dataclass(frozen=True)
class IterationRecord:
    """How far the search was after one iteration.

    Attributes:
        cost: `(B,)` the cheapest found so far.
        mean: `(B, T, A)` centre of the next iteration's candidates.
        std: `(B, T, A)` their spread.
    """

    cost: Tensor
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Plan:
    """What a planner found.

    Attributes:
        actions: `(B, T, A)` the cheapest candidate that was evaluated, inside the bounds.
        cost: `(B,)` what the cost function said of exactly these actions.
        mean: `(B, T, A)` centre of the last distribution; not the plan, but a good warm start.
        std: `(B, T, A)` its spread, in action units.
        history: One record per iteration that ran; empty unless asked for.
    """

    actions: Tensor
    cost: Tensor
    mean: Tensor
    std: Tensor
    history: tuple[IterationRecord, ...] = ()


@dataclass(frozen=True)
class Bounds:
    """The box the actions live in.

    Args:
        low: `(A,)` smallest action, float32 or float64, finite.
        high: `(A,)` largest action, above `low` in every component.

    Raises:
        ValueError: The bounds are no such pair.
    """

    low: Tensor
    high: Tensor

    def __post_init__(self) -> None:
        for name, bound in (("low", self.low), ("high", self.high)):
            if not isinstance(bound, Tensor) or bound.dim() != 1 or bound.numel() == 0:
                raise ValueError(f"{name}: wanted a tensor of shape (A,), got {_describe(bound)}")
            if bound.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"{name}: wanted float32 or float64, got {bound.dtype}")
            if not torch.isfinite(bound).all():
                raise ValueError(
                    f"{name}: wanted finite bounds, got {bound.tolist()}; "
                    "planning samples from a box, so limit the action space first"
                )
        low, high = self.low, self.high
        if (low.shape, low.dtype, low.device) != (high.shape, high.dtype, high.device):
            raise ValueError(
                "low and high: wanted the same shape, dtype and device, "
                f"got {_describe(low)} and {_describe(high)}"
            )
        if not (low < high).all():
            raise ValueError(
                f"wanted low < high everywhere, got {low.tolist()} and {high.tolist()}"
            )

    @property
    def centre(self) -> Tensor:
        """`(A,)` middle of the box."""
        return (self.low + self.high) / 2

    @property
    def half(self) -> Tensor:
        """`(A,)` half the range of each component."""
        return (self.high - self.low) / 2

    def clip(self, actions: Tensor) -> Tensor:
        """Move actions `(..., A)` to the nearest ones inside."""
        return torch.clamp(actions, self.low, self.high)


class Search:
    """One call of `plan`: evaluates candidates and remembers the best of each problem.

    Args:
        cost_fn: The cost of candidates.
        bounds: The box of the actions.
        noise: Where random numbers come from.
        deadline_ms: Milliseconds from now after which no iteration should end; None is no limit.
        keep_history: Whether `record` keeps anything.
    """

    def __init__(
        self,
        cost_fn: CostFunction,
        bounds: Bounds,
        *,
        noise: NoiseSource,
        deadline_ms: float | None,
        keep_history: bool,
    ) -> None:
        self.bounds = bounds
        self.noise = noise
        self._cost_fn = cost_fn
        self._deadline_s = None if deadline_ms is None else time.perf_counter() + deadline_ms / 1e3
        self._iteration_start_s = time.perf_counter()
        self._keep_history = keep_history
        self._history: list[IterationRecord] = []
        self._num_bad: Tensor | int = 0
        self._actions: Tensor | None = None
        self._cost: Tensor | None = None

    def evaluate(self, candidates: Tensor) -> Tensor:
        """Return the costs `(B, N)` of candidates `(B, N, T, A)`; non-finite ones become +inf."""
        raw = self._cost_fn(candidates)
        _check_costs(raw, candidates)
        finite = torch.isfinite(raw)
        self._num_bad = self._num_bad + (~finite).sum()
        costs = torch.where(finite, raw, torch.inf).to(candidates.dtype)
        self._keep_best(candidates, costs)
        return costs

    def _keep_best(self, candidates: Tensor, costs: Tensor) -> None:
        cost, index = costs.min(dim=1)
        actions = candidates[torch.arange(len(index), device=index.device), index]
        if self._cost is None or self._actions is None:
            self._cost, self._actions = cost, actions
            return
        better = cost < self._cost
        self._cost = torch.where(better, cost, self._cost)
        self._actions = torch.where(better[:, None, None], actions, self._actions)

    def record(self, mean: Tensor, std: Tensor) -> None:
        """Note where the search is, if a history was asked for."""
        if self._keep_history:
            self._history.append(IterationRecord(cost=self._cost, mean=mean, std=std))

    def out_of_time(self) -> bool:
        """Tell whether one more iteration as long as the last would end past the deadline."""
        if self._deadline_s is None:
            return False
        self._cost.sum().item()  # waits for the device: the clock must not run ahead of it
        now_s = time.perf_counter()
        last_s, self._iteration_start_s = now_s - self._iteration_start_s, now_s
        return now_s + last_s > self._deadline_s

    def finish(self, mean: Tensor, std: Tensor) -> Plan:
        """Return the plan.

        Raises:
            RuntimeError: Some problem has no candidate of finite cost.
        """
        lost = torch.isinf(self._cost).nonzero().flatten().tolist()
        if lost:
            raise RuntimeError(
                "the cost function gave no finite cost at all for "
                f"{len(lost)} of {len(self._cost)} problems (first: {lost[:5]}); "
                "wanted at least one per problem: check its inputs for NaN"
            )
        if int(self._num_bad) > 0:
            warnings.warn(
                f"{int(self._num_bad)} costs were NaN or infinite and counted as the worst",
                RuntimeWarning,
                stacklevel=3,
            )
        return Plan(self._actions, self._cost, mean, std, tuple(self._history))


class Planner(ABC):
    """Searches for the actions of least cost; knows neither model nor environment.

    Args:
        horizon: Number of planned steps T.
    """

    def __init__(self, *, horizon: int) -> None:
        check_count("horizon", horizon)
        self.horizon = horizon

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
                candidate must always cost the same. Gradients are off while it runs.
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
        if deadline_ms is not None and not deadline_ms > 0:
            raise ValueError(f"deadline_ms: wanted a positive number or None, got {deadline_ms}")
        seeds = _resolve_seeds(seeds, generator, batch_size)
        search = Search(
            cost_fn,
            bounds,
            noise=NoiseSource(seeds, device=low.device, dtype=low.dtype),
            deadline_ms=deadline_ms,
            keep_history=keep_history,
        )
        with torch.no_grad():
            start = self._start(bounds, batch_size, warm_start)
            mean, std = self._search(search, start)
            return search.finish(mean, std)

    @abstractmethod
    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate candidates around start `(B, T, A)`; return the last mean and std, like it."""

    def _start(self, bounds: Bounds, batch_size: int, warm_start: Tensor | None) -> Tensor:
        """Return the `(B, T, A)` actions to start from, inside the bounds."""
        shape = (batch_size, self.horizon, len(bounds.low))
        if warm_start is None:
            return bounds.centre.expand(shape).clone()
        if tuple(warm_start.shape) != shape or warm_start.device != bounds.low.device:
            raise ValueError(
                f"warm_start: wanted shape (B, T, A) = {shape} on {bounds.low.device}, "
                f"got {_describe(warm_start)}"
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
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: wanted an int of at least 1, got {value!r}")


def _describe(value: object) -> str:
    """Say what a thing is that should have been another tensor."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}, {value.dtype} on {value.device}"
    return f"a {type(value).__name__}"


def _check_costs(costs: Tensor, candidates: Tensor) -> None:
    """Raise ValueError unless costs are floating `(B, N)` on the candidates' device."""
    shape = tuple(candidates.shape[:2])
    fits = (
        isinstance(costs, Tensor)
        and tuple(costs.shape) == shape
        and costs.device == candidates.device
        and costs.is_floating_point()
    )
    if not fits:
        raise ValueError(
            f"cost function: wanted floating costs (B, N) = {shape} on {candidates.device} for "
            f"candidates (B, N, T, A) = {tuple(candidates.shape)}, got {_describe(costs)}"
        )


def _resolve_seeds(
    seeds: Tensor | None, generator: torch.Generator | None, batch_size: int
) -> Tensor:
    """Return the problems' seeds `(B,)`, drawn from the generator unless given."""
    if seeds is None:
        if generator is not None and generator.device.type != "cpu":
            # Drawing B numbers on a GPU is not drawing one number B times.
            raise ValueError(
                f"generator: wanted one on the CPU (planning may run anywhere), "
                f"got one on {generator.device}"
            )
        return torch.randint(2**63 - 1, (batch_size,), generator=generator)
    if generator is not None:
        raise ValueError("wanted seeds or a generator, got both")
    if not isinstance(seeds, Tensor) or seeds.shape != (batch_size,) or seeds.dtype != torch.int64:
        raise ValueError(f"seeds: wanted int64 of shape ({batch_size},), got {_describe(seeds)}")
    return seeds
