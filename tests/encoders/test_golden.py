"""The video ViT and the mask predictor agree with the published V-JEPA code."""

import pytest
import torch
from torch import Tensor

from tests import golden_files
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.nn.positions import sincos_table
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

TOLERANCE = 1e-4
SIZES = ("patch_size", "tubelet_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
REPEATED = "frame (repeated twice in time)"
# What the golden configurations mean in our switches
SWITCHES = {
    "vjepa1_encoder": {"sincos_grid": (2, 3, 3)},
    "vjepa2_encoder": {"rope_style": "tiled"},
    "vjepa2_1_encoder": {
        "rope_style": "interpolated",
        "image_path": True,
        "taps": (2, 5, 8, 11),
    },
}


def golden_vit(name: str, golden: golden_files.Golden) -> VideoViT:
    vit = VideoViT(**{size: golden.config[size] for size in SIZES}, **SWITCHES[name])
    vit.load_state_dict(golden.state_dict, strict=True)
    return vit.eval()


def difference(tokens: Tensor, wanted: Tensor) -> float:
    assert tokens.shape == wanted.shape
    return float((tokens - wanted).abs().max())


@pytest.mark.parametrize(
    ("name", "given", "output"),
    [
        ("vjepa1_encoder", "video", "tokens"),
        ("vjepa2_encoder", "video", "video"),
        ("vjepa2_encoder", REPEATED, "frame"),
        ("vjepa2_encoder", "wide", "wide"),
        ("vjepa2_1_encoder", "video", "video"),
        ("vjepa2_1_encoder", "image", "image"),
        ("vjepa2_1_encoder", "wide", "wide"),
        ("vjepa2_1_encoder", "video", "video_hierarchical"),
    ],
)
@torch.no_grad()
def test_encoder(name: str, given: str, output: str) -> None:
    golden = golden_files.load(name)
    video = golden.inputs[given]
    if given == REPEATED:
        video = video.repeat(1, 1, 2, 1, 1)
    tokens = golden_vit(name, golden)(video, hierarchical=output == "video_hierarchical")
    assert difference(tokens, golden.outputs[output]) <= TOLERANCE


def test_vjepa1_position_table() -> None:
    """The table the published code builds itself, for this size."""
    golden = golden_files.load("vjepa1_encoder")
    table = sincos_table((2, 3, 3), dim=golden.config["embed_dim"])
    assert difference(table, golden.outputs["pos_embed"]) <= 1e-6


@torch.no_grad()
def test_vjepa2_mask_predictor() -> None:
    golden = golden_files.load("vjepa2_predictor")
    names = ("embed_dim", "predictor_embed_dim", "depth", "num_heads", "num_mask_tokens")
    config = {name: golden.config[name] for name in names}
    predictor = MaskPredictor(**config, rope_style="tiled")
    predictor.load_state_dict(golden.state_dict, strict=True)
    tokens = predictor(
        golden.inputs["context"],
        golden.inputs["context_indices"],
        golden.inputs["target_indices"],
        grid=(4, 3, 3),
        mask_index=golden.config["mask_index"],
    )
    assert difference(tokens, golden.outputs["tokens"]) <= TOLERANCE
