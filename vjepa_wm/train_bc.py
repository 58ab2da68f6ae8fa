"""Clone the behaviour in trajectories, a planner's floor: python -m vjepa_wm.train_bc env=push.

Uses the trajectories, the encoder and the latent cache of train_ac, and makes what is missing of
them. The smallest run: python -m vjepa_wm.train_bc episodes=20 trainer.steps=10
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vjepa_wm.behaviour_cloning import KIND, PART, GoalPolicy
from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.cli import progress, verb
from vjepa_wm.data.hindsight import HindsightPairs
from vjepa_wm.data.latents import LatentCache
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.recorded import record_encoder
from vjepa_wm.errors import DataError
from vjepa_wm.evaluate import evaluate_trained
from vjepa_wm.proprio import proprio_statistics
from vjepa_wm.provenance import provenance
from vjepa_wm.training.inputs import inputs_of, keep_inputs, open_latents, open_or_collect
from vjepa_wm.training.trainer import Logs, Trainer

logger = logging.getLogger(__name__)


class Samples(NamedTuple):
    """What the policy is trained on: latents and goals (B,P,D), actions (B,A), proprio (B,Q)."""

    latents: Tensor
    goal: Tensor
    actions: Tensor
    proprio: Tensor


@verb("train_bc")
def main(cfg: DictConfig) -> None:
    """Train goal-conditioned behaviour cloning; a run that was stopped continues.

    Example: python -m vjepa_wm.train_bc env=push
    """
    trajectories = open_or_collect(cfg.data, cfg.env, episodes=cfg.episodes, progress=progress)
    if not trajectories.meta.action_dim:
        raise DataError(f"{cfg.data} has no actions, there is nothing to clone")
    encoder: FrozenEncoder = instantiate(cfg.encoder, device=cfg.device)
    chosen = {
        "proprio_dim": trajectories.meta.proprio_dim if cfg.proprio else 0,
        "goal_steps": cfg.goal_steps,
        "trainer.seed": cfg.trainer.seed,
    }
    keep_inputs(cfg.out, inputs_of(trajectories, encoder) | chosen, unwritten={})
    cache = open_latents(
        trajectories, encoder, root=cfg.cache, device=cfg.device, progress=progress
    )
    settings = policy_settings(cfg, cache)
    torch.manual_seed(cfg.trainer.seed)
    policy = GoalPolicy(**settings).to(cfg.device)
    figures = train(cfg, policy, cache)
    save(cfg, policy, cache, encoder, settings, figures)
    report(cfg, figures)
    evaluate_trained(cfg, f"policy={cfg.out}", "agent=[random,bc]")


def policy_settings(cfg: DictConfig, cache: LatentCache) -> dict[str, object]:
    """Everything that makes the policy again, as the checkpoint records it."""
    patches, dim = cache.latent_shape
    meta = cache.trajectories.meta
    return {
        "latent_dim": dim,
        "num_patches": patches,
        "low": meta.action_low,
        "high": meta.action_high,
        **(recorded_statistics(cache.trajectories) if cfg.proprio else {}),
        **cfg.goal_policy,
    }


def recorded_statistics(trajectories: Trajectories) -> dict[str, list[float]]:
    """Return mean and deviation (Q,) of the recorded proprio, by name; nothing without any."""
    if not trajectories.meta.proprio_dim:
        logger.info("%s has no proprio: training without", trajectories.folder)
        return {}
    shards = [torch.from_numpy(shard.copy()) for shard in trajectories.proprio.shards]
    mean, std = proprio_statistics(torch.cat(shards))
    return {"proprio_mean": mean, "proprio_std": std}


def train(cfg: DictConfig, policy: GoalPolicy, cache: LatentCache) -> Logs:
    """Train the policy on pairs of frames; returns the figures of the state kept."""
    trainer: Trainer = instantiate(cfg.trainer)
    pairs, held_out = (
        HindsightPairs(cache.trajectories.lengths, max_steps=cfg.goal_steps, episodes=episodes)
        for episodes in cache.trajectories.split()
    )
    frames, goals = held_out.sample(np.random.default_rng(0), cfg.validation_pairs)
    floor = mean_action_loss(policy, cache, pairs.frames, frames)

    def error(samples: Samples) -> Tensor:
        sensed = samples.proprio if policy.takes_proprio else None
        return policy.loss(samples.latents, samples.goal, samples.actions, sensed)

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        del share  # the objective does not change over the run
        return error(take(cache, *pairs.sample(rng, trainer.batch_size), device=cfg.device)), {}

    def validate() -> Logs:
        total = 0.0
        for first in range(0, len(frames), trainer.batch_size):
            part = slice(first, first + trainer.batch_size)
            samples = take(cache, frames[part], goals[part], device=cfg.device)
            total += len(frames[part]) * float(error(samples))
        return {"held_out_loss": total / len(frames), "mean_action_loss": floor}

    folder = Path(cfg.out) / PART
    return trainer.fit(policy, loss, folder=folder, validate=validate, select="held_out_loss")


def take(cache: LatentCache, frames: np.ndarray, goals: np.ndarray, *, device: str) -> Samples:
    """Read frames (B,) and their goals (B,), named by global index."""
    latents, goal = (
        torch.from_numpy(cache.latents.gather(rows[:, None])[:, 0]).to(device).float()
        for rows in (frames, goals)
    )
    proprio = cache.trajectories.proprio.gather(frames[:, None])[:, 0]
    actions = actions_at(cache, frames).to(device)
    return Samples(latents, goal, actions, torch.from_numpy(proprio).to(device))


def actions_at(cache: LatentCache, frames: np.ndarray) -> Tensor:
    """Read the actions (B, A) taken at frames (B,)."""
    return torch.from_numpy(cache.trajectories.actions.gather(frames[:, None])[:, 0])


def mean_action_loss(
    policy: GoalPolicy, cache: LatentCache, train_frames: np.ndarray, held_out: np.ndarray
) -> float:
    """The held-out loss of who always predicts the mean of the training episodes' actions."""
    device = policy.low.device
    mean = policy.to_share(actions_at(cache, train_frames).to(device)).mean(dim=0)
    wanted = policy.to_share(actions_at(cache, held_out).to(device))
    return float((wanted - mean).square().mean())


