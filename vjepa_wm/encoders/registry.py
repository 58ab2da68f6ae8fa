"""Finds encoders by name: shipped ones, and folders written by `python -m vjepa_wm.pretrain`."""

from importlib.resources import files
from pathlib import Path

import torch

from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import CheckpointError, UnknownNameError
from vjepa_wm.precision import resolve_dtype

SHIPPED = ("compact",)


def shipped_folder(name: str) -> Path:
    """Folder of weights inside the package."""
    return Path(str(files("vjepa_wm"))) / "weights" / name


def load_encoder(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    pool: int | None = None,
) -> FrozenEncoder:
    """Load a frozen encoder.

    Args:
        name: `compact`, shipped with the package, or the path of a checkpoint folder.
        checkpoint: folder to take the weights from instead.
        device: where it runs.
        dtype: `auto` (bfloat16 where the machine has it), `bf16` or `fp32`.
        pool: side of the square of tokens averaged into one; None takes the checkpoint's own.

    Raises:
        UnknownNameError: there is no such encoder; the nearest names are given.
        CheckpointError: the folder is incomplete, damaged or of something else.
    """
    if checkpoint is None:
        if name in SHIPPED:
            checkpoint = shipped_folder(name)
        elif Path(name).is_dir():
            checkpoint = Path(name)
        else:
            raise UnknownNameError("encoder", name, SHIPPED)
    loaded = load_checkpoint(checkpoint)
    config = loaded.config
    if config["kind"] != "encoder":
        raise CheckpointError(f"{loaded.folder} holds a {config['kind']}, wanted an encoder")
    vit = VideoViT(**config["vit"])
    loaded.load_into(vit, "encoder")
    return FrozenEncoder(
        vit.to(device),
        name=config["name"],
        digest=loaded.digest,
        image_size=config["image_size"],
        pool=config["pool"] if pool is None else pool,
        dtype=resolve_dtype(dtype, device),
    )
