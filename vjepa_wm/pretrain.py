"""Pretrain a V-JEPA encoder on trajectories: python -m vjepa_wm.pretrain trainer.minutes=15.

No labels and no actions are used. The smallest run: python -m vjepa_wm.pretrain vit=tiny
mask_predictor=tiny trainer.steps=10 data=[data/reacher] out=runs/pretrain/tiny
"""

from collections.abc import Sequence
from pathlib import Path

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
from vjepa_wm.errors import DataError
from vjepa_wm.pretraining.clips import ClipSampler, validation_frames
from vjepa_wm.pretraining.jepa import JEPA
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.masks import MultiBlockMask
from vjepa_wm.pretraining.monitors import effective_rank, frame_std, time_rank_correlation
from vjepa_wm.provenance import provenance
from vjepa_wm.training.trainer import Trainer


@verb("pretrain")
def main(cfg: DictConfig) -> None:
    """Pretrain a V-JEPA encoder on trajectories; a run that was stopped continues."""
    out = Path(cfg.out)
    sets = open_sets(cfg.data, image_size=cfg.image_size)
    trainer: Trainer = instantiate(cfg.trainer)
    torch.manual_seed(trainer.seed)
    vit = VideoViT(**cfg.vit)
    jepa = JEPA(
        vit,
        MaskPredictor(embed_dim=vit.embed_dim, **cfg.mask_predictor),
        ema_decay=cfg.ema_decay,
        variance_weight=cfg.variance_weight,
        covariance_weight=cfg.covariance_weight,
    ).to(cfg.device)
    clips = ClipSampler(sets, num_frames=cfg.num_frames, strides=cfg.strides)
    masks = [MultiBlockMask(**mask) for mask in cfg.masks]

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        del share  # the objective does not change over the run
        pixels, source = clips.sample(rng, trainer.batch_size)
        video = to_video(pixels.to(cfg.device))
        grid = vit.grid(video.shape)
        drawn = [mask.sample(rng, batch_size=len(video), grid=grid) for mask in masks]
        drawn = [(context.to(cfg.device), target.to(cfg.device)) for context, target in drawn]
        return jepa.loss(video, drawn, source.to(cfg.device))

    held_out = [
        validation_frames(trajectories, num_episodes=cfg.validation_episodes)
        for trajectories in sets
    ]

    def validate() -> dict[str, float]:
        encoder = FrozenEncoder(
            jepa.target_encoder, name=cfg.name, digest="", image_size=cfg.image_size, pool=cfg.pool
        )
        return collapse_figures(encoder, held_out, device=cfg.device)

    figures = trainer.fit(
        jepa,
        loss,
        folder=out,
        validate=validate,
        select=cfg.select,
        after_step=jepa.update_target,
    )
    save_checkpoint(
        out,
        {"encoder": jepa.target_encoder},
        {
            "kind": "encoder",
            "name": cfg.name,
            "vit": OmegaConf.to_container(cfg.vit),
            "image_size": cfg.image_size,
            "pool": cfg.pool,
            "which": "target_encoder",
            "figures": figures,
            "data": {str(s.folder): s.digest for s in sets},
            "config": OmegaConf.to_container(cfg),
            **provenance(),
        },
    )
    print(f"encoder: {out}  {figures}")


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
