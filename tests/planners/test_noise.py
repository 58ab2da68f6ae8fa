"""The random numbers of planning."""

import math

import pytest
import torch

from planners.noise import NoiseSource, colouring_matrix


def test_noise_is_standard_normal_and_independent_between_seeds_and_steps() -> None:
    # Neighbouring seeds are the hardest for a hash. Limits are 5 standard errors.
    count = 40_000
    source = NoiseSource(torch.arange(8), device=torch.device("cpu"), dtype=torch.float32)
    noise = source.normal(count)
    limit = 5 / math.sqrt(count)
    assert noise.mean(1).abs().max() < limit
    assert (noise.var(1) - 1).abs().max() < limit * math.sqrt(2)
    assert ((noise**4).mean(1) - 3).abs().max() < limit * math.sqrt(96)
    assert (torch.corrcoef(noise) - torch.eye(8)).abs().max() < limit
    assert (noise[:, 1:] * noise[:, :-1]).mean(1).abs().max() < limit
    assert (noise * source.normal(count)).mean(1).abs().max() < limit


def test_uniform_noise_fills_its_interval_evenly() -> None:
    source = NoiseSource(torch.tensor([0]), device=torch.device("cpu"), dtype=torch.float64)
    numbers = source.uniform(100_000)
    counts = torch.histc(numbers, bins=50, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert 20 < chi_square < 95  # 49 degrees of freedom; both ends are beyond 1 in 10 000


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 4.0])
def test_coloured_noise_has_the_spectrum_asked_for(beta: float) -> None:
    steps = 128
    source = NoiseSource(torch.tensor([0]), device=torch.device("cpu"), dtype=torch.float64)
    coloured = source.normal(2000, steps)[0] @ colouring_matrix(steps, beta).T
    torch.testing.assert_close(
        coloured.var(0), torch.ones(steps, dtype=torch.float64), rtol=0, atol=0.2
    )
    # A window without a jump at its ends, else the steep spectra leak into high frequencies.
    spectrum = torch.fft.rfft(coloured * torch.hann_window(steps)).abs().square().mean(0)
    k = torch.arange(6, 48)
    logs = torch.stack([k.log(), spectrum[k].log()])
    slope = torch.cov(logs)[0, 1] / logs[0].var()
    assert slope == pytest.approx(-beta, abs=0.15)


@pytest.mark.parametrize(("horizon", "beta"), [(1, 2.0), (100, 10.0)])
def test_colouring_works_at_the_extremes(horizon: int, beta: float) -> None:
    matrix = colouring_matrix(horizon, beta)
    torch.testing.assert_close((matrix**2).sum(1), torch.ones(horizon, dtype=torch.float64))
