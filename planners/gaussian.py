"""What planners share that draw candidates from a Gaussian around a mean.

Shapes: B problems, N candidates, K those fitted to, T planned steps, A action width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.base import PerAxis, Planner, axis_values, check_count, numbers
from planners.search import Search


@dataclass(kw_only=True, eq=False)
class GaussianPlanner(Planner):
    """Draws candidates from a diagonal Gaussian over the whole action sequence and refits it.

    Args:
        horizon: Number of planned steps T.
        num_samples: Candidates per iteration N. The first of them is the mean itself.
        iterations: Rounds of sampling and fitting.
        init_std: First spread, as a fraction of half the action range; one number, or one per
            searched entry of an action.
        min_std: The spread never falls below this, same unit.

    Raises:
        ValueError: A number is out of its range.
    """

    horizon: int
    num_samples: int = 64
    iterations: int = 3
    init_std: PerAxis = 0.5
    min_std: PerAxis = 0.05

    def __post_init__(self) -> None:
        for name in ("horizon", "num_samples", "iterations"):
            check_count(name, getattr(self, name))
        first, least = numbers("init_std", self.init_std), numbers("min_std", self.min_std)
        if not all(0 < std < float("inf") for std in first):
            raise ValueError(f"init_std: wanted a positive number, got {self.init_std}")
        pairs = zip(first * len(least), least * len(first), strict=True)
        if not all(0 <= floor <= std for std, floor in pairs):
            raise ValueError(
                f"min_std: wanted 0 <= min_std <= init_std = {self.init_std}, got {self.min_std}"
            )

    def _first_std(self, search: Search, mean: Tensor) -> Tensor:
        """Return the first spread `(B, T, A)`."""
        half = search.space.half
        return (axis_values("init_std", self.init_std, like=half) * half).expand_as(mean)

    def _floor(self, search: Search, std: Tensor) -> Tensor:
        """Return the spread, where it is not too small."""
        half = search.space.half
        return torch.maximum(std, axis_values("min_std", self.min_std, like=half) * half)

    def _noise(self, search: Search, num: int, width: int) -> Tensor:
        """Draw `(B, N, T, A)` noise of unit variance."""
        return search.noise.normal(num, self.horizon, width)

    def _sample(self, search: Search, mean: Tensor, std: Tensor, *, num: int) -> Tensor:
        """Draw allowed candidates `(B, N, T, A)`; the first is the mean."""
        noise = self._noise(search, num, mean.shape[-1])
        candidates = search.space.project(mean[:, None] + std[:, None] * noise)
        candidates[:, 0] = mean
        return candidates


def moments(candidates: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std `(B, T, A)` of candidates `(B, K, T, A)` under weights `(B, K)`."""
    weights = weights[:, :, None, None]
    mean = (weights * candidates).sum(dim=1)
    std = (weights * (candidates - mean[:, None]) ** 2).sum(dim=1).sqrt()
    return mean, std
