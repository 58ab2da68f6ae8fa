"""Networks and trajectories so small that a test with them takes milliseconds."""

from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import nn

from vjepa_wm.behaviour_cloning import GoalPolicy
from vjepa_wm.checkpoint import save_checkpoint
from vjepa_wm.data.shards import Episode
from vjepa_wm.data.trajectories import Trajectories, TrajectoryMeta, TrajectoryWriter
from vjepa_wm.decoder import Decoder
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.recorded import record_encoder
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.files import read_json
from vjepa_wm.frame_predictor import FramePredictor
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.nn.kv_cache import KVCache
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.proprio import LearnedIntegrator

VIT = {
    "patch_size": 4,
    "tubelet_size": 2,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "rope_style": "interleaved",
}
IMAGE_SIZE = 16
CONFIGS = Path(__file__).parents[1] / "configs"
# Options of pretrain: the terms against collapse that recipe=compact had before SIGReg
VARIANCE_COVARIANCE = [
    "objective.terms.variance_covariance.variance_weight=0.5",
    "objective.terms.variance_covariance.covariance_weight=0.1",
]
TERMS_BEFORE_SIGREG = [*VARIANCE_COVARIANCE, "objective.terms.sigreg.weight=0"]


def randomise(module: nn.Module, *, std: float = 0.2) -> nn.Module:
    """Give every parameter a random value: what starts at zero would hide what it does."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std, generator=generator)
    return module


def vit() -> VideoViT:
    """Return a random ViT for images of `IMAGE_SIZE`: 4 x 4 tokens of width 24 per tubelet."""
    return randomise(VideoViT(**VIT))


def encoder(*, pool: int = 1, pool_by: str = "mean") -> FrozenEncoder:
    """Return a frozen encoder around `vit`."""
    return FrozenEncoder(
        vit(), name="tiny", digest="0", image_size=IMAGE_SIZE, pool=pool, pool_by=pool_by
    )


def predictor(
    *, max_frames: int = 5, takes_proprio: bool = False, action_dim: int = 2
) -> ActionPredictor:
    """Return a random predictor of latents (B, T, 6, 12) under actions (B, T, A).

    Proprio, where it takes some, is (B, T, 3).
    """
    statistics = {"proprio_mean": [0.1, 0.0, -0.1], "proprio_std": [1.0, 2.0, 0.5]}
    torch.manual_seed(0)
    return randomise(
        ActionPredictor(
            latent_dim=12,
            grid=(2, 3),
            action_dim=action_dim,
            width=24,
            depth=2,
            num_heads=2,
            max_frames=max_frames,
            **(statistics if takes_proprio else {}),
        )
    ).eval()


def caches_after(
    predictor: FramePredictor, *past: torch.Tensor | None, max_frames: int, copies: int = 1
) -> list[KVCache]:
    """Show a predictor a past (latents, actions, proprio); caches for so many frames in all."""
    observed = predictor.observe(*past)
    return observed.caches(max_tokens=max_frames * predictor.tokens_per_frame, copies=copies)


def integrator() -> LearnedIntegrator:
    """Return a random integrator of proprio (..., 3) under actions (..., 2)."""
    net = LearnedIntegrator(mean=[0.1, 0.0, -0.1], std=[1.0, 2.0, 0.5], action_dim=2, hidden_dim=8)
    return randomise(net).eval().requires_grad_(False)


def save_world_model(folder: Path, *, action_dim: int = 2, actions_per_step: int = 1) -> Path:
    """Write a random world model of 64 px frames, as train_ac writes them.

    Without actions it has no metric. Frames become 4 tokens of width 24; it plans over at most 6
    frames.
    """
    encoder_config = {"kind": "encoder", "name": "tiny", "vit": {**VIT, "patch_size": 16}}
    encoder_config |= {"image_size": 64, "pool": 2}
    network = randomise(VideoViT(**encoder_config["vit"]))
    digest = save_checkpoint(folder / "encoder", {"encoder": network}, encoder_config)
    config = {
        "kind": "world_model",
        "name": "tiny",
        "encoder": {
            "name": "tiny",
            "checkpoint": str(folder / "encoder"),
            "digest": digest,
            "pool": 2,
        },
        "predictor": {
            "latent_dim": VIT["embed_dim"],
            "grid": (2, 2),
            "action_dim": actions_per_step * action_dim,
            **OmegaConf.load(CONFIGS / "predictor" / "tiny.yaml"),
        },
        "metric": None,
        "action_spec": {
            "low": (-1.0,) * action_dim,
            "high": (1.0,) * action_dim,
            "frame_skip": 2 if action_dim else 1,
            "actions_per_step": actions_per_step,
        },
    }
    parts = {"predictor": randomise(ActionPredictor(**config["predictor"]))}
    if action_dim:
        config["metric"] = {
            "latent_dim": VIT["embed_dim"],
            "num_patches": 4,
            **OmegaConf.load(CONFIGS / "metric" / "temporal.yaml"),
        }
        parts["metric"] = randomise(TemporalMetric(**config["metric"]))
    save_checkpoint(folder / "model", parts, config)
    return folder / "model"


def save_decoder(folder: Path, encoder: FrozenEncoder) -> Path:
    """Write a random decoder of an encoder's latents, as train_decoder writes them."""
    num_patches, latent_dim = encoder.latent_shape
    settings = {
        "latent_dim": latent_dim,
        "num_patches": num_patches,
        "image_size": encoder.image_size,
        **OmegaConf.load(CONFIGS / "pixel_decoder" / "tiny.yaml"),
    }
    record = record_encoder(encoder, {"name": encoder.name, "checkpoint": None})
    config = {"kind": "decoder", "decoder": settings, "encoder": record}
    save_checkpoint(folder, {"decoder": randomise(Decoder(**settings))}, config)
    return folder


