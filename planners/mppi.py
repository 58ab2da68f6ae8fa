"""Model-predictive path integral control: the mean of all candidates, weighted by their cost.

Shapes: B problems, N candidates, T planned steps, A action width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.gaussian import GaussianPlanner, moments
from planners.search import Search


@dataclass(kw_only=True, eq=False)
class MPPI(GaussianPlanner):
    """Path integral control: each candidate enters the fit by exp(-cost / temperature).

    After Williams et al., "Information Theoretic MPC for Model-Based Reinforcement Learning"
    (2017), without its charge for effort, which belongs into the cost. The last mean is evaluated
    alone; the plan is the cheapest of all that was evaluated.

    Args, besides those of `GaussianPlanner`:
        temperature: What divides the cost, in its unit: candidates that cost this much more than
            the best weigh 1 / e of it. Towards 0 only the best counts.
        update_std: Whether the spread is fitted too. It shrinks to `min_std` at once where costs
            differ by much more than the temperature; False keeps the first one.

    Raises:
        ValueError: A number is out of its range.
    """

    temperature: float = 0.5
    update_std: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature: wanted a positive number, got {self.temperature}")

    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Refine the Gaussian; see `Planner._search`."""
        mean, std = start, self._first_std(search, start)
        for _ in range(self.iterations):
            candidates = self._sample(search, mean, std, num=self.num_samples)
            costs = search.evaluate(candidates)
            mean, std = self._refit(search, candidates, costs, mean, std)
            search.record(mean, std)
            if search.out_of_time():
                return mean, std
        search.evaluate(mean[:, None])
        return mean, std

    def _refit(
        self, search: Search, candidates: Tensor, costs: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fit mean and std `(B, T, A)` to all candidates `(B, N, T, A)` by weight."""
        any_finite = torch.isfinite(costs).any(dim=1)[:, None, None]
        excess = costs - costs.amin(dim=1, keepdim=True)  # the best has weight 1 before norming
        new_mean, new_std = moments(candidates, torch.softmax(-excess / self.temperature, dim=1))
        mean = torch.where(any_finite, new_mean, mean)  # the new one is NaN where no cost is finite
        mean = search.space.project(mean[:, None])[:, 0]
        if self.update_std:
            std = torch.where(any_finite, self._floor(search, new_std), std)
        return mean, std