def save(
    cfg: DictConfig,
    policy: GoalPolicy,
    cache: LatentCache,
    encoder: FrozenEncoder,
    settings: dict[str, object],
    figures: Logs,
) -> None:
    """Write the policy with everything needed to load and to judge it."""
    trajectories = cache.trajectories
    config = {
        "kind": KIND,
        "name": cfg.env.name,
        "env_id": cache.trajectories.meta.env_id,
        PART: settings,
        "action_spec": {
            "low": trajectories.meta.action_low,
            "high": trajectories.meta.action_high,
            "frame_skip": trajectories.meta.frame_skip,
        },
        "encoder": record_encoder(encoder, cfg.encoder),
        "figures": {PART: figures},
        "data": {str(trajectories.folder): trajectories.digest},
        "config": OmegaConf.to_container(cfg, resolve=True),
        **provenance(),
    }
    save_checkpoint(Path(cfg.out), {PART: policy}, config)


def report(cfg: DictConfig, figures: Logs) -> None:
    """Say how well the policy predicts actions, and where everything is."""
    error, floor = figures["held_out_loss"], figures["mean_action_loss"]
    print(
        f"\nheld-out error of the next action, squared half ranges: {error:.4f}, "
        f"always the mean action: {floor:.4f}"
    )
    if error >= floor:
        logger.warning(
            "warning: the policy predicts held-out actions no better than their mean does (%.4f "
            "and %.4f): train longer, or on more trajectories",
            error,
            floor,
        )
    print(f"policy: {cfg.out}   curves: {cfg.out}/{PART}/metrics.jsonl")


if __name__ == "__main__":
    main()
