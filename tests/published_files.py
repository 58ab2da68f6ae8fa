"""Writes tiny files laid out like the published ones, with weights drawn from their names."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.golden_files import draw_parameter
from vjepa_wm.encoders.families import ENCODERS, PublishedEncoder
from vjepa_wm.encoders.vit import VideoViT

SIZES = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}


def _tiny(name: str, **vit: object) -> PublishedEncoder:
    published = ENCODERS[name]
    return dataclasses.replace(
        published, vit={**published.vit, **SIZES, **vit}, image_size=16, file=f"tiny-{name}.pt"
    )


TINY = {
    "tiny1": _tiny("vjepa_vitl_224", sincos_grid=(2, 4, 4)),
    "tiny2": _tiny("vjepa2_vitl_256"),
    "tiny2_wide": _tiny("vjepa2_vith_256", embed_dim=36),
    "tiny2_1": _tiny("vjepa2_1_vitl_384", taps=(0, 1)),
}
NETS = {name: published.net_key for name, published in TINY.items()}


def register(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """Put the tiny encoders into the registry; changes are attributes of all of them."""
    for name, published in TINY.items():
        monkeypatch.setitem(ENCODERS, name, dataclasses.replace(published, **changes))


def encoder_weights(name: str) -> dict[str, Tensor]:
    """Draw the weights of a tiny encoder."""
    shapes = VideoViT(**TINY[name].vit).state_dict()
    return {key: draw_parameter(key, tuple(value.shape)) for key, value in shapes.items()}


def content(name: str, *, prefix: str = "module.backbone.") -> dict[str, object]:
    """Return what a published file holds; the student's weights are half of the average's."""
    average = {prefix + key: value for key, value in encoder_weights(name).items()}
    student = {key: value / 2 for key, value in average.items()}
    state = {0: {"step": 3, "exp_avg": torch.ones(3)}}
    return {
        "encoder": student,
        "opt": {"state": state, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "scaler": None,
        NETS[name]: average,
        "epoch": 90,
        "loss": 0.4,
    }


def write(path: Path, name: str, *, prefix: str = "module.backbone.") -> Path:
    """Write a published file."""
    torch.save(content(name, prefix=prefix), path)
    return path
