"""Settings that follow from others: levels at published places, tables of the clip's grid."""

import pytest

from vjepa_wm.encoders.families import TAPS
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.pretraining.networks import mask_predictor_settings, taps, vit_settings

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
