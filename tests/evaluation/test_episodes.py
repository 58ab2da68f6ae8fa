"""Episodes side by side: what the agent sees, what is recorded, what is refused."""

import dataclasses
import itertools
import time
from functools import partial

import numpy as np
import pytest
from gymnasium import spaces

from tests.evaluation.fake_env import PointGoalEnv, Seeker
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.episodes import Episode, EpisodeRunner, action_faults
from vjepa_wm.evaluation.tasks import TUNING_SEED, Task, draw_tasks

POINT = "tests.evaluation.fake_env:fake/PointGoal-v0"


def tasks_of(level: str, count: int) -> list[Task]:
    return draw_tasks(POINT, level, count, first_seed=TUNING_SEED)


def without_time(episodes: list[Episode]) -> list[Episode]:
    return [dataclasses.replace(episode, seconds_per_action=0.0) for episode in episodes]


def test_an_agent_that_reads_pixels_reaches_every_goal() -> None:
    """In as many steps as the way is long, plus those of holding; the registered limit is off."""
    tasks = tasks_of("far", 7)
    runner = EpisodeRunner(POINT, num_envs=7, image_size=8)
    for task, episode in zip(tasks, runner.run(Seeker(), tasks, max_steps=40), strict=True):
        assert episode.is_success
        assert (episode.seed, episode.level, episode.fault) == (task.seed, "far", "")
        way = np.abs(np.subtract(task.goal, task.start)[:2]).max()
        assert way / 0.1 <= episode.steps <= way / 0.1 + 5
        assert episode.best_distance["position_m"] <= episode.final_distance["position_m"] < 0.05


def test_results_depend_on_neither_the_run_nor_the_batch() -> None:
    tasks = tasks_of("far", 5)
    runs = [
        EpisodeRunner(POINT, num_envs=num_envs, image_size=8).run(Seeker(), tasks, max_steps=12)
        for num_envs in (5, 5, 2, 1)
    ]
    assert len({run[0].is_success for run in runs}) == 1
    assert all(without_time(run) == without_time(runs[0]) for run in runs)


def test_the_agent_sees_pixels_and_proprio_only() -> None:
    agent = Seeker()
    EpisodeRunner(POINT, num_envs=3, image_size=16).run(agent, tasks_of("far", 3), max_steps=2)
    for obs in agent.seen:
        assert {name: (part.shape, part.dtype) for name, part in obs.items()} == {
            "pixels": ((3, 16, 16, 3), np.uint8),
            "proprio": ((3, 2), np.float32),
        }


def test_episodes_that_are_over_are_left_alone() -> None:
    """Neither stepped nor asked for; the agent's rows for them are NaN here."""
    agent, runner = Seeker(), EpisodeRunner(POINT, num_envs=6, image_size=8)
    episodes = runner.run(agent, tasks_of("far", 6), max_steps=40)
    assert len({episode.steps for episode in episodes}) > 1
    asked = np.sum(agent.masks, axis=0)
    for env, episode, calls in zip(runner.envs, episodes, asked, strict=True):
        assert env.unwrapped.num_steps == episode.steps == calls


def test_failures_end_at_the_last_step_with_the_best_distance_kept() -> None:
    class Leaver(Seeker):
        def act(self, obs, *, is_active):
            sign = 1 if len(self.masks) < 2 else -1
            return sign * super().act(obs, is_active=is_active)

    task = tasks_of("far", 1)
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    (episode,) = runner.run(Leaver(), task, max_steps=6)
    assert (episode.is_success, episode.steps) == (False, 6)
    start, best = task[0].distance["position_m"], episode.best_distance["position_m"]
    assert best < start
    assert episode.final_distance["position_m"] > best + 0.1


