"""The demo in an environment that is not ours, with a random world model."""

import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image

from demos import foreign_environment


def test_poses_are_asked_for_and_shown(
    world_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(gymnasium.registry["gym/Reacher-v0"], "max_episode_steps", 4)
    picture = tmp_path / "poses.png"
    options = [str(world_model_folder), "--episodes", "2", "--out", str(picture)]
    monkeypatch.setattr(sys, "argv", ["foreign_environment", *options])
    foreign_environment.main()
    agent, floor, where = capsys.readouterr().out.splitlines()
    assert agent.startswith("agent: fingertip off by") and " of 2 times" in agent
    assert floor.startswith("random: ") and where.endswith(str(picture))
    starts = [line.split(" m at the start")[0].split()[-1] for line in (agent, floor)]
    assert starts[0] == starts[1], "both begin in the same places"
    width, height = Image.open(picture).size
    assert width > height, "three panels beside each other, two episodes"


def test_a_goal_is_a_pose_that_is_held_still() -> None:
    env = gymnasium.make("gym/Reacher-v0")
    goal, wanted = foreign_environment.draw_goal(env, 3)
    assert foreign_environment.off(env, wanted) == 0
    again, _ = foreign_environment.draw_goal(env, 3)
    other, _ = foreign_environment.draw_goal(env, 4)
    assert goal.shape == (64, 64, 3)
    assert np.array_equal(goal, again) and (goal != other).any()