def save_goal_policy(folder: Path, world_model: Path) -> Path:
    """Write a random policy that sees what a world model of `save_world_model` sees."""
    config = read_json(world_model / "config.json")
    spec = config["action_spec"]
    policy = {
        "latent_dim": VIT["embed_dim"],
        "num_patches": 4,
        "low": spec["low"],
        "high": spec["high"],
        **OmegaConf.load(CONFIGS / "goal_policy" / "mlp.yaml"),
    }
    kept = {name: config[name] for name in ("name", "encoder", "action_spec")}
    net = randomise(GoalPolicy(**policy), std=0.1)
    save_checkpoint(
        folder, {"policy": net}, {"kind": "behaviour_cloning", "policy": policy, **kept}
    )
    return folder


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return random uint8 pixels of the given shape, channels not included."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def standing_waves(clips: int, *, seed: int) -> torch.Tensor:
    """Return clips (B, 3, 4, S, S), S = `IMAGE_SIZE`, each of a wave at one of two places."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(2, (clips, 1, 1, 1, 1), generator=generator) / 4
    column = torch.arange(IMAGE_SIZE) / IMAGE_SIZE
    return (2 * torch.pi * (column + shift)).sin().expand(clips, 3, 4, IMAGE_SIZE, IMAGE_SIZE)


def moving_squares(
    folder: Path,
    *,
    episodes: int,
    length: int,
    size: int,
    frame_skip: int = 1,
    sensed: bool = True,
    acting: bool = True,
) -> Trajectories:
    """Write trajectories of a square that its action moves over a noisy floor, and open them.

    Proprio, where it is sensed, is the square's row and column; unless it is acting, its actions
    are not recorded.
    """
    bounds = (1.0, 1.0) if acting else ()
    meta = TrajectoryMeta(
        env_id="squares",
        image_size=(size, size),
        fps=10.0,
        action_low=tuple(-bound for bound in bounds),
        action_high=bounds,
        frame_skip=frame_skip,
        proprio_dim=2 if sensed else 0,
    )
    rng = np.random.default_rng(0)
    with TrajectoryWriter(folder, meta) as writer:
        for _ in range(episodes):
            episode = _episode(rng, length, size)
            episode = episode._replace(actions=episode.actions[:, : len(bounds)])
            writer.add(episode if sensed else episode._replace(proprio=None))
    return Trajectories.open(folder)


def _episode(rng: np.random.Generator, length: int, size: int) -> Episode:
    side = size // 4
    frames = np.broadcast_to(rng.integers(0, 60, (size, size, 3)), (length, size, size, 3)).copy()
    actions = np.repeat(rng.uniform(-1, 1, (1, 2)), length - 1, axis=0)
    place = rng.uniform(0, size - side, 2)
    places = np.empty((length, 2), np.float32)
    for t in range(length):
        places[t] = place
        row, column = place.round().astype(int)
        frames[t, row : row + side, column : column + side] = 220
        if t < length - 1:
            place = np.clip(place + 2 * actions[t], 0, size - side)
    return Episode(frames.astype(np.uint8), actions.astype(np.float32), places)
