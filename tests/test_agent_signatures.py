"""The agent as other libraries call it: what they hand over, and the modes they call it in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from planners import CEM, Gradient, Planner, Polished
from tests import tiny
from tests.test_agent import GOALS, SIDE, STARTS, DotWorld, dot, make_agent
from vjepa_wm.agent import MPCAgent
from vjepa_wm.costs import GoalCost
from vjepa_wm.errors import SettingError
from vjepa_wm.loading import load_world_model

DESCENT = Gradient(horizon=3, num_starts=2, iterations=2)
SEARCH = CEM(horizon=3, num_samples=8, num_elites=2, iterations=1)


def test_a_goal_written_over_the_last_one_is_noticed() -> None:
    """As stable-worldmodel's EnvPool does, which has one array for all steps."""
    agent = make_agent()
    info = {"pixels": np.stack([[dot(9, 9)]]), "goal": np.stack([[dot(20, 22)]])}
    agent.get_action(info)
    info["goal"][:] = dot(2, 3)
    agent.get_action(info)
    assert agent.goal.tolist() == [[[2.0, 3.0]]]


def test_only_environments_with_a_new_goal_forget_their_past() -> None:
    world = DotWorld()
    agent = make_agent(world, replan_every=4)
    info = {
        name: np.stack([dot(*place) for place in places])
        for name, places in (("pixels", STARTS), ("goal", GOALS))
    }
    agent.get_action(info)
    plans = [slot.plan for slot in agent.slots]
    world.planned_for.clear()
    info["goal"][1] = dot(2, 3)
    agent.get_action(info)
    assert world.planned_for == [1]
    kept = [slot.plan is plan for slot, plan in zip(agent.slots, plans, strict=True)]
    assert kept == [True, False, True, True]
    assert [len(slot.latents) for slot in agent.slots] == [2, 1, 2, 2]
    assert agent.goal[1].tolist() == [[2.0, 3.0]]
    agent.get_action({name: frames[:2] for name, frames in info.items()})
    assert len(agent.slots) == 2


def test_a_single_environment_has_new_goals_too() -> None:
    world = DotWorld()
    agent = make_agent(world, replan_every=4)
    for goal in ((20, 22), (20, 22), (2, 3)):
        assert agent.get_action({"pixels": dot(9, 9), "goal": dot(*goal)}).shape == (2,)
    assert world.planned_for == [1, 1]
    assert agent.goal.tolist() == [[[2.0, 3.0]]]


def test_environments_that_begin_anew_with_the_same_goal_forget_their_past() -> None:
    """As stable-worldmodel's `World` tells of it, in an `info` that stays the same."""
    agent = make_agent(replan_every=4)
    info = {"pixels": np.stack([dot(9, 9)] * 2)[:, None], "goal": np.stack([dot(20, 22)] * 2)}
    agent.get_action(info)
    info["_needs_flush"] = np.array([False, True])
    for seen in ([2, 1], [2, 2]):  # a context of two frames
        agent.get_action(info)
        assert [len(slot.latents) for slot in agent.slots] == seen
    assert "_needs_flush" not in info


def test_a_new_beginning_is_not_lost_to_a_bad_picture() -> None:
    agent = make_agent(replan_every=4)
    info = {"pixels": dot(9, 9)[None], "goal": dot(20, 22)[None]}
    agent.get_action(info)
    info |= {"_needs_flush": np.array([True]), "pixels": dot(9, 9)[None].astype(np.float32)}
    with pytest.raises(SettingError):
        agent.get_action(info)
    info["pixels"] = dot(9, 9)[None]
    agent.get_action(info)
    assert len(agent.slots[0].latents) == 1


def test_environments_that_are_over_wait() -> None:
    world = DotWorld()
    agent = make_agent(world)
    info = {"pixels": np.stack([dot(9, 9)] * 3), "goal": np.stack([dot(20, 22)] * 3)}
    info["terminated"] = np.array([[False], [True], [False]])
    info["truncated"] = np.array([[False], [False], [True]])
    actions = agent.get_action(info)
    assert world.planned_for == [1]
    assert np.abs(actions[0]).max() > 0 and not actions[1:].any()


def test_a_world_seeds_the_agent_before_its_first_goal() -> None:
    info = {"pixels": dot(9, 9)[None], "goal": dot(20, 22)[None]}
    first, other, again = make_agent(), make_agent(), make_agent()
    other.seed += 1
    for agent, seed in ((other, first.seed), (again, first.seed + 1)):
        agent.set_env(object())
        agent.set_seed(seed)
    actions = [agent.get_action(info) for agent in (first, other, again)]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])


