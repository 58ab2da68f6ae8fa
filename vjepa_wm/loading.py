"""Loads world models: shipped, trained here, or V-JEPA 2-AC from Meta's files."""

import logging
from pathlib import Path

import torch

from vjepa_wm.checkpoint import Checkpoint
from vjepa_wm.encoders.published import open_published
from vjepa_wm.encoders.recorded import load_recorded
from vjepa_wm.encoders.registry import load_encoder
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.poses import ACTION_UNITS, PoseIntegrator
from vjepa_wm.precision import resolve_dtype
from vjepa_wm.predictor import (
    SHIPPED,
    build_predictor,
    load_predictor,
    open_world_model,
)
from vjepa_wm.proprio import LearnedIntegrator
from vjepa_wm.vjepa2_ac import PREDICTORS, published_path
from vjepa_wm.world_model import ActionSpec, WorldModel

__all__ = ["DROID_ACTIONS", "SHIPPED", "load_world_model", "warn_of_another_environment"]

logger = logging.getLogger(__name__)

DROID_ACTIONS = ActionSpec(
    # The widest published planning clip; the paper plans within 0.075 m
    low=(-0.1, -0.1, -0.1, -0.25, -0.25, -0.25, -1.0),
    high=(0.1, 0.1, 0.1, 0.25, 0.25, 0.25, 1.0),
    frame_skip=1,
    units=ACTION_UNITS,
    fps=4.0,
)
"""What V-JEPA 2-AC calls an action: the change to the next pose of the gripper, see
`vjepa_wm.poses`. The bounds are for planning, the weights have none; the published planners leave
the rotation at 0. The frame rate is what the training settings say; see `docs/vjepa2_ac.md`."""

_AC_CPU_MEMORY_MB = 1024.0  # a frame of one candidate takes about 70


def load_world_model(
    name_or_path: str | Path,
    checkpoint: str | Path | None = None,
    *,
    encoder_checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
) -> WorldModel:
    """Load a world model, ready to plan.

    `vjepa2_ac_vitg` and `vjepa2_ac_droid` plan for a robot arm seen by a fixed camera, in the
    actions `vjepa_wm.loading.DROID_ACTIONS`; the first also needs the observed pose (see
    `vjepa_wm.poses`) as `obs["proprio"]`. Know before you trust their plans (remedies in
    `docs/vjepa2_ac.md`):

    - `vjepa2_ac_vitg` was trained with a mistake in its rollout loss and underestimates motion;
      `vjepa2_ac_droid` was trained again without it.
    - The axes of an action are inferred from the picture: turning the camera turns the motion.
    - Its pictures were cut to 1.35 : 1 and pressed into a square, and are so here; give whole
      camera pictures, or square ones.
    - A step should be 1/4 s but was perhaps longer in training: trust directions, not lengths.

    Args:
        name_or_path: `reacher`, `two_rooms`, `push` or `push_t`, shipped with the package; the
            published `vjepa2_ac_vitg` or `vjepa2_ac_droid`; or a folder written by
            `python -m vjepa_wm.train_ac`.
        checkpoint: folder, or for V-JEPA 2-AC Meta's file, to take the weights from instead.
            Without one, published files are looked for in the cache folder and downloaded.
        encoder_checkpoint: file or folder of the encoder's weights, where they lie elsewhere than
            the world model remembers. For a V-JEPA 2-AC file without an encoder None is the
            published file of that encoder.
        device: where it runs.
        dtype: of encoder and predictor: `auto` (bfloat16 where the machine has it), `bf16` or
            `fp32`. The metric stays in float32.

    Raises:
        UnknownNameError: there is no such model; the nearest names are given.
        CheckpointError: a file or folder is not to be had, incomplete, damaged or of something
            else, or its encoder is not to be found; every tensor that does not fit is listed.
    """
    resolved = resolve_dtype(dtype, device)  # first: it refuses a device that is not there
    if name_or_path in PREDICTORS:
        return _load_vjepa2_ac(
            str(name_or_path),
            published_path(str(name_or_path), checkpoint),
            encoder_checkpoint=encoder_checkpoint,
            device=device,
            dtype=dtype,
        )
    loaded = open_world_model(name_or_path, checkpoint)
    predictor = build_predictor(loaded)
    return WorldModel(
        load_recorded(
            loaded.config["encoder"],
            owner=loaded.folder,
            checkpoint=encoder_checkpoint,
            device=device,
            dtype=dtype,
        ),
        predictor.to(device, resolved).eval().requires_grad_(False),
        action_spec=ActionSpec(**loaded.config["action_spec"]),
        metric=_load_metric(loaded, device),
        integrate=_load_integrator(loaded, device),
    )


def warn_of_another_environment(name_or_path: str | Path, env_id: str) -> None:
    """Say so where a world model was trained in another environment, though all of it may fit."""
    if name_or_path in PREDICTORS:
        return
    trained = open_world_model(name_or_path, None).config.get("env_id")
    if trained not in (None, env_id):
        logger.warning(
            "warning: model %s was trained in %s, not in %s", name_or_path, trained, env_id
        )


def _load_metric(loaded: Checkpoint, device: str | torch.device) -> TemporalMetric | None:
    """What counts recorded steps, where there are actions to plan."""
    if loaded.config["metric"] is None:
        return None
    metric = TemporalMetric(**loaded.config["metric"])
    loaded.load_into(metric, "metric")
    return metric.to(device).eval().requires_grad_(False)


def _load_integrator(loaded: Checkpoint, device: str | torch.device) -> LearnedIntegrator | None:
    """What moves proprio, where the predictor takes it."""
    if "integrator" not in loaded.parts:
        return None
    integrator = LearnedIntegrator(**loaded.config["integrator"])
    loaded.load_into(integrator, "integrator")
    return integrator.to(device).eval().requires_grad_(False)


def _load_vjepa2_ac(
    name: str,
    path: Path,
    *,
    encoder_checkpoint: str | Path | None,
    device: str | torch.device,
    dtype: str,
) -> WorldModel:
    published = PREDICTORS[name]
    predictor = load_predictor(name, path, device=device, dtype=dtype)
    net = published.encoder_net
    if encoder_checkpoint is None and "encoder" in open_published(path).nets:
        encoder_checkpoint, net = path, "encoder"
    encoder = load_encoder(
        published.encoder, encoder_checkpoint, device=device, dtype=dtype, net=net
    )
    encoder.transform = published.transform
    return WorldModel(
        encoder,
        predictor.requires_grad_(False),
        action_spec=DROID_ACTIONS,
        integrate=None if predictor.proprio_dim is None else PoseIntegrator(),
        memory_mb=_AC_CPU_MEMORY_MB if torch.device(device).type == "cpu" else None,
    )
