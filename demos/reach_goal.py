"""Reach goal images live, with a shipped or a trained world model.

python -m demos.reach_goal env=push
python -m demos.reach_goal env=push model=runs/train_ac/push episodes=3 seed=7

Writes an animation (now | goal | cost of the best imagined plan) and a strip of frames; with
decoder=FOLDER (python -m vjepa_wm.train_decoder) also where the plan was imagined to end. With
live=8000 a browser shows it at http://localhost:8000 while it happens.
"""

import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
from omegaconf import DictConfig
from PIL import Image

from demos.live import LiveView
from demos.pictures import curve, panel, save_animation, save_image, side_by_side
from vjepa_wm.agent import MPCAgent
from vjepa_wm.cli import progress, verb
from vjepa_wm.decoder import Decoder, load_decoder
from vjepa_wm.errors import UnknownNameError, VjepaWmError
from vjepa_wm.evaluate import build_mpc
from vjepa_wm.evaluation.charts import below
from vjepa_wm.files import write_json

STRIP_FRAMES = 6

Show = Callable[[Image.Image], None]


@dataclass(frozen=True)
class Shown:
    """An episode, as pictures.

    Attributes:
        frames: what the animation shows.
        views: the scene at each step, (H, W, 3) uint8.
        goal: the goal image.
        imagined: decoded end of the plan followed at each step, and of the goal's latents in the
            end; empty without a decoder.
        reached: whether the goal was reached and held.
        distances: to the goal, per step, in the environment's first criterion.
        seconds: planning time per step.
    """

    frames: list[Image.Image]
    views: list[np.ndarray]
    goal: np.ndarray
    imagined: list[np.ndarray]
    reached: bool
    distances: list[float]
    seconds: float


@verb("reach_goal")
def main(cfg: DictConfig) -> None:
    """Reach goal images live; writes an animation and a strip, and says where."""
    env = make_env(cfg)
    agent = build_mpc(cfg, env.action_space)
    decoder = None
    if cfg.decoder is not None:
        decoder = load_decoder(cfg.decoder, agent.world_model.encoder, device=cfg.device)
    with nullcontext() if cfg.live is None else closing(LiveView(cfg.live)) as view:
        if view is not None:
            print(f"live: {view.address}", flush=True)
        reached = reach_goals(cfg, env, agent, decoder, show=view.show if view else do_not_show)
    print(f"{cfg.env.name}: {reached} of {cfg.episodes} goals reached")
    result = {"level": cfg.level, "reached": reached, "episodes": cfg.episodes}
    write_json(Path(cfg.out) / f"{cfg.env.name}.json", result)
    env.close()


def do_not_show(image: Image.Image) -> None:
    """Stand in for a live view where nobody wants one."""


def reach_goals(
    cfg: DictConfig, env: gymnasium.Env, agent: MPCAgent, decoder: Decoder | None, *, show: Show
) -> int:
    """Run all episodes, write and print each; returns how many reached their goals."""
    reached = 0
    for episode in range(cfg.episodes):
        seed = cfg.seed + episode
        options = {"seed": seed, "level": cfg.level, "max_steps": cfg.max_steps}
        shown = play(env, agent, decoder, show=show, **options)
        reached += shown.reached
        path = Path(cfg.out) / f"{cfg.env.name}_{seed}"
        write(shown, path, frames_per_second=env.metadata["render_fps"])
        outcome = "reached" if shown.reached else "not reached"
        print(
            f"{cfg.env.name}, seed {seed}: {outcome} in {len(shown.distances) - 1} steps; "
            f"distance {shown.distances[0]:.3f} -> {shown.distances[-1]:.3f} "
            f"{unit_of(env)}; {shown.seconds:.2f} s per action; {path}.webp, {path}.png"
        )
    return reached


