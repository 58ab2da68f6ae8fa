"""Finding encoders: by folder, by name, and what is said when there is none."""

from pathlib import Path

import pytest
import torch

from tests import tiny
from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.encoders.registry import load_encoder
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import CheckpointError, SettingError, UnknownNameError
from vjepa_wm.loading import load_world_model


def config(**changes: object) -> dict:
    kept = {"kind": "encoder", "name": "mine", "vit": tiny.VIT, "image_size": 16, "pool": 2}
    return {**kept, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "mine", {"encoder": tiny.vit()}, config())
    return tmp_path / "mine"


def test_a_folder_is_loaded_as_it_was_saved(folder: Path) -> None:
    """Weights in half precision; name, pooling and digest with them."""
    encoder = load_encoder(str(folder), dtype="fp32")
    assert encoder.name == "mine"
    assert encoder.latent_shape == (4, 24)
    assert len(encoder.digest) == 32
    pixels = tiny.pixels(1, 2, 16, 16)
    wanted = tiny.encoder(pool=2).encode(pixels)
    assert float((encoder.encode(pixels) - wanted).abs().max()) < 0.02


def test_pooling_can_be_chosen(folder: Path) -> None:
    assert load_encoder(str(folder), pool=1).latent_shape == (16, 24)


@pytest.mark.parametrize(("dtype", "wanted"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_dtype_is_that_of_the_weights(folder: Path, dtype: str, wanted: torch.dtype) -> None:
    encoder = load_encoder("any", folder, dtype=dtype)
    assert {p.dtype for p in encoder.parameters()} == {wanted}
    with pytest.raises(ValueError, match="must be auto, bf16 or fp32, got 'fp16'"):
        load_encoder("any", folder, dtype="fp16")


@pytest.mark.parametrize("name", ["compact", "any"])
def test_a_device_that_is_not_there_is_refused_with_those_there_are(
    name: str, folder: Path
) -> None:
    with pytest.raises(SettingError, match="no device 'gpu' here, wanted one of: cpu"):
        load_encoder(name, folder, device="gpu")
    with pytest.raises(SettingError, match="no device 'gpu' here, wanted one of: cpu"):
        load_world_model("push", device="gpu")


def test_an_unknown_encoder_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown encoder 'compat'. Did you mean 'compact'"):
        load_encoder("compat")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"encoder": tiny.vit()}, config(kind="world_model"))
    with pytest.raises(CheckpointError, match="holds a world_model, wanted an encoder"):
        load_encoder(str(tmp_path))


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    """By name, with both shapes."""
    vit = {**tiny.VIT, "mlp_ratio": 3.0}
    save_checkpoint(tmp_path, {"encoder": tiny.vit()}, config(vit=vit))
    with pytest.raises(CheckpointError, match=r"fc1\.weight: wanted \(72, 24\), got \(48, 24\)"):
        load_encoder(str(tmp_path))


def test_the_image_path_can_be_chosen(tmp_path: Path) -> None:
    """Of an encoder that has one; recorded, as the latents are others."""
    sizes = {**tiny.VIT, "image_path": True}
    network = tiny.randomise(VideoViT(**sizes))
    save_checkpoint(tmp_path, {"encoder": network}, config(vit=sizes))
    encoder = load_encoder(str(tmp_path), dtype="fp32", frame="image")
    assert encoder.preprocessing["frame"] == "by the image path"
    assert load_encoder(str(tmp_path)).preprocessing["frame"] == "repeated to one tubelet"
    with pytest.raises(SettingError, match="'compact' has no image path"):
        load_encoder("compact", frame="image")
    with pytest.raises(SettingError, match="frame=image: encoder 'timm:any' sees images in one"):
        load_encoder("timm:any", frame="image")
