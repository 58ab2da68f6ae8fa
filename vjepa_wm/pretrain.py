"""Pretrain a V-JEPA encoder on trajectories: python -m vjepa_wm.pretrain trainer.minutes=15.

No labels and no actions are used. recipe=vjepa1, vjepa2 or vjepa2_1 are the published recipes,
recipe=pixels is the baseline. The smallest run: python -m vjepa_wm.pretrain vit=tiny
mask_predictor=tiny trainer.steps=10 data=[data/reacher] out=runs/pretrain/tiny
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.cli import verb
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.encoders.frozen import FrozenEncoder, normalise
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import DataError, SettingError
from vjepa_wm.pretraining.augment import stills
from vjepa_wm.pretraining.clips import ClipSampler, validation_frames
from vjepa_wm.pretraining.jepa import JEPA
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.monitors import effective_rank, frame_std, time_rank_correlation
from vjepa_wm.pretraining.networks import mask_predictor_settings, vit_settings
from vjepa_wm.pretraining.objective import Objective
from vjepa_wm.pretraining.published import KIND
from vjepa_wm.provenance import provenance
from vjepa_wm.training.earlier_run import take_state
from vjepa_wm.training.trainer import Logs, Trainer


@verb("pretrain")
def main(cfg: DictConfig) -> None:
    """Pretrain a V-JEPA encoder on trajectories; a run that was stopped continues.

    Examples: python -m vjepa_wm.pretrain recipe=vjepa2_1 trainer.minutes=15, or recipe=pixels.
    """
    if not 0 <= cfg.image_share <= 1:
        raise SettingError(f"image_share: wanted a share in [0, 1], got {cfg.image_share}")
    sets = open_sets(cfg.data, image_size=cfg.image_size)
    trainer: Trainer = instantiate(cfg.trainer)
    torch.manual_seed(trainer.seed)
    vit = VideoViT(**network(cfg))
    predictor = partial(MaskPredictor, **mask_predictor_settings(cfg.mask_predictor, vit))
    # Terms are dataclasses, which only a plain mapping holds as they are
    make_objective = instantiate(cfg.objective, _partial_=True, _convert_="all")
    objective: Objective = make_objective(vit, predictor).to(cfg.device)
    if cfg.start_from is not None:
        take_state(objective, cfg.start_from)
    clips = ClipSampler(sets, num_frames=cfg.num_frames, strides=cfg.strides)
    masks, augment = instantiate(cfg.masks), instantiate(cfg.augmentation)

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        pixels, source = clips.sample(rng, trainer.batch_size)
        pixels = pixels.to(cfg.device)
        video = to_video(pixels if augment is None else augment(pixels, rng))
        is_still = cfg.image_share > 0 and rng.random() < cfg.image_share
        if is_still:
            video = stills(video, vit)
        grid = vit.grid(video.shape)
        drawn = masks.draw(rng, batch_size=len(video), grid=grid, is_image=is_still)
        drawn = [(context.to(cfg.device), target.to(cfg.device)) for context, target in drawn]
        return objective.loss(video, drawn, source.to(cfg.device), share)

    held_out = [
        validation_frames(trajectories, num_episodes=cfg.validation_episodes)
        for trajectories in sets
    ]

    def validate() -> dict[str, float]:
        encoder = FrozenEncoder(
            objective.kept_encoder(),
            name=cfg.name,
            digest="",
            image_size=cfg.image_size,
            pool=cfg.pool,
        )
        return collapse_figures(encoder, held_out, device=cfg.device)

    figures = trainer.fit(
        objective,
        loss,
        folder=Path(cfg.out),
        validate=validate,
        select=cfg.select,
        after_step=objective.update_target,
    )
    save(cfg, objective, predictor.keywords, sets, figures)
    print(f"encoder: {cfg.out}  {figures}")


def network(cfg: DictConfig) -> dict[str, Any]:
    """Everything that makes the encoder again, as the checkpoint records it."""
    return vit_settings(
        OmegaConf.to_container(cfg.vit, resolve=True),
        positions=cfg.positions,
        levels=cfg.levels,
        num_frames=cfg.num_frames,
        image_size=cfg.image_size,
    )


def save(
    cfg: DictConfig,
    objective: Objective,
    predictor: Mapping[str, Any],
    sets: Sequence[Trajectories],
    figures: Logs,
) -> None:
    """Write the encoder and, in a folder of its own, the mask predictor that goes with it."""
    out = Path(cfg.out)
    record = {
        "name": cfg.name,
        "figures": figures,
        "data": {str(s.folder): s.digest for s in sets},
        "config": OmegaConf.to_container(cfg),
        **provenance(),
    }
    encoder = {
        "kind": "encoder",
        "vit": network(cfg),
        "image_size": cfg.image_size,
        "pool": cfg.pool,
        "which": objective.which,
    }
    digest = save_checkpoint(out, {"encoder": objective.kept_encoder()}, {**encoder, **record})
    if isinstance(objective, JEPA):
        settings = {KIND: {**predictor, **objective.predictor_switches}, "encoder_digest": digest}
        parts = {KIND: objective.mask_predictor}
        save_checkpoint(out / KIND, parts, {"kind": KIND, **settings, **record})


def open_sets(folders: Sequence[str], *, image_size: int) -> list[Trajectories]:
    """Open trajectories whose frames have the size the encoder is trained for.

    Raises:
        DataError: a folder is missing or damaged, or its frames have another size.
    """
    sets = [Trajectories.open(folder) for folder in folders]
    for trajectories in sets:
        if tuple(trajectories.meta.image_size) != (image_size, image_size):
            raise DataError(
                f"{trajectories.folder}: wanted frames of {(image_size, image_size)}, the option "
                f"image_size, got {trajectories.meta.image_size}"
            )
    return sets


def to_video(pixels: Tensor) -> Tensor:
    """Turn uint8 clips (B, T, H, W, C) into normalised video (B, C, T, H, W)."""
    return normalise(pixels.movedim(-1, -3)).movedim(-4, -3)


def collapse_figures(
    encoder: FrozenEncoder, frames: list[Tensor], *, device: str
) -> dict[str, float]:
    """Collapse monitors on held-out frames (E, T, H, W, C), averaged over the sets."""
    rows = []
    for pixels in frames:
        latents = encoder.encode(pixels.to(device)).cpu()
        rows.append(
            {
                "frame_std": frame_std(latents.flatten(0, 1)),
                "effective_rank": effective_rank(latents.flatten(0, 1)),
                "time_rank_correlation": time_rank_correlation(latents, max_steps=15),
            }
        )
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    each = {f"time_rank_correlation_{i}": r["time_rank_correlation"] for i, r in enumerate(rows)}
    return {**means, **each}


if __name__ == "__main__":
    main()
