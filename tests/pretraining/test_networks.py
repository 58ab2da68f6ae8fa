"""Settings that follow from others: levels at published places, tables of the clip's grid."""

import pytest
import torch

from vjepa_wm.encoders.families import TAPS
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.networks import (
    compile_networks,
    mask_predictor_settings,
    switches,
    taps,
    vit_settings,
)

VIT = {"patch_size": 4, "tubelet_size": 2, "embed_dim": 12, "depth": 6, "num_heads": 2}
CLIPS = {"num_frames": 8, "image_size": 16}


def test_levels_lie_where_the_published_encoders_have_them() -> None:
    for depth, published in TAPS.items():
        assert taps(depth, 4) == published
    assert taps(6, 4) == (0, 2, 3, 5)
    assert taps(6, 3) == (1, 3, 5)
    assert taps(2, 4) == (0, 1)  # no more than there are blocks


def test_plain_settings_stay_as_they_are() -> None:
    assert vit_settings(VIT, positions="rotary", levels=1, **CLIPS) == VIT


def test_a_table_is_of_the_clips_grid_for_both_networks() -> None:
    settings = vit_settings(VIT, positions="sincos", levels=4, **CLIPS)
    assert settings == {**VIT, "sincos_grid": [4, 4, 4], "taps": [0, 2, 3, 5]}
    vit = VideoViT(**settings)
    assert vit.pos_embed.shape == (1, 64, 12)
    made = mask_predictor_settings({"depth": 1}, vit)
    assert made == {"depth": 1, "embed_dim": 12, "sincos_grid": [4, 4, 4]}


def test_misspelt_positions_and_no_level_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'rotary'"):
        vit_settings(VIT, positions="rotery", levels=1, **CLIPS)
    with pytest.raises(SettingError, match="levels must be at least 1"):
        vit_settings(VIT, positions="rotary", levels=0, **CLIPS)


@pytest.mark.parametrize("positions", ["rotary", "sincos"])
@pytest.mark.parametrize("levels", [1, 4])
def test_switches_are_read_off_the_settings_they_made(positions: str, levels: int) -> None:
    settings = vit_settings(VIT, positions=positions, levels=levels, **CLIPS)
    assert switches(settings) == (positions, levels)


def test_every_way_into_the_networks_is_compiled(monkeypatch) -> None:
    """Of a dense mask predictor both; names of parameters stay."""
    called = []

    def watched(function, *args: object):
        def call(*args: object, **named: object) -> object:
            called.append((type(function.__self__), function.__name__))
            return function(*args, **named)

        return call

    monkeypatch.setattr(torch, "compile", watched)
    vit = VideoViT(**VIT)
    size = {"predictor_embed_dim": 8, "depth": 1, "num_heads": 1, "num_mask_tokens": 1}
    predictor = MaskPredictor(embed_dim=12, dense=True, **size)
    names = set(predictor.state_dict())
    compile_networks([vit, predictor])
    tokens = vit(torch.zeros(1, 3, 2, 8, 8))
    ids = torch.arange(4).unsqueeze(0)
    where = {"grid": (1, 2, 2), "mask_index": 0}
    predictor.forward_dense(tokens[:, :2], ids[:, :2], ids[:, 2:], **where)
    predictor(tokens[:, :2], ids[:, :2], ids[:, 2:], **where)
    assert called == [
        (VideoViT, "_call_impl"),
        (MaskPredictor, "forward_dense"),
        (MaskPredictor, "_call_impl"),
    ]
    assert set(predictor.state_dict()) == names
