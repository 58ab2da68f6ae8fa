"""Random shooting: uniform candidates, the cheapest wins; the floor every planner is above."""

import torch
from torch import Tensor

from planners.base import Planner, Search, check_count


class RandomShooting(Planner):
    """Draws candidates uniformly from the bounds, once. The first one is the warm start.

    Args:
        horizon: Number of planned steps T.
        num_samples: Candidates N.

    Raises:
        ValueError: A number is below 1.
    """

    def __init__(self, *, horizon: int, num_samples: int = 256) -> None:
        super().__init__(horizon=horizon)
        check_count("num_samples", num_samples)
        self.num_samples = num_samples

    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate one round; mean and std are those of its candidates."""
        low, high = search.bounds.low, search.bounds.high
        uniform = search.noise.uniform(self.num_samples, *start.shape[1:])
        candidates = search.bounds.clip(torch.lerp(low, high, uniform))
        candidates[:, 0] = start
        search.evaluate(candidates)
        mean, std = candidates.mean(dim=1), candidates.std(dim=1, correction=0)
        search.record(mean, std)
        return mean, std
