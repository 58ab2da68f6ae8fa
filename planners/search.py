"""One call of a planner: the space it searches, the clock, and the best candidate so far.

Shapes: B problems, N candidates, T planned steps, A action width.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

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
        candidates: `(B, N, T, A)` what this iteration evaluated.
        costs: `(B, N)` what that cost.
    """

    cost: Tensor
    mean: Tensor
    std: Tensor
    candidates: Tensor
    costs: Tensor

    def elites(self, num: int) -> Tensor:
        """Return the cheapest candidates of this iteration, cheapest first.

        Args:
            num: How many, K; fewer come where fewer were evaluated.

        Returns:
            `(B, K, T, A)`.
        """
        return cheapest(self.candidates, self.costs, min(num, self.costs.shape[1]))[0]


class Space:
    """What a search moves in: here whole actions `(..., A)`, of which all are allowed."""

    def project(self, actions: Tensor) -> Tensor:
        """Move candidates `(B, N, T, A)` to allowed ones."""
        return actions

    def embed(self, actions: Tensor) -> Tensor:
        """Turn points of this space into whole actions."""
        return actions

    def embed_std(self, std: Tensor) -> Tensor:
        """Turn a spread in this space into one of whole actions."""
        return std

    def extract(self, actions: Tensor) -> Tensor:
        """Turn whole actions into points of this space."""
        return actions


@dataclass(frozen=True)
class Bounds(Space):
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
                raise ValueError(f"{name}: wanted a tensor of shape (A,), got {describe(bound)}")
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
                f"got {describe(low)} and {describe(high)}"
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
        """Move actions `(..., A)` to the nearest ones in the box."""
        return torch.clamp(actions, self.low, self.high)

    def project(self, actions: Tensor) -> Tensor:
        """Move candidates `(B, N, T, A)` to allowed ones: into the box."""
        return self.clip(actions)


@dataclass
class Search:
    """Evaluates candidates and remembers the best of each problem.

    Args:
        cost_fn: The cost of candidates.
        space: What is searched. A planner around another may put a smaller space here for as long
            as the other searches; best candidate and history hold whole actions always.
        noise: Where random numbers come from.
        deadline_ms: Milliseconds from now after which no iteration should end; None is no limit.
        keep_history: Whether `record` keeps anything.
    """

    cost_fn: CostFunction
    space: Space
    noise: NoiseSource
    deadline_ms: float | None
    keep_history: bool
    history: list[IterationRecord] = field(default_factory=list, init=False)
    is_over: bool = field(default=False, init=False)  # the deadline has ended the search
    num_evaluated: int = field(default=0, init=False)  # candidates of each problem so far

    def __post_init__(self) -> None:
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            wanted = "deadline_ms: wanted a positive number or None"
            raise ValueError(f"{wanted}, got {self.deadline_ms}")
        self._iteration_start_s = time.perf_counter()
        if self.deadline_ms is not None:
            self._deadline_s = self._iteration_start_s + self.deadline_ms / 1e3
        self._num_bad: Tensor | int = 0
        self._actions: Tensor | None = None
        self._cost: Tensor | None = None

    @property
    def best(self) -> Tensor:
        """`(B, T, A)` the cheapest candidate so far."""
        return self.space.extract(self._actions)

    def evaluate(self, candidates: Tensor) -> Tensor:
        """Return the costs `(B, N)` of candidates `(B, N, T, A)`; non-finite ones become +inf."""
        whole = self.space.embed(candidates)
        raw = self.cost_fn(whole)
        check_costs(raw, whole)
        return self._take(whole, raw)

    def evaluate_with_gradient(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return costs `(B, N)` and their gradients, zero where they are not finite.

        Raises:
            ValueError: The cost does not depend differentiably on the candidates.
        """
        with torch.inference_mode(False), torch.enable_grad():
            leaf = candidates.clone().requires_grad_(True)
            whole = self.space.embed(leaf)
            raw = self.cost_fn(whole)
            check_costs(raw, whole)
            gradient = None
            if raw.requires_grad:
                total = torch.where(torch.isfinite(raw), raw, 0).sum()
                (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
        if gradient is None:
            raise ValueError(
                "cost function: wanted costs that depend differentiably on the actions, got costs "
                "without a gradient; leave out torch.no_grad, detach and NumPy, or use a planner "
                "that needs no gradient, such as CEM"
            )
        costs = self._take(whole.detach(), raw.detach())
        return costs, gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    def settle(self, actions: Tensor) -> None:
        """Make actions `(B, T, A)` the plan where their cost is finite, cheapest or not."""
        cost = self.evaluate(actions[:, None])[:, 0]
        finite = torch.isfinite(cost)
        whole = self.space.embed(actions)
        self._cost = torch.where(finite, cost, self._cost)
        self._actions = torch.where(finite[:, None, None], whole, self._actions)

    def _take(self, candidates: Tensor, raw: Tensor) -> Tensor:
        """Count bad costs, keep the best, and return the costs."""
        self.num_evaluated += raw.shape[1]
        raw = raw.to(self.noise.dtype)
        finite = torch.isfinite(raw)
        self._num_bad = self._num_bad + (~finite).sum()
        costs = torch.where(finite, raw, torch.inf)
        if self.keep_history:
            self._last = candidates, costs
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
        if self.keep_history:
            mean, std = self.space.embed(mean), self.space.embed_std(std)
            self.history.append(IterationRecord(self._cost, mean, std, *self._last))

    def out_of_time(self) -> bool:
        """Tell whether one more iteration as long as the last would end past the deadline."""
        if self.deadline_ms is None:
            return False
        self._cost.sum().item()  # waits for the device: the clock must not run ahead of it
        now_s = time.perf_counter()
        last_s, self._iteration_start_s = now_s - self._iteration_start_s, now_s
        self.is_over = self.is_over or now_s + last_s > self._deadline_s
        return self.is_over

    def finish(self) -> tuple[Tensor, Tensor]:
        """Return the best actions `(B, T, A)` and their costs `(B,)`.

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
        return self._actions, self._cost


def cheapest(candidates: Tensor, costs: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Return the cheapest candidates `(B, num, T, A)` and costs `(B, num)`, cheapest first."""
    costs, index = costs.topk(num, dim=1, largest=False, sorted=True)
    problems = torch.arange(len(index), device=index.device)[:, None]
    return candidates[problems, index], costs


def describe(value: object) -> str:
    """Say what a thing is that should have been another tensor."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}, {value.dtype} on {value.device}"
    return f"a {type(value).__name__}"


def check_costs(costs: Tensor, candidates: Tensor) -> None:
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
            f"candidates (B, N, T, A) = {tuple(candidates.shape)}, got {describe(costs)}"
        )


def resolve_seeds(
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
        raise ValueError(f"seeds: wanted int64 of shape ({batch_size},), got {describe(seeds)}")
    return seeds
