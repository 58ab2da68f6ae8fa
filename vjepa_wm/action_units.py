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
        high: largest value of each, above `low`.
    """

    def __init__(self, low: Sequence[float] | None, high: Sequence[float] | None) -> None:
        self._middle: Tensor | None = None
        self._half: Tensor | None = None
        if low is not None and high is not None:
            least, most = (torch.tensor(bound, dtype=torch.float32) for bound in (low, high))
            self._middle = (least + most) / 2
            self._half = (most - least) / 2

    def __call__(self, actions: Tensor) -> Tensor:
        """Map actions (..., A), in the environment's units, to shares (..., A), float32."""
        if self._middle is None:
            return actions
        self._middle, self._half = on_device((self._middle, self._half), actions.device)
        return (actions.float() - self._middle) / self._half


def on_device(constants: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Move constants to a device, to be kept: a copy in every step would make a GPU wait."""
    if constants[0].device == device:
        return constants
    with torch.inference_mode(mode=False):  # else gradients could not go through them later
        first, second = constants
        return first.to(device), second.to(device)
