"""Terms that hold features apart where videos are few and simple; published V-JEPA has none.

Without them all frames get nearly the same features on clean scenes and short schedules. A term
looks at the features of visible tokens after the mean of each group (each token position within
each source of data) is removed: telling positions or environments apart must not count as variety.

Shapes: B clips, L tokens, N = B * L, D width, S directions, F frequencies.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

# Where the characteristic functions are compared: 0 to 5, as both are alike at -t and the normal
# density that weighs them is below 1e-6 beyond
FREQUENCY_STEP = 0.625
NUM_FREQUENCIES = 9


class Term(Protocol):
    """One or several numbers that are low where features are varied."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each number in the loss; a term whose weights are all 0 is not computed."""

    def __call__(self, tokens: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """Compute the unweighted numbers of tokens (B, L, D) in integer groups (B, L)."""


@dataclass(frozen=True)
class VarianceCovariance:
    """Each channel keeps a deviation of at least so much, channels stay uncorrelated.

    In the manner of VICReg (arXiv 2105.04906), where the deviation asked for is 1. An encoder that
    ends in a layer norm has hardly more than that to give: at 1 nearly all tokens have to vary,
    those of a background that stands still as well.

    Attributes:
        variance_weight: weight of the mean hinge `max(0, 1 - std)`; 0 is off.
        covariance_weight: weight of the mean squared covariance of two channels; 0 is off.
        target_std: deviation asked for; both terms are of features divided by it.

    Raises:
        ValueError: The deviation asked for is not positive.
    """

    variance_weight: float
    covariance_weight: float
    target_std: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self.target_std)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each number in the loss."""
        return {"variance_loss": self.variance_weight, "covariance_loss": self.covariance_weight}

    def __call__(self, tokens: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """Compute both terms of tokens (B, L, D) in groups (B, L)."""
        variance, covariance = variance_covariance(tokens / self.target_std, groups)
        return {"variance_loss": variance, "covariance_loss": covariance}


@dataclass(frozen=True)
class SIGReg:
    """Features are to be an isotropic standard Gaussian, seen along random directions.

    Sketched isotropic Gaussian regularisation (LeJEPA, arXiv 2511.08544). In each step features are
    projected on directions drawn anew, and each projection is held against a standard Gaussian by
    the statistic of Epps and Pulley. LeJEPA multiplies it by the number of samples; here it is
    left as a distance, so that a weight means the same for every batch.

    Attributes:
        weight: weight in the loss; 0 is off.
        num_slices: directions S per step and kind of mask.
        target_std: deviation asked for; the term is of features divided by it.

    Raises:
        ValueError: The deviation asked for is not positive.
    """

    weight: float
    num_slices: int
    target_std: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self.target_std)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of the statistic in the loss."""
        return {"sigreg_loss": self.weight}

    def __call__(self, tokens: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """Compute the mean statistic of tokens (B, L, D) in groups (B, L)."""
        x, freedom = without_group_means(tokens / self.target_std, groups)
        x = x * math.sqrt(len(x) / freedom)  # removing means took variance away
        directions = F.normalize(torch.randn(x.shape[1], self.num_slices), dim=0)
        with torch.autocast(x.device.type, enabled=False):
            return {"sigreg_loss": epps_pulley(x @ directions.to(x.device)).mean()}


def _require_positive(target_std: float) -> None:
    if not target_std > 0:
        raise ValueError(f"target_std: wanted a positive number, got {target_std}")


def without_group_means(tokens: Tensor, groups: Tensor) -> tuple[Tensor, int]:
    """Remove the mean of each group.

    Args:
        tokens: (B, L, D).
        groups: (B, L) integer group of each token.

    Returns:
        Tokens float32 (N, D), and the degrees of freedom that are left to them.
    """
    x = tokens.float().flatten(0, 1)
    _, index, count = groups.flatten().unique(return_inverse=True, return_counts=True)
    mean = x.new_zeros(len(count), x.shape[1]).index_add_(0, index, x) / count.unsqueeze(1)
    return x - mean[index], max(len(x) - len(count), 1)


def variance_covariance(tokens: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and covariance terms of tokens whose group means are removed.

    Args:
        tokens: (B, L, D).
        groups: (B, L) integer group of each token.

    Returns:
        The mean hinge `max(0, 1 - std)` over channels, and the mean squared off-diagonal
        covariance per channel.
    """
    x, freedom = without_group_means(tokens, groups)
    with torch.autocast(x.device.type, enabled=False):
        covariance = x.T @ x / freedom  # (D, D)
    std = (covariance.diagonal() + 1e-4).sqrt()
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    return F.relu(1 - std).mean(), off_diagonal.square().sum() / x.shape[1]


def epps_pulley(samples: Tensor) -> Tensor:
    """How far samples (N, S) are from a standard Gaussian; (S,), 0 where they are one.

    The squared distance of the empirical characteristic function from `exp(-t^2 / 2)`, integrated
    over t under the standard normal density by the trapezoid rule (Epps and Pulley, Biometrika
    1983, there times N). Smooth in the samples. All alike and at 0 they give 0.163; a Gaussian
    sample gives 0.42 / N on average.
    """
    frequencies = FREQUENCY_STEP * torch.arange(NUM_FREQUENCIES, device=samples.device)
    gaussian = torch.exp(-(frequencies**2) / 2)  # (F,)
    angles = samples.unsqueeze(-1) * frequencies  # (N, S, F)
    real, imaginary = angles.cos().mean(dim=0) - gaussian, angles.sin().mean(dim=0)
    density = gaussian / math.sqrt(2 * math.pi)
    distance = (real.square() + imaginary.square()) * density  # (S, F)
    return 2 * torch.trapezoid(distance, dx=FREQUENCY_STEP, dim=-1)
