"""The switches of the video ViT: positions, masked input, image path, taps, number formats."""

import pytest
import torch
from torch import Tensor

from tests import tiny
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
# One of each published kind, at two blocks
KINDS = {
    "vjepa1": {"sincos_grid": (2, 4, 4)},
    "vjepa2": {"rope_style": "tiled"},
    "vjepa2_1": {"rope_style": "interpolated", "image_path": True, "taps": (0, 1)},
}


def vit(kind: str) -> VideoViT:
    return tiny.randomise(VideoViT(**{**tiny.VIT, **KINDS[kind]})).eval().requires_grad_(False)


def video(frames: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, frames, height, width, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(4, 16, 16), (6, 8, 24)])
def test_all_tokens_kept_is_no_mask(kind: str, size: tuple[int, int, int]) -> None:
    """In any order: ids carry the position, on wide grids too."""
    network, clip = vit(kind), video(*size)
    tokens = network(clip)
    ids = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(2))
    shuffled = network(clip, ids.expand(2, -1))
    torch.testing.assert_close(shuffled, tokens[:, ids], **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_tokens_keep_their_true_positions(kind: str) -> None:
    """The same three patches at other places are other tokens; compacted ids would not tell."""
    bank = video(2, 12, 4)[0].unflatten(1, (1, 2)).unflatten(3, (3, 4))  # (C, 1, 2, 3, 4, 4)
    patches = bank.permute(3, 0, 1, 2, 4, 5).flatten(1, 2)[torch.arange(32) % 3]  # (L, C, 2, 4, 4)
    clip = patches.view(2, 4, 4, 3, 2, 4, 4).permute(3, 0, 4, 1, 5, 2, 6).reshape(1, 3, 4, 16, 16)
    near, far = (vit(kind)(clip, torch.tensor([ids])) for ids in ([0, 1, 2], [0, 7, 29]))
    assert float((near - far).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near_float32(kind: str) -> None:
    """Weights and input in half precision; positions are computed in float32 all the same."""
    network, clip = vit(kind), video(4, 16, 16)
    tokens = network(clip)
    rounded = network.bfloat16()(clip.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert float((rounded.float() - tokens).abs().mean()) < 0.01


def test_a_shorter_clip_takes_the_first_positions() -> None:
    """One tubelet of a V-JEPA 1 encoder sees the table's first frame, whatever its length."""
    network = vit("vjepa1")
    table = network.pos_embed.clone()
    network.pos_embed[:, 16:] = 100.0  # of the second tubelet
    clip = video(2, 16, 16)
    tokens = network(clip)
    network.pos_embed.copy_(table)
    torch.testing.assert_close(network(clip), tokens)


def test_other_grids_get_an_interpolated_table() -> None:
    """A constant table stays constant at any size; a ramp over columns stays a ramp."""
    network = vit("vjepa1")
    network.pos_embed.fill_(0.5)
    clip = video(6, 8, 24)
    with_table = network(clip)
    network.pos_embed.zero_()
    network.patch_embed.proj.bias += 0.5
    torch.testing.assert_close(network(clip), with_table, **CLOSE)


def test_a_side_of_one_patch_cannot_be_interpolated() -> None:
    with pytest.raises(SettingError, match="at least 2 patches on each side, got 1 x 4"):
        vit("vjepa2_1")(video(2, 4, 16))
    assert vit("vjepa2")(video(2, 4, 16)).shape == (2, 4, 24)


def test_images_have_their_own_path() -> None:
    """One frame is an image, with its own patches and mark; two frames are a video."""
    network = vit("vjepa2_1")
    image, clip = video(1, 16, 16), video(2, 16, 16)
    image_tokens, clip_tokens = network(image), network(clip)
    network.video_mod_embed.zero_()
    torch.testing.assert_close(network(image), image_tokens)
    assert float((network(clip) - clip_tokens).abs().max()) > 1e-2
    network.img_mod_embed.zero_()
    assert float((network(image) - image_tokens).abs().max()) > 1e-2


def test_images_without_a_frame_axis_are_refused() -> None:
    with pytest.raises(SettingError, match=r"must be \(B, C, T, H, W\), got \(2, 3, 16, 16\)"):
        vit("vjepa2_1")(torch.zeros(2, 3, 16, 16))


def test_one_frame_is_refused_without_an_image_path() -> None:
    with pytest.raises(SettingError, match=r"cannot be cut into tubelets of \(2, 4, 4\)"):
        vit("vjepa2")(video(1, 16, 16))


def test_hierarchical_output_ends_with_the_plain_one() -> None:
    network, clip = vit("vjepa2_1"), video(2, 16, 16)
    levels = network(clip, hierarchical=True)
    assert levels.shape == (2, 16, 48)
    torch.testing.assert_close(levels[..., 24:], network(clip))
    with pytest.raises(SettingError, match="needs a network with taps"):
        vit("vjepa2")(clip, hierarchical=True)


@pytest.mark.parametrize("taps", [(0,), (1, 0), (0, 2), (-1, 1), (1, 1)])
def test_taps_end_with_the_last_block(taps: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match="taps must ascend from 0 or more to the last block, 1"):
        VideoViT(**tiny.VIT, taps=taps)
