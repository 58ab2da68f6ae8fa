"""The decoder draws what it was trained on, where it was, and refuses what is not its encoder's."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import tiny
from vjepa_wm.checkpoint import load_checkpoint, save_checkpoint
from vjepa_wm.decoder import Decoder, load_decoder, picture_errors, seen
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.recorded import record_encoder
from vjepa_wm.errors import CheckpointError, SettingError

SETTINGS = {"width": 32, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "rare_weight": 0.3}


def build(*, num_patches: int = 4, latent_dim: int = 24, image_size: int = 16) -> Decoder:
    torch.manual_seed(0)
    return Decoder(
        latent_dim=latent_dim, num_patches=num_patches, image_size=image_size, **SETTINGS
    )


def dots(count: int) -> tuple[Tensor, Tensor]:
    """Latents (F, 4, 24) of grey pictures (F, 16, 16, 3) with a red dot of 4 pixels each."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, 15, (count, 2), generator=generator)
    pixels = torch.full((count, 16, 16, 3), 128, dtype=torch.uint8)
    for picture, (row, column) in zip(pixels, places.tolist(), strict=True):
        picture[row : row + 2, column : column + 2] = torch.tensor([250, 20, 20])
    return torch.randn(count, 4, 24, generator=generator), pixels


def fit(decoder: Decoder, latents: Tensor, pixels: Tensor, *, steps: int) -> None:
    decoder.start_from(pixels)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    for _ in range(steps):
        loss, _ = decoder.loss(latents, pixels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_it_learns_to_draw_small_dots_where_they_are() -> None:
    """Of a few frames it has seen: a dot is a 64th of the picture and must not be left out."""
    latents, pixels = dots(12)
    decoder = build()
    fit(decoder, latents, pixels, steps=250)
    drawn = decoder.decode(latents)
    assert drawn.dtype == torch.uint8
    is_dot = pixels[..., 0] == 250
    off = (drawn.int() - pixels.int()).abs().float()
    assert off[is_dot].mean() < 25  # the mean picture is off by about 110 there
    assert off[~is_dot].mean() < 6
    errors = picture_errors(decoder, decoder(latents), pixels)
    floor = picture_errors(decoder, decoder.mean_picture, pixels)
    assert errors["rare_error"] < 0.25 * floor["rare_error"]
    assert errors["error"] < floor["error"]


def test_before_training_it_draws_the_mean_picture() -> None:
    latents, pixels = dots(7)
    decoder = build()
    decoder.start_from(pixels)
    mean = pixels.float().mean(dim=0) / 255
    torch.testing.assert_close(decoder(latents), mean.expand(7, -1, -1, -1))


def test_errors_count_pixels_by_how_rare_they_are() -> None:
    """Half of the pictures are black, half have one white pixel; drawing black misses just it."""
    pixels = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    pixels[0, 3, 5] = 255
    decoder = build()
    decoder.start_from(pixels)
    errors = picture_errors(decoder, torch.zeros(2, 16, 16, 3), pixels)
    assert float(errors["error"]) == pytest.approx(1 / 512)
    # That pixel is half away from the mean in both pictures, and no other is
    variance = 2 * 0.5**2 / 512
    assert float(errors["rare_error"]) == pytest.approx(0.5**2 / variance / 512)


def test_every_token_draws_its_own_patch() -> None:
    """Row by row, as the encoder cuts them."""
    decoder = build(num_patches=9, image_size=12)
    patches = torch.zeros(1, 9, 48)
    patches[0, 5, (2 * 4 + 1) * 3 + 1] = 1.0  # token 5 is row 1, column 2; its pixel (2, 1), green
    assert decoder._joined(patches).nonzero().tolist() == [[0, 4 + 2, 8 + 1, 1]]


@pytest.mark.parametrize("before", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("num_patches", "image_size"), [(1, 5), (4, 16), (9, 21), (16, 64)])
def test_any_square_grid_and_multiple_of_it(before, num_patches: int, image_size: int) -> None:
    decoder = build(num_patches=num_patches, image_size=image_size)
    shape = (*before, image_size, image_size, 3)
    assert decoder.decode(torch.randn(*before, num_patches, 24)).shape == shape


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_patches": 6}, "num_patches: wanted a square such as 16, got 6"),
        ({"image_size": 15}, "image_size: wanted a multiple of 2, got 15"),
        ({"image_size": 0}, "image_size: wanted a multiple of 2, got 0"),
    ],
)
def test_other_grids_are_refused(options: dict, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        build(**options)


def test_latents_of_another_shape_are_refused() -> None:
    with pytest.raises(SettingError, match=r"wanted \(\.\.\., 4, 24\), got \(2, 9, 24\)"):
        build()(torch.zeros(2, 9, 24))


def test_seen_is_what_the_encoder_gets() -> None:
    """Wide pictures lose their sides; a picture of the right size stays as it is."""
    encoder = tiny.encoder()
    pixels = tiny.pixels(2, 3, 16, 20)
    assert torch.equal(seen(encoder, pixels, 16), pixels[:, :, :, 2:18])
    assert seen(encoder, pixels, 32).shape == (2, 3, 32, 32, 3)


def save(folder: Path, encoder: FrozenEncoder) -> Decoder:
    decoder = build(image_size=16)
    latents, pixels = dots(3)
    fit(decoder, latents, pixels, steps=3)
    settings = {"latent_dim": 24, "num_patches": 4, "image_size": 16, **SETTINGS}
    record = record_encoder(encoder, {"name": encoder.name, "checkpoint": None})
    config = {"kind": "decoder", "decoder": settings, "encoder": record}
    save_checkpoint(folder, {"decoder": decoder}, config)
    return decoder


def test_a_saved_decoder_draws_the_same(tmp_path: Path) -> None:
    """But for half precision; the mean picture comes along."""
    encoder = tiny.encoder(pool=2)
    decoder = save(tmp_path, encoder)
    latents, _ = dots(3)
    loaded = load_decoder(tmp_path, encoder)
    assert not loaded.training
    assert (loaded.decode(latents).int() - decoder.decode(latents).int()).abs().max() <= 1
    assert float(loaded.variance) == pytest.approx(float(decoder.variance), rel=1e-3)


def test_a_decoder_for_another_encoder_is_refused(tmp_path: Path) -> None:
    """By its weights, or by how pictures are prepared; the message names both."""
    save(tmp_path, tiny.encoder(pool=2))
    other = tiny.encoder(pool=2)
    other.digest = "77"
    with pytest.raises(CheckpointError, match="digest: wanted 0, got 77.*train_decoder"):
        load_decoder(tmp_path, other)
    with pytest.raises(CheckpointError, match="preprocessing: wanted .*'pool': 2.*'pool': 1"):
        load_decoder(tmp_path, tiny.encoder(pool=1))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    encoder = tiny.encoder(pool=2)
    save(tmp_path / "decoder", encoder)
    loaded = load_checkpoint(tmp_path / "decoder")
    save_checkpoint(tmp_path, {"decoder": build()}, {**loaded.config, "kind": "metric"})
    with pytest.raises(CheckpointError, match="holds a metric, wanted a decoder"):
        load_decoder(tmp_path, encoder)
