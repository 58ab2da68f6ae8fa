"""The temporal metric learns how far apart places are from walks alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vjepa_wm.errors import SettingError
from vjepa_wm.evaluation.statistics import spearman
from vjepa_wm.metric import TemporalMetric, pairwise_distance

STEP = 0.05  # of a walk, in a square of side 2
MAX_STEPS = 12


def walks(number: int, length: int, *, seed: int) -> Tensor:
    """Return walks (E, T, 2) at constant speed that keep their direction for a while."""
    rng = np.random.default_rng(seed)
    place, angle = rng.uniform(-1, 1, (number, 2)), rng.uniform(0, 2 * np.pi, number)
    places = []
    for _ in range(length):
        places.append(place)
        angle = angle + 0.2 * rng.normal(size=number)
        place = place + STEP * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        angle = np.where((np.abs(place) > 1).any(1), angle + np.pi / 2, angle)
        place = np.clip(place, -1, 1)
    return torch.from_numpy(np.stack(places, axis=1)).float()


def latents_of(places: Tensor) -> Tensor:
    """Return latents (..., 2, 16): two tokens that light up where the point is, and then go flat.

    Each channel is a bump a third of a unit wide, so raw distance no longer grows beyond that.
    """
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.rand(32, 2, generator=generator) - 1
    squared = (places.unsqueeze(-2) - centres).square().sum(-1)
    return torch.exp(-squared / (2 * 0.3**2)).unflatten(-1, (2, 16))


def metric() -> TemporalMetric:
    torch.manual_seed(0)
    return TemporalMetric(
        latent_dim=16,
        num_patches=2,
        hidden_dim=64,
        embed_dim=8,
        max_steps=MAX_STEPS,
    )


def test_a_step_that_changes_nothing_is_refused() -> None:
    with pytest.raises(SettingError, match="squared_step: wanted a positive number, got 0"):
        TemporalMetric(
            latent_dim=2, num_patches=1, hidden_dim=2, embed_dim=2, max_steps=5, squared_step=0
        )


@pytest.fixture(scope="module")
def trained() -> TemporalMetric:
    model = metric()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    latents = latents_of(walks(256, 16, seed=0))
    rng = np.random.default_rng(0)
    for _ in range(200):
        loss, _ = model.loss(latents[rng.integers(256, size=12)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def test_it_ranks_true_distances_and_counts_steps(trained: TemporalMetric) -> None:
    """Of unseen places up to `max_steps` steps apart; raw latents rank them less well."""
    generator = torch.Generator().manual_seed(1)
    start = 1.6 * torch.rand(400, 2, generator=generator) - 0.8
    angle = 2 * torch.pi * torch.rand(400, generator=generator)
    steps = MAX_STEPS * torch.rand(400, generator=generator)
    way = (STEP * steps).unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], dim=1)
    first, second = latents_of(start), latents_of((start + way).clamp(-1, 1))
    true_steps = ((start + way).clamp(-1, 1) - start).norm(dim=1) / STEP
    learned = trained(first, second)
    assert spearman(learned.numpy(), true_steps.numpy()) > 0.9
    assert float((learned - true_steps).abs().mean()) < 2.5


@torch.no_grad()
def test_it_keeps_far_places_apart(trained: TemporalMetric) -> None:
    """Raw distance goes flat; the metric still tells 8 steps from 20."""
    start = torch.tensor([[-0.8, 0.0]]).repeat(3, 1)
    start[:, 1] = torch.tensor([-0.5, 0.0, 0.5])
    near, far = (latents_of(start + torch.tensor([STEP * k, 0.0])) for k in (8, 20))
    at = latents_of(start)
    assert (trained(at, far) > trained(at, near)).all()
    assert (trained(at, far) > 0.8 * MAX_STEPS).all()


@torch.no_grad()
def test_what_was_trained_on_centred_latents_absorbs_how_they_were_centred() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = 3 + torch.randn(5, 2, 16, generator=generator)
    mean, scale = latents.mean(dim=0), 0.25
    model = metric()
    wanted = model.embed((latents - mean) / scale)
    model.absorb(mean, scale)
    torch.testing.assert_close(model.embed(latents), wanted, rtol=1e-4, atol=1e-3)
    model.absorb(-mean / scale, 1 / scale)  # and back
    torch.testing.assert_close(model.hidden.weight, metric().hidden.weight)


@torch.no_grad()
def test_distance_is_that_of_the_embeddings_and_broadcasts() -> None:
    """(B, N, T, P, D) against (B, 1, 1, P, D), as costs use it; a distance in every respect."""
    model = metric()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 3, 4, 2, 16, generator=generator)
    goal = torch.randn(2, 1, 1, 2, 16, generator=generator)
    distance = model(latents, goal)
    assert distance.shape == (2, 3, 4)
    gap = model.embed(latents[1, 2, 3]) - model.embed(goal[1, 0, 0])
    torch.testing.assert_close(distance[1, 2, 3], gap.norm())
    torch.testing.assert_close(distance, model(goal, latents))
    assert float(model(latents, latents).max()) == 0


def test_the_loss_is_zero_for_perfect_distances() -> None:
    """Frames of a piece on a line, one step apart; pieces and far frames beyond `max_steps`."""
    model = metric()
    place = torch.arange(20.0) + 1000 * torch.arange(3.0).unsqueeze(1)
    model.embed = lambda latents: latents[..., 0, :]
    latents = torch.nn.functional.pad(place.view(3, 20, 1, 1), (0, 7))
    loss, _ = model.loss(latents)
    assert float(loss) == pytest.approx(0.0, abs=1e-5)
    shuffled = latents[:, torch.randperm(20, generator=torch.Generator().manual_seed(0))]
    assert float(model.loss(shuffled)[0]) > 10 * float(loss) + 0.1
    loss, parts = model.loss(0.5 * latents % 500)
    assert float(parts["near_loss"]) > 0.01
    assert float(parts["far_loss"]) > 0.1
    torch.testing.assert_close(loss, parts["near_loss"] + parts["far_loss"])


def test_pairwise_distance_has_a_finite_gradient_everywhere() -> None:
    """Also between equal rows, where the root alone has none."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    x[1] = x[0]
    x.requires_grad_()
    distance = pairwise_distance(x)
    torch.testing.assert_close(distance.detach(), torch.cdist(x, x).detach(), atol=2e-3, rtol=1e-4)
    distance.sum().backward()
    assert x.grad.isfinite().all()
    assert float(x.grad[2:].abs().max()) > 0


def test_pairwise_distance_is_exact_under_autocast() -> None:
    """Differences of squares: bfloat16 products would be off by whole steps."""
    x = 30 + torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = pairwise_distance(x)
    torch.testing.assert_close(rounded, torch.cdist(x, x), atol=0.05, rtol=1e-3)


def test_one_piece_at_a_time_teaches_nothing() -> None:
    metric = TemporalMetric(latent_dim=4, num_patches=2, hidden_dim=8, embed_dim=4, max_steps=5)
    with pytest.raises(SettingError, match="at least 2 pieces at a time, got 1"):
        metric.loss(torch.randn(1, 6, 2, 4))
