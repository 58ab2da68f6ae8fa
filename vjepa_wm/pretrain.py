"""Pretrain a V-JEPA encoder on trajectories and videos: python -m vjepa_wm.pretrain.

No labels and no actions are used. recipe=vjepa1, vjepa2 or vjepa2_1 are the published recipes,
recipe=pixels is the baseline. On one's own videos, beginning from the shipped encoder:
python -m vjepa_wm.pretrain data=[VIDEOS] start_from=compact seconds=[0,0.2] out=runs/pretrain/mine
The smallest run: python -m vjepa_wm.pretrain vit=tiny mask_predictor=tiny trainer.steps=10
data=[data/reacher] out=runs/pretrain/tiny. With several processes:
torchrun --nproc-per-node 2 -m vjepa_wm.pretrain device=cuda
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vjepa_wm import distributed
from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.cli import progress, verb
from vjepa_wm.data.video_scan import scan_videos
from vjepa_wm.encoders.frozen import FrozenEncoder, check_pool
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError
from vjepa_wm.pretraining.batches import BatchLoss, own_rows, planner, warn_of_parted_terms
from vjepa_wm.pretraining.clips import Augment, ClipSteps
from vjepa_wm.pretraining.folders import add_faults, open_sources, report_skipped
from vjepa_wm.pretraining.jepa import JEPA
from vjepa_wm.pretraining.loader import ClipLoader, ClipSampler
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.monitors import RankWatch, check_figure, collapse_figures, watch_collapse
from vjepa_wm.pretraining.networks import (
    compile_networks,
    mask_predictor_settings,
    switches,
    vit_settings,
)
from vjepa_wm.pretraining.objective import Objective
from vjepa_wm.pretraining.published import KIND
from vjepa_wm.pretraining.sources import Source
from vjepa_wm.pretraining.start import Start, open_start, take_start, train_last_blocks
from vjepa_wm.provenance import provenance
from vjepa_wm.training.earlier_run import take_state
from vjepa_wm.training.inputs import keep_inputs
from vjepa_wm.training.trainer import STATE, Logs, Trainer

IMAGE_SIZE = 64  # where neither the options nor a start say another


@verb("pretrain")
def main(cfg: DictConfig) -> None:
    """Pretrain a V-JEPA encoder on trajectories and videos; a run that was stopped continues.

    Examples: python -m vjepa_wm.pretrain recipe=vjepa2_1 trainer.minutes=15, or recipe=pixels.
    """
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
    rows = own_rows(trainer.batch_size, pieces=trainer.accumulate)
    objective = build_objective(cfg, start, seed=trainer.seed)
    warn_of_parted_terms(objective, trainer.batch_size, pieces=trainer.accumulate)
    with distributed.first_before_others():
        sources = open_data(cfg)
    validate = validation(cfg, objective, sources)
    plan = planner(
        ClipSampler(sources, cfg.weights),
        instantiate(cfg.masks),
        objective.encoder,
        batch_size=trainer.batch_size,
        num_frames=cfg.num_frames,
        image_size=cfg.image_size,
        image_share=cfg.image_share,
    )
    if distributed.is_first():  # after all that refuses options, so that no run begins with those
        keep_inputs(out, inputs_of(cfg, sources, start), unwritten={})
    report_skipped(out, sources)
    with ClipLoader(sources, plan, rows=rows, workers=cfg.workers, device=cfg.device) as loader:
        figures = trainer.fit(
            objective,
            BatchLoss(objective, loader, rows, pieces=trainer.accumulate),
            folder=out,
            validate=validate,
            select=cfg.select,
            higher_is_better=True,
            # random networks keep apart what differs in pixels, and may score above trained ones
            keep_untrained=start is not None or cfg.state_from is not None,
            after_step=objective.update_target,
        )
    if add_faults(sources, loader.faults):
        report_skipped(out, sources)
    if distributed.is_first():
        save(cfg, objective, sources, start, figures)
        print(f"encoder: {cfg.out}  {figures}")


def begin(cfg: DictConfig) -> Start | None:
    """Open the encoder training starts from, if any, and complete the options of the network.

    Raises:
        SettingError: Two starts are given.
    """
    if cfg.start_from is not None and cfg.state_from is not None:
        raise SettingError(
            f"start_from={cfg.start_from} and state_from={cfg.state_from}: wanted one of them, the "
            "encoder alone or all networks of a run"
        )
    for name in ("weights", "seconds"):  # lists, or null
        if isinstance(cfg[name], int | float):
            cfg[name] = [cfg[name]]
    start = None if cfg.start_from is None else open_start(cfg.start_from, cfg.start_checkpoint)
    if cfg.image_size is None:
        cfg.image_size = IMAGE_SIZE if start is None else start.image_size
    if start is None:
        vit = vit_settings(
            OmegaConf.to_container(cfg.vit, resolve=True),
            positions=cfg.positions,
            levels=cfg.levels,
            num_frames=cfg.num_frames,
            image_size=cfg.image_size,
        )
    else:
        vit = dict(start.vit)
        cfg.positions, cfg.levels = switches(vit)
    OmegaConf.update(cfg, "vit", vit, merge=False, force_add=True)
    return start


def open_data(cfg: DictConfig) -> list[Source]:
    """Open every folder of `data`, and look at videos that are new."""
    scan = partial(
        scan_videos,
        folder_fps=cfg.folder_fps,
        cache=cfg.cache,
        threads=max(1, cfg.workers),
        progress=progress,
    )
    return open_sources(
        cfg.data,
        num_frames=cfg.num_frames,
        image_size=cfg.image_size,
        steps=ClipSteps(list(cfg.strides), None if cfg.seconds is None else list(cfg.seconds)),
        augment=Augment(**OmegaConf.to_container(cfg.augment)),
        scan=scan,
    )


def inputs_of(cfg: DictConfig, sources: Sequence[Source], start: Start | None) -> dict[str, object]:
    """What makes another run of it: all but the budget, rates and the weights of the objective."""
    chosen = ("weights", "num_frames", "image_size", "strides", "seconds", "augment")
    chosen += ("image_share", "masks", "vit", "mask_predictor", "state_from", "select")
    options = OmegaConf.to_container(cfg, resolve=True)
    return {
        "data": [source.digest for source in sources],
        **{name: options[name] for name in chosen},
        "objective": cfg.objective["_target_"],
        "start_from": None if start is None else start.digest,
        "trainer.seed": cfg.trainer.seed,
    }


def build_objective(cfg: DictConfig, start: Start | None, *, seed: int) -> Objective:
    """Make the networks on the device, with the weights training starts from."""
    torch.manual_seed(seed)
    vit = VideoViT(**cfg.vit)
    if start is not None:
        take_start(vit, start)
    train_last_blocks(vit, cfg.train_blocks)
    predictor = partial(MaskPredictor, **mask_predictor_settings(cfg.mask_predictor, vit))
    # Terms are dataclasses, which only a plain mapping holds as they are
    make_objective = instantiate(cfg.objective, _partial_=True, _convert_="all")
    objective: Objective = make_objective(vit, predictor)
    if cfg.state_from is not None and not (Path(cfg.out) / STATE).exists():  # which has all of it
        take_state(objective, cfg.state_from)
    objective.to(cfg.device)
    objective.encoder.recomputes = cfg.checkpoint_activations
    if cfg.compile:
        compile_networks(objective.networks())
    return objective


def validation(
    cfg: DictConfig, objective: Objective, sources: Sequence[Source]
) -> Callable[[], Logs]:
    """Make what measures the encoder on held-out frames, and tells of a collapse.

    Raises:
        SettingError: No episodes are wanted, `rank_share` is no share, or the latents cannot be
            pooled so.
        UnknownNameError: `select` is no figure of these sets.
    """
    if cfg.validation_episodes < 1:
        raise SettingError(
            f"validation_episodes: wanted at least 1 per set, got {cfg.validation_episodes}"
        )
    if not 0 <= cfg.rank_share < 1:
        raise SettingError(
            f"rank_share: wanted a share of at least 0 and below 1, got {cfg.rank_share}"
        )
    check_pool(objective.encoder, image_size=cfg.image_size, pool=cfg.pool)
    if cfg.select is not None:
        check_figure(cfg.select, num_sets=len(sources))
    held_out: list[Tensor] = []
    if distributed.is_first():  # the others do not validate
        held_out = [source.validation_frames(cfg.validation_episodes) for source in sources]

    def measured() -> Logs:
        encoder = FrozenEncoder(
            objective.kept_encoder(),
            name=cfg.name,
            digest="",
            image_size=cfg.image_size,
            pool=cfg.pool,
        )
        return collapse_figures(encoder, held_out, device=cfg.device)

    # Before a state is read, so that a run that goes on has the same random weights beside it
    is_watched = cfg.rank_share and cfg.start_from is None and cfg.state_from is None
    untrained = measured()["effective_rank"] if is_watched and distributed.is_first() else 0.0
    watch_rank = RankWatch(untrained, share=cfg.rank_share)

    def validate() -> Logs:
        figures = measured()
        watch_collapse(figures, cfg.collapse, stop=cfg.stop_on_collapse)
        watch_rank(figures["effective_rank"])
        return figures

    return validate


def save(
    cfg: DictConfig,
    objective: Objective,
    sources: Sequence[Source],
    start: Start | None,
    figures: Logs,
) -> None:
    """Write the encoder and, in a folder of its own, the mask predictor that goes with it."""
    out = Path(cfg.out)
    record = {
        "name": cfg.name,
        "figures": figures,
        "data": {str(source.folder): source.digest for source in sources},
        "started_from": None if start is None else start.digest,
        "config": OmegaConf.to_container(cfg),
        **provenance(),
    }
    encoder = {
        "kind": "encoder",
        "vit": OmegaConf.to_container(cfg.vit),
        "image_size": cfg.image_size,
        "pool": cfg.pool,
        "which": objective.which,
    }
    digest = save_checkpoint(out, {"encoder": objective.kept_encoder()}, {**encoder, **record})
    if isinstance(objective, JEPA):
        settings = mask_predictor_settings(cfg.mask_predictor, objective.encoder)
        settings |= objective.predictor_switches
        config = {"kind": KIND, KIND: settings, "encoder_digest": digest, **record}
        save_checkpoint(out / KIND, {KIND: objective.mask_predictor}, config)


if __name__ == "__main__":
    main()
