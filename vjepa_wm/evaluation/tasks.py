"""Tasks: a start and a goal each; a frozen list per environment, and others to tune on.

Nothing may be tuned on the tasks that are reported. Collection seeds environments with 32-bit
numbers; the seeds of frozen tasks begin at 2**32 and those of tuning tasks at 2**33, so that no two
of the three can coincide, whatever the seed of a collection.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium

from vjepa_wm.data.recorder import Told, make_env
from vjepa_wm.errors import DataError, UnknownNameError
from vjepa_wm.files import digest, read_json, write_text
from vjepa_wm.progress import Progress, no_progress

FORMAT_VERSION = 1
FROZEN_SEED = 2**32
TUNING_SEED = 2**33
SEEDS_PER_LEVEL = 2**20
MIN_START_SHARE = 1.5  # start distance of the first criterion, in units of its threshold
_MAX_REJECTED = 1000  # in a row, before an environment is given up
_MAX_PER_LEVEL = SEEDS_PER_LEVEL // _MAX_REJECTED  # levels never share a seed
_IMAGE_SIZE = 8  # pixels; nobody looks at the pictures here
_NEEDED = ("get_sim_state", "goal_state", "criteria", "levels")
_RECORDED_VERSIONS = ("gymnasium", "mujoco", "numpy")


@dataclass(frozen=True)
class Task:
    """An episode to be: where it starts and where it is to end.

    Attributes:
        level: Level of difficulty the goal was drawn for.
        seed: What start and goal were drawn from; seeds the episode, too.
        start: Simulator state (S,).
        goal: Simulator state (S,).
        distance: Criterion name -> distance of the start to the goal, in physical units.
    """

    level: str
    seed: int
    start: tuple[float, ...]
    goal: tuple[float, ...]
    distance: dict[str, float]


@dataclass(frozen=True)
class TaskSet:
    """A list of tasks of one environment.

    Attributes:
        env_id: Gymnasium id the tasks were drawn from.
        digest: Of the file's contents; "" for tasks drawn on the fly.
        tasks: Of all levels.
    """

    env_id: str
    digest: str
    tasks: tuple[Task, ...]

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels there are tasks of."""
        return tuple(dict.fromkeys(task.level for task in self.tasks))

    def select(self, level: str, count: int) -> list[Task]:
        """Return the first tasks of a level.

        Raises:
            UnknownNameError: If there are no tasks of that level.
            DataError: If there are fewer than wanted, or fewer than one is wanted.
        """
        found = [task for task in self.tasks if task.level == level]
        if not found:
            raise UnknownNameError(f"level of {self.env_id}", level, {t.level for t in self.tasks})
        if not 1 <= count <= len(found):
            raise DataError(
                f"episodes: wanted between 1 and {len(found)}, the {level!r} tasks there are, "
                f"got {count}; tasks=tuning draws as many as you like"
            )
        return found[:count]


def draw_tasks(
    env_id: str,
    level: str,
    count: int,
    *,
    first_seed: int,
    progress: Progress = no_progress,
) -> list[Task]:
    """Draw tasks of one level, leaving out those that are nearly solved at the start.

    Args:
        env_id: Gymnasium id, ``module:id`` to import a module that registers it.
        level: One of the environment's levels.
        count: Number of tasks; more of them begin with the same ones.
        first_seed: `FROZEN_SEED` or `TUNING_SEED`.
        progress: Makes the progress bar.

    Raises:
        UnknownNameError: If there is no such environment or level.
        DataError: If the environment cannot tell its state, or gives no tasks of the level.
    """
    with (
        closing(make_env(env_id, image_size=_IMAGE_SIZE)) as env,
        progress(total=count, desc=f"draw {level} tasks", unit="tasks") as bar,
    ):
        levels = _levels(env, env_id)
        if level not in levels:
            raise UnknownNameError(f"level of {env_id}", level, levels)
        candidates = _candidates(env, level, first_seed + levels.index(level) * SEEDS_PER_LEVEL)
        tasks: list[Task] = []
        while len(tasks) < count:
            tasks.append(next(candidates))
            bar.update(1)
    return tasks


def _levels(env: gymnasium.Env, env_id: str) -> tuple[str, ...]:
    """Return an environment's levels, refusing one that is not made for tasks."""
    env.reset()  # some know their goal from then on
    missing = [name for name in _NEEDED if not env.has_wrapper_attr(name)]
    if missing:
        raise DataError(
            f"{env_id} has no {', '.join(missing)}: tasks need an environment that tells its "
            "simulator state, like those of the package envs"
        )
    return tuple(env.get_wrapper_attr("levels"))


