"""Collapse monitors on latents whose answer is known."""

import math

import pytest
import torch
from torch import Tensor

from vjepa_wm.encoders.collapse import effective_rank, frame_std
from vjepa_wm.pretraining.monitors import time_rank_correlation


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def line(steps: int) -> Tensor:
    """Return two episodes (2, T, 3, 8) that go straight through latent space."""
    return torch.arange(steps).view(1, -1, 1, 1) * noise(2, 1, 3, 8)


def test_collapsed_latents() -> None:
    """All frames alike, though places differ: no deviation, rank 1, no order in time."""
    latents = noise(1, 1, 3, 8).expand(2, 10, 3, 8)
    frames = latents.flatten(0, 1)
    assert frame_std(frames) == pytest.approx(0.0, abs=1e-6)
    assert effective_rank(frames) == pytest.approx(1.0, abs=1e-3)
    assert time_rank_correlation(latents, max_steps=9) == 0.0


def test_a_straight_line_through_latent_space() -> None:
    """Distance is time apart, but for the rounding of equal distances."""
    assert time_rank_correlation(line(12), max_steps=11) == pytest.approx(1.0, abs=0.01)


def test_episodes_count_alike() -> None:
    """One line and one collapse give the mean of both."""
    latents = line(12)
    latents[1] = latents[1, :1]
    assert time_rank_correlation(latents, max_steps=11) == pytest.approx(0.5, abs=0.01)


def test_pairs_far_apart_are_left_out() -> None:
    """On a circle distance grows with time for half a turn only."""
    angle = torch.arange(20) * (2 * math.pi / 20)
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1).view(1, 20, 1, 2)
    assert time_rank_correlation(circle, max_steps=9) > 0.99
    assert time_rank_correlation(circle, max_steps=19) < 0.8


@pytest.mark.parametrize("steps", [1, 2])
def test_two_frames_have_no_order_in_time(steps: int) -> None:
    assert time_rank_correlation(line(steps), max_steps=15) == 0.0


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_directions(rank: int) -> None:
    """Equal energy in so many of 8 directions; the constant of each place does not count."""
    directions = torch.linalg.qr(noise(8, 8)).Q[:rank]
    latents = noise(400, 3, rank) @ directions + 5 * noise(3, 8)
    assert effective_rank(latents) == pytest.approx(rank, rel=0.02)


def test_effective_rank_is_exact_under_autocast() -> None:
    """The noise of bfloat16 products would pass for further directions."""
    latents = noise(50, 3, 1) @ noise(1, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert effective_rank(latents) == pytest.approx(1.0, abs=0.01)


def test_frame_std_is_over_frames() -> None:
    frames = torch.tensor([-1.0, 1.0]).repeat(500).view(-1, 1, 1).expand(-1, 3, 8)
    assert frame_std(frames + 7 * noise(1, 3, 8)) == pytest.approx(1.0, abs=1e-3)
