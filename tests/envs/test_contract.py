"""What every registered environment must do, whatever its task."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs.base import HOLD_STEPS, PixelGoalEnv

FLOOR_TO_BORDER = 2  # pixels at the picture's edge in which nothing may ever move


@pytest.fixture(params=envs.ENV_IDS)
def env(request: pytest.FixtureRequest) -> PixelGoalEnv:
    """Make each registered environment in turn."""
    return gymnasium.make(request.param).unwrapped


def _random_actions(env: PixelGoalEnv, *shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, (*shape, *env.action_space.shape)).astype(np.float32)


@pytest.mark.filterwarnings("ignore:.*render_mode.*", "ignore:.*The environment.*spec.*")
def test_gymnasium_checker_accepts(env: PixelGoalEnv) -> None:
    check_env(env, skip_render_check=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_made_env_runs_a_whole_episode_without_a_warning(env_id: str) -> None:
    env = gymnasium.make(env_id, render_mode="rgb_array", render_size=96)
    env.reset(seed=0)
    for action in _random_actions(env.unwrapped, 50):
        *_, terminated, truncated, _ = env.step(action)
        if terminated:
            env.reset()
    assert truncated
    assert env.render().shape == (96, 96, 3)
    env.close()


def test_same_seed_gives_the_same_episode(env: PixelGoalEnv) -> None:
    def episode(seed: int) -> list[np.ndarray]:
        obs, info = env.reset(seed=seed)
        pictures = [obs["pixels"], info["goal"]["pixels"], info["goal"]["proprio"]]
        for action in _random_actions(env, 5):
            obs, reward, *_ = env.step(action)
            pictures += [obs["pixels"], obs["proprio"], np.array(reward)]
        return pictures

    first, again, other = episode(3), episode(3), episode(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_exploration_is_deterministic_and_within_bounds(env: PixelGoalEnv) -> None:
    def explore() -> np.ndarray:
        env.reset(seed=1, options={"goal": None})
        policy = env.make_policy()
        policy.reset(np.random.default_rng(2))
        actions = []
        for _ in range(20):
            actions.append(policy.act())
            env.step(actions[-1])
        return np.stack(actions)

    actions = explore()
    assert all(env.action_space.contains(action) for action in actions)
    assert np.array_equal(actions, explore())


@pytest.mark.parametrize("profile", ["fast", "pretty"])
def test_same_state_gives_the_same_picture(env: PixelGoalEnv, profile: str) -> None:
    drawn = type(env)(image_size=32, profile=profile)
    first, _ = drawn.reset(seed=0)
    state = drawn.get_sim_state()
    drawn.step(_random_actions(drawn))
    again, _ = drawn.reset(options={"start": state})
    other, _ = type(env)(image_size=32, profile=profile).reset(options={"start": state})
    assert np.array_equal(first["pixels"], again["pixels"])
    assert np.array_equal(first["pixels"], other["pixels"])


def test_restored_state_continues_bit_for_bit(env: PixelGoalEnv) -> None:
    env.reset(seed=0)
    policy = env.make_policy()
    policy.reset(np.random.default_rng(0))
    for _ in range(15):
        env.step(policy.act())
    state = env.get_sim_state()
    actions = _random_actions(env, 10)
    obs_once = [env.step(action)[0]["pixels"] for action in actions]
    end_once = env.get_sim_state()
    for restored in (env, type(env)()):
        restored.reset(seed=9)
        restored.set_sim_state(state)
        assert np.array_equal(restored.get_sim_state(), state)
        obs_again = [restored.step(action)[0]["pixels"] for action in actions]
        assert np.array_equal(restored.get_sim_state()[:-1], end_once[:-1])
        assert np.array_equal(obs_once, obs_again)


def test_simulate_equals_stepping_and_disturbs_nothing(env: PixelGoalEnv) -> None:
    env.reset(seed=2)
    policy = env.make_policy()
    policy.reset(np.random.default_rng(1))
    for _ in range(10):
        env.step(policy.act())
    state = env.get_sim_state()
    candidates = 1.5 * _random_actions(env, 6, 8)  # some are clipped
    imagined = env.simulate(candidates)
    assert np.array_equal(env.get_sim_state(), state)
    assert imagined.shape == (6, 8, len(env.criteria))
    for candidate, distances in zip(candidates, imagined, strict=True):
        env.set_sim_state(state)
        stepped = [list(env.step(action)[-1]["distance"].values()) for action in candidate]
        np.testing.assert_array_equal(stepped, distances)


def test_simulated_observations_are_those_of_stepping(env: PixelGoalEnv) -> None:
    """Of the wanted steps only, bit by bit, and in an episode without goal, too."""
    env.reset(seed=2, options={"goal": None})
    for _ in range(5):
        env.step(env.action_space.sample())
    state = env.get_sim_state()
    candidates = _random_actions(env, 3, 6)
    simulated = env.simulate_obs(candidates, steps=[1, 5])
    assert np.array_equal(env.get_sim_state(), state)
    for row, candidate in enumerate(candidates):
        env.set_sim_state(state)
        stepped = [env.step(action)[0] for action in candidate]
        for name, seen in simulated.items():
            wanted = np.stack([stepped[1][name], stepped[5][name]])
            assert seen.dtype == wanted.dtype
            np.testing.assert_array_equal(seen[row], wanted)


def test_the_distance_between_states_is_that_of_the_criteria(env: PixelGoalEnv) -> None:
    _, info = env.reset(seed=3)
    assert env.distance_between(env.get_sim_state(), env.goal_state) == info["distance"]
    assert set(env.distance_between(env.goal_state, env.goal_state).values()) == {0.0}
    with pytest.raises(ValueError, match="must have shape"):
        env.distance_between(env.goal_state, np.zeros(2))


def test_success_must_be_held(env: PixelGoalEnv) -> None:
    _, info = env.reset(seed=0)
    goal, start = env.goal_state, env.get_sim_state()
    still = np.zeros(env.action_space.shape, np.float32)
    assert not info["is_success"]
    env.reset(options={"start": goal, "goal": goal})
    outcomes = []
    for _ in range(HOLD_STEPS + 1):
        _, reward, terminated, _, info = env.step(still)
        assert reward > -1.0
        assert terminated == info["is_success"]
        outcomes.append(terminated)
    assert outcomes == [False] * (HOLD_STEPS - 1) + [True, True]
    # One step elsewhere and the count begins anew, so passing by does not count.
    env.reset(options={"start": goal, "goal": goal})
    for place in (goal, goal, start, goal, goal):
        held = env.get_sim_state()[-1]
        env.set_sim_state(np.append(place[:-1], held))
        assert not env.step(still)[2]
    assert env.get_sim_state()[-1] == 2


def test_goal_is_visibly_elsewhere_at_every_level(env: PixelGoalEnv) -> None:
    for level in env.levels:
        for seed in range(5):
            obs, info = env.reset(seed=seed, options={"level": level})
            assert np.abs(obs["pixels"].astype(int) - info["goal"]["pixels"]).max() > 50
            over = [info["distance"][name] > limit for name, limit in env.criteria.items()]
            assert any(over)
            assert env.observation_space.contains(info["goal"])


def test_goal_picture_is_what_the_goal_state_looks_like(env: PixelGoalEnv) -> None:
    _, info = env.reset(seed=0)
    goal = env.goal_state
    obs, again = env.reset(options={"start": goal, "goal": goal})
    assert np.array_equal(obs["pixels"], info["goal"]["pixels"])
    assert np.array_equal(obs["proprio"], info["goal"]["proprio"])
    assert np.array_equal(again["goal"]["pixels"], info["goal"]["pixels"])
    assert all(value == 0.0 for value in again["distance"].values())


def test_given_start_and_goal_leave_nothing_to_chance(env: PixelGoalEnv) -> None:
    env.reset(seed=0)
    start, goal = env.get_sim_state(), env.goal_state
    for seed in (1, 2):
        env.reset(seed=seed, options={"start": start, "goal": goal})
        assert np.array_equal(env.get_sim_state(), start)
        assert np.array_equal(env.goal_state, goal)
    env.reset(seed=3, options={"start": start, "level": env.levels[-1]})
    assert np.array_equal(env.get_sim_state(), start)


def test_episode_without_goal(env: PixelGoalEnv) -> None:
    _, info = env.reset(seed=0, options={"goal": None})
    assert info == {"goal": None, "is_success": False, "distance": {}}
    *_, terminated, _, info = env.step(env.action_space.sample())
    assert info["goal"] is None and not terminated
    with pytest.raises(RuntimeError, match="has none"):
        env.simulate(np.zeros((2, 3, 2)))


def test_callers_may_change_what_they_get(env: PixelGoalEnv) -> None:
    obs, info = env.reset(seed=0)
    kept = info["goal"]["pixels"].copy()
    obs["pixels"][:] = 0
    info["goal"]["pixels"][:] = 0
    obs, *_, info = env.step(np.zeros(env.action_space.shape))
    assert np.array_equal(info["goal"]["pixels"], kept)
    assert obs["pixels"].any()


def test_everything_stays_in_view(env: PixelGoalEnv) -> None:
    """Push into every side for long: nothing may touch the picture's edge, nothing may vanish."""
    env.reset(seed=0, options={"goal": None})
    first = env.step(np.zeros(env.action_space.shape))[0]["pixels"]
    edge = np.ones(first.shape[:2], bool)
    edge[FLOOR_TO_BORDER:-FLOOR_TO_BORDER, FLOOR_TO_BORDER:-FLOOR_TO_BORDER] = False
    num_coloured = _count_coloured(first)
    for seed in range(6):
        heading = np.pi / 3 * seed
        for _ in range(25):
            obs, *_ = env.step(np.array([np.cos(heading), np.sin(heading)], np.float32))
        assert np.array_equal(obs["pixels"][edge], first[edge])
        assert _count_coloured(obs["pixels"]) > 0.8 * num_coloured
        assert env.observation_space.contains(obs)


