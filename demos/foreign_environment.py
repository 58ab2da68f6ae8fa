"""Plan in an environment that is not ours, from pictures alone: Gymnasium's own Reacher.

docs/your_environment.md has the two commands that record and train. Then:

python -m demos.foreign_environment runs/train_ac/gym_reacher

The arm is driven by torques and asked to stand as in a picture of itself. Fingertips are compared
in the end, by us, and never shown to the agent; random actions stand beside it.
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

from demos import gym_reacher  # noqa: F401  registers the environment
from demos.pictures import panel, save_image, side_by_side
from planners import ICEM
from vjepa_wm import GoalCost, MPCAgent, load_world_model
from vjepa_wm.errors import VjepaWmError
from vjepa_wm.evaluation.agents import RandomAgent
from vjepa_wm.evaluation.charts import below
from vjepa_wm.evaluation.statistics import wilson_interval

NEAR_M = 0.03
SHOWN = 6  # episodes in the picture


def main() -> None:
    """Ask for a number of poses, and say how near the arm came."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder that train_ac wrote")
    parser.add_argument("--episodes", type=int, default=20, help="poses to ask for")
    parser.add_argument("--out", default="runs/demos/gym_reacher.png", help="picture to write")
    options = parser.parse_args()
    env = gymnasium.make("gym/Reacher-v0")
    space = env.action_space
    try:
        agents = {"agent": make_agent(options.model), "random": RandomAgent(space.low, space.high)}
    except VjepaWmError as error:
        parser.error(str(error))
    for name, agent in agents.items():
        episodes = [play(env, agent, seed=seed) for seed in range(options.episodes)]
        report(name, np.array([distances for _, distances in episodes]))
        if name == "agent":
            save_image(Path(options.out), below([row for row, _ in episodes[:SHOWN]]))
    print(f"start, end and goal: {options.out}")


def make_agent(folder: str) -> MPCAgent:
    """Put an agent together that sees two frames, from which the arm's speed can be told."""
    world_model = load_world_model(folder)
    cost = GoalCost(distance="metric", over_steps="sum", metric=world_model.metric, l2_weight=2)
    planner = ICEM(horizon=5, num_samples=32, iterations=2)
    return MPCAgent(world_model, planner, cost, context_len=2, replan_every=1)


def play(
    env: gymnasium.Env, agent: MPCAgent | RandomAgent, *, seed: int
) -> tuple[Image.Image, tuple[float, float]]:
    """Play an episode.

    Returns:
        Start, end and goal beside each other, and how far the fingertip was off at both ends.
    """
    goal, wanted = draw_goal(env, seed)
    env.reset(seed=seed)
    agent.reset(goal=goal[None])  # one environment of a batch of one
    start = view = env.render()
    first, is_over = off(env, wanted), False
    while not is_over:
        _, _, terminated, truncated, _ = env.step(agent.act({"pixels": view[None]})[0])
        is_over = terminated or truncated
        view = env.render()
    shown = {"start": start, "end": view, "goal": goal}
    row = side_by_side([panel(picture, name) for name, picture in shown.items()])
    return row, (first, off(env, wanted))


def draw_goal(env: gymnasium.Env, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a pose; returns its picture and where its fingertip is, metres."""
    env.reset(seed=seed)
    robot = env.unwrapped
    pose = robot.data.qpos.copy()
    pose[:2] = np.random.default_rng(seed).uniform([-np.pi, -2.5], [np.pi, 2.5])
    robot.set_state(pose, np.zeros_like(robot.data.qvel))
    return env.render(), robot.get_body_com("fingertip")[:2].copy()


def off(env: gymnasium.Env, wanted: np.ndarray) -> float:
    """How far the fingertip is from where it is wanted, metres."""
    return float(np.linalg.norm(env.unwrapped.get_body_com("fingertip")[:2] - wanted))


def report(name: str, distances: np.ndarray) -> None:
    """Print how far fingertips (E, 2) were off at the start and at the end."""
    start, end = np.median(distances, axis=0)
    near = int((distances[:, 1] < NEAR_M).sum())
    low, high = wilson_interval(near, len(distances))
    print(
        f"{name}: fingertip off by {start:.3f} m at the start, {end:.3f} m in the end (medians); "
        f"within {NEAR_M} m {near} of {len(distances)} times [{low:.0%}, {high:.0%}]",
        flush=True,
    )


if __name__ == "__main__":
    main()