@pytest.mark.parametrize(
    ("spoil", "reason", "rows"),
    [
        (lambda a: np.where([[True], [False]], np.nan, a), "not finite", [0]),
        (lambda a: np.where([[False], [True]], 1.1, a), "out of bounds", [1]),
        (lambda a: np.where([[False], [True]], -np.inf, a), "not finite", [1]),
        (lambda a: a[:, :1], r"wanted numbers (2, 2), got float32 (2, 1)", [0, 1]),
        (lambda a: a[0], r"wanted numbers (2, 2), got float32 (2,)", [0, 1]),
        (lambda a: None, r"wanted numbers (2, 2), got object ()", [0, 1]),
    ],
)
def test_actions_that_cannot_be_used_end_their_episode_only(spoil, reason, rows) -> None:
    class Spoiler(Seeker):
        def act(self, obs, *, is_active):
            actions = super().act(obs, is_active=is_active)
            return spoil(actions) if len(self.masks) == 2 else actions

    runner = EpisodeRunner(POINT, num_envs=2, image_size=8)
    episodes = runner.run(Spoiler(), tasks_of("far", 2), max_steps=40)
    for index, episode in enumerate(episodes):
        if index in rows:
            assert (episode.is_success, episode.steps) == (False, 1)
            assert episode.fault == f"action at step 1: {reason}"
        else:
            assert (episode.is_success, episode.fault) == (True, "")


class Breaking(Seeker):
    """Raises when called for the second time."""

    error: type[BaseException] = ArithmeticError

    def act(self, obs, *, is_active):
        actions = super().act(obs, is_active=is_active)
        if len(self.masks) == 2:
            raise self.error("lost\n its way")
        return actions


def test_an_agent_that_raises_ends_the_episodes_of_that_call_only(caplog) -> None:
    """Every batch breaks in its second step; what is over by then stays, and the run goes on."""
    runner, agent = EpisodeRunner(POINT, num_envs=2, image_size=8), Breaking()
    episodes = runner.run(agent, tasks_of("far", 4), max_steps=40)
    for episode in episodes:
        assert (episode.is_success, episode.steps) == (False, 1)
        assert episode.fault == "agent, step 1: ArithmeticError: lost its way"
    assert "Traceback" in caplog.text
    agent.act = Seeker.act.__get__(agent)
    assert all(done.is_success for done in runner.run(agent, tasks_of("far", 2), max_steps=40))


def test_an_environment_that_raises_ends_its_episode_only(monkeypatch) -> None:
    runner, tasks = EpisodeRunner(POINT, num_envs=3, image_size=8), tasks_of("far", 6)
    inner = runner.envs[1].unwrapped
    whole = EpisodeRunner(POINT, num_envs=3, image_size=8).run(Seeker(), tasks, max_steps=40)
    step = inner.step

    def explode(action):
        if inner.num_steps == 2:
            raise RuntimeError("diverged")
        return step(action)

    monkeypatch.setattr(inner, "step", explode)
    episodes = runner.run(Seeker(), tasks, max_steps=40)
    for index, (found, wanted) in enumerate(
        zip(without_time(episodes), without_time(whole), strict=True)
    ):
        if index in (1, 4):  # the second of each batch
            assert (found.is_success, found.steps) == (False, 2)
            assert found.fault == "environment, step 2: RuntimeError: diverged"
        else:
            assert found == wanted


@pytest.mark.parametrize("distance", [float("nan"), float("inf")])
def test_a_distance_that_is_no_number_ends_its_episode_only(monkeypatch, distance) -> None:
    info = PointGoalEnv._info

    def spoiled(env: PointGoalEnv) -> dict:
        told = info(env)
        return told | ({"distance": {"position_m": distance}} if env.num_steps == 2 else {})

    runner = EpisodeRunner(POINT, num_envs=2, image_size=8)
    monkeypatch.setattr(
        runner.envs[0].unwrapped, "_info", partial(spoiled, runner.envs[0].unwrapped)
    )
    first, second = runner.run(Seeker(), tasks_of("far", 2), max_steps=40)
    assert "wanted finite numbers, got" in first.fault and not first.is_success
    assert np.isfinite(first.final_distance["position_m"])
    assert second.is_success and not second.fault


