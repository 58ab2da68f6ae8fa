"""Train a world model on trajectories: python -m vjepa_wm.train_ac env=push trainer.minutes=10.

Collects trajectories if there are none, encodes them once, trains what moves proprio, the
action-conditioned predictor and the temporal metric, saves the world model and evaluates it. Where
there are no actions (env=play), it foresees videos, and nothing is planned. The smallest run:
python -m vjepa_wm.train_ac episodes=20 predictor=tiny trainer.steps=10 metric_trainer.steps=10
integrator_trainer.steps=10
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.cli import progress, verb
from vjepa_wm.data.latents import LatentBatch, LatentCache
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.windows import WindowIndex, gather_actions
from vjepa_wm.encoders.collapse import collapse_faults, latent_figures
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.recorded import record_encoder
from vjepa_wm.errors import SettingError
from vjepa_wm.evaluate import evaluate_trained
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.proprio import LearnedIntegrator, proprio_statistics
from vjepa_wm.provenance import provenance
from vjepa_wm.training.dynamics import (
    ACTION_RATIO_FLOOR,
    DynamicsLoss,
    horizon_errors,
    horizon_figures,
)
from vjepa_wm.training.inputs import (
    draw,
    inputs_of,
    keep_inputs,
    open_latents,
    open_or_collect,
    require_lengths,
    split_windows,
)
from vjepa_wm.training.spread import spread, squared_step
from vjepa_wm.training.trainer import Logs, LossFn, Trainer
from vjepa_wm.training.warm_start import open_start, start_from
from vjepa_wm.world_model import ActionSpec, WorldModel

logger = logging.getLogger(__name__)

TRAINERS = ("trainer", "metric_trainer", "integrator_trainer")
VALIDATION_BYTES = 1 << 28
COLLAPSE_FRAMES = 64


@verb("train_ac")
def main(cfg: DictConfig) -> None:
    """Train an action-conditioned world model; a run that was stopped continues.

    Example: python -m vjepa_wm.train_ac env=push trainer.minutes=10
    """
    start = None if cfg.start_from is None else open_start(cfg.start_from)
    trajectories = open_or_collect(cfg.data, cfg.env, episodes=cfg.episodes, progress=progress)
    encoder: FrozenEncoder = instantiate(cfg.encoder, device=cfg.device)
    check_inputs(cfg, trajectories, encoder)
    count = cfg.actions_per_step
    option = "predictor.max_frames" if count == 1 else "predictor.max_frames x actions_per_step"
    pieces = {option: cfg.predictor.max_frames * count + 1}
    if trajectories.meta.action_dim:
        pieces["metric_frames"] = cfg.metric_frames
    require_lengths(trajectories, pieces)
    cache = open_latents(
        trajectories, encoder, root=cfg.cache, device=cfg.device, progress=progress
    )
    warn_of_collapse(cache)
    settings = network_settings(cfg, encoder, trajectories, cache)
    world_model = build_world_model(cfg, encoder, trajectories, settings)
    if start is not None:
        start_from(world_model, start)
    figures = {
        **train_integrator(cfg, world_model.integrate, trajectories),
        "predictor": train_predictor(cfg, world_model, cache),
        **train_metric(cfg, world_model.metric, cache),
    }
    save_world_model(cfg, world_model, trajectories, settings, figures)
    report(Path(cfg.out), figures)
    max_frames = cfg.predictor.max_frames
    evaluate_trained(cfg, f"model={cfg.out}", "agent=mpc", max_frames=max_frames)


def check_inputs(cfg: DictConfig, trajectories: Trajectories, encoder: FrozenEncoder) -> None:
    """Refuse to go on with a run on other data, encoder, start or seeds than it was begun with.

    Raises:
        SettingError: a model step has several actions, where there are none.
    """
    if cfg.actions_per_step > 1 and not trajectories.meta.action_dim:
        raise SettingError(
            f"actions_per_step: wanted 1, as {trajectories.folder} has no actions, got "
            f"{cfg.actions_per_step}"
        )
    chosen = {
        "proprio_dim": trajectories.meta.proprio_dim if cfg.proprio else 0,
        "start_from": cfg.start_from,
        "actions_per_step": cfg.actions_per_step,
        **{f"{name}.seed": cfg[name].seed for name in TRAINERS},
    }
    older = {"proprio_dim": 0, "start_from": None, "actions_per_step": 1}  # before these were
    if trajectories.meta.action_dim:
        chosen["metric_inputs"], older["metric_inputs"] = "centred", "as they are"
    keep_inputs(cfg.out, inputs_of(trajectories, encoder) | chosen, unwritten=older)


def warn_of_collapse(cache: LatentCache) -> None:
    """Say so where the frames of these trajectories look alike to the encoder."""
    _, held_out = split_windows(cache, num_frames=1)
    latents = held_out.sample(np.random.default_rng(0), COLLAPSE_FRAMES).latents[:, 0].float()
    if faults := collapse_faults(latent_figures(latents)):
        logger.warning(
            "nearly all frames of these trajectories look alike to the encoder: %s. Plans will not "
            "work: take another encoder, or more pixels of what moves",
            ", ".join(faults),
        )


def network_settings(
    cfg: DictConfig, encoder: FrozenEncoder, trajectories: Trajectories, cache: LatentCache
) -> dict[str, dict[str, object] | None]:
    """Everything that makes the networks again, as the checkpoint records it.

    The integrator's are None where proprio is not wanted or was not recorded, the metric's where
    there are no actions and so nothing to plan.
    """
    patches, dim = encoder.latent_shape
    meta = trajectories.meta
    action_dim = meta.action_dim
    count = cfg.actions_per_step
    bounds = {"action_low": meta.action_low, "action_high": meta.action_high}
    of_step = {name: count * list(bound) for name, bound in bounds.items()}
    statistics, integrator, metric = {}, None, None
    if cfg.proprio and meta.proprio_dim:
        shards = [torch.from_numpy(shard.copy()) for shard in trajectories.proprio.shards]
        mean, std = proprio_statistics(torch.cat(shards))
        statistics = {"proprio_mean": mean, "proprio_std": std}
        integrator = {
            "mean": mean,
            "std": std,
            "action_dim": action_dim,
            **bounds,
            **cfg.integrator,
        }
    elif cfg.proprio:
        logger.info("%s has no proprio: training without", trajectories.folder)
    if action_dim:
        metric = {"latent_dim": dim, "num_patches": patches, "squared_step": squared_step(cache)}
        metric |= cfg.metric
    return {
        "predictor": {
            "latent_dim": dim,
            "grid": encoder.grid,
            "action_dim": count * action_dim,
            **of_step,
            **statistics,
            **cfg.predictor,
        },
        "metric": metric,
        "integrator": integrator,
    }


def build_world_model(
    cfg: DictConfig,
    encoder: FrozenEncoder,
    trajectories: Trajectories,
    settings: dict[str, dict[str, object] | None],
) -> WorldModel:
    """Put an untrained world model together, each network from its trainer's seed."""
    torch.manual_seed(cfg.trainer.seed)
    predictor = ActionPredictor(**settings["predictor"])
    metric = integrate = None
    if settings["metric"] is not None:
        torch.manual_seed(cfg.metric_trainer.seed)
        metric = TemporalMetric(**settings["metric"])
    if settings["integrator"] is not None:
        torch.manual_seed(cfg.integrator_trainer.seed)
        integrate = LearnedIntegrator(**settings["integrator"])
    return WorldModel(
        encoder,
        predictor,
        action_spec=ActionSpec(**spec_settings(cfg, trajectories)),
        metric=metric,
        integrate=integrate,
    ).to(cfg.device)


