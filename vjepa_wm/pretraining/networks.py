"""Settings of the networks that follow from others (position tables, levels), and compilation."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from vjepa_wm.encoders.families import TAPS
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

POSITIONS = ("rotary", "sincos")
PUBLISHED_LEVELS = 4


def vit_settings(
    vit: Mapping[str, Any], *, positions: str, levels: int, num_frames: int, image_size: int
) -> dict[str, Any]:
    """Complete the keywords of a `VideoViT`.

    Args:
        vit: its size and switches.
        positions: `rotary`, or `sincos` for a table of the grid that clips have (V-JEPA 1).
        levels: number of blocks whose outputs are supervised and have a norm each; 1 is the last
            block with the final norm. A network of fewer blocks has that many levels.
        num_frames: frames per clip.
        image_size: side of the square image, pixels.

    Raises:
        UnknownNameError: there are no such positions.
        SettingError: `levels` is less than 1.
    """
    settings = dict(vit)
    if positions not in POSITIONS:
        raise UnknownNameError("kind of positions", positions, POSITIONS)
    if levels < 1:
        raise SettingError(f"levels must be at least 1, got {levels}")
    if positions == "sincos":
        side = image_size // settings["patch_size"]
        settings["sincos_grid"] = [num_frames // settings["tubelet_size"], side, side]
    if levels > 1:
        settings["taps"] = list(taps(settings["depth"], levels))
    return settings


def switches(vit: Mapping[str, Any]) -> tuple[str, int]:
    """Return what `positions` and `levels` have to be for these keywords of a `VideoViT`."""
    has_table = "sincos_grid" in vit and vit["sincos_grid"] is not None
    levels = len(vit["taps"]) if "taps" in vit else 0
    return POSITIONS[has_table], max(levels, 1)


def taps(depth: int, levels: int) -> tuple[int, ...]:
    """Blocks, counted from 0 and ending with the last, whose outputs are the levels.

    The published ones where they are known, else evenly spaced.
    """
    if levels == PUBLISHED_LEVELS and depth in TAPS:
        return TAPS[depth]
    levels = min(levels, depth)
    return tuple((level + 1) * depth // levels - 1 for level in range(levels))


def mask_predictor_settings(settings: Mapping[str, Any], vit: VideoViT) -> dict[str, Any]:
    """Complete the keywords of the `MaskPredictor` of an encoder: its width, its positions.

    The objective adds what it is to predict.
    """
    grid = None if vit.sincos_grid is None else list(vit.sincos_grid)
    return {"embed_dim": vit.embed_dim, "sincos_grid": grid, **settings}


def compile_networks(networks: Iterable[nn.Module]) -> None:
    """Compile networks in place; their parameters keep their names."""
    for network in networks:
        network.compile()
        if isinstance(network, MaskPredictor) and network.dense:  # which is another entry
            network.forward_dense = torch.compile(network.forward_dense)
