"""Measure speed, each figure beside its baseline: python -m vjepa_wm.benchmark env=push.

render: a picture in the fast profile against MuJoCo's default quality, in CPU milliseconds.
collect: recorded frames per second with one worker and with two.
plan: seconds of one plan and one control step, and the share of each part.
"""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from vjepa_wm.cli import verb
from vjepa_wm.data.collection import CollectSettings, collect
from vjepa_wm.errors import UnknownNameError, VjepaWmError
from vjepa_wm.evaluate import build_mpc
from vjepa_wm.files import write_json
from vjepa_wm.provenance import provenance

Figures = dict[str, float]


@verb("benchmark")
def main(cfg: DictConfig) -> None:
    """Measure rendering, collection and planning on this machine."""
    known = {"render": benchmark_render, "collect": benchmark_collect, "plan": benchmark_plan}
    names = [cfg.what] if isinstance(cfg.what, str) else list(cfg.what)
    for name in names:
        if name not in known:
            raise UnknownNameError("benchmark", name, known)
    for name in ("frames", "episodes", "plans"):
        if cfg[name] < 1:
            raise VjepaWmError(f"{name}: wanted at least 1, got {cfg[name]}")
    device = device_line()
    print(f"{cfg.env.name} on {device}")
    results: dict[str, Figures] = {}
    for name in names:
        results[name] = known[name](cfg)
        for key, value in results[name].items():
            print(f"  {name:<8} {key:<34} {value:.4g}")
    about = {"device": device, "config": OmegaConf.to_container(cfg, resolve=True)}
    write_json(Path(cfg.out) / "benchmark.json", {"results": results, **about, **provenance()})


def device_line() -> str:
    """What the figures were measured on."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    cpu = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"{cpu}, {torch.get_num_threads()} torch threads{gpu}"


def benchmark_render(cfg: DictConfig) -> Figures:
    """CPU milliseconds per picture: the fast profile beside MuJoCo's default quality."""
    size = cfg.env.image_size
    milliseconds = {profile: [] for profile in ("fast", "pretty")}
    env = gymnasium.make(cfg.env.id).unwrapped
    env.reset(seed=0)
    for _ in range(cfg.frames):
        for profile in milliseconds:
            start = time.process_time()
            env.draw(size=size, profile=profile)
            milliseconds[profile].append(1e3 * (time.process_time() - start))
    fast, default = (statistics.median(milliseconds[name]) for name in ("fast", "pretty"))
    return {
        f"fast, {size} px, cpu-ms": fast,
        f"MuJoCo default, {size} px, cpu-ms": default,
        "times cheaper": default / fast,
    }


def benchmark_collect(cfg: DictConfig) -> Figures:
    """Recorded frames per second with one and two workers, start of the workers included."""
    figures = {}
    for workers in (1, 2):
        settings = CollectSettings(
            env_id=cfg.env.id,
            image_size=cfg.env.image_size,
            frame_skip=cfg.env.frame_skip,
            episodes=cfg.episodes,
            shard_episodes=max(1, cfg.episodes // 6),
        )
        with tempfile.TemporaryDirectory() as folder:
            result = collect(settings, Path(folder) / "data", workers=workers)
        figures[f"frames/s, {workers} workers"] = result.frames / result.seconds
    return figures


def benchmark_plan(cfg: DictConfig) -> Figures:
    """Seconds of a plan and of a control step in one environment, and where they go."""
    env = gymnasium.make(cfg.env.id, image_size=cfg.env.image_size)
    agent = build_mpc(cfg, env.action_space)
    world_model, planner, cost = agent.world_model, agent.planner, agent.cost
    obs, info = env.reset(seed=0)
    agent.reset(goal=info["goal"])
    agent.act(obs)
    step = median_seconds(
        lambda: [agent.act(obs) for _ in range(cfg.replan_every)], cfg.plans, device=cfg.device
    )
    pixels = torch.from_numpy(obs["pixels"])[None, None].to(cfg.device)
    context = world_model.encode(pixels).expand(-1, cfg.context_len, -1, -1)
    actions = torch.zeros(1, planner.num_samples, planner.horizon, env.action_space.shape[0])
    actions = actions.to(cfg.device)
    past = actions[:, 0, : cfg.context_len - 1]
    imagined = world_model.rollout(context, past, actions)
    goal = context[:, 0]

    def timed(function: Callable[[], object]) -> float:
        return median_seconds(function, cfg.plans, device=cfg.device)

    encode = timed(lambda: world_model.encode(pixels)) * cfg.replan_every
    rollout = timed(lambda: world_model.rollout(context, past, actions)) * planner.iterations
    scoring = timed(lambda: cost(imagined, goal)) * planner.iterations
    return {
        "seconds per control step": step / cfg.replan_every,
        "seconds per plan": step,
        "share of encoding": encode / step,
        "share of imagining": rollout / step,
        "share of the cost": scoring / step,
        "share of all else": max(0.0, 1 - (encode + rollout + scoring) / step),
    }


def median_seconds(function: Callable[[], object], repeats: int, *, device: str) -> float:
    """Median wall-clock seconds of a call, after two to warm up."""
    seconds = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat >= 2:
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
