"""The agent in a world it can see through: a bright dot on a dark image, moved by the action."""

import dataclasses
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from planners import CEM
from vjepa_wm.agent import MPCAgent
from vjepa_wm.agent_memory import Slot
from vjepa_wm.errors import SettingError
from vjepa_wm.world_model import ActionSpec

SIDE = 32
STEP = 2.0  # pixels per unit of action


class DotWorld(nn.Module):
    """A world model whose latents are the dot's position and whose dynamics are exact."""

    takes_proprio = False

    def __init__(self, frame_skip: int = 1) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.predictor = SimpleNamespace(max_frames=6)
        self.action_spec = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), frame_skip=frame_skip)
        self.planned_for: list[int] = []
        self.contexts: list[tuple[int, int]] = []

    def encode(self, pixels: Tensor) -> Tensor:
        bright = pixels[..., 0].flatten(-2).argmax(-1)
        position = torch.stack([bright // SIDE, bright % SIDE], dim=-1).float()
        return position.unsqueeze(-2)  # (B, T, 1, 2)

    def observe(self, context: Tensor, past_actions: Tensor, proprio: None) -> "DotImagination":
        self.planned_for.append(len(context))
        self.contexts.append((context.shape[1], past_actions.shape[1]))
        return DotImagination(context[:, -1], STEP * self.action_spec.frame_skip)


class DotImagination(NamedTuple):
    """What it imagines from: positions (B, 1, 2), and how far an action moves them."""

    position: Tensor
    step: float

    def costs(self, actions: Tensor, *, goal: Tensor, cost: object) -> Tensor:
        path = self.position.unsqueeze(1) + self.step * actions.cumsum(2)  # (B, N, T, 2)
        return (path - goal.unsqueeze(1)).norm(dim=-1).mean(-1)

    def rollout(self, actions: Tensor) -> Tensor:
        path = self.position.unsqueeze(1) + self.step * actions.cumsum(2)
        return path.unsqueeze(-2)  # (B, N, T, 1, 2)


class PairImagination(DotImagination):
    """The same of two actions per step: the frames between are not seen."""

    def costs(self, actions: Tensor, *, goal: Tensor, cost: object) -> Tensor:
        return super().costs(_summed(actions), goal=goal, cost=cost)

    def rollout(self, actions: Tensor) -> Tensor:
        return super().rollout(_summed(actions))


def _summed(actions: Tensor) -> Tensor:
    return actions.unflatten(-1, (2, 2)).sum(-2)


class PairWorld(DotWorld):
    """The same, whose predictor takes two actions at once; it keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.action_spec = dataclasses.replace(self.action_spec, actions_per_step=2)
        self.shown: list[tuple[Tensor, Tensor]] = []

    def observe(self, context: Tensor, past_actions: Tensor, proprio: None) -> "PairImagination":
        self.shown.append((context[0, :, 0], past_actions[0]))
        return PairImagination(context[:, -1], STEP)


class DotEnv:
    """The same world, for real."""

    def __init__(self, start: tuple[float, float]) -> None:
        self.position = np.array(start)

    def step(self, action: np.ndarray) -> None:
        self.position = np.clip(self.position + STEP * action, 0, SIDE - 1)

    @property
    def pixels(self) -> np.ndarray:
        return dot(*self.position)


def dot(row: float, column: float) -> np.ndarray:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[round(row), round(column)] = 255
    return image


def make_agent(world: DotWorld | None = None, **options: float | None) -> MPCAgent:
    planner = CEM(horizon=4, num_samples=48, num_elites=6, iterations=3)
    settings = {"context_len": 2, "replan_every": 2, "seed": 0, **options}
    return MPCAgent(world or DotWorld(), planner, cost=None, **settings)


STARTS = [(4, 5), (28, 3), (16, 30), (9, 9)]
GOALS = [(20, 22), (6, 25), (16, 4), (10, 27)]


def run(agent: MPCAgent, starts: list, goals: list, steps: int = 14) -> np.ndarray:
    envs = [DotEnv(start) for start in starts]
    agent.reset(goal=np.stack([dot(*goal) for goal in goals]))
    taken = []
    for _ in range(steps):
        actions = agent.act({"pixels": np.stack([env.pixels for env in envs])})
        assert np.all(np.abs(actions) <= 1)
        for env, action in zip(envs, actions, strict=True):
            env.step(action)
        taken.append(actions)
    for env, goal in zip(envs, goals, strict=True):
        assert np.linalg.norm(env.position - goal) <= 1.5
    return np.stack(taken, axis=1)  # (n, steps, A)


def test_reaches_goals_in_one_and_many_environments() -> None:
    run(make_agent(), STARTS, GOALS)
    env, agent = DotEnv((4, 5)), make_agent()
    agent.reset(goal={"pixels": dot(20, 22)})
    for _ in range(14):
        action = agent.act({"pixels": env.pixels})
        assert action.shape == (2,) and action.dtype == np.float32
        env.step(action)
    assert np.linalg.norm(env.position - (20, 22)) <= 1.5


def test_actions_do_not_depend_on_the_batch() -> None:
    together = run(make_agent(), STARTS, GOALS)
    agent = make_agent()
    halves = [run(agent, STARTS[half], GOALS[half]) for half in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(together, np.concatenate(halves), atol=1e-5)


def test_same_seed_same_actions_other_seed_others() -> None:
    first, second = (run(make_agent(), STARTS, GOALS) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, run(make_agent(seed=1), STARTS, GOALS))


def test_seeds_of_any_size_plan_and_small_ones_stay_as_they_were() -> None:
    actions = []
    for seed in (10**9, 10**9 + 1, 2**63 - 1, -(10**12), np.int64(2**62)):
        agent = make_agent(seed=seed)
        agent.reset(goal=dot(20, 22))
        actions.append(tuple(agent.act({"pixels": dot(4, 5)})))
    assert len(set(actions)) == len(actions)
    for seed in (0, 3_000_009, -1):
        assert Slot(seed=seed).next_seed == seed * 10_007 + 1


def test_plans_every_second_step_with_a_growing_context() -> None:
    world = DotWorld()
    agent = make_agent(world)
    agent.reset(goal=dot(20, 22))
    calls = []
    for _ in range(5):
        before = len(world.planned_for)
        agent.act({"pixels": dot(4, 5)})
        calls.append(len(world.planned_for) > before)
    assert calls == [True, False, True, False, True]
    assert world.contexts[0] == (1, 0)
    assert world.contexts[-1] == (2, 1)


def test_inactive_environments_cost_nothing() -> None:
    world = DotWorld()
    agent = make_agent(world)
    agent.reset(goal=np.stack([dot(*goal) for goal in GOALS]))
    pixels = np.stack([dot(*start) for start in STARTS])
    is_active = np.array([True, False, True, False])
    actions = agent.act({"pixels": pixels}, is_active=is_active)
    assert set(world.planned_for) == {2}
    assert not actions[~is_active].any()
    assert actions[is_active].any()


def test_a_plan_can_be_imagined_again_from_where_it_was_made() -> None:
    """Also when a part of it is done and more has been seen; the actions stay the same."""
    starts = np.array([[4.0, 4.0], [25.0, 9.0]])
    agents = [make_agent(replan_every=3), make_agent(replan_every=3)]
    for agent in agents:
        with pytest.raises(RuntimeError, match="no plan yet"):
            agent.imagine_plan()
        agent.reset(goal=np.stack([dot(20, 20), dot(4, 4)]))
    envs = [DotEnv(start) for start in starts]
    for _ in range(3):
        pixels = np.stack([env.pixels for env in envs])
        actions = [agent.act({"pixels": pixels}) for agent in agents]
        imagined = [agents[1].imagine_plan(i) for i in range(2)]
        for env, action in zip(envs, actions[0], strict=True):
            env.step(action)
        np.testing.assert_array_equal(actions[0], actions[1])
        for start, slot, path in zip(starts, agents[1].slots, imagined, strict=True):
            reached = start + STEP * slot.plan.numpy().cumsum(0)
            np.testing.assert_allclose(path[:, 0].numpy(), reached, atol=1e-4)


def test_frame_skip_repeats_the_action() -> None:
    agent = make_agent(DotWorld(frame_skip=3), replan_every=1)
    agent.reset(goal=dot(20, 22))
    actions = [agent.act({"pixels": dot(4, 5)}) for _ in range(6)]
    np.testing.assert_array_equal(actions[0], actions[2])
    np.testing.assert_array_equal(actions[3], actions[5])
    assert not np.array_equal(actions[2], actions[3])


def test_a_frame_is_seen_once_however_often_its_plan_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = DotWorld()
    agent = make_agent(world, context_len=3, replan_every=1)
    agent.reset(goal=dot(20, 22))
    obs, costs = {"pixels": dot(4, 5)}, DotImagination.costs
    for _ in range(3):
        with monkeypatch.context() as broken:
            broken.setattr(DotImagination, "costs", lambda *a, **b: costs(*a, **b) * torch.nan)
            with pytest.raises(RuntimeError, match="no finite cost"):
                agent.act(obs)
        agent.act(obs)
    assert world.contexts == [(1, 0), (1, 0), (2, 1), (2, 1), (3, 2), (3, 2)]
    assert [len(part) for part in agent.slots[0].past()] == [3, 3, 3]


def test_new_goals_for_some_environments() -> None:
    agent = make_agent()
    run(agent, STARTS, GOALS, steps=14)
    agent.set_goal(dot(2, 2)[None], np.array([1]))
    env = DotEnv((20, 20))
    pixels = np.stack([dot(*goal) for goal in GOALS])
    for _ in range(14):
        pixels[1] = env.pixels
        env.step(agent.act({"pixels": pixels})[1])
    assert np.linalg.norm(env.position - (2, 2)) <= 1.5


def passing(**options: float | None) -> tuple[MPCAgent, np.ndarray]:
    """An agent that goes from (5, 5) to (5, 25) by (20, 10), and its path (steps + 1, 2)."""
    agent = make_agent(**options)
    agent.cost = lambda latents, goal: (latents[:, :, -1] - goal[:, None]).norm(dim=-1).squeeze(-1)
    env = DotEnv((5, 5))
    agent.reset(goal=dot(5, 25), subgoals=dot(20, 10)[None])
    path = [env.position]
    for _ in range(30):
        env.step(agent.act({"pixels": env.pixels}))
        path.append(env.position)
    return agent, np.stack(path)


def test_subgoals_are_passed_before_the_goal() -> None:
    """Within two pixels is near enough; without subgoals the way is straight."""
    _, path = passing(subgoal_within=2.0)
    assert np.linalg.norm(path - (20, 10), axis=-1).min() < 3
    assert np.linalg.norm(path[-1] - (5, 25)) < 3


def test_a_subgoal_has_its_time() -> None:
    """After three steps, about 6 of the 16 pixels to the subgoal, the goal is turned to."""
    agent, path = passing(subgoal_steps=3)
    assert 4 < path[3, 0] - 5 < 7
    assert path[:, 0].max() < 14
    assert agent.slots[0].num_passed == 1
    assert np.linalg.norm(path[-1] - (5, 25)) < 3
    agent.predict({"pixels": dot(5, 5)}, episode_start=np.array([True]))
    assert agent.goal[0].tolist() == [[20.0, 10.0]]  # a new episode begins with the subgoal again
    agent.set_goal(dot(9, 9)[None], np.array([0]))
    for _ in range(5):
        agent.act({"pixels": dot(5, 5)})
    assert agent.goal[0].tolist() == [[9.0, 9.0]]


def test_subgoals_of_many_environments_are_passed_apart() -> None:
    agent = make_agent(subgoal_steps=2)
    goals = np.stack([dot(5, 25), dot(25, 5)])
    subgoals = np.stack([[dot(1, 1), dot(2, 2)], [dot(3, 3), dot(4, 4)]])
    agent.reset(goal=goals, subgoals=subgoals)
    obs = {"pixels": np.stack([dot(9, 9), dot(9, 9)])}
    for _ in range(3):
        agent.act(obs, is_active=np.array([True, False]))
    assert agent.goal[:, 0].tolist() == [[2.0, 2.0], [3.0, 3.0]]
    for _ in range(4):
        agent.act(obs)
    assert agent.goal[:, 0].tolist() == [[5.0, 25.0], [4.0, 4.0]]


def test_bad_subgoals_say_what_was_wanted() -> None:
    agent = make_agent(subgoal_steps=2)
    for wrong in (dot(1, 1), dot(1, 1)[None, None], dot(1, 1)[None].astype(float), dot(1, 1)[:0]):
        with pytest.raises(SettingError, match=r"subgoals: wanted uint8 pixels \(G, H, W, 3\)"):
            agent.reset(goal=dot(5, 5), subgoals=wrong)
    with pytest.raises(SettingError, match="subgoal_within, a cost, or subgoal_steps"):
        make_agent().reset(goal=dot(5, 5), subgoals=dot(1, 1)[None])
    with pytest.raises(SettingError, match="subgoal_steps must be at least 1"):
        make_agent(subgoal_steps=0)


def test_signatures_of_other_libraries_give_the_same_action() -> None:
    pixels, goal = np.stack([dot(4, 5)]), np.stack([dot(20, 22)])
    agents = [make_agent() for _ in range(4)]
    for agent in agents[:3]:
        agent.reset(goal=goal)
    wanted = agents[0].act({"pixels": pixels})
    predicted, state = agents[1].predict({"pixels": pixels}, episode_start=np.array([True]))
    images = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    selected = agents[2].select_action({"observation.images.top": images})
    got = agents[3].get_action({"pixels": pixels[:, None], "goal": goal[:, None]})
    assert state is None
    for action in (predicted, selected.numpy(), got):
        np.testing.assert_array_equal(action, wanted)


def test_bad_input_says_what_was_wanted() -> None:
    with pytest.raises(ValueError, match="trained on 6"):
        make_agent(context_len=4)
    with pytest.raises(ValueError, match="context_len must be at least 1, got 0"):
        make_agent(context_len=0)
    with pytest.raises(ValueError, match="between 1 and 4, the actions of a plan, got 5"):
        make_agent(replan_every=5)
    agent = make_agent()
    with pytest.raises(RuntimeError, match="reset"):
        agent.act({"pixels": dot(1, 1)})
    with pytest.raises(ValueError, match="uint8"):
        agent.reset(goal=np.zeros((SIDE, SIDE, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        agent.reset(goal=np.zeros((3, SIDE, SIDE), np.uint8))
    agent.reset(goal=np.stack([dot(1, 1), dot(2, 2)]))
    with pytest.raises(ValueError, match="2 environments, got pixels of 1"):
        agent.act({"pixels": dot(1, 1)})


def test_what_environments_without_goal_or_pixels_give_is_named() -> None:
    agent = make_agent()
    with pytest.raises(SettingError, match="this episode has no goal"):
        agent.reset(goal=None)
    agent.reset(goal=dot(20, 22))
    with pytest.raises(SettingError, match='mapping with .pixels., got ndarray: give {"pixels"'):
        agent.act(dot(4, 5))
    with pytest.raises(SettingError, match="wanted 'pixels' in it, got only image"):
        agent.act({"image": dot(4, 5)})


def test_pictures_that_are_turned_views_are_taken() -> None:
    """As Gymnasium's MuJoCo renderer gives them: upside down, by negative strides."""
    turned = [np.ascontiguousarray(dot(*place)[::-1])[::-1] for place in ((4, 5), (20, 22))]
    agents = make_agent(subgoal_steps=2), make_agent(subgoal_steps=2)
    agents[0].reset(goal=dot(20, 22), subgoals=dot(9, 9)[None])
    agents[1].reset(goal=turned[1], subgoals=np.ascontiguousarray(dot(9, 9)[None, ::-1])[:, ::-1])
    actions = [
        agent.act({"pixels": pixels})
        for agent, pixels in zip(agents, (dot(4, 5), turned[0]), strict=True)
    ]
    assert np.array_equal(*actions)


def test_a_deadline_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three iterations and the mean in the end, 30 ms each, 40 ms leave time for the first."""
    calls = []
    costs = DotImagination.costs

    def slow(self: DotImagination, actions: Tensor, **given: object) -> Tensor:
        calls.append(len(actions))
        time.sleep(0.03)
        return costs(self, actions, **given)

    monkeypatch.setattr(DotImagination, "costs", slow)
    for deadline_ms, wanted in ((None, 4), (40.0, 1)):
        agent = make_agent(deadline_ms=deadline_ms)
        agent.reset(goal=dot(3, 3))
        calls.clear()
        assert np.abs(agent.act({"pixels": dot(6, 6)})).max() <= 1
        assert len(calls) == wanted


def test_who_acts_is_told_by_a_mask() -> None:
    agent = make_agent()
    agent.reset(goal=np.stack([dot(*goal) for goal in GOALS]))
    pixels = {"pixels": np.stack([dot(*start) for start in STARTS])}
    for wrong in (np.array([0, 2]), np.array([True]), np.ones(5, bool)):
        with pytest.raises(SettingError, match=r"is_active: wanted bool \(4,\)"):
            agent.act(pixels, is_active=wrong)


def test_new_goals_are_given_by_number_or_mask_and_all_or_none() -> None:
    agents = [make_agent(), make_agent()]
    new = np.stack([dot(4, 4), dot(8, 8)])
    for agent, env_ids in zip(agents, ([1, 3], [False, True, False, True]), strict=True):
        agent.reset(goal=np.stack([dot(*goal) for goal in GOALS]))
        before = agent.goal.clone()
        for wrong, says in [([1], "goal: wanted 1"), ([1, 1], "different"), ([1, 4], "0 to 3")]:
            with pytest.raises(SettingError, match=says):
                agent.set_goal(new, np.array(wrong))
        with pytest.raises(SettingError, match="from 0 to 3"):
            agent.set_goal(new, np.array([0.5, 1.0]))
        assert torch.equal(agent.goal, before)
        agent.set_goal(new, np.array(env_ids))
        assert agent.goal[[1, 3], 0].tolist() == [[4, 4], [8, 8]]
        assert torch.equal(agent.goal[[0, 2]], before[[0, 2]])


def test_a_refused_beginning_leaves_the_episode_before() -> None:
    agent = make_agent(subgoal_steps=2)
    agent.reset(goal=dot(20, 22))
    slots, goal = agent.slots, agent.goal.clone()
    with pytest.raises(SettingError, match="subgoals"):
        agent.reset(goal=dot(4, 4), subgoals=np.zeros((0, SIDE, SIDE, 3), np.uint8))
    assert agent.slots is slots and torch.equal(agent.goal, goal)


def test_a_plan_that_failed_is_made_again_with_the_same_noise() -> None:
    actions = []
    for fails in (False, True):
        agent = make_agent()
        agent.reset(goal=dot(20, 22))
        if fails:
            plan, agent.planner.plan = agent.planner.plan, None
            with pytest.raises(TypeError):
                agent.act({"pixels": dot(4, 5)})
            agent.planner.plan = plan
        actions.append(agent.act({"pixels": dot(4, 5)}).tolist())
    assert actions[0] == actions[1]


def test_plans_of_several_actions_per_step_are_followed_action_by_action() -> None:
    """It plans anew at every action; what it shows the world model lies two actions apart."""
    world = PairWorld()
    agent = make_agent(world, context_len=2, replan_every=1)
    taken = run(agent, STARTS[:1], GOALS[:1])[0]  # (steps, A)
    positions = np.cumsum(np.concatenate([[STARTS[0]], STEP * taken]), axis=0)
    assert len(world.shown) == len(taken)
    for now, (seen, past) in enumerate(world.shown):
        before = [now] if now < 2 else [now - 2, now]
        np.testing.assert_allclose(seen, positions[before], atol=0.51)  # whole pixels
        wanted = [] if now < 2 else [taken[now - 2 : now].ravel()]
        np.testing.assert_allclose(past, np.reshape(wanted, (-1, 4)))


def test_all_actions_of_a_plan_may_be_followed() -> None:
    world = PairWorld()
    agent = make_agent(world, replan_every=8)  # of four steps
    agent.reset(goal=dot(20, 22))
    taken = [agent.act({"pixels": dot(4, 5)}) for _ in range(8)]
    assert len(world.shown) == 1
    np.testing.assert_array_equal(np.stack(taken), agent.slots[0].plan)
    assert agent.imagine_plan().shape == (4, 1, 2)
    agent.act({"pixels": dot(4, 5)})
    assert len(world.shown) == 3  # once to imagine, and to plan anew
    with pytest.raises(SettingError, match="between 1 and 8, the actions of a plan, got 9"):
        make_agent(PairWorld(), replan_every=9)
