"""Runs episodes side by side, with one call of the agent per step for all of them.

What raises ends the episodes it was about, with its reason, as does an environment that hangs or
ends early; others go on.

Shapes: E episodes of a batch, H W image, Q proprio width, A action width.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from tqdm import tqdm

from vjepa_wm.data.recorder import Told, make_env
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.patience import time_limit
from vjepa_wm.evaluation.reels import Reel
from vjepa_wm.evaluation.tasks import Task
from vjepa_wm.progress import Progress, no_progress

_log = logging.getLogger(__name__)

_ACTION_TOLERANCE = 1e-6  # rounding of bounds to float32
_DISTANCE_TOLERANCE = 1e-6  # physical units; a task's start is restored exactly


class Agent(Protocol):
    """What is evaluated: it sees observations and goal images, nothing else."""

    def reset(self, *, goal: NDArray[np.uint8]) -> None:
        """Begin a batch of episodes with goal images (E,H,W,3)."""

    def act(
        self, obs: Mapping[str, NDArray], *, is_active: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Choose actions (E,A) for `pixels` uint8 (E,H,W,3) and `proprio` float32 (E,Q).

        Rows where `is_active` (E,) is false are over: what is returned there is not looked at.
        """


@dataclass(frozen=True)
class Episode:
    """What came of one episode.

    Attributes:
        level: Level of difficulty.
        seed: Seed of the task, which names it.
        is_success: Whether the environment said so at the end; for ours, a goal that is held.
        is_touched: Whether every criterion was within its threshold after some step.
        steps: Environment steps taken.
        final_distance: Criterion name -> distance to the goal at the end, in physical units.
        best_distance: Criterion name -> smallest distance at any time, the start included.
        path_length: What the first criterion measures, summed from step to step, in physical units;
            None where the environment does not tell how far apart two of its states are.
        spl: Success weighted by path length, in [0, 1] (Anderson et al., arXiv 1807.06757): 0
            without success, else the start's straight distance to the goal over the larger of that
            and the path length, of the first criterion. None like `path_length`.
        seconds_per_action: Wall-clock time of the agent, shared among the episodes it acted for.
        fault: Why the episode was stopped, "" if it was not.
        start_distance: Criterion name -> distance to the goal at the start, in physical units.
    """

    level: str
    seed: int
    is_success: bool
    is_touched: bool
    steps: int
    final_distance: dict[str, float]
    best_distance: dict[str, float]
    path_length: float | None
    spl: float | None
    seconds_per_action: float
    fault: str
    start_distance: dict[str, float]


class EpisodeRunner:
    """Environments of one kind, in one process, stepped together.

    Args:
        env_id: Gymnasium id, ``module:id`` to import a module that registers it.
        num_envs: Episodes that run side by side.
        image_size: Height and width of the pixels.
        step_seconds: How long a reset or a step of an environment may take before its episode ends
            as a failure; None is forever.

    Raises:
        UnknownNameError: If there is no such environment.
        DataError: If `num_envs` is below 1, or `step_seconds` not above 0.
    """

    def __init__(
        self,
        env_id: str,
        *,
        num_envs: int,
        image_size: int,
        step_seconds: float | None = None,
    ) -> None:
        if num_envs < 1:
            raise DataError(f"batch: wanted at least 1 episode at a time, got {num_envs}")
        if step_seconds is not None and step_seconds <= 0:
            raise DataError(f"step_seconds: wanted above 0 or null, got {step_seconds}")
        self.step_seconds = step_seconds
        self.envs = [make_env(env_id, image_size=image_size) for _ in range(num_envs)]

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def run(
        self,
        agent: Agent,
        tasks: Sequence[Task],
        *,
        max_steps: int,
        desc: str = "evaluate",
        progress: Progress = no_progress,
        reel: Reel | None = None,
    ) -> list[Episode]:
        """Run an agent on tasks, as many at a time as there are environments.

        Args:
            agent: What is evaluated.
            tasks: One episode each.
            max_steps: Environment steps after which an episode ends.
            desc: What the progress bar says.
            progress: Makes the progress bar.
            reel: Films the episodes; None takes no pictures.

        Returns:
            One result per task, in their order.

        Raises:
            DataError: If `max_steps` is below 1, or the tasks are not of these environments.
        """
        if max_steps < 1:
            raise DataError(f"max_steps: wanted at least 1, got {max_steps}")
        episodes: list[Episode] = []
        with progress(total=len(tasks) * max_steps, desc=desc, unit="steps") as bar:
            for first in range(0, len(tasks), len(self.envs)):
                batch = tasks[first : first + len(self.envs)]
                rows = [
                    _Row(env, task, reel, step_seconds=self.step_seconds)
                    for env, task in zip(self.envs, batch, strict=False)
                ]
                _run_batch(agent, rows, max_steps=max_steps, bar=bar)
                for place, row in enumerate(rows if reel is not None else ()):
                    seed, is_success = row.task.seed, row.is_success
                    reel.keep(row.film, place=place, seed=seed, is_success=is_success)
                episodes += [row.result() for row in rows]
        return episodes


