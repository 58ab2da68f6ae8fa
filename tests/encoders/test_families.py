"""The published encoders: sizes against the published counts, files that cannot be confused."""

import pytest
import torch

from vjepa_wm.encoders.families import ENCODERS, mask_predictor_config
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

# Not in the published counts of V-JEPA 2.1: the image path and all norms after blocks but one
EXTRA = ("patch_embed_img.", "img_mod_embed", "video_mod_embed", "norms_block.0", "norms_block.1")
EXTRA += ("norms_block.2",)


def meta_vit(name: str) -> VideoViT:
    with torch.device("meta"):
        return VideoViT(**ENCODERS[name].vit)


@pytest.mark.parametrize("name", ENCODERS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    """Without allocating anything; 0.05 million is the rounding of the table (0.5 for the 2B)."""
    named = meta_vit(name).named_parameters()
    count = sum(p.numel() for key, p in named if not key.startswith(EXTRA)) / 1e6
    wanted = ENCODERS[name].params_m
    assert abs(count - wanted) <= (0.5 if wanted > 1500 else 0.05)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_table_fits_the_training_clips(name: str) -> None:
    """A clip of the trained length and size; V-JEPA 1 stores exactly its table."""
    published = ENCODERS[name]
    vit = meta_vit(name)
    size = published.image_size
    grid = vit.grid(torch.Size((1, 3, published.num_frames, size, size)))
    assert grid == (published.num_frames // 2, size // 16, size // 16)
    if published.family == "vjepa1":
        assert vit.pos_embed.shape == (1, grid[0] * grid[1] * grid[2], vit.embed_dim)


def test_the_names_are_the_eleven() -> None:
    assert list(ENCODERS) == [
        "vjepa_vitl_224",
        "vjepa_vith_224",
        "vjepa_vith_384",
        "vjepa2_vitl_256",
        "vjepa2_vith_256",
        "vjepa2_vitg_256",
        "vjepa2_vitg_384",
        "vjepa2_1_vitb_384",
        "vjepa2_1_vitl_384",
        "vjepa2_1_vitg_384",
        "vjepa2_1_vitgiant2_384",
    ]


def test_files_differ_by_more_than_case() -> None:
    """Meta's own names of the two largest V-JEPA 2.1 do not."""
    assert len({published.file.lower() for published in ENCODERS.values()}) == len(ENCODERS)
    urls = {published.url for published in ENCODERS.values()}
    assert len(urls) == len(ENCODERS) > len({url.lower() for url in urls})


def test_frozen_encoders_take_the_moving_average() -> None:
    distilled = {n for n, published in ENCODERS.items() if published.net_key == "ema_encoder"}
    assert distilled == {"vjepa2_1_vitb_384", "vjepa2_1_vitl_384"}
    assert {p.net_key for p in ENCODERS.values()} == {"ema_encoder", "target_encoder"}


def meta_mask_predictor(name: str) -> MaskPredictor:
    with torch.device("meta"):
        return MaskPredictor(**mask_predictor_config(ENCODERS[name]))


def test_mask_predictors_have_the_published_layout() -> None:
    vitl = meta_mask_predictor("vjepa2_vitl_256")
    assert abs(sum(p.numel() for p in vitl.parameters()) / 1e6 - 22.1) <= 0.05

    giant = {
        k: tuple(v.shape) for k, v in meta_mask_predictor("vjepa2_1_vitg_384").named_parameters()
    }
    assert giant["predictor_embed.0.weight"] == (1408, 4 * 1408)
    assert giant["predictor_embed.2.weight"] == (384, 1408)
    assert giant["predictor_proj.weight"] == giant["predictor_proj_context.weight"] == (5632, 384)
    assert {"mask_tokens.7", "predictor_blocks.23.mlp.fc1.weight"} <= giant.keys()
    assert not {"mask_tokens.8", "predictor_blocks.24.mlp.fc1.weight"} & giant.keys()

    base = {
        k: tuple(v.shape) for k, v in meta_mask_predictor("vjepa2_1_vitb_384").named_parameters()
    }
    assert base["predictor_embed.weight"] == (384, 768)
    assert base["predictor_proj.weight"] == base["predictor_proj_context.weight"] == (1664, 384)
    assert "predictor_blocks.12.mlp.fc1.weight" not in base


def test_the_mask_predictor_of_vjepa1_is_refused() -> None:
    with pytest.raises(SettingError, match="V-JEPA 1 are not supported"):
        mask_predictor_config(ENCODERS["vjepa_vitl_224"])
