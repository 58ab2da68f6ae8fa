"""Frozen encoders: frozen, one frame at a time, at whatever size the pictures come."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tests import tiny
from vjepa_wm.encoders.frozen import FrozenEncoder, layer_norm, normalise
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def test_frozen_means_frozen() -> None:
    """Whatever is called on it or on what holds it."""
    encoder = tiny.encoder()
    torch.nn.ModuleDict({"encoder": encoder}).train()
    assert encoder.train() is encoder
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.encode(tiny.pixels(1, 1, 16, 16)).requires_grad


@pytest.mark.parametrize("encode", [FrozenEncoder.encode, FrozenEncoder.encode_clips])
def test_arrays_are_encoded_as_tensors_are(encode: Callable[..., torch.Tensor]) -> None:
    """Those of a camera may be read-only, mirrored, or of channels turned round."""
    pixels = tiny.pixels(2, 2, 16, 16)
    array = np.array(pixels.numpy()[..., ::-1, ::-1])[..., ::-1, ::-1]
    array.flags.writeable = False
    wanted = encode(tiny.encoder(), pixels)
    torch.testing.assert_close(encode(tiny.encoder(), array), wanted, rtol=0, atol=0)


@pytest.mark.parametrize(("pool", "patches"), [(1, 16), (2, 4), (4, 1)])
def test_latents_have_the_announced_shape_and_norm(pool: int, patches: int) -> None:
    encoder = tiny.encoder(pool=pool)
    latents = encoder.encode(tiny.pixels(2, 3, 16, 16))
    assert latents.shape == (2, 3, patches, 24)
    assert encoder.latent_shape == (patches, 24)
    assert encoder.grid == (4 // pool, 4 // pool)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, layer_norm(latents), **CLOSE)


def test_a_frame_is_encoded_as_two_copies_of_itself() -> None:
    """As V-JEPA 2-AC does: one tubelet without motion, normed, in the order of its patches."""
    encoder = tiny.encoder()
    pixels = tiny.pixels(2, 3, 16, 16)
    frame = normalise(pixels[1, 2].permute(2, 0, 1))  # (C, H, W)
    tokens = encoder.vit(torch.stack([frame, frame], dim=1).unsqueeze(0))
    wanted = F.layer_norm(tokens, (24,))[0]
    torch.testing.assert_close(encoder.encode(pixels)[1, 2], wanted, **CLOSE)


@pytest.mark.parametrize("pool", [1, 2])
def test_clips_are_encoded_as_video(pool: int) -> None:
    """Tubelet after tubelet: tokens see motion, and a still clip's first tubelet is its frame."""
    encoder = tiny.encoder(pool=pool)
    pixels = tiny.pixels(2, 4, 16, 16)
    latents = encoder.encode_clips(pixels)
    assert latents.shape == (2, 2, *encoder.latent_shape)
    torch.testing.assert_close(latents, layer_norm(latents), **CLOSE)
    torch.testing.assert_close(encoder.encode_clips(pixels[1:]), latents[1:], **CLOSE)
    assert not torch.allclose(encoder.encode_clips(pixels.flip(1)).flip(1), latents, atol=0.1)
    still = pixels[:, :1].expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(encoder.encode_clips(still), encoder.encode(pixels[:, :1]), **CLOSE)


def test_clips_that_cannot_be_cut_into_tubelets_are_refused() -> None:
    with pytest.raises(SettingError, match="multiple of that, got 3 frames"):
        tiny.encoder().encode_clips(tiny.pixels(1, 3, 16, 16))


def test_a_batch_is_its_frames_one_by_one() -> None:
    encoder = tiny.encoder(pool=2)
    pixels = tiny.pixels(2, 3, 16, 16)
    together = encoder.encode(pixels)
    for b in range(2):
        for t in range(3):
            alone = encoder.encode(pixels[b : b + 1, t : t + 1])
            torch.testing.assert_close(together[b, t], alone[0, 0], **CLOSE)


def test_pooling_averages_neighbours() -> None:
    pixels = tiny.pixels(1, 1, 16, 16)
    fine = tiny.encoder(pool=1).encode(pixels)[0, 0].view(4, 4, 24)
    coarse = tiny.encoder(pool=2).encode(pixels)[0, 0].view(2, 2, 24)
    block = fine[0:2, 2:4].mean(dim=(0, 1))
    torch.testing.assert_close(coarse[0, 1], layer_norm(block), **CLOSE)


def test_stacking_keeps_each_neighbour_in_its_place() -> None:
    """A square's tokens side by side, row after row; the mean pooling is their mean, normed."""
    pixels = tiny.pixels(2, 1, 16, 16)
    fine = tiny.encoder(pool=1).encode(pixels)[:, 0].view(2, 4, 4, 24)
    encoder = tiny.encoder(pool=2, pool_by="stack")
    stacked = encoder.encode(pixels)[:, 0]  # (2, 4, 96)
    assert encoder.latent_shape == (4, 96)
    assert encoder.grid == (2, 2)
    square = torch.cat([fine[:, 2, 0], fine[:, 2, 1], fine[:, 3, 0], fine[:, 3, 1]], dim=-1)
    torch.testing.assert_close(stacked[:, 2], square, **CLOSE)
    mean = layer_norm(stacked.unflatten(-1, (4, 24)).mean(dim=-2))
    torch.testing.assert_close(tiny.encoder(pool=2).encode(pixels)[:, 0], mean, **CLOSE)
    assert encoder.encode_clips(pixels.expand(-1, 4, -1, -1, -1)).shape == (2, 2, 4, 96)


