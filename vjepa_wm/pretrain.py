"""Pretrain a V-JEPA encoder on trajectories and videos: python -m vjepa_wm.pretrain.

No labels and no actions are used. On one's own videos, beginning from the shipped encoder:
python -m vjepa_wm.pretrain data=[VIDEOS] start_from=compact seconds=[0.25] out=runs/pretrain/mine
The smallest run: python -m vjepa_wm.pretrain vit=tiny mask_predictor=tiny trainer.steps=10
data=[data/reacher] out=runs/pretrain/tiny. With several processes:
torchrun --nproc-per-node 2 -m vjepa_wm.pretrain device=cuda
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vjepa_wm import distributed
from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.cli import progress, verb
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.video_scan import scan_videos
from vjepa_wm.encoders.collapse import collapse_faults
from vjepa_wm.encoders.frozen import FrozenEncoder, normalise
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import CheckpointError, DataError, SettingError
from vjepa_wm.files import write_json
from vjepa_wm.pretraining.clips import Augment, ClipSteps
from vjepa_wm.pretraining.jepa import JEPA
from vjepa_wm.pretraining.loader import Batch, ClipLoader, ClipSampler, Plan
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.masks import MultiBlockMask
from vjepa_wm.pretraining.monitors import effective_rank, frame_std, time_rank_correlation
from vjepa_wm.pretraining.sources import Source, TrajectorySource, VideoSource
from vjepa_wm.pretraining.start import Start, open_start, take_start, train_last_blocks
from vjepa_wm.provenance import provenance
from vjepa_wm.training.trainer import Logs, Loss, LossFn, Trainer

logger = logging.getLogger("vjepa_wm.pretrain")  # also where it is run, as __main__

IMAGE_SIZE = 64  # where neither the options nor a start say another
SKIPPED = "skipped_videos.json"
SHOWN_SKIPPED = 3


@verb("pretrain")
def main(cfg: DictConfig) -> None:
    """Pretrain a V-JEPA encoder on trajectories and videos; a run that was stopped continues."""
    with distributed.processes(cfg.device) as device:
        cfg.device = device
        if not distributed.is_first():
            logging.getLogger("vjepa_wm").setLevel(logging.ERROR)
        pretrain(cfg)


def pretrain(cfg: DictConfig) -> None:
    """Train and save; every process does the same, the first one alone writes."""
    out = Path(cfg.out)
    start = begin(cfg)
    trainer: Trainer = instantiate(cfg.trainer)
    rows = own_rows(cfg, trainer)
    with distributed.first_before_others():
        sources = open_sources(cfg)
    jepa = build_jepa(cfg, start, seed=trainer.seed)
    sampler = ClipSampler(sources, cfg.weights)
    held_out = read_held_out(cfg, sources)
    report_skipped(out, sources)

    def validate() -> Logs:
        encoder = FrozenEncoder(
            jepa.target_encoder, name=cfg.name, digest="", image_size=cfg.image_size, pool=cfg.pool
        )
        figures = collapse_figures(encoder, held_out, device=cfg.device)
        watch_collapse(figures, cfg.collapse, stop=cfg.stop_on_collapse)
        return figures

    plan = planner(cfg, sampler, jepa.encoder, trainer.batch_size)
    with ClipLoader(sources, plan, rows=rows, workers=cfg.workers) as loader:
        figures = trainer.fit(
            jepa,
            batch_loss(cfg, jepa, loader, rows, pieces=trainer.accumulate),
            folder=out,
            validate=validate,
            select=cfg.select,
            after_step=jepa.update_target,
        )
    if add_faults(sources, loader.faults):
        report_skipped(out, sources)
    if distributed.is_first():
        save(cfg, jepa, sources, start, figures)


def begin(cfg: DictConfig) -> Start | None:
    """Open what training starts from, if anything, and take over its sizes."""
    start = None if cfg.start_from is None else open_start(cfg.start_from, cfg.start_checkpoint)
    if start is not None:
        OmegaConf.update(cfg, "vit", dict(start.vit), merge=False, force_add=True)
    if cfg.image_size is None:
        cfg.image_size = IMAGE_SIZE if start is None else start.image_size
    return start


def own_rows(cfg: DictConfig, trainer: Trainer) -> list[int]:
    """Rows of every batch that are this process's: every n-th, so that each has all sources.

    Raises:
        SettingError: A batch cannot be shared out evenly.
    """
    count, processes = trainer.batch_size, distributed.world_size()
    if count % (processes * trainer.accumulate):
        raise SettingError(
            f"trainer.batch_size {count} must be a multiple of {processes} processes times "
            f"trainer.accumulate {trainer.accumulate}"
        )
    if processes * trainer.accumulate > 1 and (cfg.variance_weight or cfg.covariance_weight):
        logger.warning(
            "the variance and covariance terms compare the %d clips of one piece, not the %d of a "
            "batch: make trainer.batch_size larger, or set their weights to 0",
            count // (processes * trainer.accumulate),
            count,
        )
    return list(range(distributed.rank(), count, processes))


def open_sources(cfg: DictConfig) -> list[Source]:
    """Open every folder of `data`: trajectories, or else videos.

    Raises:
        DataError: A folder is missing, damaged, or holds nothing that can be used.
    """
    if not cfg.data:
        raise SettingError("data: wanted at least one folder of trajectories or videos, got none")
    seconds = None if cfg.seconds is None else list(cfg.seconds)
    steps = ClipSteps(list(cfg.strides), seconds)
    settings = OmegaConf.to_container(cfg.augment)
    for_trajectories = settings.pop("trajectories")
    augment = Augment(**settings)
    sources: list[Source] = []
    for folder in map(Path, cfg.data):
        if (folder / "meta.json").exists() or (folder / "shards").is_dir():
            source = TrajectorySource(
                open_trajectories(folder, image_size=cfg.image_size),
                num_frames=cfg.num_frames,
                steps=steps,
                augment=augment if for_trajectories else None,
            )
        else:
            scan = scan_videos(
                folder,
                folder_fps=cfg.folder_fps,
                cache=cfg.cache,
                threads=max(1, cfg.workers),
                progress=progress,
            )
            source = VideoSource(
                scan,
                num_frames=cfg.num_frames,
                steps=steps,
                side=cfg.image_size,
                augment=augment,
            )
        sources.append(source)
    return sources


def open_trajectories(folder: Path, *, image_size: int) -> Trajectories:
    """Open trajectories whose frames have the size the encoder is trained for.

    Raises:
        DataError: The folder is damaged, or its frames have another size.
    """
    trajectories = Trajectories.open(folder)
    if tuple(trajectories.meta.image_size) != (image_size, image_size):
        raise DataError(
            f"{trajectories.folder}: wanted frames of {(image_size, image_size)}, the option "
            f"image_size, got {trajectories.meta.image_size}"
        )
    return trajectories


def read_held_out(cfg: DictConfig, sources: Sequence[Source]) -> list[Tensor]:
    """Read the frames to validate on, where this process validates."""
    if not distributed.is_first():
        return []
    return [source.validation_frames(cfg.validation_episodes) for source in sources]


def build_jepa(cfg: DictConfig, start: Start | None, *, seed: int) -> JEPA:
    """Make student, teacher and mask predictor on the device."""
    torch.manual_seed(seed)
    vit = VideoViT(**cfg.vit)
    predictor = MaskPredictor(embed_dim=vit.embed_dim, **cfg.mask_predictor)
    if start is not None:
        take_start(vit, start)
    train_last_blocks(vit, cfg.train_blocks)
    jepa = JEPA(
        vit,
        predictor,
        ema_decay=cfg.ema_decay,
        variance_weight=cfg.variance_weight,
        covariance_weight=cfg.covariance_weight,
    ).to(cfg.device)
    jepa.encoder.recomputes = cfg.checkpoint_activations
    if cfg.compile:
        for network in (jepa.encoder, jepa.target_encoder, jepa.mask_predictor):
            network.compile()
    return jepa


def planner(
    cfg: DictConfig, sampler: ClipSampler, vit: VideoViT, batch_size: int
) -> Callable[[np.random.Generator], Plan]:
    """Make what decides on a batch: its clips, then its masks."""
    masks = [MultiBlockMask(**mask) for mask in cfg.masks]
    side = cfg.image_size
    grid = vit.grid(torch.Size([batch_size, 3, cfg.num_frames, side, side]))

    def plan(rng: np.random.Generator) -> Plan:
        source, clips = sampler.draw(rng, batch_size)
        return Plan(source, clips, [m.sample(rng, batch_size=batch_size, grid=grid) for m in masks])

    return plan


def batch_loss(
    cfg: DictConfig, jepa: JEPA, loader: ClipLoader, rows: Sequence[int], *, pieces: int
) -> LossFn:
    """Make the loss of this process's rows of a batch, in one piece or in several."""

    def piece(batch: Batch, rows: Sequence[int]) -> Loss:
        video = to_video(loader.read(batch, rows).to(cfg.device))
        masks = [
            (context[rows].to(cfg.device), target[rows].to(cfg.device))
            for context, target in batch.plan.masks
        ]
        source = torch.from_numpy(batch.plan.source[rows]).to(cfg.device)
        return jepa.loss(video, masks, source)

    def in_pieces(batch: Batch) -> Iterator[Loss]:
        for index in range(pieces):
            loss, parts = piece(batch, rows[index::pieces])
            yield loss / pieces, {name: part / pieces for name, part in parts.items()}

    def loss(rng: np.random.Generator, share: float) -> Loss | Iterator[Loss]:
        del share  # the objective does not change over the run
        batch = loader.next(rng)
        return piece(batch, rows) if pieces == 1 else in_pieces(batch)

    return loss


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