def _count_coloured(pixels: np.ndarray) -> int:
    """Count the saturated pixels, which only robots and blocks have."""
    spread = pixels.max(axis=-1).astype(int) - pixels.min(axis=-1)
    return int((spread > 80).sum())


def test_bad_inputs_are_refused(env: PixelGoalEnv) -> None:
    env.reset(seed=0)
    size = env.get_sim_state().size
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match=r"\(N, T, A\), N > 0, got \(2,\)"):
        env.simulate(np.zeros(2))
    with pytest.raises(ValueError, match=r"\(N, T, A\), N > 0, got \(0, 3, 2\)"):
        env.simulate(np.zeros((0, 3, 2)))
    with pytest.raises(ValueError, match="steps: wanted at least one"):
        env.simulate_obs(np.zeros((1, 3, 2)), steps=[])
    with pytest.raises(ValueError, match=f"\\({size},\\), got \\(3,\\)"):
        env.set_sim_state(np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        env.reset(options={"start": np.full(size, np.nan)})
    with pytest.raises(ValueError, match="mean 'goal'"):
        env.reset(options={"gaol": None})
    with pytest.raises(ValueError, match="mean 'near'"):
        env.reset(options={"level": "neer"})
    with pytest.raises(ValueError, match="profile"):
        type(env)(profile="best")
    for sizes in ({"image_size": 0}, {"image_size": 513}, {"render_size": 1025}):
        (name,) = sizes
        with pytest.raises(ValueError, match=f"{name} must be from 1 to"):
            type(env)(**sizes)
    with pytest.raises(ValueError, match="render_mode"):
        type(env)(render_mode="human")


def test_a_refused_reset_leaves_the_episode_before(env: PixelGoalEnv) -> None:
    env.reset(seed=0)
    state, goal = env.get_sim_state(), env.goal_state
    for options in ({"start": np.zeros(3)}, {"goal": np.zeros(3)}, {"level": "neer"}):
        with pytest.raises(ValueError):
            env.reset(seed=1, options=options)
    np.testing.assert_array_equal(env.get_sim_state(), state)
    np.testing.assert_array_equal(env.goal_state, goal)