def test_how_tokens_are_pooled_is_part_of_the_preprocessing() -> None:
    """Where it makes a difference, so that older records and caches stay what they are."""
    assert tiny.encoder(pool=2, pool_by="stack").preprocessing["pool_by"] == "stack"
    for same in (tiny.encoder(pool=2), tiny.encoder(pool=1, pool_by="stack")):
        assert "pool_by" not in same.preprocessing
    with pytest.raises(SettingError, match="pool_by must be mean or stack, got 'sum'"):
        tiny.encoder(pool=2, pool_by="sum")


def test_normalisation_is_that_of_imagenet() -> None:
    """Black and white, channel by channel."""
    black, white = (normalise(torch.full((3, 1, 1), v, dtype=torch.uint8)) for v in (0, 255))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(black.flatten(), -mean / std)
    torch.testing.assert_close(white.flatten(), (1 - mean) / std)


@pytest.mark.parametrize("size", [64, 24, 8])
def test_other_sizes_are_resized(size: int) -> None:
    """With anti-aliasing, as Pillow's bilinear filter does."""
    picture = tiny.pixels(size, size).numpy()
    encoder = tiny.encoder()
    small = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BILINEAR))
    given, wanted = (encoder.encode(torch.tensor(image)[None, None]) for image in (picture, small))
    assert float((given - wanted).abs().mean()) < 0.03  # of values with standard deviation 1


def test_the_middle_of_a_wide_picture_is_seen() -> None:
    """Cut to a square, then resized."""
    encoder = tiny.encoder()
    wide = tiny.pixels(1, 2, 16, 22)
    assert torch.equal(encoder.encode(wide), encoder.encode(wide[..., 3:19, :].contiguous()))
    tall = wide.transpose(2, 3)
    assert torch.equal(encoder.encode(tall), encoder.encode(tall[:, :, 3:19].contiguous()))


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 1, 16, 16, 3),
        torch.zeros(1, 16, 16, 3, dtype=torch.uint8),
        torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(1, 1, 16, 16, 4, dtype=torch.uint8),
    ],
)
def test_other_types_and_layouts_are_refused(pixels: torch.Tensor) -> None:
    """Floats, a missing axis, channels first, RGBA: named as they came."""
    with pytest.raises(ValueError, match=r"must be uint8 \(B, T, H, W, 3\), got torch"):
        tiny.encoder().encode(pixels)


def test_bfloat16_gives_nearly_the_same_float32_latents() -> None:
    pixels = tiny.pixels(1, 2, 16, 16)
    exact = tiny.encoder().encode(pixels)
    rounded = FrozenEncoder(
        tiny.vit(), name="tiny", digest="0", image_size=16, pool=1, dtype=torch.bfloat16
    ).encode(pixels)
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).abs().mean()) < 0.03


@pytest.mark.parametrize(("image_size", "pool"), [(18, 1), (16, 3)])
def test_sizes_that_do_not_divide_are_refused(image_size: int, pool: int) -> None:
    with pytest.raises(ValueError, match=f"image_size {image_size} must be a multiple .* {pool}"):
        FrozenEncoder(tiny.vit(), name="tiny", digest="0", image_size=image_size, pool=pool)


def test_videos_that_cannot_be_cut_into_tubelets_are_refused() -> None:
    vit: VideoViT = tiny.vit()
    for shape in ((1, 3, 3, 16, 16), (1, 3, 2, 18, 16), (1, 3, 2, 16, 18)):
        with pytest.raises(ValueError, match=r"tubelets of \(2, 4, 4\)"):
            vit(torch.zeros(shape))


def test_the_record_of_the_compact_encoder_stays() -> None:
    """Latent caches are keyed by it; another record would throw all of them away."""
    assert tiny.encoder(pool=2).preprocessing == {
        "image_size": 16,
        "pool": 2,
        "frame": "repeated to one tubelet",
        "dtype": "torch.float32",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }


def image_encoder(frame: str) -> FrozenEncoder:
    vit = tiny.randomise(VideoViT(**tiny.VIT, image_path=True))
    return FrozenEncoder(vit, name="tiny", digest="0", image_size=16, pool=1, frame=frame)


def test_a_frame_can_take_the_image_path() -> None:
    """V-JEPA 2.1: a video of one frame, as often as there are frames; recorded as another way."""
    encoder = image_encoder("image")
    pixels = tiny.pixels(2, 3, 16, 16)
    frame = normalise(pixels[1, 2].permute(2, 0, 1))  # (C, H, W)
    wanted = layer_norm(encoder.vit(frame[None, :, None]))[0]
    torch.testing.assert_close(encoder.encode(pixels)[1, 2], wanted, **CLOSE)

    repeated = image_encoder("repeat")
    assert float((repeated.encode(pixels) - encoder.encode(pixels)).abs().mean()) > 0.1
    assert repeated.preprocessing["frame"] != encoder.preprocessing["frame"]


def test_the_image_path_is_refused_where_there_is_none() -> None:
    options = {"name": "tiny", "digest": "0", "image_size": 16, "pool": 1}
    with pytest.raises(ValueError, match="'tiny' has no image path: only V-JEPA 2.1"):
        FrozenEncoder(tiny.vit(), **options, frame="image")
    with pytest.raises(ValueError, match="frame must be one of repeat, image, got 'twice'"):
        FrozenEncoder(tiny.vit(), **options, frame="twice")
