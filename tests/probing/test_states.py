"""Clips of true environments: the state of their last frame, apart by episode."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from tests import tiny
from vjepa_wm.data.recorder import Recorder
from vjepa_wm.data.trajectories import Trajectories, TrajectoryWriter
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.probes import TARGETS
from vjepa_wm.probing.states import VELOCITIES, StateClips, draw_clips, motion_targets

OPTIONS = {"clips": 50, "num_frames": 3, "fps": None, "validation_share": 0.2, "test_share": 0.2}


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory: pytest.TempPathFactory) -> Trajectories:
    folder = tmp_path_factory.mktemp("states") / "data"
    recorder = Recorder("envs:vjepa_wm/TwoRooms-v0", image_size=32, frame_skip=2)
    with TrajectoryWriter(folder, recorder.meta(episodes=12, steps=12, seed=0)) as writer:
        for episode in range(12):
            writer.add(recorder.episode(np.random.SeedSequence(episode), steps=12))
    recorder.close()
    return Trajectories.open(folder)


def test_splits_are_apart_by_episode(trajectories: Trajectories) -> None:
    clips, labels, splits = draw_clips(trajectories, seed=0, **OPTIONS)
    assert [len(rows) for rows in splits] == [30, 10, 10]
    episodes = [set(labels.episodes[rows].tolist()) for rows in splits]
    assert not (episodes[0] & episodes[1] or episodes[0] & episodes[2] or episodes[1] & episodes[2])
    assert episodes[2] <= set(trajectories.split()[1].tolist())
    assert len({tuple(row) for row in clips.frames.tolist()}) == len(clips) == 50


def test_the_state_is_that_of_the_last_frame(trajectories: Trajectories) -> None:
    clips, labels, _ = draw_clips(trajectories, seed=0, **OPTIONS)
    row = 7
    last = int(clips.frames[row, -1])
    episode = int(labels.episodes[row])
    start = int(trajectories.lengths[:episode].sum())
    own = trajectories.episode(episode)
    np.testing.assert_array_equal(labels.sim_state[row], own.sim_state[last - start])
    pixels, faults = clips.read(np.array([row]))
    assert not faults
    np.testing.assert_array_equal(pixels[0], own.pixels[last - start - 2 : last - start + 1])


def test_the_seed_decides_the_draw(trajectories: Trajectories) -> None:
    first, again, other = (draw_clips(trajectories, seed=s, **OPTIONS)[0] for s in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    assert StateClips(trajectories, first.frames + 1).digest != first.digest


def test_time_steps_are_physical(trajectories: Trajectories) -> None:
    rate = trajectories.meta.fps
    clips, _, _ = draw_clips(trajectories, seed=0, **{**OPTIONS, "fps": rate / 2})
    assert (np.diff(clips.frames, axis=1) == 2).all()
    for fps in (2 * rate, rate / 1.5, 0, -1):
        with pytest.raises(DataError, match="fps: the trajectories have 5 frames per second"):
            draw_clips(trajectories, seed=0, **{**OPTIONS, "fps": fps})


@pytest.mark.parametrize("name", TARGETS)
def test_velocities_are_where_the_simulator_has_them(name: str) -> None:
    """The columns of qvel; its name ends in a unit of velocity."""
    env = gymnasium.make(f"envs:{name}").unwrapped
    env.reset(seed=0)
    model = env._model
    columns = [c for target in VELOCITIES[name] for c in target.columns]
    moving = range(1 + model.nq, 1 + model.nq + model.nv)
    assert set(columns) <= set(moving)
    assert all(target.name.endswith("_s") for target in VELOCITIES[name])
    targets = motion_targets(f"envs:{name}")
    values = targets.values(env.get_sim_state()[None])
    assert values.shape[0] == 1 and set(TARGETS[name].all) < set(targets.all)
    env.close()


def test_velocities_are_what_positions_do(trajectories: Trajectories) -> None:
    """Between two recorded frames the robot goes about as far as its velocities say."""
    state = trajectories.episode(0).sim_state
    (velocity,) = VELOCITIES["vjepa_wm/TwoRooms-v0"]
    robot = TARGETS["vjepa_wm/TwoRooms-v0"].all[0]
    moved = np.diff(robot.state(state), axis=0) * trajectories.meta.fps
    assert np.corrcoef(moved.ravel(), velocity.state(state)[1:].ravel())[0, 1] > 0.8


def test_what_cannot_be_probed_is_refused(trajectories: Trajectories, tmp_path: Path) -> None:
    squares = tiny.moving_squares(tmp_path / "squares", episodes=4, length=9, size=16)
    with pytest.raises(DataError, match="the state of 'squares' is not known"):
        draw_clips(squares, seed=0, **OPTIONS)
    with pytest.raises(DataError, match="raise clips="):
        draw_clips(trajectories, seed=0, **{**OPTIONS, "clips": 4})
    with pytest.raises(DataError, match="no window of 40 frames"):
        draw_clips(trajectories, seed=0, **{**OPTIONS, "num_frames": 40})
