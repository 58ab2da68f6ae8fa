"""What a world model remembers of its encoder, and how that encoder is found again."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.registry import TIMM, load_encoder
from vjepa_wm.errors import CheckpointError, VjepaWmError

IDENTITY = ("digest", "preprocessing")  # all else in a record are options of its loader
NOT_RECORDED = ("_target_", "dtype")  # chosen anew wherever the model runs


def record_encoder(encoder: FrozenEncoder, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is needed to load an encoder again and to know that it is the same.

    Args:
        encoder: as it was loaded.
        options: what it was loaded with, such as the config group `encoder`.
    """
    record = {name: value for name, value in options.items() if name not in NOT_RECORDED}
    record["pool"] = encoder.pool
    record["pool_by"] = encoder.pool_by
    if "image_size" in record:
        record["image_size"] = encoder.image_size
    if record["checkpoint"] is not None:
        record["checkpoint"] = str(Path(record["checkpoint"]).absolute())
    return {**record, "digest": encoder.digest, "preprocessing": portable(encoder.preprocessing)}


def portable(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the preprocessing as JSON gives it back, without the number format."""
    return json.loads(json.dumps({k: v for k, v in preprocessing.items() if k != "dtype"}))


def load_recorded(
    record: Mapping[str, Any],
    *,
    owner: str | Path,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
) -> FrozenEncoder:
    """Load the encoder a world model was trained on.

    Args:
        record: what `record_encoder` returned.
        owner: the world model, for messages.
        checkpoint: where the weights are now, if not where they were.
        device: where it runs.
        dtype: `auto`, `bf16` or `fp32`.

    Raises:
        CheckpointError: it is not to be found, or is not the same; the message says what to pass.
    """
    options = {name: value for name, value in record.items() if name not in IDENTITY}
    if checkpoint is not None:
        options["checkpoint"] = checkpoint
    try:
        encoder = _loader(record["name"])(**options, device=device, dtype=dtype)
    except VjepaWmError as error:
        raise CheckpointError(
            f"the encoder of {owner}, {record['name']}, cannot be loaded: {error}. If its weights "
            "lie elsewhere, pass encoder_checkpoint=PATH to load_world_model"
        ) from error
    if encoder.digest != record["digest"]:
        raise CheckpointError(
            f"{owner} was trained on encoder {record['name']} with weights digest "
            f"{record['digest']}, got {encoder.digest}: pass that encoder's weights as "
            "encoder_checkpoint=PATH to load_world_model, or train again"
        )
    if "preprocessing" in record and record["preprocessing"] != portable(encoder.preprocessing):
        raise CheckpointError(
            f"{owner} was trained on pictures prepared as {record['preprocessing']}, its encoder "
            f"prepares them as {portable(encoder.preprocessing)}: train again"
        )
    return encoder


def _loader(name: str) -> Callable[..., FrozenEncoder]:
    if not name.startswith(TIMM):
        return load_encoder
    from vjepa_wm.encoders.timm_vit import load_timm_encoder

    return load_timm_encoder
