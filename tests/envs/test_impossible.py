"""Twins are equal but for their event, and each event does what its name says."""

import gymnasium
import numpy as np
import pytest

import envs
from envs.impossible import COVERED_FRAMES, DRIFT_FRAMES, EVENTS, LEAST_JUMP, TwinEnv, Twins
from envs.push import _CLEARANCE

BEFORE, AFTER, SKIP = 4, 3, 2
PICTURES = (
    "vanishes",
    "changes_colour",
    "changes_shape",
    "vanishes_hidden",
    "changes_shape_hidden",
)
JUMPS = ("teleports", "teleports_hidden")
ALL = [
    (env_id, event)
    for env_id in envs.ENV_IDS
    for event in gymnasium.make(env_id, image_size=8).unwrapped.events
]


def make(env_id: str, *, size: int = 32) -> TwinEnv:
    return gymnasium.make(env_id, image_size=size).unwrapped


def tell(env: TwinEnv, event: str, *, seed: int = 0) -> Twins:
    """Make the first twins there are from a seed on."""
    for number in range(60):
        twins = env.make_twins(
            event, seed=[seed, number], before=BEFORE, after=AFTER, frame_skip=SKIP
        )
        if twins is not None:
            return twins
    raise AssertionError(f"{event} happens in none of 60 episodes")


def qpos(env: TwinEnv, film) -> np.ndarray:
    return film.sim_state[:, 1 : 1 + env._model.nq]


def objects(env: TwinEnv, film) -> np.ndarray:
    """Points of the object in every frame (T, N, 2)."""
    return np.stack([env._object_points(one) for one in qpos(env, film)])


