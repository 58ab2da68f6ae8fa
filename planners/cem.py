"""Cross-entropy method: sample, keep the cheapest, fit a Gaussian to them, repeat.

Shapes: B problems, N candidates, K elites, T planned steps, A action width.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from planners.base import PerAxis, axis_values, check_count, numbers
from planners.gaussian import GaussianPlanner, moments
from planners.noise import colouring_matrix
from planners.search import Search, cheapest


@dataclass(kw_only=True, eq=False)
class CEM(GaussianPlanner):
    """Cross-entropy method: the Gaussian is fitted to the cheapest candidates, its elites.

    The last mean is evaluated alone (one candidate: more than half the time it beats every
    sample). The plan returns the cheapest of all that was evaluated, unless told otherwise.

    Args, besides those of `GaussianPlanner`:
        num_elites: How many of the cheapest the Gaussian is fitted to, K <= N.
        momentum: Weight of the old mean and spread in the fit, in [0, 1); 0 forgets them. One
            number, or one per searched entry of an action.
        momentum_std: The same for the spread alone; None is as for the mean.
        returns: Whether the plan is the `best` candidate or the last `mean`.
        deadband: Entries of a returned mean become 0 where they are smaller than this, in action
            units; one number, or one per searched entry. 0 is off.

    Raises:
        ValueError: A number is out of its range.
    """

    init_std: PerAxis = 0.8  # what was measured best to plan with on images
    min_std: PerAxis = 0.1
    num_elites: int = 8
    momentum: PerAxis = 0.1
    momentum_std: PerAxis | None = None
    returns: Literal["best", "mean"] = "best"
    deadband: PerAxis = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("num_elites", self.num_elites)
        if self.num_elites > self.num_samples:
            raise ValueError(
                f"num_elites: wanted at most num_samples = {self.num_samples}, "
                f"got {self.num_elites}"
            )
        for name in ("momentum", "momentum_std"):
            value = getattr(self, name)
            if value is not None and not all(0 <= m < 1 for m in numbers(name, value)):
                raise ValueError(f"{name}: wanted 0 <= {name} < 1, got {value}")
        if self.returns not in ("best", "mean"):
            raise ValueError(f'returns: wanted "best" or "mean", got {self.returns!r}')
        deadband = numbers("deadband", self.deadband)
        if not all(0 <= limit < float("inf") for limit in deadband):
            raise ValueError(f"deadband: wanted at least 0, got {self.deadband}")
        if any(deadband) and self.returns == "best":
            raise ValueError(f'deadband: wanted 0 where returns is "best", got {self.deadband}')

    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Refine the Gaussian; see `Planner._search`."""
        mean, std = start, self._first_std(search, start)
        elites, elite_costs = mean[:, None][:, :0], mean.new_empty(len(mean), 0)
        for iteration in range(self.iterations):
            candidates = self._sample(search, mean, std, num=self._num_samples_at(iteration))
            costs = search.evaluate(candidates)
            # Elites carried over keep their cost: nothing is evaluated twice.
            pool = torch.cat([candidates, elites[:, : self._num_kept]], dim=1)
            pool_costs = torch.cat([costs, elite_costs[:, : self._num_kept]], dim=1)
            elites, elite_costs = cheapest(pool, pool_costs, self.num_elites)
            mean, std = self._refit(search, elites, elite_costs, mean, std)
            search.record(mean, std)
            if search.out_of_time():
                break
        if self.returns == "mean":
            search.settle(self._rounded(search, mean))
        elif not search.is_over:
            search.evaluate(mean[:, None])
        return mean, std

    _num_kept = 0

    def _num_samples_at(self, iteration: int) -> int:
        """Return how many candidates an iteration draws, at least `num_elites`."""
        return self.num_samples

    def _refit(
        self, search: Search, elites: Tensor, costs: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fit mean and std `(B, T, A)` to elites `(B, K, T, A)`, leaving out infinite costs."""
        weights = torch.isfinite(costs).to(elites.dtype)
        total = weights.sum(dim=1, keepdim=True)
        new_mean, new_std = moments(elites, weights / total.clamp(min=1))
        any_finite = total[:, :, None] > 0
        low = search.space.low
        momentum = axis_values("momentum", self.momentum, like=low)
        std_momentum = momentum
        if self.momentum_std is not None:
            std_momentum = axis_values("momentum_std", self.momentum_std, like=low)
        mean = torch.where(any_finite, torch.lerp(new_mean, mean, momentum), mean)
        std = torch.where(any_finite, torch.lerp(new_std, std, std_momentum), std)
        # Of allowed elites, but the mean need not be: not of a ring, nor to the last bit of a box.
        return search.space.project(mean[:, None])[:, 0], self._floor(search, std)

    def _rounded(self, search: Search, mean: Tensor) -> Tensor:
        """Return the mean `(B, T, A)` with its small entries at 0."""
        deadband = axis_values("deadband", self.deadband, like=search.space.low)
        rounded = torch.where(mean.abs() < deadband, 0, mean)
        return search.space.project(rounded[:, None])[:, 0]


@dataclass(kw_only=True, eq=False)
class ICEM(CEM):
    """Sample-efficient CEM for control in real time.

    After Pinneri et al., "Sample-efficient Cross-Entropy Method for Real-time Planning" (2020):
    noise correlated over time, elites carried over between iterations, fewer samples in later
    iterations. Unlike there, elites are not carried over between plans (`warm_start` is) and
    those carried over are not evaluated again.

    Args, besides those of `CEM`:
        noise_beta: Exponent of the noise's spectrum 1 / frequency**noise_beta; 0 is white noise,
            larger is smoother over time.
        keep_elites: Fraction of the elites that compete again in the next iteration; 0 is none.
        sample_decay: Each iteration draws this fraction of the one before, though never less
            than twice `num_elites` (or `num_samples`, if that is less); 1 is no decay.

    Raises:
        ValueError: A number is out of its range.
    """

    noise_beta: float = 2.0
    keep_elites: float = 0.3
    sample_decay: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.noise_beta < float("inf"):
            raise ValueError(f"noise_beta: wanted at least 0, got {self.noise_beta}")
        if not 0 <= self.keep_elites <= 1:
            raise ValueError(f"keep_elites: wanted a fraction in [0, 1], got {self.keep_elites}")
        if not 0 < self.sample_decay <= 1:
            raise ValueError(f"sample_decay: wanted a fraction in (0, 1], got {self.sample_decay}")
        self._num_kept = round(self.keep_elites * self.num_elites)

    @cached_property
    def _colouring(self) -> Tensor:
        return colouring_matrix(self.horizon, self.noise_beta)

    def _num_samples_at(self, iteration: int) -> int:
        """Return how many candidates an iteration draws."""
        fewest = min(self.num_samples, 2 * self.num_elites)
        return max(fewest, round(self.num_samples * self.sample_decay**iteration))

    def _noise(self, search: Search, num: int, width: int) -> Tensor:
        """Draw `(B, N, T, A)` noise of unit variance, correlated over T."""
        white = search.noise.normal(num, self.horizon, width)
        # No matrix product: its rounding depends on how many problems there are
        terms = self._colouring.to(white).unsqueeze(-1) * white.unsqueeze(-3)  # (B, N, T, T, A)
        return terms.sum(dim=-2)