def _candidates(env: gymnasium.Env, level: str, seed: int) -> Iterator[Task]:
    """Yield tasks of ever higher seeds that are not nearly solved at the start."""
    inner: Any = Told(env)
    criterion, threshold = next(iter(inner.criteria.items()))
    rejected = 0
    while rejected < _MAX_REJECTED:
        _, info = env.reset(seed=seed, options={"level": level})
        if info["distance"][criterion] > MIN_START_SHARE * threshold:
            start, goal = inner.get_sim_state().tolist(), inner.goal_state.tolist()
            distance = {name: float(value) for name, value in info["distance"].items()}
            yield Task(level, seed, tuple(start), tuple(goal), distance)
            rejected = 0
        else:
            rejected += 1
        seed += 1
    raise DataError(
        f"{level!r} goals: {rejected} in a row had {criterion} below {MIN_START_SHARE} x "
        f"{threshold} at the start; the environment draws them too close"
    )


def make_task_set(
    path: str | Path,
    env_id: str,
    *,
    tasks_per_level: int,
    command: str,
    progress: Progress = no_progress,
) -> TaskSet:
    """Draw the frozen tasks of all levels of an environment and write them to a file.

    The same arguments write the same file, with the same versions of MuJoCo and numpy.

    Args:
        path: The file, ``.json``.
        env_id: Gymnasium id, ``module:id`` to import a module that registers it.
        tasks_per_level: Number of tasks of each level.
        command: What makes this file again, noted in it.
        progress: Makes the progress bars.

    Raises:
        UnknownNameError: If there is no such environment.
        DataError: If it gives no tasks, or fewer than one is wanted.
    """
    if not 1 <= tasks_per_level <= _MAX_PER_LEVEL:
        raise DataError(f"tasks_per_level: wanted 1 to {_MAX_PER_LEVEL}, got {tasks_per_level}")
    with closing(make_env(env_id, image_size=_IMAGE_SIZE)) as env:
        levels = _levels(env, env_id)
    tasks = [
        task
        for level in levels
        for task in draw_tasks(
            env_id, level, tasks_per_level, first_seed=FROZEN_SEED, progress=progress
        )
    ]
    content = {
        "format_version": FORMAT_VERSION,
        "env_id": env_id,
        "command": command,
        "first_seed": FROZEN_SEED,
        "versions": {name: metadata.version(name) for name in _RECORDED_VERSIONS},
        "tasks": [asdict(task) for task in tasks],
    }
    content_digest = _digest(content)
    write_text(path, _text({"digest": content_digest, **content}))
    return TaskSet(env_id, content_digest, tuple(tasks))


def load_task_set(name_or_path: str | Path) -> TaskSet:
    """Load frozen tasks.

    Args:
        name_or_path: Short name of an environment, whose tasks are shipped with the package, or
            a ``.json`` file.

    Raises:
        UnknownNameError: If no tasks of this name are shipped.
        DataError: If the file is missing, damaged, edited or of another format.
    """
    path = Path(name_or_path)
    if path.suffix != ".json":
        path = _shipped(str(name_or_path))
    content = read_json(path)
    advice = f"restore it, or make it again with python -m vjepa_wm.make_tasks out={path}"
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path} is no task set of format {FORMAT_VERSION}: {advice}")
    noted = content.pop("digest", None)
    found = _digest(content)
    if noted != found:
        raise DataError(
            f"{path} was changed after it was made: wanted digest {noted}, got {found}: {advice}"
        )
    return TaskSet(content["env_id"], found, tuple(_task(entry) for entry in content["tasks"]))


def has_frozen_tasks(name: str, env_id: str) -> bool:
    """Say whether tasks of this environment are shipped, under this name."""
    try:
        return load_task_set(name).env_id == env_id
    except UnknownNameError:
        return False


def _shipped(name: str) -> Path:
    """Return the file of an environment's shipped tasks."""
    folder = Path(__file__).parent / "task_sets"
    known = {path.stem for path in folder.glob("*.json")}
    if name not in known:
        raise UnknownNameError("set of frozen tasks", name, known)
    return folder / f"{name}.json"


def _task(entry: Mapping[str, Any]) -> Task:
    """Rebuild a task from JSON, which has lists for tuples."""
    return Task(**{**entry, "start": tuple(entry["start"]), "goal": tuple(entry["goal"])})


def _digest(content: Mapping[str, Any]) -> str:
    """Return the digest of a task set's contents, whatever their order and white space."""
    return digest(json.dumps(content, sort_keys=True, allow_nan=False).encode())


def _text(content: Mapping[str, Any]) -> str:
    """Write a task set as JSON with one task per line."""
    head = {name: value for name, value in content.items() if name != "tasks"}
    tasks = ",\n".join(f"    {json.dumps(task)}" for task in content["tasks"])
    return f'{json.dumps(head, indent=2)[:-2]},\n  "tasks": [\n{tasks}\n  ]\n}}\n'