def watch_collapse(figures: Logs, floors: Mapping[str, float], *, stop: bool) -> None:
    """Warn of a collapse, or stop.

    Raises:
        CheckpointError: The encoder has collapsed, and training is to stop.
    """
    faults = collapse_faults(figures, floors)
    if not faults:
        return
    message = (
        f"the encoder has collapsed, nearly all frames look alike to it: {', '.join(faults)}. Try "
        "a larger variance_weight, a smaller trainer.learning_rate or a larger ema_decay"
    )
    if stop:
        raise CheckpointError(f"{message}. Stopped; the state of the validation before is kept")
    logger.warning("%s", message)


def add_faults(sources: Sequence[Source], faults: Sequence[Mapping[str, str]]) -> bool:
    """Add the videos that broke during training, in any process; whether there are any."""
    found = False
    for part in distributed.from_all(list(faults)):
        for source, own in zip(sources, part, strict=True):
            if isinstance(source, VideoSource) and own:
                source.skipped |= own
                found = True
    return found


def report_skipped(out: Path, sources: Sequence[Source]) -> None:
    """Say how many videos are left out, and list all of them in the folder of the run."""
    videos = [source for source in sources if isinstance(source, VideoSource)]
    skipped = {str(source.folder): source.skipped for source in videos if source.skipped}
    if not skipped or not distributed.is_first():
        return
    write_json(out / SKIPPED, skipped)
    for folder, faults in skipped.items():
        shown = [f"{name} ({why})" for name, why in list(faults.items())[:SHOWN_SKIPPED]]
        more = len(faults) - len(shown)
        logger.warning(
            "%s: %d videos left out: %s%s; listed in %s",
            folder,
            len(faults),
            "; ".join(shown),
            f" and {more} more" if more else "",
            out / SKIPPED,
        )


def save(
    cfg: DictConfig, jepa: JEPA, sources: Sequence[Source], start: Start | None, figures: Logs
) -> None:
    """Write the teacher with everything needed to load and to judge it."""
    save_checkpoint(
        Path(cfg.out),
        {"encoder": jepa.target_encoder},
        {
            "kind": "encoder",
            "name": cfg.name,
            "vit": OmegaConf.to_container(cfg.vit),
            "image_size": cfg.image_size,
            "pool": cfg.pool,
            "which": "target_encoder",
            "figures": figures,
            "data": {str(source.folder): source.digest for source in sources},
            "started_from": None if start is None else start.digest,
            "config": OmegaConf.to_container(cfg),
            **provenance(),
        },
    )
    print(f"encoder: {cfg.out}  {figures}")


if __name__ == "__main__":
    main()
