"""Cross-entropy method for discrete actions: sample, keep the cheapest, count their choices.

Shapes: B problems, N candidates, K elites, T planned steps, A action width, M most choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from planners.base import Plan, check_count
from planners.noise import NoiseSource
from planners.search import CostFunction, Search, Space, cheapest, describe, resolve_seeds


@dataclass(kw_only=True, eq=False)
class CategoricalCEM:
    """Cross-entropy method over sequences of choices, each entry and step on its own.

    The first candidate of each iteration is the most likely sequence, and the last such sequence
    is evaluated alone. The plan returns the cheapest of all that was evaluated.

    Args:
        horizon: Number of planned steps T.
        num_samples: Candidates per iteration N.
        num_elites: How many of the cheapest the probabilities are fitted to, K <= N.
        iterations: Rounds of sampling and fitting.
        momentum: Weight of the old probabilities in the fit, in [0, 1); 0 forgets them.
        uniform_share: Part of every probability that stays spread over all choices, in [0, 1].

    Raises:
        ValueError: A number is out of its range.
    """

    horizon: int
    num_samples: int = 64
    num_elites: int = 8
    iterations: int = 3
    momentum: float = 0.1
    uniform_share: float = 0.05

    def __post_init__(self) -> None:
        for name in ("horizon", "num_samples", "num_elites", "iterations"):
            check_count(name, getattr(self, name))
        if self.num_elites > self.num_samples:
            raise ValueError(
                f"num_elites: wanted at most num_samples = {self.num_samples}, "
                f"got {self.num_elites}"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: wanted 0 <= momentum < 1, got {self.momentum}")
        if not 0 <= self.uniform_share <= 1:
            raise ValueError(f"uniform_share: wanted 0 to 1, got {self.uniform_share}")

    def plan(
        self,
        cost_fn: CostFunction,
        *,
        num_choices: Sequence[int],
        batch_size: int = 1,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
        seeds: Tensor | None = None,
        deadline_ms: float | None = None,
        keep_history: bool = False,
        device: torch.device | str = "cpu",
    ) -> Plan:
        """Find cheap choices for B problems at once; see `Planner.plan` for what is not said here.

        Args:
            cost_fn: Maps candidates `(B, N, T, A)`, int64 choices counted from 0, to floating
                costs `(B, N)`. For a model that wants one-hot actions, apply
                `torch.nn.functional.one_hot` inside.
            num_choices: How many choices each of the A entries of an action has: `[4]` for
                Gymnasium's `Discrete(4)`, `nvec` for a `MultiDiscrete`.
            batch_size: Number of problems B.
            warm_start: `(B, T, A)` int64 choices that have half of the first probability; None
                begins with equal ones.
            generator: See `Planner.plan`.
            seeds: See `Planner.plan`.
            deadline_ms: See `Planner.plan`.
            keep_history: See `Planner.plan`.
            device: Where the search runs.

        Returns:
            The plan. Its actions are int64; mean and std, `(B, T, A, M)`, are those of one-hot
            actions: the mean is the probability of each choice.

        Raises:
            ValueError: An argument, or what `cost_fn` returned, has the wrong shape or type.
            RuntimeError: All costs of some problem were NaN or infinite.
        """
        check_count("batch_size", batch_size)
        choices = _check_choices(num_choices)
        seeds = resolve_seeds(seeds, generator, batch_size)
        noise = NoiseSource(seeds, device=torch.device(device), dtype=torch.float32)
        search = Search(cost_fn, Space(), noise, deadline_ms, keep_history)
        with torch.no_grad():
            uniform = _uniform(choices, device=device)
            shape = (batch_size, self.horizon, len(choices))
            first = uniform.expand(*shape, -1)
            if warm_start is not None:
                _check_warm_start(warm_start, shape, choices=choices, device=first.device)
                first = (first + F.one_hot(warm_start, first.shape[-1])) / 2
            chances = self._search(search, first, uniform)
            actions, cost = search.finish()
        spread = _spread(chances)
        history = tuple(search.history)
        return Plan(actions, cost, chances, spread, search.num_evaluated, history)

    def _search(self, search: Search, chances: Tensor, uniform: Tensor) -> Tensor:
        """Refine probabilities `(B, T, A, M)`; `uniform` `(A, M)` are equal ones."""
        for _ in range(self.iterations):
            candidates = _sample(search, chances, num=self.num_samples)
            elites, costs = cheapest(candidates, search.evaluate(candidates), self.num_elites)
            weights = torch.isfinite(costs).to(chances.dtype)[:, :, None, None, None]
            total = weights.sum(dim=1)
            counts = (F.one_hot(elites, chances.shape[-1]) * weights).sum(dim=1)
            fitted = torch.lerp(counts / total.clamp(min=1), chances, self.momentum)
            fitted = torch.lerp(fitted, uniform, self.uniform_share)
            chances = torch.where(total > 0, fitted, chances)
            search.record(chances, _spread(chances))
            if search.out_of_time():
                return chances
        search.evaluate(chances.argmax(dim=-1)[:, None])
        return chances


def _sample(search: Search, chances: Tensor, *, num: int) -> Tensor:
    """Draw candidates `(B, N, T, A)`; the first is the most likely one."""
    steps, width = chances.shape[1:3]
    uniform = search.noise.uniform(steps, width, num)
    heaps = chances.cumsum(dim=-1)
    # The last heap may end below 1 by rounding, and entries with fewer choices end before M.
    last = (chances > 0).cumsum(dim=-1).argmax(dim=-1, keepdim=True)
    drawn = torch.searchsorted(heaps, uniform).minimum(last)
    candidates = drawn.movedim(-1, 1).contiguous()
    candidates[:, 0] = chances.argmax(dim=-1)
    return candidates


def _spread(chances: Tensor) -> Tensor:
    """Return the standard deviation of one-hot actions of these probabilities."""
    return (chances * (1 - chances)).clamp(min=0).sqrt()


def _uniform(choices: tuple[int, ...], *, device: torch.device | str) -> Tensor:
    """Return equal probabilities `(A, M)`, zero where an entry has fewer than M choices."""
    counts = torch.tensor(choices, device=device)[:, None]
    return (torch.arange(max(choices), device=device) < counts) / counts


def _check_choices(num_choices: Sequence[int]) -> tuple[int, ...]:
    choices = tuple(int(n) for n in num_choices)
    if not choices or min(choices) < 1 or max(choices) < 2:
        raise ValueError(
            "num_choices: wanted one count per entry of an action, at least 1, one of them at "
            f"least 2, got {num_choices}"
        )
    return choices


def _check_warm_start(
    warm_start: Tensor, shape: tuple[int, ...], *, choices: tuple[int, ...], device: torch.device
) -> None:
    wanted = f"warm_start: wanted int64 choices (B, T, A) = {shape} on {device}"
    fits = isinstance(warm_start, Tensor) and tuple(warm_start.shape) == shape
    if not fits or warm_start.dtype != torch.int64 or warm_start.device != device:
        raise ValueError(f"{wanted}, got {describe(warm_start)}")
    if not ((warm_start >= 0) & (warm_start < torch.tensor(choices, device=device))).all():
        raise ValueError(f"{wanted} below {choices}, got {warm_start.tolist()}")
