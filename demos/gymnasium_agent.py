"""Plug the planner into an ordinary Gymnasium loop: python -m demos.gymnasium_agent."""

import argparse

import gymnasium

from planners import ICEM
from vjepa_wm import GoalCost, MPCAgent, load_world_model


def main() -> None:
    """Reach one goal image and say so."""
    env = gymnasium.make("envs:vjepa_wm/Reacher-v0")
    world_model = load_world_model("reacher")
    cost = GoalCost(distance="metric", over_steps="sum", metric=world_model.metric, l2_weight=2)
    planner = ICEM(horizon=6, num_samples=16, iterations=2)
    agent = MPCAgent(world_model, planner, cost, context_len=1, replan_every=1)

    obs, info = env.reset(seed=0)
    agent.reset(goal=info["goal"])
    terminated = truncated = False
    while not (terminated or truncated):
        obs, _, terminated, truncated, info = env.step(agent.act(obs))

    print("reached the goal" if info["is_success"] else "did not reach the goal", info["distance"])
    env.close()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help, and no other options
    main()
