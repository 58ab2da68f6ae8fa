"""Tasks: the same for ever, apart from all training data, not solved at the start."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from planners import CEM
from tests.evaluation.fake_env import Seeker
from vjepa_wm.data.recorder import Recorder
from vjepa_wm.errors import DataError, UnknownNameError
from vjepa_wm.evaluation.agents import SimulatorAgent
from vjepa_wm.evaluation.episodes import EpisodeRunner
from vjepa_wm.evaluation.tasks import (
    FROZEN_SEED,
    MIN_START_SHARE,
    TUNING_SEED,
    draw_tasks,
    load_task_set,
    make_task_set,
)

POINT = "tests.evaluation.fake_env:fake/PointGoal-v0"
SHIPPED = {
    "reacher": ("envs:vjepa_wm/Reacher-v0", ("near", "far")),
    "two_rooms": ("envs:vjepa_wm/TwoRooms-v0", ("near", "far", "door", "unseen")),
    "push": ("envs:vjepa_wm/Push-v0", ("near", "far")),
    "push_t": ("envs:vjepa_wm/PushT-v0", ("near", "far")),
}


def test_more_tasks_begin_with_the_same_ones() -> None:
    few = draw_tasks(POINT, "near", 3, first_seed=FROZEN_SEED)
    assert draw_tasks(POINT, "near", 6, first_seed=FROZEN_SEED)[:3] == few
    assert len({task.start for task in few}) == 3


def test_frozen_tuning_and_collection_share_no_seed() -> None:
    frozen, tuning = (
        {
            task.seed
            for level in ("near", "far")
            for task in draw_tasks(POINT, level, 20, first_seed=first)
        }
        for first in (FROZEN_SEED, TUNING_SEED)
    )
    assert len(frozen) == len(tuning) == 40
    recorder = Recorder(POINT, image_size=8)
    for entropy in ([0, 0, 0], [2**40, 3, 7]):
        recorder.episode(np.random.SeedSequence(entropy), steps=1)
    collected = set(recorder.env.unwrapped.seeds)
    assert max(collected) < FROZEN_SEED <= min(frozen)
    assert max(frozen) < TUNING_SEED <= min(tuning)


def test_nearly_solved_starts_are_left_out() -> None:
    """Of the environment's own near goals many are, so that seeds are skipped."""
    tasks = draw_tasks(POINT, "near", 30, first_seed=FROZEN_SEED)
    assert all(task.distance["position_m"] > MIN_START_SHARE * 0.05 for task in tasks)
    assert tasks[-1].seed - FROZEN_SEED >= 30


def test_a_file_gives_back_exactly_what_was_drawn(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    made = make_task_set(path, POINT, tasks_per_level=4, command="again")
    loaded = load_task_set(path)
    assert loaded == made
    assert loaded.select("far", 2) == draw_tasks(POINT, "far", 2, first_seed=FROZEN_SEED)
    make_task_set(tmp_path / "again.json", POINT, tasks_per_level=4, command="again")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_edited_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    make_task_set(path, POINT, tasks_per_level=2, command="again")
    text = path.read_text()
    content = json.loads(text)
    content["tasks"][1]["goal"][0] += 1e-12
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="was changed .*make_tasks"):
        load_task_set(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="not valid JSON"):
        load_task_set(path)
    path.write_text('{"tasks": []}')
    with pytest.raises(DataError, match="no task set of format 1"):
        load_task_set(path)


def test_reformatting_a_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    made = make_task_set(path, POINT, tasks_per_level=2, command="again")
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert load_task_set(path) == made


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'push'"):
        load_task_set("puhs")
    with pytest.raises(UnknownNameError, match="door"):
        load_task_set("two_rooms").select("dor", 1)
    with pytest.raises(UnknownNameError, match="Known: far, near"):
        draw_tasks(POINT, "door", 1, first_seed=FROZEN_SEED)
    for count in (0, 101):
        with pytest.raises(DataError, match="between 1 and 100"):
            load_task_set("push").select("near", count)


def test_what_tasks_need_may_be_a_wrappers(tmp_path: Path) -> None:
    """Criteria, levels and states; distances may be numpy's own numbers."""
    path, env_id = tmp_path / "own.json", "tests.evaluation.fake_env:fake/Measured-v0"
    drawn = make_task_set(path, env_id, tasks_per_level=3, command="")
    assert load_task_set(str(path)) == drawn
    runner = EpisodeRunner(env_id, num_envs=2, image_size=8)
    episodes = runner.run(Seeker(), drawn.select("far", 3), max_steps=40)
    assert all(episode.is_success for episode in episodes)
    with pytest.raises(DataError, match=r"has no simulate, .* agent=\[random,mpc\]"):
        SimulatorAgent(runner.envs, CEM(horizon=2), replan_every=1)


def test_environments_without_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no get_sim_state"):
        draw_tasks("tests.evaluation.fake_env:fake/Lame-v0", "near", 1, first_seed=FROZEN_SEED)
    with pytest.raises(DataError, match="too close"):
        draw_tasks("tests.evaluation.fake_env:fake/Stuck-v0", "near", 1, first_seed=FROZEN_SEED)
    with pytest.raises(DataError, match="tasks_per_level"):
        make_task_set(tmp_path / "none.json", POINT, tasks_per_level=0, command="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tasks_are_those_the_environments_give(name: str) -> None:
    """100 of each level, and the first ones can be drawn again."""
    env_id, levels = SHIPPED[name]
    task_set = load_task_set(name)
    assert task_set.env_id == env_id
    assert len(task_set.tasks) == 100 * len(levels)
    criteria = gymnasium.make(env_id).unwrapped.criteria
    first, threshold = next(iter(criteria.items()))
    for level in levels:
        tasks = task_set.select(level, 100)
        assert all(task.distance[first] > MIN_START_SHARE * threshold for task in tasks)
        for task, drawn in zip(
            tasks, draw_tasks(env_id, level, 2, first_seed=FROZEN_SEED), strict=False
        ):
            assert (drawn.seed, drawn.level) == (task.seed, task.level)
            # Other processors round otherwise, so not to the last bit.
            np.testing.assert_allclose(drawn.start, task.start, atol=1e-6)
            np.testing.assert_allclose(drawn.goal, task.goal, atol=1e-6)