def make_env(cfg: DictConfig) -> gymnasium.Env:
    """Make the environment, refusing numbers and levels with which nothing can be shown."""
    for name in ("episodes", "max_steps"):
        if cfg[name] < 1:
            raise VjepaWmError(f"{name}: wanted at least 1, got {cfg[name]}")
    env = gymnasium.make(
        cfg.env.id,
        render_mode="rgb_array",
        image_size=cfg.env.image_size,
        max_episode_steps=cfg.max_steps,
    )
    if not env.has_wrapper_attr("levels"):
        raise VjepaWmError(f"{cfg.env.id} has no goals to reach: wanted one with levels of them")
    levels = env.get_wrapper_attr("levels")
    if cfg.level not in levels:
        raise UnknownNameError(f"level of {cfg.env.name}", cfg.level, levels)
    return env


def play(
    env: gymnasium.Env,
    agent: MPCAgent,
    decoder: Decoder | None,
    *,
    show: Show,
    seed: int,
    level: str,
    max_steps: int,
) -> Shown:
    """Run one episode and draw it, showing each frame as soon as it is planned from."""
    obs, info = env.reset(seed=seed, options={"level": level})
    goal = info["goal"]["pixels"]
    agent.reset(goal=goal)
    views, costs, frames, imagined = [env.render()], [], [], []
    distances = [first_distance(info)]
    seconds = 0.0
    for _ in progress(range(max_steps), desc=f"{env.spec.name} seed {seed}", unit="steps"):
        start = time.perf_counter()
        action = agent.act(obs)
        seconds += time.perf_counter() - start
        costs.append(agent.slots[0].plan_cost)
        if decoder is not None:
            imagined.append(decoder.decode(agent.imagine_plan()[-1]).cpu().numpy())
        frames.append(draw(views[-1], goal, costs, imagined, max_steps))
        show(frames[-1])
        obs, _, terminated, truncated, info = env.step(action)
        views.append(env.render())
        distances.append(first_distance(info))
        if terminated or truncated:
            break
    frames.append(draw(views[-1], goal, costs, imagined, max_steps))
    show(frames[-1])
    if decoder is not None:
        imagined.append(decoder.decode(agent.goal[0]).cpu().numpy())
    return Shown(frames, views, goal, imagined, terminated, distances, seconds / len(costs))


def draw(
    view: np.ndarray,
    goal: np.ndarray,
    costs: list[float],
    imagined: list[np.ndarray],
    max_steps: int,
) -> Image.Image:
    """One frame of the animation."""
    ends = [panel(imagined[-1], "imagined end of the plan")] if imagined else []
    return side_by_side(
        [
            panel(view, "now"),
            panel(goal, "goal (what the agent sees)"),
            *ends,
            curve(costs, max_steps, f"cost of the best plan: {costs[-1]:.2f}"),
        ]
    )


def write(shown: Shown, path: Path, *, frames_per_second: float) -> None:
    """Write the animation and the strip."""
    save_animation(path.with_suffix(".webp"), shown.frames, frames_per_second=frames_per_second)
    save_image(path.with_suffix(".png"), strip(shown))


def strip(shown: Shown) -> Image.Image:
    """Frames of the episode and the goal; below them, with a decoder, what was imagined."""
    steps = np.linspace(0, len(shown.views) - 1, STRIP_FRAMES).round().astype(int)
    views = [panel(shown.views[t], f"step {t}") for t in steps]
    row = side_by_side([*views, panel(shown.goal, "goal")])
    if not shown.imagined:
        return row
    *ends, goal = shown.imagined
    planned = [min(t, len(ends) - 1) for t in steps]  # nothing is planned after the last step
    drawn = [panel(ends[t], f"imagined at step {t}") for t in planned]
    return below([row, side_by_side([*drawn, panel(goal, "goal, decoded")])])


def first_distance(info: dict) -> float:
    """Distance to the goal by the environment's first criterion, for people to read."""
    return next(iter(info["distance"].values()))


def unit_of(env: gymnasium.Env) -> str:
    """Unit of that criterion: the last word of its name."""
    return next(iter(env.get_wrapper_attr("criteria"))).rsplit("_", 1)[-1]


if __name__ == "__main__":
    main()
