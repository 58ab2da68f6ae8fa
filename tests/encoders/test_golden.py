"""The video ViT and the mask predictor agree with the published V-JEPA 2 code."""

import torch

from tests import golden_files
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

TOLERANCE = 1e-4


def golden_vit(golden: golden_files.Golden) -> VideoViT:
    names = ("patch_size", "tubelet_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    vit = VideoViT(**{name: golden.config[name] for name in names}, rope_style="tiled")
    vit.load_state_dict(golden.state_dict, strict=True)
    return vit.eval()


@torch.no_grad()
def test_vjepa2_encoder() -> None:
    golden = golden_files.load("vjepa2_encoder")
    vit = golden_vit(golden)
    frame = golden.inputs["frame (repeated twice in time)"].repeat(1, 1, 2, 1, 1)
    for name, video in [
        ("video", golden.inputs["video"]),
        ("frame", frame),
        ("wide", golden.inputs["wide"]),
    ]:
        assert (vit(video) - golden.outputs[name]).abs().max() <= TOLERANCE, name


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
    assert (tokens - golden.outputs["tokens"]).abs().max() <= TOLERANCE
