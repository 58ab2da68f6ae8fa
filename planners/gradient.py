"""Gradient descent on the actions, through a differentiable cost; alone, or after a search.

Shapes: B problems, N starts, T planned steps, A action width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.base import Planner, check_count
from planners.search import Search

_DECAY_MEAN, _DECAY_SQUARE, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(kw_only=True, eq=False)
class Gradient(Planner):
    """Adam on several action sequences at once, each step followed by a projection.

    The first start is the warm start itself, the others are normal noise around it. Neither their
    number nor the batch changes a sequence's way. The plan is the cheapest sequence met on the
    way. The cost function must be differentiable, and is called with gradients on.

    Args:
        horizon: Number of planned steps T.
        num_starts: Sequences that descend side by side N.
        iterations: Steps of Adam; the cost and its gradient are computed once in each.
        learning_rate: Largest change of an action entry per step, about, as a fraction of half
            the action range.
        init_std: Spread of the starts, same unit.

    Raises:
        ValueError: A number is out of its range.
    """

    horizon: int
    num_starts: int = 8
    iterations: int = 30
    learning_rate: float = 0.1
    init_std: float = 0.5

    def __post_init__(self) -> None:
        for name in ("horizon", "num_starts", "iterations"):
            check_count(name, getattr(self, name))
        for name in ("learning_rate", "init_std"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: wanted a positive number, got {getattr(self, name)}")

    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Descend; the mean is the best sequence, the std that of the sequences' ends."""
        half = search.space.half
        noise = search.noise.normal(self.num_starts, *start.shape[1:])
        actions = search.space.project(start[:, None] + self.init_std * half * noise)
        actions[:, 0] = start
        adam = _Adam(actions)
        for _ in range(self.iterations):
            _, gradient = search.evaluate_with_gradient(actions)
            search.record(search.best, actions.std(dim=1, correction=0))
            if search.out_of_time():
                break
            step = adam.step(gradient * half)  # in units of half the range
            actions = search.space.project(actions - self.learning_rate * half * step)
        if not search.is_over:
            search.evaluate(actions)
        return search.best, actions.std(dim=1, correction=0)


@dataclass(kw_only=True, eq=False)
class Polished(Planner):
    """One planner after another: the second starts at the best the first has found.

    A search that needs no gradient finds the right valley, `Gradient` with one start its bottom.
    They share the deadline. `Constrained` belongs around both: around one, the other leaves what it
    allows.

    Args:
        search: Goes first.
        polish: Goes second, with the same horizon.

    Raises:
        ValueError: The horizons differ.
    """

    search: Planner
    polish: Planner

    def __post_init__(self) -> None:
        if self.search.horizon != self.polish.horizon:
            raise ValueError(
                f"polish: wanted the horizon of search = {self.search.horizon}, "
                f"got {self.polish.horizon}"
            )

    @property
    def horizon(self) -> int:
        """Number of planned steps T."""
        return self.search.horizon

    def _search(self, search: Search, start: Tensor) -> tuple[Tensor, Tensor]:
        """Search, then polish if there is time."""
        mean, std = self.search._search(search, start)
        if search.is_over:
            return mean, std
        return self.polish._search(search, search.best)


class _Adam:
    """Adam's steps for a tensor of its own, without torch.optim, which takes a second to load."""

    def __init__(self, like: Tensor) -> None:
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)
        self._count = 0

    def step(self, gradient: Tensor) -> Tensor:
        """Return the direction to go against, of size about 1."""
        self._count += 1
        self._mean = torch.lerp(gradient, self._mean, _DECAY_MEAN)
        self._square = torch.lerp(gradient.square(), self._square, _DECAY_SQUARE)
        mean = self._mean / (1 - _DECAY_MEAN**self._count)
        square = self._square / (1 - _DECAY_SQUARE**self._count)
        return mean / (square.sqrt() + _EPSILON)
