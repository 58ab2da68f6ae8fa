"""How learning rate, weight decay and clipping move over a run's budget.

A share of the budget is 0 at the start and 1 at the end; learning rates are multiples of their
peak. Which of the published recipes goes how is in `docs/pretraining.md`.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from vjepa_wm.errors import SettingError

LOWEST = 0.01  # of the peak, at both ends of `HalfCosine`


class Schedule(Protocol):
    """What the trainer asks before every optimiser step."""

    def rate(self, share: float, warmup: float) -> float:
        """Learning rate as a multiple of its peak; `warmup` is a share of the budget."""

    def weight_decay(self, share: float, first: float) -> float:
        """Weight decay, `first` at the beginning."""

    def clips(self, share: float, warmup: float) -> bool:
        """Whether gradients are clipped."""


@dataclass(frozen=True)
class HalfCosine:
    """Linear warm-up from nothing, then half a cosine down to 1 %; the rest stays as it is."""

    def rate(self, share: float, warmup: float) -> float:
        """Learning rate as a multiple of its peak, never below 1 %."""
        if share < warmup:
            return max(share / warmup, LOWEST)
        return half_cosine(1.0, LOWEST, (share - warmup) / (1 - warmup))

    def weight_decay(self, share: float, first: float) -> float:
        """Weight decay, which stays."""
        return first

    def clips(self, share: float, warmup: float) -> bool:
        """Gradients are always clipped."""
        return True


@dataclass(frozen=True)
class StretchedCosine:
    """Warm-up in a straight line, then half a cosine that the end of the run cuts off (V-JEPA 1).

    Attributes:
        start: learning rate at the beginning, as a multiple of its peak.
        end: the same where the cosine would end.
        weight_decay_end: weight decay where its half cosine would end; None keeps it.
        stretch: both cosines are laid out over so many budgets.
        clip_in_warmup: whether gradients are clipped during the warm-up, too.

    Raises:
        SettingError: `stretch` is less than 1.
    """

    start: float
    end: float
    weight_decay_end: float | None
    stretch: float
    clip_in_warmup: bool

    def __post_init__(self) -> None:
        if self.stretch < 1:
            raise SettingError(f"stretch must be at least 1, got {self.stretch}")

    def rate(self, share: float, warmup: float) -> float:
        """Learning rate as a multiple of its peak."""
        if share < warmup:
            return ramp(self.start, share / warmup)
        return half_cosine(1.0, self.end, (share - warmup) / (self.stretch - warmup))

    def weight_decay(self, share: float, first: float) -> float:
        """Weight decay, from `first` towards its end."""
        if self.weight_decay_end is None:
            return first
        return half_cosine(first, self.weight_decay_end, share / self.stretch)

    def clips(self, share: float, warmup: float) -> bool:
        """Gradients may be clipped after the warm-up only."""
        return self.clip_in_warmup or share >= warmup


@dataclass(frozen=True)
class ConstantCooldown:
    """Warm-up in a straight line, a constant, and a straight line down (V-JEPA 2 and 2.1).

    The cooldown is a phase of its own there, a run that starts from the first one: `warmup` 0 and
    `cooldown` 1. It can also be the last part of one run.

    Attributes:
        start: learning rate at the beginning, as a multiple of its peak.
        end: the same at the end of the cooldown.
        cooldown: share of the budget, its last, in which the rate falls; 0 leaves it constant.

    Raises:
        SettingError: `cooldown` is no share.
    """

    start: float
    end: float
    cooldown: float

    def __post_init__(self) -> None:
        if not 0 <= self.cooldown <= 1:
            raise SettingError(f"cooldown must be in [0, 1], got {self.cooldown}")

    def rate(self, share: float, warmup: float) -> float:
        """Learning rate as a multiple of its peak."""
        if share < warmup:
            return ramp(self.start, share / warmup)
        left = 1 - share
        return ramp(self.end, left / self.cooldown) if left < self.cooldown else 1.0

    def weight_decay(self, share: float, first: float) -> float:
        """Weight decay, which stays."""
        return first

    def clips(self, share: float, warmup: float) -> bool:
        """Gradients are clipped if the trainer has a limit."""
        return True


def ramp(low: float, progress: float) -> float:
    """Go from `low` to 1 in a straight line."""
    return low + (1 - low) * progress


def half_cosine(first: float, last: float, progress: float) -> float:
    """Go from `first` to `last` along half a cosine."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))