def test_an_environment_that_hangs_ends_its_episode_only(monkeypatch) -> None:
    runner = EpisodeRunner(POINT, num_envs=2, image_size=8, step_seconds=1.0)
    inner = runner.envs[1].unwrapped
    step, calls = inner.step, itertools.count()

    def hang(action):
        if next(calls) == 2:
            time.sleep(60)
        return step(action)

    monkeypatch.setattr(inner, "step", hang)
    began = time.monotonic()
    first, second, third, fourth = runner.run(Seeker(), tasks_of("far", 4), max_steps=40)
    assert time.monotonic() - began < 30
    assert second.fault == "environment, step 2: TimeoutError: no answer within 1 s"
    assert not second.is_success
    assert all(done.is_success and not done.fault for done in (first, third, fourth))


@pytest.mark.parametrize("first", [True, False])
def test_an_environment_that_cannot_be_reset_ends_its_episode_only(monkeypatch, first) -> None:
    """It hangs for one task and raises for another; what the others do is as without it."""
    tasks = tasks_of("far", 4)
    wanted = EpisodeRunner(POINT, num_envs=2, image_size=8).run(Seeker(), tasks, max_steps=40)
    runner = EpisodeRunner(POINT, num_envs=2, image_size=8, step_seconds=1.0)
    broken = runner.envs[0 if first else 1].unwrapped
    calls = itertools.count()

    def reset(**_):
        if next(calls) == 0:
            time.sleep(60)
        raise OSError("no device")

    monkeypatch.setattr(broken, "reset", reset)
    began = time.monotonic()
    found = runner.run(Seeker(), tasks, max_steps=40)
    assert time.monotonic() - began < 30
    lost, kept = (found[::2], found[1::2]) if first else (found[1::2], found[::2])
    assert [episode.fault for episode in lost] == [
        "environment, reset: TimeoutError: no answer within 1 s",
        "environment, reset: OSError: no device",
    ]
    for episode in lost:
        assert (episode.is_success, episode.steps, episode.spl) == (False, 0, 0.0)
        assert episode.final_distance == episode.start_distance
    others = wanted[1::2] if first else wanted[::2]
    assert without_time(kept) == without_time(others)


def test_an_environment_that_ends_early_is_told_from_a_failure(monkeypatch) -> None:
    """A time limit of its own, say; the last step that was asked for is no early end."""
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    inner = runner.envs[0].unwrapped
    step = inner.step

    def cut(action):
        obs, reward, terminated, _, info = step(action)
        return obs, reward, terminated, inner.num_steps == 3, info

    monkeypatch.setattr(inner, "step", cut)
    (episode,) = runner.run(Seeker(), tasks_of("far", 1), max_steps=40)
    assert (episode.is_success, episode.steps) == (False, 3)
    assert episode.fault == "environment ended the episode at step 3 of 40"
    (episode,) = runner.run(Seeker(), tasks_of("far", 1), max_steps=3)
    assert (episode.steps, episode.fault) == (3, "")


@pytest.mark.parametrize(
    ("info", "got"),
    [
        ({"time": 0.0}, "info with time and goal None"),
        ({"goal": None, "distance": {}}, "info with distance, goal and goal None"),
        ({"goal": {"state": 1}, "distance": {}}, "info with distance, goal and goal state"),
    ],
)
def test_an_environment_without_goal_says_what_is_missing(monkeypatch, info, got) -> None:
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    inner = runner.envs[0].unwrapped
    reset = inner.reset
    monkeypatch.setattr(inner, "reset", lambda **given: (reset(**given)[0], info))
    with pytest.raises(DataError, match=rf"gives no goal: wanted info\['goal'\].*, got {got}"):
        runner.run(Seeker(), tasks_of("far", 1), max_steps=5)


@pytest.mark.parametrize(
    ("obs", "got"),
    [(np.zeros((8, 8, 3), np.uint8), "ndarray"), ({"state": np.zeros(2)}, "one of state")],
)
def test_observations_without_pixels_say_what_makes_them(monkeypatch, obs, got) -> None:
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    inner = runner.envs[0].unwrapped
    reset = inner.reset
    monkeypatch.setattr(inner, "reset", lambda **given: (obs, reset(**given)[1]))
    with pytest.raises(DataError, match=rf"dict with 'pixels', got {got}; .*AddRenderObservation"):
        runner.run(Seeker(), tasks_of("far", 1), max_steps=5)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_wants_to_stop_is_not_held_up(error) -> None:
    agent = Breaking()
    agent.error = error
    with pytest.raises(error):
        EpisodeRunner(POINT, num_envs=2, image_size=8).run(agent, tasks_of("far", 2), max_steps=9)