@pytest.mark.parametrize(("env_id", "event"), ALL)
def test_twins_differ_from_the_event_on_and_not_before(env_id: str, event: str) -> None:
    env = make(env_id)
    twins = tell(env, event)
    assert twins.frame == BEFORE and twins.covered == EVENTS[event].covered
    assert twins.actions.shape == (BEFORE + AFTER - 1, 2) and np.abs(twins.actions).max() <= 1
    for one, other in zip(twins.possible, twins.impossible, strict=True):
        assert len(one) == len(other) == BEFORE + AFTER
        assert np.array_equal(one[:BEFORE], other[:BEFORE])
    pictures = [film.pixels[BEFORE].astype(int) for film in (twins.possible, twins.impossible)]
    assert (np.abs(pictures[0] - pictures[1]).max() > 20) == (event != "nothing")
    # No law was broken by accident: the simulation did not blow up and begin anew.
    times = twins.impossible.sim_state[:, 0]
    np.testing.assert_allclose(np.diff(times), 0.1 * SKIP)


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_where_nothing_happens_twins_are_equal_for_ever(env_id: str) -> None:
    twins = tell(make(env_id), "nothing")
    for one, other in zip(twins.possible, twins.impossible, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_the_possible_twin_is_what_the_environment_does(env_id: str) -> None:
    """Followed from its first state with its actions, it comes out bit by bit; so does its seed."""
    env = make(env_id)
    twins = tell(env, "disobeys")
    env.reset(options={"start": twins.possible.sim_state[0], "goal": None})
    for frame, action in enumerate(twins.actions, 1):
        for _ in range(SKIP):
            obs = env.step(action)[0]
        assert np.array_equal(env.get_sim_state(), twins.possible.sim_state[frame])
        assert np.array_equal(obs["pixels"], twins.possible.pixels[frame])
        assert np.array_equal(obs["proprio"], twins.possible.proprio[frame])
    again = tell(make(env_id), "disobeys")
    assert np.array_equal(again.impossible.pixels, twins.impossible.pixels)


@pytest.mark.parametrize(("env_id", "event"), [pair for pair in ALL if pair[1] in PICTURES])
def test_what_only_looks_different_moves_as_before(env_id: str, event: str) -> None:
    """Unless something would have run into what is gone."""
    env = make(env_id)
    twins = tell(env, event)
    if "changes" in event:
        assert np.array_equal(twins.possible.sim_state, twins.impossible.sim_state)
    else:
        robot = twins.impossible.sim_state[BEFORE, 1:3]
        np.testing.assert_allclose(robot, twins.possible.sim_state[BEFORE, 1:3], atol=0.1)


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_what_vanishes_leaves_no_trace(env_id: str) -> None:
    """Moving an object that is hidden changes nothing in the picture."""
    env = make(env_id)
    tell(env, "nothing")
    gone, there = [], []
    for number in range(2):
        env.reset(seed=3)
        if number:
            assert env._jump(env._data, np.random.default_rng(5))
        gone.append(env._draw_altered(env._data, env.alterations["hidden"]))
        there.append(env._draw_altered(env._data, None))
    if env_id != "vjepa_wm/Reacher-v0":  # whose upper arm stays where the shoulder put it
        assert np.array_equal(*gone)
    assert not np.array_equal(*there) and not np.array_equal(gone[0], there[0])


@pytest.mark.parametrize(("env_id", "event"), [pair for pair in ALL if pair[1] in JUMPS])
def test_what_teleports_is_elsewhere_and_free(env_id: str, event: str) -> None:
    env = make(env_id)
    twins = tell(env, event)
    gaps = np.linalg.norm(
        objects(env, twins.impossible)[BEFORE] - objects(env, twins.possible)[BEFORE], axis=-1
    )
    assert gaps.max() > LEAST_JUMP / 2
    if "Push" in env_id:
        pusher, block = (qpos(env, twins.impossible)[BEFORE][part] for part in (slice(2), [2, 3]))
        assert np.linalg.norm(pusher - block) > 0.09  # it may have come nearer within the frame


@pytest.mark.parametrize("env_id", ["vjepa_wm/Push-v0", "vjepa_wm/PushT-v0"])
def test_pushers_pass_through_blocks_which_rest(env_id: str) -> None:
    env = make(env_id)
    twins = tell(env, "passes_through")
    assert np.ptp(objects(env, twins.impossible)[BEFORE:, 0], axis=0).max() < 0.01
    assert np.ptp(objects(env, twins.possible)[BEFORE - 1 :, 0], axis=0).max() > 0.01
    if env_id == "vjepa_wm/Push-v0":  # the disc, 3 cm in radius, is inside of the box of 12 cm
        depths = [depth_in_box(one) for one in qpos(env, twins.impossible)[BEFORE:]]
        assert max(depths) > 0.01
        assert max(depth_in_box(one) for one in qpos(env, twins.possible)) < 0.006


def depth_in_box(state: np.ndarray) -> float:
    cos, sin = np.cos(state[4]), np.sin(state[4])
    inside = np.array([[cos, sin], [-sin, cos]]) @ (state[:2] - state[2:4])
    return 0.03 - float(np.linalg.norm(np.maximum(np.abs(inside) - 0.06, 0)))


def test_robots_pass_through_walls() -> None:
    """The robot, 2.5 cm in radius, is inside of a wall half of 2.5 x 60 cm, where it never gets."""
    env = make("vjepa_wm/TwoRooms-v0")
    twins = tell(env, "passes_through")
    depths = []
    for film in (twins.possible, twins.impossible):
        deepest = 0.0
        for state in film.sim_state[BEFORE:]:
            env.set_sim_state(state)
            outside = np.abs(env._data.qpos - env._data.mocap_pos[:, :2]) - [0.0125, 0.3]
            deepest = max(deepest, *(0.025 - np.linalg.norm(np.maximum(outside, 0), axis=-1)))
        depths.append(deepest)
    assert depths[0] < 0.006 and depths[1] > 0.012


@pytest.mark.parametrize(("env_id", "event"), [pair for pair in ALL if pair[1] == "slides"])
def test_what_slides_moves_untouched_and_then_rests(env_id: str, event: str) -> None:
    env = make(env_id)
    twins = tell(env, event)
    apart = objects(env, twins.impossible) - objects(env, twins.possible)
    lengths = np.linalg.norm(apart[BEFORE:], axis=-1).max(axis=-1)
    assert lengths[0] >= env.noticeable and lengths[DRIFT_FRAMES - 1] > lengths[0]
    if "Push" in env_id:
        for film in (twins.possible, twins.impossible):
            pushers, blocks = np.split(qpos(env, film)[BEFORE : BEFORE + DRIFT_FRAMES, :4], 2, 1)
            assert np.linalg.norm(pushers - blocks, axis=1).min() >= _CLEARANCE


@pytest.mark.parametrize("env_id", ["vjepa_wm/Push-v0", "vjepa_wm/PushT-v0"])
def test_what_stays_is_pushed_and_does_not_move(env_id: str) -> None:
    env = make(env_id)
    for seed in range(4):
        twins = tell(env, "stays", seed=seed)
        blocks = qpos(env, twins.impossible)[BEFORE - 1 :, 2:5]
        assert np.ptp(blocks, axis=0).max() < 0.01
        assert np.ptp(objects(env, twins.possible)[BEFORE - 1 : BEFORE + 1, 0]) > 0


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_what_disobeys_stands_still_though_told_to_move(env_id: str) -> None:
    env = make(env_id)
    twins = tell(env, "disobeys")
    rested = np.ptp(qpos(env, twins.impossible)[BEFORE:, :2], axis=0).max()
    moved = np.abs(twins.possible.sim_state[BEFORE] - twins.possible.sim_state[BEFORE - 1])[1:3]
    assert np.abs(twins.actions[BEFORE - 1]).max() > 0.1
    assert moved.max() >= 0.5 * env.noticeable and rested < 0.2 * moved.max() + 0.01


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_the_plate_hides_the_object_in_both_twins(env_id: str) -> None:
    """What is drawn under it, the object or not, cannot be told."""
    env = make(env_id, size=64)
    twins = tell(env, "vanishes_hidden")
    for frame in range(BEFORE - COVERED_FRAMES, BEFORE):
        env.set_sim_state(twins.possible.sim_state[frame])
        without = env._draw_altered(env._data, env.alterations["hidden"])
        with_it = env._draw_altered(env._data, None)
        seen = twins.possible.pixels[frame]
        plate = (seen == 120).all(axis=-1)
        assert plate.any() and not plate.all()
        assert (with_it != without).any(axis=-1)[plate].any()
        assert not (with_it != without).any(axis=-1)[~plate].any()
        assert np.array_equal(seen[~plate], with_it[~plate])
    assert not (twins.possible.pixels[BEFORE] == 120).all(axis=-1).any()


def test_what_cannot_be_told_is_refused() -> None:
    env = make("vjepa_wm/Reacher-v0")
    options = {"seed": 0, "before": 3, "after": 2}
    with pytest.raises(ValueError, match="its links touch nothing"):
        env.make_twins("passes_through", **options)
    with pytest.raises(ValueError, match="unknown"):
        env.make_twins("vanish", **options)
    with pytest.raises(ValueError, match="more than 2 frames before"):
        env.make_twins("vanishes_hidden", seed=0, before=2, after=2)
    with pytest.raises(ValueError, match="at most 11 in all"):
        env.make_twins("vanishes", seed=0, before=6, after=6, steps=10)
