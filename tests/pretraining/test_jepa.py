"""The JEPA objective: who learns from whom, and what counts as variety."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import tiny
from vjepa_wm.encoders.vit import gather_tokens
from vjepa_wm.pretraining.jepa import JEPA, variance_covariance
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

TOKENS = 2 * 4 * 4


def jepa(*, variance_weight: float = 0.0, covariance_weight: float = 0.0) -> JEPA:
    mask_predictor = MaskPredictor(
        embed_dim=24, predictor_embed_dim=16, depth=1, num_heads=1, num_mask_tokens=1
    )
    return JEPA(
        tiny.vit(),
        tiny.randomise(mask_predictor),
        ema_decay=0.9,
        variance_weight=variance_weight,
        covariance_weight=covariance_weight,
    )


@pytest.fixture
def video() -> Tensor:
    return torch.randn(4, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks() -> list[tuple[Tensor, Tensor]]:
    """Context and target ids of two kinds of masks, another permutation for each clip."""
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(TOKENS, generator=generator) for _ in range(4)])
    return [(order[:, :20], order[:, 20:]), (order[:, 8:], order[:, :8])]


SOURCE = torch.tensor([0, 0, 1, 1])


def test_the_student_learns_and_the_teacher_does_not(video, masks) -> None:
    """Every parameter of encoder and mask predictor gets a gradient, none of the target encoder."""
    model = jepa(variance_weight=0.5, covariance_weight=0.1)
    loss, parts = model.loss(video, masks, SOURCE)
    loss.backward()
    for part in (model.encoder, model.mask_predictor):
        learning = {name for name, p in part.named_parameters() if p.grad.abs().max() > 0}
        assert learning == {name for name, _ in part.named_parameters()}
    assert all(p.grad is None for p in model.target_encoder.parameters())
    weighted = (
        parts["prediction_loss"] + 0.5 * parts["variance_loss"] + 0.1 * parts["covariance_loss"]
    )
    torch.testing.assert_close(loss.detach(), weighted)


def test_the_loss_is_l1_to_the_normed_features_of_the_teacher(video, masks) -> None:
    """Written out: context in, masked places predicted, the teacher sees the whole clip."""
    model = jepa()
    loss, parts = model.loss(video, masks, SOURCE)
    wanted = []
    for context_ids, target_ids in masks:
        context = model.encoder(video, context_ids)
        predicted = model.mask_predictor(
            context, context_ids, target_ids, grid=(2, 4, 4), mask_index=0
        )
        features = F.layer_norm(model.target_encoder(video), (24,))
        wanted.append((predicted - gather_tokens(features, target_ids)).abs().mean())
    torch.testing.assert_close(loss, torch.stack(wanted).mean())
    assert float(parts["variance_loss"]) == 0
    assert not model.targets(video).requires_grad


@torch.no_grad()
def test_the_context_encoder_never_sees_what_is_masked(video, masks) -> None:
    """Other pixels at masked places leave the context features as they are."""
    model = jepa()
    context_ids, target_ids = masks[0]
    hidden = torch.zeros(4, TOKENS, dtype=torch.bool).scatter(1, target_ids, True)
    hidden = hidden.view(4, 1, 2, 4, 4)
    for axis, times in ((2, 2), (3, 4), (4, 4)):
        hidden = hidden.repeat_interleave(times, dim=axis)
    other = torch.where(hidden, torch.randn_like(video), video)
    assert not torch.equal(other, video)
    before, after = (model.encoder(clip, context_ids) for clip in (video, other))
    torch.testing.assert_close(after, before)
    assert not torch.allclose(model.targets(other), model.targets(video))


@torch.no_grad()
def test_dropped_tokens_are_not_computed_but_places_are_kept(video, masks) -> None:
    """All ids in another order give the same features, in that order."""
    model = jepa()
    ids = torch.cat(masks[0], dim=1)
    torch.testing.assert_close(
        model.encoder(video, ids), gather_tokens(model.encoder(video), ids), atol=1e-5, rtol=1e-4
    )


def test_the_teacher_moves_by_one_minus_the_decay() -> None:
    """And only then; it starts where the student starts."""
    model = jepa()
    teacher = [p.clone() for p in model.target_encoder.parameters()]
    student = list(model.encoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(teacher, student, strict=True))
    with torch.no_grad():
        for parameter in student:
            parameter.add_(torch.randn_like(parameter))
    assert all(map(torch.equal, model.target_encoder.parameters(), teacher))
    model.update_target()
    for old, new, goal in zip(teacher, model.target_encoder.parameters(), student, strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * goal)
        assert not new.requires_grad


def one_group(tokens: Tensor) -> tuple[float, float]:
    """Return both terms of tokens (L, D) that are all of one group."""
    terms = variance_covariance(tokens.unsqueeze(0), torch.zeros(1, len(tokens), dtype=torch.long))
    return tuple(float(term) for term in terms)


def test_closed_forms_of_variance_and_covariance() -> None:
    """Two tokens at +-sqrt(1/2) have unit variance; scaled down, the hinge opens."""
    same = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]) / 2**0.5
    assert one_group(same) == pytest.approx((0.0, 1.0), abs=1e-4)
    assert one_group(0.1 * same) == pytest.approx((1 - (0.01 + 1e-4) ** 0.5, 1e-4), abs=1e-6)
    square = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]) * 0.75**0.5
    assert one_group(square) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert one_group(torch.ones(5, 3)) == pytest.approx((0.99, 0.0), abs=1e-6)


def test_differences_between_groups_are_no_variety() -> None:
    """A constant for each place and source changes neither term; alone it is a collapse."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(6).repeat(50, 1)
    constants = 10 * torch.randn(6, 4, generator=generator)
    tokens = 0.3 * torch.randn(50, 6, 4, generator=generator)
    plain = variance_covariance(tokens, groups)
    moved = variance_covariance(tokens + constants, groups)
    torch.testing.assert_close(moved, plain, atol=1e-4, rtol=1e-4)
    variance, covariance = variance_covariance(constants.expand(50, 6, 4), groups)
    assert float(variance) == pytest.approx(0.99, abs=1e-3)
    assert float(covariance) == pytest.approx(0.0, abs=1e-6)


def test_group_means_do_not_bias_the_variance() -> None:
    """Many groups of two tokens: as much variance as was put in, on average."""
    generator = torch.Generator().manual_seed(0)
    tokens = 0.5 * torch.randn(2, 4000, 3, generator=generator)
    variance, _ = variance_covariance(tokens, torch.arange(4000).repeat(2, 1))
    assert float(variance) == pytest.approx(0.5, abs=0.01)


def test_the_source_tells_groups_apart(video, masks) -> None:
    """Two data sets that differ by a constant only are as collapsed as one."""
    model = jepa(variance_weight=1.0)
    still = video[:1].expand(4, -1, -1, -1, -1).clone()
    still[2:] = video[1:2]
    ids = [(torch.arange(16).repeat(4, 1), torch.arange(16, 32).repeat(4, 1))]
    apart = model.loss(still, ids, SOURCE)[1]["variance_loss"]
    as_one = model.loss(still, ids, torch.zeros(4, dtype=torch.long))[1]["variance_loss"]
    assert float(apart) == pytest.approx(0.99, abs=1e-3)
    assert float(as_one) < 0.9


def test_terms_are_exact_under_autocast() -> None:
    """Mixed precision must not round the statistics."""
    tokens = torch.randn(8, 16, 12, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(16).repeat(8, 1)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = variance_covariance(tokens, groups)
    assert rounded == variance_covariance(tokens, groups)
