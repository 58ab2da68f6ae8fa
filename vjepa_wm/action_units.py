"""Actions in units that networks learn from, whatever those of the environment are.

Shapes: A action width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class HalfRanges:
    """Takes actions to shares of half their range, -1 to 1.

    Args:
        low: smallest value of each of the A entries; None leaves actions as they are, as models of
            versions before this one were trained.
        high: largest value of each.
    """

    def __init__(self, low: Sequence[float] | None, high: Sequence[float] | None) -> None:
        self._middle: Tensor | None = None
        self._half: Tensor | None = None
        if low is not None and high is not None:
            least, most = (torch.tensor(bound, dtype=torch.float32) for bound in (low, high))
            self._middle = (least + most) / 2
            self._half = torch.where(most > least, (most - least) / 2, 1.0)  # 1: held entries

    def __call__(self, actions: Tensor) -> Tensor:
        """Map actions (..., A), in the environment's units, to shares (..., A), float32."""
        if self._middle is None:
            return actions
        if self._middle.device != actions.device:  # moved once: a copy makes a GPU wait
            self._middle = self._middle.to(actions.device)
            self._half = self._half.to(actions.device)
        return (actions.float() - self._middle) / self._half
