"""The JEPA objective: who learns from whom, and what counts as variety."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import tiny
from tests.tiny import randomise
from vjepa_wm.encoders.vit import VideoViT, gather_tokens
from vjepa_wm.pretraining.anti_collapse import Term, VarianceCovariance, variance_covariance
from vjepa_wm.pretraining.dense import DenseLoss, nearness
from vjepa_wm.pretraining.jepa import JEPA
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

TOKENS = 2 * 4 * 4


def jepa(
    *terms: Term,
    ema: tuple[float, float | None, float] = (0.9, None, 1.0),
    dense: DenseLoss | None = None,
    loss_exponent: float = 1.0,
    num_mask_tokens: int = 1,
    **switches: object,
) -> JEPA:
    """Build a random JEPA around `tiny.vit`, with further switches of the ViT."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 24, "predictor_embed_dim": 16, "depth": 1, "num_heads": 1}
    return JEPA(
        randomise(VideoViT(**{**tiny.VIT, **switches})),
        lambda **more: randomise(MaskPredictor(**sizes, num_mask_tokens=num_mask_tokens, **more)),
        ema_decay=ema[0],
        ema_decay_end=ema[1],
        stretch=ema[2],
        loss_exponent=loss_exponent,
        dense=dense,
        terms={str(number): term for number, term in enumerate(terms)},
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
    model = jepa(VarianceCovariance(0.5, 0.1))
    loss, parts = model.loss(video, masks, SOURCE, 0.0)
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
    loss, parts = model.loss(video, masks, SOURCE, 0.0)
    wanted = []
    for context_ids, target_ids in masks:
        context = model.encoder(video, context_ids)
        predicted = model.mask_predictor(
            context, context_ids, target_ids, grid=(2, 4, 4), mask_index=0
        )
        features = F.layer_norm(model.target_encoder(video), (24,))
        wanted.append((predicted - gather_tokens(features, target_ids)).abs().mean())
    torch.testing.assert_close(loss, torch.stack(wanted).mean())
    assert parts.keys() == {"prediction_loss"}
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
    model = jepa(VarianceCovariance(1.0, 0.0))
    still = video[:1].expand(4, -1, -1, -1, -1).clone()
    still[2:] = video[1:2]
    ids = [(torch.arange(16).repeat(4, 1), torch.arange(16, 32).repeat(4, 1))]
    apart = model.loss(still, ids, SOURCE, 0.0)[1]["variance_loss"]
    as_one = model.loss(still, ids, torch.zeros(4, dtype=torch.long), 0.0)[1]["variance_loss"]
    assert float(apart) == pytest.approx(0.99, abs=1e-3)
    assert float(as_one) < 0.9


def test_terms_are_exact_under_autocast() -> None:
    """Mixed precision must not round the statistics."""
    tokens = torch.randn(8, 16, 12, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(16).repeat(8, 1)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = variance_covariance(tokens, groups)
    assert rounded == variance_covariance(tokens, groups)


@pytest.mark.parametrize(("share", "decay"), [(0.0, 0.9), (0.5, 0.94), (1.0, 0.98)])
def test_the_decay_moves_in_a_line_that_is_cut_off(
    video, masks, share: float, decay: float
) -> None:
    """From 0.9 to 1.0 over 1.25 budgets, by the share the loss was computed at."""
    model = jepa(ema=(0.9, 1.0, 1.25))
    model.loss(video, masks, SOURCE, share)
    teacher = [p.clone() for p in model.target_encoder.parameters()]
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    model.update_target()
    for old, new in zip(teacher, model.target_encoder.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - decay))


def test_an_exponent_bends_the_loss(video, masks) -> None:
    """Half the squared error at 2."""
    model = jepa(loss_exponent=2.0)
    loss, _ = model.loss(video, masks, SOURCE, 0.0)
    wanted = []
    for context_ids, target_ids in masks:
        context = model.encoder(video, context_ids)
        predicted = model.mask_predictor(
            context, context_ids, target_ids, grid=(2, 4, 4), mask_index=0
        )
        error = predicted - gather_tokens(model.targets(video), target_ids)
        wanted.append(error.square().mean() / 2)
    torch.testing.assert_close(loss, torch.stack(wanted).mean())


def test_kinds_of_masks_may_have_a_token_each(video, masks) -> None:
    """The second token learns from the second kind alone; a single token serves both."""
    for kinds, learning in ((masks[:1], [True, False]), (masks, [True, True])):
        model = jepa(num_mask_tokens=2)
        model.loss(video, kinds, SOURCE, 0.0)[0].backward()
        grads = [token.grad is not None for token in model.mask_predictor.mask_tokens]
        assert grads == learning


def test_each_level_of_the_targets_is_normed_on_its_own(video, masks) -> None:
    """Side by side, the last level last; every level is predicted."""
    model = jepa(taps=(0, 1))
    targets = model.targets(video)
    assert targets.shape == (4, TOKENS, 48)
    last = F.layer_norm(model.target_encoder(video), (24,))
    torch.testing.assert_close(targets[..., 24:], last)
    torch.testing.assert_close(
        targets[..., :24].mean(-1), torch.zeros(4, TOKENS), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        targets[..., :24].std(-1, correction=0), torch.ones(4, TOKENS), atol=1e-3, rtol=0
    )
    assert not torch.allclose(targets[..., :24], last)
    loss, _ = model.loss(video, masks, SOURCE, 0.0)
    loss.backward()
    for norm in model.encoder.norms_block:
        assert norm.weight.grad.abs().max() > 0


def dense_loss(model: JEPA, video: Tensor, masks: list, weight: float) -> Tensor:
    """Write the dense loss out."""
    total = torch.zeros(())
    grid, targets = model.encoder.grid(video.shape), model.targets(video)
    for context_ids, target_ids in masks:
        predicted, seen = model.mask_predictor.forward_dense(
            model.encoder(video, context_ids),
            context_ids,
            target_ids,
            grid=grid,
            mask_index=0,
            is_image=video.shape[2] == 1,
        )
        error = (seen - gather_tokens(targets, context_ids)).abs().mean(-1)
        total = total + (predicted - gather_tokens(targets, target_ids)).abs().mean() / len(masks)
        near = nearness(context_ids, target_ids, grid)
        total = total + weight * (error * near).mean() / len(masks)
    return total


DENSE = DenseLoss(weight=0.5, image_weight=0.7, warmup=(0.2, 0.4))


@pytest.mark.parametrize(("share", "weight"), [(0.0, 0.0), (0.3, 0.25), (1.0, 0.5)])
def test_the_dense_loss_weighs_context_tokens_by_nearness(
    video, masks, share: float, weight: float
) -> None:
    model = jepa(dense=DENSE)
    loss, parts = model.loss(video, masks, SOURCE, share)
    torch.testing.assert_close(loss, dense_loss(model, video, masks, weight))
    assert parts.keys() == {"prediction_loss", "context_loss"}


def test_images_have_a_weight_and_a_path_of_their_own(video) -> None:
    """A clip of one frame through the image path: 16 tokens."""
    model = jepa(dense=DENSE, image_path=True)
    order = torch.arange(16).expand(4, -1)
    masks = [(order[:, :10], order[:, 10:])]
    image = video[:, :, :1]
    loss, _ = model.loss(image, masks, SOURCE, 1.0)
    torch.testing.assert_close(loss, dense_loss(model, image, masks, 0.7))
    loss.backward()
    assert model.encoder.patch_embed_img.proj.weight.grad is not None
    assert model.encoder.patch_embed.proj.weight.grad is None


def test_a_trivial_video_is_learned(masks) -> None:
    """The loss falls, and the two kinds of clips there are do not fall together."""
    model = jepa(VarianceCovariance(0.5, 0.1), ema=(0.95, None, 1.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(50):
        loss, parts = model.loss(tiny.standing_waves(4, seed=step), masks, SOURCE, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update_target()
        losses.append(float(parts["prediction_loss"]))
    assert sum(losses[-5:]) / 5 < 0.82 * losses[0]
    features = model.targets(tiny.standing_waves(8, seed=1))
    assert features.std(dim=0).mean() > 0.05
