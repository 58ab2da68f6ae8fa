"""Bounds of actions, which environments may state in float64 while actions are float32.

Shapes: A action width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RELATIVE = 1e-6  # of a bound, by which float32 may have moved it


def float32_inside(
    low: ArrayLike, high: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Round bounds (A,) to float32, inwards: 0.05 is nearest to a float32 that is beyond it."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    inner_low, inner_high = low.astype(np.float32), high.astype(np.float32)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    inner_low = np.where(inner_low < low, np.nextafter(inner_low, up), inner_low)
    inner_high = np.where(inner_high > high, np.nextafter(inner_high, down), inner_high)
    return inner_low, inner_high


def same_actions(
    one: tuple[Sequence[float], Sequence[float], int],
    other: tuple[Sequence[float], Sequence[float], int],
) -> bool:
    """Whether low, high and frame_skip are the same, but for what rounding did to the bounds."""
    return (
        one[2] == other[2]
        and len(one[0]) == len(other[0])
        and all(np.allclose(a, b, rtol=RELATIVE, atol=0) for a, b in zip(one, other, strict=True))
    )
