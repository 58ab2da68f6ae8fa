"""Hugging Face's names, both ways; and its own model beside ours on the same weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import published_files
from tests.golden_files import draw, draw_parameter
from vjepa_wm.encoders.adapters import (
    export_huggingface,
    from_huggingface,
    split_huggingface,
    to_huggingface,
)
from vjepa_wm.encoders.registry import load_encoder
from vjepa_wm.encoders.timm_vit import import_timm
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import CheckpointError
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.published import load_mask_predictor

PREDICTOR = {"predictor_embed_dim": 12, "depth": 2, "num_heads": 2, "num_mask_tokens": 3}
PARITY_IMAGE = 64


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    published_files.register(monkeypatch)
    monkeypatch.setattr(
        "vjepa_wm.pretraining.published.mask_predictor_config",
        lambda published: {"embed_dim": 24, "rope_style": "tiled", **PREDICTOR},
    )


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """Give a module the weights that belong to its names."""
    shapes = module.state_dict()
    module.load_state_dict({k: draw_parameter(k, tuple(v.shape)) for k, v in shapes.items()})
    return module.eval()


def mask_predictor(embed_dim: int = 24) -> MaskPredictor:
    return drawn(MaskPredictor(embed_dim=embed_dim, rope_style="tiled", **PREDICTOR))


def export(folder: Path, name: str = "tiny2") -> Path:
    vit = drawn(VideoViT(**published_files.TINY[name].vit))
    predictor = mask_predictor()
    export_huggingface(folder, vit, image_size=16, num_frames=4, mask_predictor=predictor)
    return folder


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_there_and_back_is_the_same() -> None:
    encoder, predictor = published_files.encoder_weights("tiny2"), mask_predictor().state_dict()
    named = to_huggingface(encoder, predictor)
    assert named["encoder.layer.1.attention.key.weight"].shape == (24, 24)
    assert named["predictor.embeddings.mask_tokens"].shape == (3, 1, 1, 12)
    nets = split_huggingface(named)
    assert_same(from_huggingface(nets["encoder"]), encoder)
    assert_same(from_huggingface(nets["predictor"]), predictor)


@pytest.mark.parametrize("head", ["", "vjepa2."])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_folder_from_hugging_face_is_an_encoder(tmp_path: Path, head: str, as_file: bool) -> None:
    """Also one with a probe, whose encoder has a word in front, and the file alone."""
    folder = export(tmp_path / "hf")
    tensors = {head + key: value for key, value in load_file(folder / "model.safetensors").items()}
    probe = {"pooler.query_tokens": torch.zeros(1, 1, 24), "classifier.bias": torch.zeros(5)}
    save_file({**tensors, **probe}, folder / "model.safetensors")
    path = folder / "model.safetensors" if as_file else folder
    encoder = load_encoder("tiny2", path, dtype="fp32")
    assert_same(encoder.vit.state_dict(), published_files.encoder_weights("tiny2"))
    assert encoder.name == "tiny2/encoder"
    predictor = load_mask_predictor("tiny2", path, dtype="fp32")
    assert_same(predictor.state_dict(), mask_predictor().state_dict())


def test_mask_predictors_load_from_metas_files(tmp_path: Path) -> None:
    content = published_files.content("tiny2")
    weights = {f"module.backbone.{k}": v for k, v in mask_predictor().state_dict().items()}
    weights["module.backbone.predictor_pos_embed"] = torch.zeros(1, 9, 12)
    torch.save({**content, "predictor": weights}, tmp_path / "meta.pt")
    predictor = load_mask_predictor("tiny2", tmp_path / "meta.pt", dtype="fp32")
    assert_same(predictor.state_dict(), mask_predictor().state_dict())
    del weights["module.backbone.mask_tokens.1"]
    torch.save({**content, "predictor": weights}, tmp_path / "meta.pt")
    with pytest.raises(CheckpointError, match="does not fit: missing mask_tokens.1$"):
        load_mask_predictor("tiny2", tmp_path / "meta.pt")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_attention_heads", 3, "num_attention_heads is 3, wanted 2"),
        ("hidden_act", "silu", "hidden_act is silu, wanted gelu"),
        ("model_type", "vit", "wanted Hugging Face's model_type vjepa2|lacks kind"),
    ],
)
def test_what_shapes_do_not_show_is_read_in_the_configuration(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    config_path = export(tmp_path / "hf") / "config.json"
    config = json.loads(config_path.read_text())
    config_path.write_text(json.dumps({**config, key: value}))
    with pytest.raises(CheckpointError, match=message):
        load_encoder("tiny2", tmp_path / "hf")


def test_a_tensor_lost_on_the_way_is_named(tmp_path: Path) -> None:
    path = export(tmp_path / "hf") / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.layer.1.attention.value.bias"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as info:
        load_encoder("tiny2", tmp_path / "hf")
    assert "missing blocks.1.attn.qkv.bias; surplus blocks.1.attention.key.bias" in str(info.value)


@pytest.mark.parametrize("name", ["tiny1", "tiny2_1"])
def test_only_v_jepa_2_has_a_class_in_transformers(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="transformers has a class for V-JEPA 2 only"):
        export(tmp_path, name)


@torch.no_grad()
def largest_differences(folder: Path, vit: VideoViT, predictor: MaskPredictor) -> tuple[float, ...]:
    """Run transformers' model and ours; return the differences of encoder and predictor."""
    import_timm()  # makes torchvision loadable, which transformers imports too
    transformers = pytest.importorskip("transformers")
    theirs = transformers.VJEPA2Model.from_pretrained(folder).eval()
    video = draw("input/parity", (2, 3, 8, PARITY_IMAGE, PARITY_IMAGE))
    grid = (4, PARITY_IMAGE // 16, PARITY_IMAGE // 16)
    ids = torch.arange(grid[0] * grid[1] * grid[2]).repeat(2, 1)
    context, target = ids[:, ::2], ids[:, 1::2]
    out = theirs(
        pixel_values_videos=video.transpose(1, 2), context_mask=[context], target_mask=[target]
    )
    tokens = vit(video)
    seen = tokens.gather(1, context.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    predicted = predictor(seen, context, target, grid=grid, mask_index=1)
    return (
        float((out.last_hidden_state - tokens).abs().max()),
        float((out.predictor_output.last_hidden_state - predicted).abs().max()),
    )


@pytest.mark.slow
def test_transformers_gives_the_same_numbers(tmp_path: Path, capsys) -> None:
    """The encoder and the mask predictor, at head widths that leave channels unturned."""
    vit_config = {**published_files.TINY["tiny2"].vit, "patch_size": 16, "embed_dim": 64}
    vit = drawn(VideoViT(**vit_config))
    predictor = mask_predictor(embed_dim=64)
    export_huggingface(
        tmp_path, vit, image_size=PARITY_IMAGE, num_frames=8, mask_predictor=predictor
    )
    differences = largest_differences(tmp_path, vit, predictor)
    with capsys.disabled():
        print(
            "\nlargest difference to transformers: "
            f"encoder {differences[0]:.1e}, mask predictor {differences[1]:.1e}"
        )
    assert max(differences) <= 1e-4
