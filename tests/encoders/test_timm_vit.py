"""timm's ViTs as frozen encoders: patch tokens alone, timm's own preprocessing, strict weights."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from tests import tiny
from vjepa_wm.encoders.frozen import FrozenEncoder, layer_norm
from vjepa_wm.encoders.pixels import PixelTransform
from vjepa_wm.encoders.timm_vit import import_timm, load_timm_encoder
from vjepa_wm.errors import CheckpointError, SettingError, UnknownNameError

TINY = "vit_tiny_patch16_224"


def load(name: str = TINY, checkpoint: Path | None = None, **options: object) -> FrozenEncoder:
    kept = {"dtype": "fp32", "image_size": 64, "pretrained": checkpoint is not None}
    return load_timm_encoder(name, checkpoint, **{**kept, **options})


def timm_model(name: str = TINY, *, num_classes: int = 10) -> torch.nn.Module:
    model = import_timm().create_model(name, num_classes=num_classes, img_size=64)
    return tiny.randomise(model, std=0.05).eval()


@pytest.mark.parametrize(
    ("name", "prefix", "size", "grid"),
    [
        (TINY, 1, 64, 4),  # a class token
        ("vit_small_patch14_reg4_dinov2", 5, 42, 3),  # and four registers
        ("eva02_tiny_patch14_224", 1, 56, 4),  # rotary positions
    ],
)
def test_patch_tokens_alone_are_kept(name: str, prefix: int, size: int, grid: int) -> None:
    encoder = load(f"timm:{name}", image_size=size)
    assert (encoder.grid, encoder.image_size, encoder.name) == ((grid, grid), size, f"timm:{name}")
    assert encoder.latent_shape[0] == grid**2
    pixels = tiny.pixels(2, 3, size, size)
    latents = encoder.encode(pixels)
    assert latents.shape == (2, 3, *encoder.latent_shape)
    exact = PixelTransform(mean=encoder.transform.mean, std=encoder.transform.std)
    encoder.transform = exact  # nothing cut off
    frame = exact(pixels[1, 2].permute(2, 0, 1)[None], size)
    with torch.no_grad():
        features = encoder.vit.model.forward_features(frame)
    assert features.shape[1] == prefix + grid**2
    wanted = layer_norm(features[:, prefix:])[0]
    torch.testing.assert_close(encoder.encode(pixels)[1, 2], wanted, atol=1e-4, rtol=1e-4)


def test_frozen_pooled_and_in_bfloat16() -> None:
    encoder = load(pool=2, dtype="bf16")
    assert encoder.train() is encoder and not encoder.vit.model.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}
    pixels = tiny.pixels(1, 2, 64, 64)
    exact = load(pool=2).encode(pixels)
    assert exact.shape == (1, 2, 4, 192)
    assert float((encoder.encode(pixels) - exact).abs().mean()) < 0.05


def test_random_weights_are_the_same_every_time() -> None:
    """Or a world model on them could never be loaded again; and nobody's generator is moved."""
    torch.manual_seed(5)
    first, second = load(), load(image_size=64)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert first.digest == second.digest != load("deit_tiny_patch16_224", image_size=32).digest


def test_pictures_are_prepared_as_timm_does() -> None:
    """Short side resized, border cut, its own mean and deviation: 0.9, bicubic and 0.5 here.

    Of a wide picture the middle is cut out first, not last: half a pixel apart.
    """
    timm = import_timm()
    encoder = load()
    for shape, close in (((64, 64), 0.01), ((224, 224), 0.01), ((300, 400), 0.05)):
        given, wanted = prepared(encoder, timm, shape)
        assert given.shape == wanted.shape
        assert float((given - wanted).abs().mean()) < close, shape


