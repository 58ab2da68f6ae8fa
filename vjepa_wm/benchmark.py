"""Measure speed, each figure beside its baseline: python -m vjepa_wm.benchmark env=push.

One subject or several: python -m vjepa_wm.benchmark plan rollout. docs/benchmarks.md says what
each is compared with.
"""

from pathlib import Path

import gymnasium
import torch
from omegaconf import DictConfig, OmegaConf

from vjepa_wm.benchmarks.encode import benchmark_encode
from vjepa_wm.benchmarks.figures import Figure, device_line, table
from vjepa_wm.benchmarks.options import benchmark_options
from vjepa_wm.benchmarks.plan import benchmark_plan
from vjepa_wm.benchmarks.rollout import SIZES, RolloutSettings, benchmark_rollout
from vjepa_wm.benchmarks.simulation import benchmark_collect, benchmark_render
from vjepa_wm.benchmarks.slopes import Load, benchmark_slopes
from vjepa_wm.benchmarks.train import benchmark_train
from vjepa_wm.cli import verb
from vjepa_wm.data.collection import CollectSettings
from vjepa_wm.errors import UnknownNameError, VjepaWmError
from vjepa_wm.evaluate import build_mpc
from vjepa_wm.files import write_json
from vjepa_wm.loading import load_world_model
from vjepa_wm.precision import resolve_dtype
from vjepa_wm.predictor import open_world_model
from vjepa_wm.provenance import provenance
from vjepa_wm.world_model import WorldModel


@verb("benchmark", words="what")
def main(cfg: DictConfig) -> None:
    """Measure rendering, collection, encoding, planning and training on this machine.

    Example: python -m vjepa_wm.benchmark encode plan rollout
    """
    known = {
        "render": render,
        "collect": collect,
        "plan": plan,
        "rollout": rollout,
        "encode": encode,
        "train": train,
        "options": options,
        "slopes": slopes,
    }
    names = list(cfg.what)
    for name in names:
        if name not in known:
            raise UnknownNameError("benchmark", name, known)
    check(cfg)
    device = device_line()
    print(f"{cfg.env.name} on {device}")
    results: dict[str, list[Figure]] = {}
    for name in names:
        with torch.no_grad() if name != "train" else torch.enable_grad():
            results[name] = known[name](cfg)
        print(f"\n{name}\n{table(results[name])}", flush=True)
    write_json(
        Path(cfg.out) / "benchmark.json",
        {
            "results": {name: [figure.record() for figure in results[name]] for name in results},
            "device": device,
            "config": OmegaConf.to_container(cfg, resolve=True),
            **provenance(),
        },
    )


def check(cfg: DictConfig) -> None:
    """Refuse what would be found out late.

    Raises:
        VjepaWmError: a count is below 1, or the lists of `rollout` do not go together.
    """
    lists = {name: cfg[name] for name in ("contexts", "horizons", "candidates")}
    single = ("frames", "episodes", "plans", "repeats", "backbone_frames", "batch_size", "imagined")
    for name, counts in {**{name: [cfg[name]] for name in single}, **lists}.items():
        if not counts or min(counts) < 1:
            raise VjepaWmError(f"{name}: wanted at least 1, got {cfg[name]}")
    if len(cfg.horizons) != len(cfg.candidates):
        raise VjepaWmError(
            f"candidates: wanted a number for each of the horizons {cfg.horizons}, "
            f"got {cfg.candidates}"
        )
    if cfg.size not in SIZES:
        raise UnknownNameError("size", cfg.size, SIZES)


def render(cfg: DictConfig) -> list[Figure]:
    """A picture in the fast profile against MuJoCo's default quality, in CPU milliseconds."""
    return benchmark_render(cfg.env.id, image_size=cfg.env.image_size, frames=cfg.frames)


def collect(cfg: DictConfig) -> list[Figure]:
    """Recorded frames per second of two workers against one."""
    settings = CollectSettings(
        env_id=cfg.env.id,
        image_size=cfg.env.image_size,
        frame_skip=cfg.env.frame_skip,
        episodes=cfg.episodes,
        shard_episodes=max(1, cfg.episodes // 6),
    )
    return benchmark_collect(settings)


def plan(cfg: DictConfig) -> list[Figure]:
    """A control step in an environment and its parts, against the plain planner."""
    env = gymnasium.make(cfg.env.id, image_size=cfg.env.image_size)
    agent = build_mpc(cfg, env.action_space)
    obs, info = env.reset(seed=0)
    env.close()
    goal = info["goal"]["pixels"]
    return benchmark_plan(agent, obs, goal, plans=cfg.plans, device=cfg.device)


def rollout(cfg: DictConfig) -> list[Figure]:
    """Cached imagining against the plain planner, on V-JEPA 2-AC's architecture."""
    settings = RolloutSettings(
        size=cfg.size,
        contexts=tuple(cfg.contexts),
        candidates=dict(zip(cfg.horizons, cfg.candidates, strict=True)),
        dtype=resolve_dtype(cfg.precision, cfg.device),
        memory_mb=cfg.memory_mb,
        repeats=cfg.repeats,
        device=cfg.device,
    )
    return benchmark_rollout(settings)


def encode(cfg: DictConfig) -> list[Figure]:
    """Encoded frames per second: transformers, bfloat16, and the compact encoder."""
    return benchmark_encode(
        cfg.backbone, frames=cfg.backbone_frames, repeats=cfg.repeats, device=cfg.device
    )


def options(cfg: DictConfig) -> list[Figure]:
    """Imagining in bfloat16, compiled and on one thread, against float32."""
    world_model = load_world_model(cfg.model, device=cfg.device, dtype="fp32")
    size = Load(
        environments=1,
        candidates=cfg.imagined,
        horizon=world_model.predictor.max_frames,
        tokens=world_model.predictor.num_patches,
    )

    def load(precision: str) -> WorldModel:
        return load_world_model(cfg.model, device=cfg.device, dtype=precision)

    return benchmark_options(load, size, repeats=cfg.repeats, device=cfg.device)


def slopes(cfg: DictConfig) -> list[Figure]:
    """How time and memory of imagining grow, on the predictor of a world model."""
    return benchmark_slopes(
        open_world_model(cfg.model, None).config["predictor"],
        candidates=cfg.imagined,
        memory_mb=cfg.memory_mb,
        dtype=resolve_dtype(cfg.precision, cfg.device),
        repeats=cfg.repeats,
        device=cfg.device,
    )


def train(cfg: DictConfig) -> list[Figure]:
    """Training steps of a predictor on cached latents."""
    world_model = load_world_model(cfg.model, device=cfg.device)
    return benchmark_train(
        world_model.predictor,
        world_model.encoder,
        batch_size=cfg.batch_size,
        repeats=cfg.repeats,
        device=cfg.device,
    )


if __name__ == "__main__":
    main()