def spec_settings(cfg: DictConfig, trajectories: Trajectories) -> dict[str, object]:
    """Everything that makes the action spec again, as the checkpoint records it."""
    meta = trajectories.meta
    return {
        "low": meta.action_low,
        "high": meta.action_high,
        "frame_skip": meta.frame_skip,
        "actions_per_step": cfg.actions_per_step,
    }


def train_predictor(cfg: DictConfig, world_model: WorldModel, cache: LatentCache) -> Logs:
    """Train the predictor on windows of latents; returns the figures of the state kept."""
    trainer: Trainer = instantiate(cfg.trainer)
    predictor = world_model.predictor
    if cfg.compile:
        predictor.compile(dynamic=False)  # its forward alone: rollouts go through step
    train_windows, held_out = split_windows(
        cache, num_frames=predictor.max_frames + 1, stride=cfg.actions_per_step
    )
    objective = DynamicsLoss(
        predictor,
        rollout_steps=cfg.rollout_steps,
        rollout_weight=cfg.rollout_weight,
        rollout_from=cfg.rollout_from,
        change_weight=cfg.change_weight,
    )
    validation = held_out.sample(np.random.default_rng(0), cfg.validation_windows)

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        latents, actions, proprio = draw(train_windows, rng, trainer.batch_size, device=cfg.device)
        sensed = proprio if world_model.takes_proprio else None
        return objective(latents, actions, sensed, share=share)

    def validate() -> Logs:
        return validation_figures(
            world_model, validation, context_len=cfg.context_len, device=cfg.device
        )

    figures = fit(
        cfg, "predictor", trainer, predictor, loss, validate=validate, select="rollout_error"
    )
    if "action_ratio" in figures and figures["action_ratio"] < ACTION_RATIO_FLOOR:
        logger.warning(
            "the predictor still ignores actions: with another window's actions its one-step error "
            "is only %.3f times as large (wanted %.2f): train longer",
            figures["action_ratio"],
            ACTION_RATIO_FLOOR,
        )
    return figures


