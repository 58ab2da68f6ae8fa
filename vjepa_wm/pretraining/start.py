"""Pretraining that starts from an encoder: published, shipped, or of an earlier run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vjepa_wm.checkpoint import CONFIG
from vjepa_wm.encoders.families import ENCODERS
from vjepa_wm.encoders.registry import SHIPPED, TIMM, load_encoder, shipped_folder
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import CheckpointError, SettingError
from vjepa_wm.files import read_json


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Attributes:
        vit: Settings of the network.
        image_size: Side of the square it was trained at, pixels.
        digest: Of its weights.
        tensors: Its weights, float32.
    """

    vit: Mapping[str, Any]
    image_size: int
    digest: str
    tensors: Mapping[str, Tensor]


def open_start(name: str, checkpoint: str | Path | None = None) -> Start:
    """Read the encoder to start from.

    Args:
        name: As `load_encoder` takes it: `compact`, a published V-JEPA encoder, or the folder of
            one that `pretrain` made.
        checkpoint: File or folder to take the weights from instead.

    Raises:
        UnknownNameError: There is no such encoder; the nearest names are given.
        CheckpointError: The weights are not to be had, damaged, or of something else.
        SettingError: It is of timm, which is not trained here.
    """
    if name.startswith(TIMM):
        raise SettingError(
            f"start_from={name}: a ViT of timm sees single frames, pretraining is on video; start "
            f"from {', '.join(SHIPPED)}, a published V-JEPA encoder or a folder"
        )
    encoder = load_encoder(name, checkpoint, dtype="fp32")
    folder = _folder(name, checkpoint)
    vit = ENCODERS[name].vit if folder is None else read_json(folder / CONFIG)["vit"]
    return Start(dict(vit), encoder.image_size, encoder.digest, encoder.vit.state_dict())


def _folder(name: str, checkpoint: str | Path | None) -> Path | None:
    """Return the folder this package wrote the encoder into; None where others published it."""
    places = [checkpoint, shipped_folder(name) if name in SHIPPED else name]
    configs = [Path(place) / CONFIG for place in places if place is not None]
    ours = [config for config in configs if config.is_file() and "vit" in read_json(config)]
    return ours[0].parent if ours else None


def take_start(vit: VideoViT, start: Start) -> None:
    """Give a network the weights of another.

    Raises:
        CheckpointError: They do not fit, as settings were changed.
    """
    try:
        vit.load_state_dict(start.tensors)
    except RuntimeError as error:
        raise CheckpointError(f"cannot start from these weights: {error}") from error


def train_last_blocks(vit: VideoViT, count: int | None) -> None:
    """Freeze all but the last blocks and the norms after them.

    Args:
        vit: The network.
        count: Blocks to train; None trains all, with the patch embedding.

    Raises:
        SettingError: It has fewer blocks, or none would be trained.
    """
    if count is None:
        return
    if not 1 <= count <= len(vit.blocks):
        raise SettingError(f"train_blocks: wanted 1 to {len(vit.blocks)}, or null, got {count}")
    vit.requires_grad_(False)
    first = len(vit.blocks) - count
    norms = zip(vit.taps, vit.norms_block, strict=True) if vit.taps else [(first, vit.norm)]
    after = [norm for tap, norm in norms if tap >= first]
    for part in (*vit.blocks[first:], *after):
        part.requires_grad_(True)
