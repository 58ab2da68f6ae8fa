"""The floor of probes and diagnoses: the same network, of which nothing trained is left."""

import pytest
import torch

from tests import tiny
from vjepa_wm.encoders.frozen import Backbone, FrozenEncoder
from vjepa_wm.encoders.timm_vit import TimmViT, import_timm
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.evaluation.diagnostics import random_encoder

TRAINED = 7.0


def image_vit() -> TimmViT:
    name = "vit_small_patch14_reg4_dinov2"  # with a class token, registers and a table of positions
    model = import_timm().create_model(
        name, img_size=28, patch_size=14, depth=1, embed_dim=48, num_heads=2
    )
    return TimmViT(model, image_size=28)


@pytest.mark.parametrize("make", [lambda: VideoViT(**tiny.VIT, image_path=True), image_vit])
def test_nothing_trained_is_left(make) -> None:
    """Not in tables and tokens either, which belong to no layer."""
    vit: Backbone = make()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.fill_(TRAINED)
    size = 28 if isinstance(vit, TimmViT) else tiny.IMAGE_SIZE
    trained = FrozenEncoder(vit, name="trained", digest="0", image_size=size, pool=1)
    drawn = random_encoder(trained, seed=0)
    left = [n for n, tensor in drawn.vit.named_parameters() if bool((tensor == TRAINED).any())]
    assert left == []
    assert all(bool((tensor == TRAINED).all()) for tensor in trained.vit.parameters())
    again = random_encoder(trained, seed=0).vit.state_dict()
    assert all(torch.equal(tensor, again[n]) for n, tensor in drawn.vit.state_dict().items())
