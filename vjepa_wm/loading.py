"""Loads world models: shipped ones by name, trained ones by folder."""

from pathlib import Path

import torch

from vjepa_wm.checkpoint import Checkpoint, load_checkpoint
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.registry import load_encoder, shipped_folder
from vjepa_wm.errors import CheckpointError, UnknownNameError
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.precision import resolve_dtype
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.world_model import ActionSpec, WorldModel

SHIPPED = ("reacher", "two_rooms", "push", "push_t")


def load_world_model(
    name_or_path: str | Path,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
) -> WorldModel:
    """Load a world model, ready to plan.

    Args:
        name_or_path: `reacher`, `two_rooms`, `push` or `push_t`, shipped with the package, or a
            folder written by `python -m vjepa_wm.train_ac`.
        checkpoint: folder to take the weights from instead.
        device: where it runs.
        dtype: of encoder and predictor: `auto` (bfloat16 where the machine has it), `bf16` or
            `fp32`. The metric stays in float32.

    Raises:
        UnknownNameError: there is no such model; the nearest names are given.
        CheckpointError: a folder is incomplete or damaged, or its encoder is not to be found.
    """
    loaded = load_checkpoint(_folder(name_or_path) if checkpoint is None else checkpoint)
    config = loaded.config
    if config["kind"] != "world_model":
        raise CheckpointError(f"{loaded.folder} holds a {config['kind']}, wanted a world_model")
    predictor = ActionPredictor(**config["predictor"])
    loaded.load_into(predictor, "predictor")
    metric = TemporalMetric(**config["metric"])
    loaded.load_into(metric, "metric")
    return WorldModel(
        _encoder(loaded, device=device, dtype=dtype),
        predictor.to(device, resolve_dtype(dtype, device)).eval().requires_grad_(False),
        action_spec=ActionSpec(**config["action_spec"]),
        metric=metric.to(device).eval().requires_grad_(False),
    )


def _folder(name_or_path: str | Path) -> Path:
    if str(name_or_path) in SHIPPED:
        return shipped_folder(str(name_or_path))
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    raise UnknownNameError("world model", str(name_or_path), SHIPPED)


def _encoder(loaded: Checkpoint, *, device: str | torch.device, dtype: str) -> FrozenEncoder:
    wanted = loaded.config["encoder"]
    encoder = load_encoder(
        wanted["name"],
        checkpoint=wanted["checkpoint"],
        device=device,
        dtype=dtype,
        pool=wanted["pool"],
    )
    if encoder.digest != wanted["digest"]:
        raise CheckpointError(
            f"{loaded.folder} was trained on encoder {wanted['name']} with weights digest "
            f"{wanted['digest']}, got {encoder.digest}: use that encoder's weights, or train again"
        )
    return encoder
