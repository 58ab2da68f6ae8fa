"""Bounds stated in float64 are kept by actions in float32."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.test_agent import DotWorld, dot, make_agent
from vjepa_wm.bounds import float32_inside, same_actions
from vjepa_wm.data.recorder import _action_bounds
from vjepa_wm.evaluation.agents import RandomAgent
from vjepa_wm.world_model import ActionSpec

LOW, HIGH = [-0.02, -0.05, 0.0], [0.06, 0.05, 1.0]  # none but 0 and 1 is a float32


def test_bounds_are_rounded_inwards_by_no_more_than_they_must() -> None:
    low, high = float32_inside(LOW, HIGH)
    assert low.dtype == high.dtype == np.float32
    assert (low.astype(np.float64) >= LOW).all() and (high.astype(np.float64) <= HIGH).all()
    np.testing.assert_allclose(low, LOW, rtol=2e-7)
    np.testing.assert_allclose(high, HIGH, rtol=2e-7)
    again = float32_inside(low, high)
    assert np.array_equal(again[0], low) and np.array_equal(again[1], high)


def test_what_is_recorded_and_drawn_stays_in_a_box_of_float64() -> None:
    class Env(gymnasium.Env):
        action_space = spaces.Box(np.array(LOW), np.array(HIGH), dtype=np.float64)

    low, high = _action_bounds(Env(), "mine")
    for action in (low.astype(np.float32), high.astype(np.float32)):
        assert Env.action_space.contains(action.astype(np.float64))
    agent = RandomAgent(np.array(LOW), np.array(HIGH))
    agent.reset(goal=np.zeros((64, 8, 8, 3), np.uint8))
    for _ in range(20):
        for action in agent.act({}):
            assert Env.action_space.contains(action.astype(np.float64))


def test_plans_stay_in_a_box_of_float64() -> None:
    world = DotWorld()
    world.action_spec = ActionSpec(low=LOW[:2], high=HIGH[:2], frame_skip=1)
    agent = make_agent(world)
    agent.reset(goal=dot(31, 31))  # as far as actions go
    action = agent.act({"pixels": dot(0, 0)}).astype(np.float64)
    assert (action >= LOW[:2]).all() and (action <= HIGH[:2]).all()
    low, high = world.action_spec.limits("cpu")
    assert (
        low.dtype == torch.float32
        and (high.double() <= torch.tensor(HIGH[:2]).double() + 1e-9).all()
    )


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda low, high, skip: (tuple(np.float32(low).tolist()), high, skip), True),
        (lambda low, high, skip: ([-0.021, *low[1:]], high, skip), False),
        (lambda low, high, skip: (low[:2], high[:2], skip), False),
        (lambda low, high, skip: (low, high, skip + 1), False),
    ],
)
def test_rounding_makes_no_other_actions(change, same: bool) -> None:
    assert same_actions((LOW, HIGH, 2), change(LOW, HIGH, 2)) == same
