"""The baseline: what is painted, what is compared, and that it learns."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import tiny
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.vit import VideoViT, gather_tokens
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.masks import TubeMasks
from vjepa_wm.pretraining.pixels import PixelPrediction, patches

SIZES = {"embed_dim": 24, "predictor_embed_dim": 16, "depth": 1, "num_heads": 1}
SOURCE = torch.zeros(4, dtype=torch.long)


def model(*, patch_norm: bool = True, **switches: object) -> PixelPrediction:
    torch.manual_seed(0)
    vit = VideoViT(**{**tiny.VIT, **switches})
    return PixelPrediction(
        vit, partial(MaskPredictor, num_mask_tokens=1, **SIZES), patch_norm=patch_norm
    )


@pytest.fixture
def video() -> Tensor:
    return torch.randn(4, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def drawn(seed: int, *, frames: int = 2) -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(seed)
    return TubeMasks(ratio=0.75).draw(rng, batch_size=4, grid=(frames, 4, 4))


def test_patches_lie_as_tokens_do(video) -> None:
    """Time first, then rows, then columns; pixels of a channel together."""
    cut = patches(video, (2, 4, 4))
    assert cut.shape == (4, 32, 3, 32)
    wanted = video[1, 2, 2:4, 4:8, 12:16]  # second tubelet, second row, fourth column
    torch.testing.assert_close(cut[1, 16 + 4 + 3, 2], wanted.flatten())


def test_targets_have_no_mean_and_unit_deviation_in_each_patch(video) -> None:
    targets = model().targets(5 * video + 2).unflatten(-1, (3, 32))
    torch.testing.assert_close(targets.mean(-1), torch.zeros(4, 32, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(targets.std(-1), torch.ones(4, 32, 3), atol=1e-4, rtol=0)
    assert (model().targets(torch.full_like(video, 0.3)).abs() < 1e-2).all()  # nothing to paint
    torch.testing.assert_close(
        model(patch_norm=False).targets(video), patches(video, (2, 4, 4)).flatten(-2)
    )


def test_the_loss_is_the_squared_error_of_masked_pixels_alone(video) -> None:
    net, masks = model(), drawn(0)
    (context_ids, target_ids) = masks[0]
    loss, parts = net.loss(video, masks, SOURCE, 0.5)
    context = net.encoder(video, context_ids)
    painted = net.mask_predictor(context, context_ids, target_ids, grid=(2, 4, 4), mask_index=0)
    wanted = (painted - gather_tokens(net.targets(video), target_ids)).square().mean()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(parts["pixel_loss"], wanted.detach())
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_an_encoder_with_levels_and_images_is_served(video) -> None:
    """A still of one frame is painted as a tubelet that stands still."""
    net = model(image_path=True, taps=(0, 1))
    image = video[:, :, :1]
    loss, _ = net.loss(image, drawn(0, frames=1), SOURCE, 0.5)
    loss.backward()
    assert net.encoder.patch_embed_img.proj.weight.grad is not None
    twice = patches(image.expand(-1, -1, 2, -1, -1), (2, 4, 4))
    assert net.targets(image).shape == twice.flatten(-2).shape


def test_freezing_what_is_kept_does_not_stop_training() -> None:
    net = model()
    kept = FrozenEncoder(net.kept_encoder(), name="", digest="", image_size=16, pool=1)
    assert not any(p.requires_grad for p in kept.parameters())
    assert all(p.requires_grad for p in net.encoder.parameters())
    for mine, theirs in zip(net.encoder.parameters(), kept.vit.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_trivial_video_is_learned() -> None:
    """A wave that stands at one of two places: the visible patches say which."""
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        video = tiny.standing_waves(4, seed=step)
        loss, _ = net.loss(video, drawn(step), SOURCE, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.7 * losses[0]