def _run_batch(agent: Agent, rows: list["_Row"], *, max_steps: int, bar: tqdm) -> None:
    """Run the episodes of one batch to their ends."""
    agent.reset(goal=np.stack([row.goal for row in rows]))
    space = rows[0].env.action_space
    bar.update(max_steps * sum(not row.is_active for row in rows))  # that never began
    for step in range(max_steps):
        is_active = np.array([row.is_active for row in rows])
        if not is_active.any():
            break
        names = rows[0].obs.keys()
        obs = {name: np.stack([row.obs[name] for row in rows]) for name in names}
        began = time.perf_counter()
        try:
            actions = agent.act(obs, is_active=is_active.copy())
        except Exception as error:
            # One call for all: which of them it was about, only the agent knows.
            faults = [_told(error, f"agent, step {step}")] * len(rows)
        else:
            faults = [
                f"action at step {step}: {fault}" if fault else ""
                for fault in action_faults(actions, len(rows), space)
            ]
        seconds = (time.perf_counter() - began) / is_active.sum()
        for index in np.flatnonzero(is_active):
            row = rows[index]
            row.agent_seconds += seconds
            if faults[index]:
                row.stop(faults[index])
            else:
                row.step(actions[index])
                row.stop_if_cut(max_steps)
            # An episode that is over has no more steps to wait for.
            bar.update(1 if row.is_active else max_steps - step)


def _told(error: Exception, where: str) -> str:
    """Log an error with its traceback and return it in one line."""
    _log.warning("%s raised; the episodes it was about end here", where, exc_info=error)
    return f"{where}: {type(error).__name__}: {' '.join(str(error).split())}"


def action_faults(actions: object, count: int, space: spaces.Box) -> list[str]:
    """Say for each episode why its action cannot be used; "" where it can.

    Args:
        actions: What an agent returned.
        count: Number of episodes E.
        space: The environment's action space.
    """
    actions = np.asarray(actions)
    wanted = (count, *space.shape)
    if actions.shape != wanted or actions.dtype.kind not in "fiu":
        return [f"wanted numbers {wanted}, got {actions.dtype} {actions.shape}"] * count
    low, high = space.low - _ACTION_TOLERANCE, space.high + _ACTION_TOLERANCE
    is_finite = np.isfinite(actions).all(axis=1)
    is_inside = ((actions >= low) & (actions <= high)).all(axis=1)
    return [
        "" if inside else ("out of bounds" if finite else "not finite")
        for finite, inside in zip(is_finite, is_inside, strict=True)
    ]


class _Row:
    """One episode while it runs."""

    def __init__(
        self, env: gymnasium.Env, task: Task, reel: Reel | None, *, step_seconds: float | None
    ) -> None:
        """Restore the task's start; an environment that raises or hangs there ends the episode.

        A ValueError says that the task is of another environment, and ends the run.
        """
        self.step_seconds = step_seconds
        self.env = env
        self.task = task
        self.distance: dict[str, float] = dict(task.distance)
        self.is_active = True
        self.is_success = False
        self.is_touched = False
        self.steps = 0
        self.agent_seconds = 0.0
        self.fault = ""
        self.path = _Path(Told(env), task)
        try:
            with time_limit(step_seconds):
                self._begin()
        except DataError:
            raise
        except Exception as error:
            self.stop(_told(error, "environment, reset"))
            self.obs = _black(env)
            self.goal = self.obs["pixels"]
        self.best = dict(self.distance)
        self.start_distance = dict(self.distance)
        self.film = None if reel is None else reel.film(self.goal, self.obs["pixels"])

    def _begin(self) -> None:
        task, env_id = self.task, self.env.spec.id
        options = {"start": np.array(task.start), "goal": np.array(task.goal)}
        try:
            self.obs, info = self.env.reset(seed=task.seed, options=options)
        except ValueError as error:
            raise DataError(f"the tasks do not fit the environment {env_id}: {error}") from error
        _check_goal(info, env_id=env_id)
        _check_pixels(self.obs, env_id=env_id)
        _check_same(info["distance"], task, env_id=env_id)
        self.goal: NDArray[np.uint8] = info["goal"]["pixels"]
        self.distance = _finite(info["distance"])
        self.path.begin()

    def step(self, action: NDArray) -> None:
        """Take one step; an environment that raises or hangs ends the episode."""
        try:
            with time_limit(self.step_seconds):
                self._step(action)
        except Exception as error:
            self.stop(_told(error, f"environment, step {self.steps}"))

    def _step(self, action: NDArray) -> None:
        obs, _, terminated, truncated, info = self.env.step(action)
        distance, is_success = _finite(info["distance"]), bool(info["is_success"])
        self.path.follow()
        self.obs, self.distance, self.is_success = obs, distance, is_success
        self.best = {name: min(best, distance[name]) for name, best in self.best.items()}
        criteria = self.env.get_wrapper_attr("criteria")
        is_within = all(distance[name] < limit for name, limit in criteria.items())
        self.is_touched = self.is_touched or is_within or is_success
        self.is_active = not (terminated or truncated)
        self.steps += 1
        if self.film is not None:
            self.film.add(obs["pixels"])

    def stop_if_cut(self, max_steps: int) -> None:
        """Mark an episode that the environment has ended unsolved before its time."""
        if not (self.is_active or self.is_success or self.fault) and self.steps < max_steps:
            self.stop(f"environment ended the episode at step {self.steps} of {max_steps}")

    def stop(self, fault: str) -> None:
        """End the episode before its time; it is no success."""
        self.fault = fault
        self.is_active = self.is_success = False

    def result(self) -> Episode:
        """Return what came of the episode."""
        return Episode(
            level=self.task.level,
            seed=self.task.seed,
            is_success=self.is_success,
            is_touched=self.is_touched,
            steps=self.steps,
            final_distance=dict(self.distance),
            best_distance=self.best,
            path_length=self.path.length,
            spl=self.path.spl(self.is_success),
            seconds_per_action=self.agent_seconds / max(self.steps, 1),
            fault=self.fault,
            start_distance=self.start_distance,
        )


