"""Random shooting: uniform candidates, the cheapest wins; the floor every planner is above."""

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.base import Planner, check_count
from planners.search import Search

_ROUNDS = 8  # pieces the candidates are evaluated in when there is a deadline


@dataclass(kw_only=True, eq=False)
class RandomShooting(Planner):
    """Draws candidates uniformly from the bounds, once. The first one is the warm start.

    Args:
        horizon: Number of planned steps T.
        num_samples: Candidates N.

    Raises:
        ValueError: A number is below 1.
    """

    horizon: int
    num_samples: int = 256

    def __post_init__(self) -> None:
        check_count("horizon", self.horizon)
        check_count("num_samples", self.num_samples)

    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate one round of candidates; mean and std are theirs."""
        low, high = search.space.low, search.space.high
        uniform = search.noise.uniform(self.num_samples, *start.shape[1:])
        candidates = search.space.project(torch.lerp(low, high, uniform))
        candidates[:, 0] = start
        mean, std = candidates.mean(dim=1), candidates.std(dim=1, correction=0)
        rounds = 1 if search.deadline_ms is None else _ROUNDS
        for chunk in candidates.chunk(rounds, dim=1):
            search.evaluate(chunk)
            search.record(mean, std)
            if search.out_of_time():
                break
        return mean, std
