"""Cross-entropy method: sample, keep the cheapest, fit a Gaussian to them, repeat.

Shapes: B problems, N candidates, K elites, T planned steps, A action width.
"""

import torch
from torch import Tensor

from planners.base import Planner, Search, check_count
from planners.noise import colouring_matrix


class CEM(Planner):
    """Cross-entropy method with a diagonal Gaussian over the whole action sequence.

    The first candidate of each iteration is the mean itself, and the last mean is evaluated alone
    (one candidate: more than half the time it beats every sample). The plan returns the cheapest
    of all that was evaluated.

    Args:
        horizon: Number of planned steps T.
        num_samples: Candidates per iteration N.
        num_elites: How many of the cheapest the Gaussian is fitted to, K <= N.
        iterations: Rounds of sampling and fitting.
        init_std: First spread, as a fraction of half the action range.
        min_std: The spread never falls below this, same unit.
        momentum: Weight of the old mean and spread in the fit, in [0, 1); 0 forgets them.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        *,
        horizon: int,
        num_samples: int = 64,
        num_elites: int = 8,
        iterations: int = 3,
        init_std: float = 0.5,
        min_std: float = 0.05,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(horizon=horizon)
        check_count("num_samples", num_samples)
        check_count("num_elites", num_elites)
        check_count("iterations", iterations)
        if num_elites > num_samples:
            raise ValueError(
                f"num_elites: wanted at most num_samples = {num_samples}, got {num_elites}"
            )
        if not 0 < init_std < float("inf"):
            raise ValueError(f"init_std: wanted a positive number, got {init_std}")
        if not 0 <= min_std <= init_std:
            raise ValueError(
                f"min_std: wanted 0 <= min_std <= init_std = {init_std}, got {min_std}"
            )
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: wanted 0 <= momentum < 1, got {momentum}")
        self.num_samples = num_samples
        self.num_elites = num_elites
        self.iterations = iterations
        self.init_std = init_std
        self.min_std = min_std
        self.momentum = momentum

    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Refine the Gaussian; see `Planner._search`."""
        mean = start
        std = (self.init_std * search.bounds.half).expand_as(mean)
        elites, elite_costs = mean[:, None][:, :0], mean.new_empty(len(mean), 0)
        for iteration in range(self.iterations):
            candidates = self._sample(search, mean, std, num=self._num_samples_at(iteration))
            costs = search.evaluate(candidates)
            # Elites carried over keep their cost: nothing is evaluated twice.
            pool = torch.cat([candidates, elites[:, : self._num_kept]], dim=1)
            pool_costs = torch.cat([costs, elite_costs[:, : self._num_kept]], dim=1)
            elites, elite_costs = _cheapest(pool, pool_costs, self.num_elites)
            mean, std = self._refit(elites, elite_costs, mean, std)
            std = torch.maximum(std, self.min_std * search.bounds.half)
            search.record(mean, std)
            if search.out_of_time():
                return mean, std
        search.evaluate(mean[:, None])
        return mean, std

    _num_kept = 0

    def _num_samples_at(self, iteration: int) -> int:
        """Return how many candidates an iteration draws, at least `num_elites`."""
        return self.num_samples

    def _noise(self, search: Search, num: int, width: int) -> Tensor:
        """Draw `(B, N, T, A)` noise of unit variance."""
        return search.noise.normal(num, self.horizon, width)

    def _sample(self, search: Search, mean: Tensor, std: Tensor, *, num: int) -> Tensor:
        """Draw candidates `(B, N, T, A)` inside the bounds; the first is the mean."""
        noise = self._noise(search, num, mean.shape[-1])
        candidates = search.bounds.clip(mean[:, None] + std[:, None] * noise)
        candidates[:, 0] = mean
        return candidates

    def _refit(
        self, elites: Tensor, costs: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fit mean and std `(B, T, A)` to elites `(B, K, T, A)`, leaving out infinite costs."""
        weights = torch.isfinite(costs).to(elites.dtype)
        total = weights.sum(dim=1)[:, None, None]
        weights = weights[:, :, None, None] / total[:, None].clamp(min=1)
        new_mean = (weights * elites).sum(dim=1)
        new_std = (weights * (elites - new_mean[:, None]) ** 2).sum(dim=1).sqrt()
        any_finite = total > 0
        return (
            torch.where(any_finite, torch.lerp(new_mean, mean, self.momentum), mean),
            torch.where(any_finite, torch.lerp(new_std, std, self.momentum), std),
        )


class ICEM(CEM):
    """Sample-efficient CEM for control in real time.

    After Pinneri et al., "Sample-efficient Cross-Entropy Method for Real-time Planning" (2020):
    noise correlated over time, elites carried over between iterations, fewer samples in later
    iterations. Unlike there, elites are not carried over between plans (`warm_start` is) and
    those carried over are not evaluated again.

    Args:
        horizon: See `CEM`.
        num_samples: Candidates in the first iteration N.
        num_elites: See `CEM`.
        iterations: See `CEM`.
        init_std: See `CEM`.
        min_std: See `CEM`.
        momentum: See `CEM`.
        noise_beta: Exponent of the noise's spectrum 1 / frequency**noise_beta; 0 is white noise,
            larger is smoother over time.
        keep_elites: Fraction of the elites that compete again in the next iteration; 0 is none.
        sample_decay: Each iteration draws this fraction of the one before, though never less
            than twice `num_elites` (or `num_samples`, if that is less); 1 is no decay.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        *,
        horizon: int,
        num_samples: int = 64,
        num_elites: int = 8,
        iterations: int = 3,
        init_std: float = 0.5,
        min_std: float = 0.05,
        momentum: float = 0.1,
        noise_beta: float = 2.0,
        keep_elites: float = 0.3,
        sample_decay: float = 0.8,
    ) -> None:
        super().__init__(
            horizon=horizon,
            num_samples=num_samples,
            num_elites=num_elites,
            iterations=iterations,
            init_std=init_std,
            min_std=min_std,
            momentum=momentum,
        )
        if not 0 <= noise_beta < float("inf"):
            raise ValueError(f"noise_beta: wanted at least 0, got {noise_beta}")
        if not 0 <= keep_elites <= 1:
            raise ValueError(f"keep_elites: wanted a fraction in [0, 1], got {keep_elites}")
        if not 0 < sample_decay <= 1:
            raise ValueError(f"sample_decay: wanted a fraction in (0, 1], got {sample_decay}")
        self.noise_beta = noise_beta
        self.keep_elites = keep_elites
        self.sample_decay = sample_decay
        self._num_kept = round(keep_elites * num_elites)
        self._colouring = colouring_matrix(horizon, noise_beta)

    def _num_samples_at(self, iteration: int) -> int:
        """Return how many candidates an iteration draws."""
        fewest = min(self.num_samples, 2 * self.num_elites)
        return max(fewest, round(self.num_samples * self.sample_decay**iteration))

    def _noise(self, search: Search, num: int, width: int) -> Tensor:
        """Draw `(B, N, T, A)` noise of unit variance, correlated over T."""
        white = search.noise.normal(num, self.horizon, width)
        return torch.einsum("ts,bnsa->bnta", self._colouring.to(white), white)


def _cheapest(candidates: Tensor, costs: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Return the cheapest candidates `(B, num, T, A)` and costs `(B, num)`, cheapest first."""
    costs, index = costs.topk(num, dim=1, largest=False, sorted=True)
    problems = torch.arange(len(index), device=index.device)[:, None]
    return candidates[problems, index], costs