def _finite(distance: Mapping[str, float]) -> dict[str, float]:
    """Take distances as numbers.

    Raises:
        RuntimeError: One is NaN or infinite.
    """
    numbers = {name: float(value) for name, value in distance.items()}
    if not all(map(math.isfinite, numbers.values())):
        raise RuntimeError(f"info['distance']: wanted finite numbers, got {numbers}")
    return numbers


def _black(env: gymnasium.Env) -> dict[str, NDArray]:
    """Observe nothing, in the shapes of an environment."""
    return {
        name: np.zeros(space.shape, space.dtype) for name, space in env.observation_space.items()
    }


class _Path:
    """How far the first criterion has moved, where the environment can tell."""

    def __init__(self, env: Told, task: Task) -> None:
        """Know the task; nothing is followed yet."""
        self._env: Any = env
        self._criterion = next(iter(self._env.criteria))
        self._straight = task.distance[self._criterion]
        self._can_tell = hasattr(env, "distance_between")
        self._length = 0.0

    def begin(self) -> None:
        """Begin at the present state."""
        self._state = self._env.get_sim_state()

    @property
    def length(self) -> float | None:
        """The path so far, in physical units."""
        return self._length if self._can_tell else None

    def follow(self) -> None:
        """Add the way to the present state."""
        if self._can_tell:
            state = self._env.get_sim_state()
            self._length += self._env.distance_between(self._state, state)[self._criterion]
            self._state = state

    def spl(self, is_success: bool) -> float | None:
        """Success weighted by path length."""
        if not self._can_tell:
            return None
        return is_success * self._straight / max(self._straight, self._length)


def _check_goal(info: Mapping[str, Any], *, env_id: str) -> None:
    """Refuse an environment that has no goal image, or does not measure the distance to it."""
    goal = info.get("goal")  # None in an episode without one
    if goal is None or "pixels" not in goal or "distance" not in info:
        raise DataError(
            f"environment {env_id} gives no goal: wanted info['goal']['pixels'] and "
            f"info['distance'] after reset, got info with {', '.join(sorted(info)) or 'nothing'}"
            f" and goal {'None' if goal is None else ', '.join(sorted(goal))}"
        )


def _check_pixels(obs: object, *, env_id: str) -> None:
    """Refuse observations in which an agent would look for its pixels in vain."""
    if not isinstance(obs, Mapping) or "pixels" not in obs:
        got = f"one of {', '.join(obs)}" if isinstance(obs, Mapping) else type(obs).__name__
        raise DataError(
            f"environment {env_id}: wanted observations that are a dict with 'pixels', got {got}; "
            "gymnasium.wrappers.AddRenderObservation(env, render_only=False, render_key='pixels') "
            "makes such"
        )


def _check_same(distance: Mapping[str, float], task: Task, *, env_id: str) -> None:
    """Refuse a start that is not as far from the goal as when the task was made."""
    is_same = distance.keys() == task.distance.keys() and all(
        abs(distance[name] - value) <= _DISTANCE_TOLERANCE for name, value in task.distance.items()
    )
    if not is_same:
        raise DataError(
            f"the tasks do not fit the environment {env_id}, which has changed or is another: "
            f"task {task.seed} starts at {distance}, wanted {task.distance}; make the tasks again "
            "with python -m vjepa_wm.make_tasks"
        )
