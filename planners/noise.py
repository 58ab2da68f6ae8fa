"""Random numbers for planning: what a problem draws does not depend on the batch it is in.

Shapes: B problems, N candidates, T planned steps, A action width.
"""

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """Scramble 32-bit values held in int64.

    The multipliers are below 2**31, so that no product leaves int64. They come from the search for
    low-bias hashes at github.com/skeeto/hash-prospector.
    """
    x = (x ^ (x >> 16)).mul_(0x21F0AAAD).bitwise_and_(_MASK)
    x = x.bitwise_xor_(x >> 15).mul_(0x735A2D97).bitwise_and_(_MASK)
    return x.bitwise_xor_(x >> 15)


class NoiseSource:
    """Random numbers in one independent stream per problem.

    Each number is a hash of its problem's seed and of how many that problem drew before. A batch
    of problems is drawn at once, on the device, and every problem gets what it would get alone;
    a `torch.Generator` gives one of the two only.

    Args:
        seeds: `(B,)` int64, one per problem.
        device: Where the numbers are made.
        dtype: Their floating type.
    """

    def __init__(self, seeds: Tensor, *, device: torch.device, dtype: torch.dtype) -> None:
        seeds = seeds.to(device)[:, None]
        low, high = seeds & _MASK, (seeds >> 32) & _MASK
        # Two keys, each of the whole seed: with one, two streams would be the same sequence
        # entered at different places, and sooner or later overlap.
        self._offset = _mix((_mix(low) + high) & _MASK)
        self._key = _mix((_mix(low ^ 0x9E3779B9) + high) & _MASK)
        self._drawn = 0
        self.dtype = dtype

    def uniform(self, *shape: int) -> Tensor:
        """Draw `(B, *shape)` numbers, uniform in (0, 1]."""
        count = math.prod(shape)
        counter = torch.arange(self._drawn, self._drawn + count, device=self._key.device)
        self._drawn += count
        bits = _mix(_mix((counter + self._offset) & _MASK) ^ self._key)
        return ((bits.to(self.dtype) + 0.5) * 2.0**-32).reshape(-1, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Draw `(B, *shape)` standard normal numbers (Box and Muller's transform)."""
        count = math.prod(shape)
        radius, angle = self.uniform(2, (count + 1) // 2).unbind(1)
        radius = (-2.0 * radius.log()).sqrt_()
        angle = angle * (2.0 * math.pi)
        pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return pairs[:, :count].reshape(-1, *shape)


def colouring_matrix(horizon: int, beta: float) -> Tensor:
    """Return the matrix that turns white noise over time into coloured noise.

    Coloured noise has a power spectrum proportional to 1 / frequency**beta: 0 is white, 1 pink,
    2 red, whose actions drift slowly instead of jittering around zero. The marginal variance
    stays 1. The spectrum is that of a window twice the horizon, so that the last step is not tied
    to the first one.

    Args:
        horizon: Number of time steps T.
        beta: Exponent, at least 0.

    Returns:
        `(T, T)` float64 lower-triangular matrix M; `M @ white` is coloured.
    """
    window = 2 * horizon
    frequencies = torch.fft.fftfreq(window, d=1.0 / window, dtype=torch.float64).abs()
    power = frequencies.clamp(min=1.0) ** -beta  # the constant part counts as the lowest frequency
    power = power.clamp(min=1e-9)  # a steep spectrum must not make the covariance singular
    covariance = torch.fft.ifft(power).real
    steps = torch.arange(horizon)
    lags = (steps[:, None] - steps[None, :]).abs()
    return torch.linalg.cholesky(covariance[lags] / covariance[0])