def test_after_a_reset_the_goal_is_taken_again() -> None:
    agent = make_agent()
    info = {"pixels": dot(9, 9)[None], "goal": dot(20, 22)[None]}
    agent.get_action(info)
    agent.reset(goal=dot(2, 3)[None])
    agent.get_action(info)
    assert agent.goal.tolist() == [[[20.0, 22.0]]]


def test_predict_wants_a_goal_first() -> None:
    with pytest.raises(RuntimeError, match="no goal yet: call agent.reset"):
        make_agent().predict({"pixels": dot(9, 9)}, episode_start=np.array([True]))


def images_of(frame: np.ndarray) -> Tensor:
    """Return LeRobot's images (1, 3, H, W), still uint8."""
    return torch.from_numpy(frame)[None].movedim(-1, 1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_images_are_whole_or_floating_numbers(dtype: torch.dtype) -> None:
    frame = dot(4, 5)
    frame[30, 30] = 1  # 255 times this is more than 255 times 255, where uint8 wraps around
    agents = make_agent(), make_agent()
    for agent in agents:
        agent.reset(goal=dot(20, 22))
    images = images_of(frame) if dtype == torch.uint8 else (images_of(frame) / 255).to(dtype)
    selected = agents[0].select_action({"observation.images.top": images})
    np.testing.assert_array_equal(selected[0], agents[1].act({"pixels": frame}))


def test_images_may_overshoot_a_little() -> None:
    agent = make_agent()
    agent.reset(goal=dot(20, 22))
    images = images_of(dot(4, 5)) / 255
    agent.select_action({"observation.image": images * 1.1 - 0.05})


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda images: images.float(), r"float32 \(1, 3, 32, 32\) from 0 to 255; .* by 255"),
        (lambda images: images / 127.5 - 1, "from -1 to 1; give them as they were before"),
        (lambda images: images / torch.nan, "from nan to nan"),
        (lambda images: images.long(), "int64"),
        (lambda images: images.movedim(1, -1), r"uint8 \(1, 32, 32, 3\)"),
        (lambda images: images[0, 0] / 255, r"float32 \(32, 32\) from 0 to 1"),
    ],
)
def test_other_images_are_refused(change, got: str) -> None:
    agent = make_agent()
    agent.reset(goal=dot(20, 22))
    wanted = r"observation.image: wanted images \(n, 3, H, W\), uint8 or floating in \[0, 1\], got"
    with pytest.raises(SettingError, match=f"{wanted} .*{got}"):
        agent.select_action({"observation.image": change(images_of(dot(4, 5)))})


@pytest.mark.parametrize("planner", [SEARCH, DESCENT, Polished(search=SEARCH, polish=DESCENT)])
def test_it_acts_the_same_in_inference_mode(planner: Planner, world_model_folder: Path) -> None:
    """As LeRobot's rollouts do; and an agent that was reset there goes on outside."""
    world = load_world_model(world_model_folder, dtype="fp32")
    cost = GoalCost(distance="l2", over_steps="last")

    def run(agent: MPCAgent) -> Tensor:
        goal, other, *frames = tiny.pixels(6, 1, 64, 64)
        agent.reset(goal=goal)
        batches = [{"observation.image": frame.movedim(-1, 1) / 255} for frame in frames]
        actions = [agent.select_action(batch) for batch in batches]  # two model steps
        agent.set_goal(other, np.array([0]))
        return torch.stack([*actions, agent.select_action(batches[0])])

    agents = [MPCAgent(world, planner, cost, context_len=2, replan_every=1) for _ in range(2)]
    with torch.inference_mode():
        inside = run(agents[0])
    assert torch.equal(inside, run(agents[1]))
    agents[0].set_goal(tiny.pixels(1, 64, 64), np.array([0]))
    agents[0].act({"pixels": tiny.pixels(1, 64, 64)})


def test_no_gradients_are_recorded_in_any_mode() -> None:
    class Trainable(DotWorld):
        def encode(self, pixels: Tensor) -> Tensor:
            return super().encode(pixels) + self.anchor

    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        agent = make_agent(Trainable())
        with mode():
            agent.reset(goal=np.zeros((SIDE, SIDE, 3), np.uint8))
            agent.act({"pixels": dot(9, 9)})
        assert not agent.goal.requires_grad and not agent.slots[0].latents[0].requires_grad


def test_get_action_keeps_a_way_laid_out_before() -> None:
    agent = make_agent(subgoal_steps=2)
    agent.reset(goal=dot(20, 22), subgoals=np.stack([dot(10, 10), dot(14, 14)]))
    agent.get_action({"goal": dot(20, 22), "pixels": dot(4, 5)})
    assert len(agent.slots[0].goals) == 3
    agent.set_goal(dot(4, 20)[None], np.array([0]))
    agent.get_action({"goal": dot(20, 22), "pixels": dot(4, 5)})  # which is a new one now
    assert agent.goal[0, 0].tolist() == [20, 22]