def point_task(goal: float) -> Task:
    """A start at the middle and a goal to its right."""
    return Task("far", 1, (0.0, 0.0, 0.0), (goal, 0.0, 0.0), {"position_m": goal})


class Scripted:
    """Moves along x by the given steps, whatever it sees."""

    def __init__(self, *moves: float) -> None:
        self.moves = list(moves)

    def reset(self, *, goal) -> None:
        pass

    def act(self, obs, *, is_active):
        return np.full((len(is_active), 2), [self.moves.pop(0), 0.0], np.float32)


@pytest.mark.parametrize(
    ("moves", "outcome"),
    [
        # There and held for three steps: straight.
        ([1, 1, 1, 0, 0], (True, True, 0.3, 1.0)),
        # A detour of twice the way back: 0.3 m of 0.5 m.
        ([-1, 1, 1, 1, 1, 0, 0], (True, True, 0.5, 0.6)),
        # Within the threshold, but past it: touched, no success.
        ([1, 1, 1, 1, 1], (False, True, 0.5, 0.0)),
        # At a standstill.
        ([0, 0], (False, False, 0.0, 0.0)),
    ],
)
def test_touching_is_not_holding_and_detours_are_measured(moves, outcome) -> None:
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    (episode,) = runner.run(Scripted(*moves), [point_task(0.3)], max_steps=len(moves))
    assert (episode.is_success, episode.is_touched) == outcome[:2]
    assert (episode.path_length, episode.spl) == pytest.approx(outcome[2:])


def test_without_distances_between_states_there_is_no_path(monkeypatch) -> None:
    monkeypatch.delattr(PointGoalEnv, "distance_between")
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    (episode,) = runner.run(Scripted(1, 1, 1, 0, 0), [point_task(0.3)], max_steps=5)
    assert (episode.is_success, episode.path_length, episode.spl) == (True, None, None)


def test_bounds_rounded_to_float32_are_inside() -> None:
    space = spaces.Box(-0.1, 0.1, (1,), np.float32)
    assert action_faults(np.array([[0.1], [-0.1], [0.1001]]), 3, space) == ["", "", "out of bounds"]


def test_the_agents_time_is_shared_among_those_it_acted_for() -> None:
    class Slow(Seeker):
        def act(self, obs, *, is_active):
            time.sleep(0.004)
            return super().act(obs, is_active=is_active)

    agent, runner = Slow(), EpisodeRunner(POINT, num_envs=4, image_size=8)
    began = time.perf_counter()
    episodes = runner.run(agent, tasks_of("far", 4), max_steps=40)
    total = sum(episode.seconds_per_action * episode.steps for episode in episodes)
    assert 0.004 * len(agent.masks) <= total <= time.perf_counter() - began


def test_tasks_of_another_environment_are_refused() -> None:
    runner = EpisodeRunner(POINT, num_envs=1, image_size=8)
    task = tasks_of("far", 1)[0]
    moved = dataclasses.replace(task, distance={"position_m": task.distance["position_m"] + 0.01})
    with pytest.raises(DataError, match="has changed or is another"):
        runner.run(Seeker(), [moved], max_steps=1)
    longer = dataclasses.replace(task, start=(*task.start, 0.0))
    with pytest.raises(DataError, match=r"do not fit the environment fake/PointGoal-v0"):
        runner.run(Seeker(), [longer], max_steps=1)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="batch: wanted at least 1"):
        EpisodeRunner(POINT, num_envs=0, image_size=8)
    with pytest.raises(DataError, match="max_steps"):
        EpisodeRunner(POINT, num_envs=1, image_size=8).run(Seeker(), [], max_steps=0)