def prepared(
    encoder: FrozenEncoder, timm: ModuleType, shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture as the encoder and as timm prepare it."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    picture = coarse.resize(shape[::-1], Image.Resampling.BICUBIC)
    config = timm.data.resolve_model_data_config(encoder.vit.model)
    assert (config["crop_pct"], config["mean"]) == (0.9, (0.5, 0.5, 0.5))
    wanted = timm.data.create_transform(**{**config, "input_size": (3, 64, 64)})(picture)
    images = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    return encoder.transform(images, 64)[0], wanted


def test_the_border_can_be_kept() -> None:
    """And is in the cache key, as everything that changes latents is."""
    whole, cut = load(crop_pct=1.0), load()
    pixels = tiny.pixels(1, 1, 64, 64)
    changed = pixels.clone()
    changed[:, :, 0] = 0  # the top row
    assert torch.equal(cut.encode(pixels), cut.encode(changed))
    assert not torch.equal(whole.encode(pixels), whole.encode(changed))
    assert "crop_pct" not in whole.preprocessing
    assert cut.preprocessing["crop_pct"] == 0.9
    with pytest.raises(SettingError, match=r"crop_pct must be in \(0, 1\], got 1.5"):
        load(crop_pct=1.5)


def test_squashing_sees_all_of_a_wide_picture() -> None:
    images = tiny.pixels(1, 16, 32).permute(0, 3, 1, 2)
    squashed = PixelTransform(squash=True)(images, 16)
    wanted = F.interpolate(images.float(), (16, 16), mode="bilinear", antialias=True)
    scale = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    centre = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    torch.testing.assert_close(squashed, (wanted.round() / 255 - centre) / scale)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("num_classes", [0, 7])
def test_a_file_is_loaded_whatever_its_head(tmp_path: Path, suffix: str, num_classes: int) -> None:
    model = timm_model(num_classes=num_classes)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"model": model.state_dict(), "epoch": 3}, path)
    else:
        save_file(model.state_dict(), path)
    encoder = load(checkpoint=path)
    video = torch.randn(1, 3, 1, 64, 64)
    with torch.no_grad():
        wanted = model.forward_features(video[:, :, 0])[:, 1:]
        torch.testing.assert_close(encoder(video), wanted)
    assert load(checkpoint=path).digest == encoder.digest != load().digest


def test_positions_are_interpolated_to_another_size(tmp_path: Path) -> None:
    save_file(timm_model(num_classes=0).state_dict(), tmp_path / "weights.safetensors")
    encoder = load(checkpoint=tmp_path / "weights.safetensors", image_size=96)
    assert encoder.encode(tiny.pixels(1, 1, 64, 64)).shape == (1, 1, 36, 192)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A missing tensor is never left at random, as timm's own loading would."""
    tensors = timm_model().state_dict()
    del tensors["blocks.3.mlp.fc1.weight"]
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"Missing key.*blocks\.3\.mlp\.fc1\.weight"):
        load(checkpoint=path)
    save_file(timm_model("vit_small_patch16_224").state_dict(), path)
    with pytest.raises(CheckpointError, match="do not fit timm's vit_tiny_patch16_224"):
        load(checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        load(checkpoint=path)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet18", {}, "cannot be made for a picture of 64 px: choose a plain ViT"),
        ("swin_tiny_patch4_window7_224", {}, "one token per patch of 4 px: choose a plain ViT"),
        ("mobilevit_xxs", {}, "square patches of one size: choose a plain ViT"),
        (TINY, {"image_size": 60}, "image_size 60 must be a multiple of patch size 16"),
        (TINY, {"pool": 3}, "times pool 3"),
    ],
)
def test_what_is_no_plain_vit_of_this_size_is_refused(name: str, options: dict, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        load(name, **options)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_225", "timm:vit_tiny_patch16_224.nonsense"])
def test_unknown_models_name_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'vit_tiny_patch16_224"):
        load(name)


def test_offline_the_error_names_the_file_and_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VJEPA_WM_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError) as caught:
        load_timm_encoder("vit_tiny_patch16_384.augreg_in21k_ft_in1k")
    for part in ("model.safetensors", "0.02 GB", str(tmp_path / "timm"), "checkpoint"):
        assert part in str(caught.value)
