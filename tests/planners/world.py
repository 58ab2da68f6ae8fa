"""An analytic world: a point with velocity control, quadratic costs, known optimum."""

from collections.abc import Callable

import torch
from torch import Tensor

T, A = 6, 2
LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 0.5])
BOUNDS = {"low": LOW, "high": HIGH}
EFFORT = 0.5


def reach(goals: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the cost of ending away from goals `(B, A)`, plus a little for effort."""

    def cost(actions: Tensor) -> Tensor:
        miss = actions.sum(dim=2) - goals[:, None]
        return (miss**2).sum(-1) + EFFORT * (actions**2).sum((-1, -2))

    return cost


def optimum(goals: Tensor) -> Tensor:
    """Return the optimal actions `(B, T, A)` of `reach`: the same at all steps, by symmetry."""
    return (goals / (T + EFFORT)).clamp(LOW, HIGH)[:, None].expand(-1, T, -1)


def total(actions: Tensor) -> Tensor:
    """Cost that wants every entry as small as it may be."""
    return actions.sum((-1, -2))


def generator(seed: int = 0) -> torch.Generator:
    """Return a generator of this seed."""
    return torch.Generator().manual_seed(seed)


def random_goals(count: int, seed: int = 0) -> Tensor:
    """Return goals `(count, A)`, some of them out of reach."""
    return torch.rand(count, A, generator=generator(seed)) * 4 - 2