def fit(
    cfg: DictConfig,
    name: str,
    trainer: Trainer,
    module: nn.Module,
    loss: LossFn,
    *,
    validate: Callable[[], Logs],
    select: str,
) -> Logs:
    """Train a part in its folder of the run; as it came it is kept only where it was trained."""
    return trainer.fit(
        module,
        loss,
        folder=Path(cfg.out) / name,
        validate=validate,
        select=select,
        keep_untrained=cfg.start_from is not None,
    )


def validation_figures(
    world_model: WorldModel, batch: LatentBatch, *, context_len: int, device: str
) -> Logs:
    """Open-loop errors on held-out windows, as many at a time as memory allows."""
    window_bytes = 4 * batch.latents[0].numel()
    rows = max(2, VALIDATION_BYTES // window_bytes)
    parts = (batch.latents, batch.actions, batch.proprio)
    chunks = zip(*(part.split(rows) for part in parts), strict=True)
    sums: dict[str, Tensor] = {}
    for latents, actions, proprio in chunks:
        errors = horizon_errors(
            world_model,
            latents.to(device).float(),
            actions.to(device),
            proprio.to(device) if world_model.takes_proprio else None,
            context_len=context_len,
        )
        for name, row in errors.items():
            share = len(latents) / len(batch.latents)
            sums[name] = share * row + sums[name] if name in sums else share * row
    return horizon_figures(sums)


def train_integrator(
    cfg: DictConfig, integrator: LearnedIntegrator | None, trajectories: Trajectories
) -> dict[str, Logs]:
    """Train the integrator, where there is one; returns its figures under its name."""
    if integrator is None:
        return {}
    trainer: Trainer = instantiate(cfg.integrator_trainer)
    train_index, held_out = (
        WindowIndex(
            trajectories.lengths, num_frames=cfg.predictor.max_frames + 1, episodes=episodes
        )
        for episodes in trajectories.split()
    )

    def draw_motion(
        index: WindowIndex, rng: np.random.Generator, count: int
    ) -> tuple[Tensor, Tensor]:
        frames = index.sample(rng, count)
        actions = gather_actions(trajectories.actions, frames, stride=1)
        proprio = torch.from_numpy(trajectories.proprio.gather(frames))
        return proprio.to(cfg.device), torch.from_numpy(actions).to(cfg.device)

    proprio, actions = draw_motion(held_out, np.random.default_rng(0), cfg.validation_windows)

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        del share  # the objective does not change over the run
        return integrator.errors(*draw_motion(train_index, rng, trainer.batch_size)).mean(), {}

    def validate() -> Logs:
        still = (proprio[:, 1:] - proprio[:, :1]).abs() / integrator.std
        rolled = integrator.errors(proprio, actions)
        return {"held_out_error": float(rolled.mean()), "copy_error": float(still.mean())}

    figures = fit(
        cfg, "integrator", trainer, integrator, loss, validate=validate, select="held_out_error"
    )
    if figures["held_out_error"] >= figures["copy_error"]:
        logger.warning(
            "moving proprio by the actions is no better than leaving it where it is (%.3g and %.3g "
            "standard deviations): train with proprio=false",
            figures["held_out_error"],
            figures["copy_error"],
        )
    return {"integrator": figures}


def train_metric(
    cfg: DictConfig, metric: TemporalMetric | None, cache: LatentCache
) -> dict[str, Logs]:
    """Train the temporal metric, where there is one; returns its figures under its name."""
    if metric is None:
        return {}
    trainer: Trainer = instantiate(cfg.metric_trainer)
    train_windows, held_out = split_windows(cache, num_frames=cfg.metric_frames)
    validation, _, _ = draw(held_out, np.random.default_rng(0), 32, device=cfg.device)
    # Most of a latent is the same in all frames: centred ones are learned from faster
    mean, scale = spread(train_windows, device=cfg.device)
    if cfg.start_from is not None:  # whose metric takes latents as they are
        metric.absorb(-mean / scale, 1 / scale)

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        del share  # the objective does not change over the run
        latents, _, _ = draw(train_windows, rng, trainer.batch_size, device=cfg.device)
        return metric.loss((latents - mean) / scale)

    def validate() -> Logs:
        value, parts = metric.loss((validation - mean) / scale)
        named = {name: float(part) for name, part in parts.items()}
        return {"held_out_loss": float(value), **{f"held_out_{k}": v for k, v in named.items()}}

    figures = fit(cfg, "metric", trainer, metric, loss, validate=validate, select="held_out_loss")
    metric.absorb(mean, scale)
    return {"metric": figures}


def save_world_model(
    cfg: DictConfig,
    world_model: WorldModel,
    trajectories: Trajectories,
    settings: dict[str, dict[str, object] | None],
    figures: dict[str, Logs],
) -> None:
    """Write predictor, metric and integrator with everything needed to load and to judge them."""
    encoder = world_model.encoder
    networks: dict[str, nn.Module | None] = {
        "predictor": world_model.predictor,
        "metric": world_model.metric,
        "integrator": world_model.integrate,
    }
    parts = {name: network for name, network in networks.items() if network is not None}
    config = {
        "kind": "world_model",
        "name": cfg.env.name,
        "env_id": trajectories.meta.env_id,
        **settings,
        "action_spec": spec_settings(cfg, trajectories),
        "encoder": record_encoder(encoder, cfg.encoder),
        "figures": figures,
        "data": {str(trajectories.folder): trajectories.digest},
        "config": OmegaConf.to_container(cfg, resolve=True),
        **provenance(),
    }
    save_checkpoint(Path(cfg.out), parts, config)


def report(out: Path, figures: dict[str, Logs]) -> None:
    """Say how well the predictor does, and where everything is."""
    row = figures["predictor"]
    horizons = sum(name.endswith("_true") for name in row)
    print("\nopen-loop error per horizon, held-out episodes (L1 on latents)")
    print(f"the predictor kept is that of step {row['step']}, by its rollout error")
    columns = [name for name in ("true", "shuffled", "copy") if f"h1_{name}" in row]
    print(" ".join(f"{name:>8}" for name in ("horizon", *columns)))
    for k in range(1, horizons + 1):
        print(f"{k:>8} " + " ".join(f"{row[f'h{k}_{name}']:8.3f}" for name in columns))
    if "integrator" in figures:
        moved, still = (figures["integrator"][name] for name in ("held_out_error", "copy_error"))
        print(f"proprio moved by actions: error {moved:.3f}, left alone {still:.3f} (deviations)")
    print(f"world model: {out}   curves: {out}/{{{','.join(figures)}}}/metrics.jsonl")


if __name__ == "__main__":
    main()
