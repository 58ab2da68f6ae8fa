"""Terms against collapse: low on white Gaussian features, high on collapsed ones."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from vjepa_wm.pretraining.anti_collapse import SIGReg, Term, VarianceCovariance, epps_pulley

TERMS = {
    "variance": VarianceCovariance(1.0, 0.0),
    "covariance": VarianceCovariance(0.0, 1.0),
    "sigreg": SIGReg(weight=1.0, num_slices=128),
}
GROUPS = torch.arange(4).repeat(200, 1)  # four places in 200 clips


def white() -> Tensor:
    """Gaussian features, with a constant of its own for each place, which must not count."""
    generator = torch.Generator().manual_seed(0)
    places = 3 * torch.randn(1, 4, 16, generator=generator)
    return torch.randn(200, 4, 16, generator=generator) + places


def line() -> Tensor:
    """All of the variety along one direction."""
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(16, generator=generator)
    return torch.randn(200, 4, 1, generator=generator) * direction


def value(term: Term, tokens: Tensor) -> Tensor:
    torch.manual_seed(0)
    parts = term(tokens, GROUPS)
    return sum(weight * parts[name] for name, weight in term.weights.items())


COLLAPSED = {
    "variance": lambda: 0.01 * white(),
    "covariance": line,
    "sigreg": lambda: 0.01 * white(),
}


@pytest.mark.parametrize("name", TERMS)
def test_white_features_are_near_the_minimum_and_collapsed_ones_far(name: str) -> None:
    low, high = value(TERMS[name], white()), value(TERMS[name], COLLAPSED[name]())
    assert 0 <= low < 0.05
    assert high > 20 * low and high > 0.1


@pytest.mark.parametrize("make", [partial(VarianceCovariance, 1.0, 1.0), partial(SIGReg, 1.0, 128)])
def test_a_smaller_deviation_may_be_asked_for(make: Callable[..., Term]) -> None:
    """Features of that deviation are as good as white ones are at 1, others are not."""
    term, white_at_1 = make(target_std=0.3), value(make(), white())
    torch.testing.assert_close(value(term, 0.3 * white()), white_at_1)
    for scale in (0.1, 1.0):
        assert value(term, scale * white()) > white_at_1 + 0.02
    with pytest.raises(ValueError, match=r"target_std: wanted a positive number, got 0"):
        make(target_std=0)


def test_sigreg_sees_a_collapse_to_a_line_and_a_wrong_shape() -> None:
    """Where variances alone are right: two points per channel have unit variance, too."""
    low = value(TERMS["sigreg"], white())
    assert value(TERMS["sigreg"], line()) > 10 * low
    corners = white().sign()
    along_axes = epps_pulley(corners[:, 0])
    assert (along_axes > 0.02).all()


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e3])
def test_gradients_are_finite(name: str, scale: float) -> None:
    """Also at a complete collapse and far out."""
    tokens = (scale * white()).requires_grad_()
    value(TERMS[name], tokens).backward()
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize("name", TERMS)
def test_descending_leads_away_from_collapse(name: str) -> None:
    tokens = (0.3 * COLLAPSED[name]() if name != "covariance" else line()).requires_grad_()
    before = value(TERMS[name], tokens)
    optimizer = torch.optim.Adam([tokens], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        value(TERMS[name], tokens).backward()
        optimizer.step()
    assert value(TERMS[name], tokens) < 0.5 * before


def test_the_statistic_is_that_of_epps_and_pulley() -> None:
    """Its closed form for the normal density as weight."""
    z = torch.randn(60, generator=torch.Generator().manual_seed(0)).double() * 1.3 + 0.4
    pairs = torch.exp(-(z.unsqueeze(0) - z.unsqueeze(1)).square() / 2).mean()
    single = torch.exp(-z.square() / 4).mean() * math.sqrt(2)
    closed = pairs - single + 1 / math.sqrt(3)
    assert float(epps_pulley(z.unsqueeze(1))) == pytest.approx(float(closed), abs=2e-4)


def test_the_statistic_of_a_point_and_of_gaussian_samples() -> None:
    assert float(epps_pulley(torch.zeros(5, 1))) == pytest.approx(0.1631, abs=1e-4)
    samples = torch.randn(50, 4000, generator=torch.Generator().manual_seed(0))
    assert float(epps_pulley(samples).mean()) == pytest.approx(0.4226 / 50, rel=0.05)
