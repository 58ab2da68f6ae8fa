"""What is particular to each task: physics, goal levels, and what exploration covers."""

import gymnasium
import numpy as np
import pytest

import envs
from envs.base import PixelGoalEnv
from envs.policies import SmoothRandom
from envs.push import PushEnv, PushTEnv
from envs.reacher import ReacherEnv
from envs.two_rooms import TwoRoomsEnv


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave drawing out: these tests look at states only and take many steps."""
    picture = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr("envs.base.render", lambda *_args, **_options: picture)


def _placed(env: PixelGoalEnv, *qpos: float) -> None:
    """Put an environment at rest at these generalised positions."""
    env.reset(seed=0, options={"goal": None})
    state = env.get_sim_state()
    state[1 : 1 + len(qpos)] = qpos
    env.set_sim_state(state)


def _qpos(env: PixelGoalEnv) -> np.ndarray:
    return env.get_sim_state()[1 : 1 + env._model.nq]


@pytest.mark.parametrize(
    ("env_class", "qpos"),
    [
        (TwoRoomsEnv, (-0.2, 0.0)),
        (ReacherEnv, (0.3, 0.4)),
        (PushEnv, (-0.2, -0.2, 0.1, 0.1, 0.0)),
    ],
)
def test_action_is_a_velocity(env_class: type[PixelGoalEnv], qpos: tuple[float, ...]) -> None:
    env = env_class(image_size=8)
    _placed(env, *qpos)
    action = np.array([0.5, -0.25])
    env.step(action)
    before = _qpos(env)[:2]
    env.step(action)
    moved = _qpos(env)[:2] - before
    np.testing.assert_allclose(moved, 0.1 * env.max_speed * action, rtol=0.05)
    env.step(np.zeros(2))
    resting = _qpos(env)
    env.step(np.zeros(2))
    assert np.abs(_qpos(env) - resting).max() < 0.005 * env.max_speed


def test_wall_stops_the_robot_and_the_door_lets_it_pass() -> None:
    env = TwoRoomsEnv(image_size=8)
    env.reset(seed=0, options={"goal": None})
    door_y = env._data.mocap_pos[:, 1].mean()
    for y, is_open in ((door_y, True), (door_y + 0.12, False), (door_y - 0.12, False)):
        _placed(env, -0.1, y)
        for _ in range(10):
            env.step(np.array([1.0, 0.0]))
        assert (_qpos(env)[0] > 0.1) == is_open
        assert is_open or _qpos(env)[0] < -0.03


def test_door_varies_and_belongs_to_the_state() -> None:
    env = TwoRoomsEnv(image_size=8)
    seen = []
    for seed in range(2):
        env.reset(seed=seed)
        seen.append((env._data.mocap_pos.copy(), env.get_sim_state(), env.goal_state))
    assert not np.array_equal(seen[0][0], seen[1][0])
    for wall, *states in seen:
        for state in states:
            env.set_sim_state(state)
            assert np.array_equal(env._data.mocap_pos, wall)


def test_rooms_of_start_and_goal_at_each_level() -> None:
    env = TwoRoomsEnv(image_size=8)
    for seed in range(20):
        for level, is_same in (("near", True), ("door", False), ("unseen", False)):
            env.reset(seed=seed, options={"level": level})
            x, goal_x = env.get_sim_state()[1], env.goal_state[1]
            assert (x * goal_x > 0) == is_same


def test_doors_of_the_unseen_level_are_where_no_other_has_one() -> None:
    """Also where an episode has no goal."""
    env = TwoRoomsEnv(image_size=8)
    for seed in range(20):
        doors = {}
        for level in env.levels:
            env.reset(seed=seed, options={"level": level})
            doors[level] = abs(env._data.mocap_pos[:, 1].mean())
        env.reset(seed=seed, options={"goal": None})
        doors["no goal"] = abs(env._data.mocap_pos[:, 1].mean())
        unseen = doors.pop("unseen")
        assert max(doors.values()) <= 0.18 < 0.2 <= unseen <= 0.235


@pytest.mark.parametrize("env_class", [PushEnv, PushTEnv])
def test_pushed_block_moves_and_stops_with_the_pusher(env_class: type[PushEnv]) -> None:
    env = env_class(image_size=8)
    _placed(env, -0.2, 0.0, 0.0, 0.0, 0.0)
    for _ in range(5):
        env.step(np.array([1.0, 0.0]))
    pushed = _qpos(env)
    assert pushed[2] > 0.08
    env.step(np.zeros(2))
    assert _qpos(env)[2] - pushed[2] < 0.015
    stopped = _qpos(env)
    env.step(np.zeros(2))
    np.testing.assert_allclose(_qpos(env)[2:], stopped[2:], atol=1e-3)


# The T turns about the pusher before it gives way.
@pytest.mark.parametrize(("env_class", "pushed_to"), [(PushEnv, 0.125), (PushTEnv, 0.145)])
@pytest.mark.parametrize("corner", [(0.155, 0.155), (-0.155, 0.155), (0.155, -0.155)])
def test_block_in_a_corner_can_be_pushed_out(
    env_class: type[PushEnv], pushed_to: float, corner: tuple[float, float]
) -> None:
    """From behind, along either side: the pusher fits between block and border."""
    env = env_class(image_size=8)
    for angle in np.linspace(0.0, 2 * np.pi, 5):
        _placed(env, np.sign(corner[0]) * 0.268, corner[1], *corner, angle)
        for _ in range(6):
            env.step(np.array([-np.sign(corner[0]), 0.0]))
        assert abs(_qpos(env)[2]) < pushed_to


@pytest.mark.parametrize("env_class", [PushEnv, PushTEnv])
def test_block_at_its_limit_stops_the_pusher(env_class: type[PushEnv]) -> None:
    env = env_class(image_size=8)
    _placed(env, 0.0, 0.1, 0.14, 0.1, 0.0)
    for _ in range(20):
        env.step(np.array([1.0, 0.0]))
    assert np.abs(_qpos(env)[2:4]).max() < 0.165
    assert np.abs(_qpos(env)[:2]).max() < 0.275


def test_half_a_turn_of_the_t_is_far_and_a_whole_one_is_none() -> None:
    env = PushTEnv(image_size=8)
    qpos = np.array([[0.0, 0.0, 0.1, 0.1, 0.3 + turn] for turn in (np.pi, 2 * np.pi, -0.2)])
    distances = env.distances(qpos, np.array([0.2, 0.2, 0.1, 0.1, 0.3]))
    np.testing.assert_allclose(distances, [[0, np.pi], [0, 0], [0, 0.2]], atol=1e-9)


def test_reacher_measures_elbow_and_fingertip() -> None:
    """The mirrored arm has the same fingertip but another elbow, and must not count."""
    env = ReacherEnv(image_size=8)
    pose = np.array([0.0, 1.0])
    reach = np.arctan2(0.19 * np.sin(1.0), 0.20 + 0.19 * np.cos(1.0))
    mirrored = np.array([2 * reach, -1.0])
    assert env.distances(pose, mirrored)[0] > 0.1
    assert env.distances(pose + 2 * np.pi, pose)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_random_actions_rarely_succeed(env_id: str) -> None:
    env = gymnasium.make(env_id, image_size=8).unwrapped
    rng = np.random.default_rng(0)
    for level in env.levels:
        env.reset(seed=0)
        policy = SmoothRandom(2)
        num_successes = 0
        for _ in range(40):
            env.reset(options={"level": level})
            policy.reset(rng)
            num_successes += any(env.step(policy.act())[2] for _ in range(50))
        assert num_successes <= 0.15 * 40


@pytest.mark.parametrize("env_class", [PushEnv, PushTEnv])
def test_exploration_moves_the_block_often_and_from_all_sides(env_class: type[PushEnv]) -> None:
    env = env_class(image_size=8)
    policy, rng = env.make_policy(), np.random.default_rng(0)
    env.reset(seed=0, options={"goal": None})
    pushes = []
    for _ in range(40):
        env.reset(options={"goal": None})
        policy.reset(rng)
        for _ in range(50):
            before = _qpos(env)
            env.step(policy.act())
            pushes.append(_qpos(env)[2:4] - before[2:4])
    moved = np.array([push for push in pushes if np.linalg.norm(push) > 1e-3])
    assert len(moved) > 0.2 * len(pushes)
    sectors = np.floor(np.arctan2(moved[:, 1], moved[:, 0]) / (np.pi / 4)).astype(int)
    assert np.bincount(sectors + 4, minlength=8)[:8].min() > 0.04 * len(moved)


def test_exploration_crosses_the_door_often() -> None:
    env = TwoRoomsEnv(image_size=8)
    policy, rng = env.make_policy(), np.random.default_rng(0)
    env.reset(seed=0, options={"goal": None})
    num_crossing = 0
    for _ in range(40):
        env.reset(options={"goal": None})
        policy.reset(rng)
        sides = set()
        for _ in range(50):
            env.step(policy.act())
            sides.add(_qpos(env)[0] > 0)
        num_crossing += len(sides) == 2
    assert num_crossing > 0.4 * 40


def test_sampled_plans_bring_the_block_nearer() -> None:
    """Blind sampling against `simulate` brings the block nearer: near goals can be reached."""
    env, rng = PushEnv(image_size=8), np.random.default_rng(0)
    env.reset(seed=0)
    improvements = []
    for _ in range(3):
        _, info = env.reset()
        begin = info["distance"]["block_position_m"]
        knots = rng.uniform(-1.0, 1.0, (400, 5, 2))
        improvements.append(begin - env.simulate(np.repeat(knots, 5, axis=1)).min())
    assert min(improvements) > 0.02
