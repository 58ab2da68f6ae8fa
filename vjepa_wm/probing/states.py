"""Clips of trajectories whose last frame's simulator state is to be told.

Shapes: N clips, B of them, T frames, H W image, S sim_state.
"""

import json

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.truth import Truth
from vjepa_wm.data.windows import WindowIndex
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.probes import TARGETS, Target, Targets, targets_of
from vjepa_wm.files import digest
from vjepa_wm.probing.labels import StateLabels
from vjepa_wm.probing.splits import Splits

MIN_SPLIT = 2  # clips; fewer have no spread to explain

_PUSH = (
    Target("pusher_velocity_m_s", (6, 7)),
    Target("block_velocity_m_s", (8, 9)),
    Target("block_turning_rad_s", (10,)),
)
# Where qvel is in a sim_state: after the time and qpos.
VELOCITIES: dict[str, tuple[Target, ...]] = {
    "vjepa_wm/Push-v0": _PUSH,
    "vjepa_wm/PushT-v0": _PUSH,
    "vjepa_wm/Reacher-v0": (
        Target("shoulder_velocity_rad_s", (3,)),
        Target("elbow_velocity_rad_s", (4,)),
    ),
    "vjepa_wm/TwoRooms-v0": (Target("robot_velocity_m_s", (3, 4)),),
}


def motion_targets(env_id: str) -> Targets | None:
    """Return positions and velocities of an environment, ``module:id`` or ``id``, if known."""
    known = targets_of(env_id)
    if known is None:
        return None
    return Targets((*known.all, *VELOCITIES[env_id.rpartition(":")[2]]), known.passive)


class StateClips:
    """Clips of trajectories.

    Args:
        trajectories: What they are from.
        frames: Global frame indices of each clip (N, T).

    Attributes:
        digest: Names their contents.
    """

    def __init__(self, trajectories: Trajectories, frames: NDArray[np.int64]) -> None:
        self.trajectories = trajectories
        self.frames = frames
        self.digest = digest(json.dumps(trajectories.digest).encode() + frames.tobytes())

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.frames)

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """Read clips (B, T, H, W, 3); all can be read."""
        return self.trajectories.pixels.gather(self.frames[rows]), {}


def draw_clips(
    trajectories: Trajectories,
    *,
    clips: int,
    num_frames: int,
    fps: float | None,
    validation_share: float,
    test_share: float,
    seed: int,
) -> tuple[StateClips, StateLabels, Splits]:
    """Draw clips for training, validation and test, from episodes of their own.

    Test clips are of the episodes that pretraining and training hold out, too.

    Args:
        trajectories: Of a known environment, with sim_state.
        clips: How many in all; fewer where there are fewer.
        num_frames: Frames of a clip, T.
        fps: Frames per second of a clip; None takes every recorded one.
        validation_share: Share of the clips to choose heads by.
        test_share: Share of the clips to score them on.
        seed: Of the draw.

    Raises:
        DataError: The state is not known, the rate does not divide the recorded one, or there are
            too few episodes or clips.
    """
    targets = _targets(trajectories)
    stride = stride_of(trajectories.meta.fps, fps)
    rng = np.random.default_rng(seed)
    others, test = trajectories.split()
    others = rng.permutation(others)
    held = max(1, round(len(others) * validation_share / (1 - test_share)))
    shares = (1 - validation_share - test_share, validation_share, test_share)
    parts = [
        _draw(trajectories, np.sort(episodes), round(clips * share), num_frames, stride, rng)
        for episodes, share in zip((others[held:], others[:held], test), shares, strict=True)
    ]
    ends = np.cumsum([len(part) for part in parts])
    splits = Splits(*np.split(np.arange(ends[-1]), ends[:-1]))
    frames = np.concatenate(parts)
    last = frames[:, -1:]
    episodes = np.searchsorted(np.cumsum(trajectories.lengths), last[:, 0], side="right")
    labels = StateLabels(targets, trajectories.sim_state.gather(last)[:, 0], episodes)
    return StateClips(trajectories, frames), labels, splits


def _targets(trajectories: Trajectories) -> Targets:
    targets = motion_targets(trajectories.meta.env_id)
    truth = Truth.read(trajectories.folder)
    if targets is None and truth is not None:
        return Targets(tuple(Target(name, tuple(own)) for name, own in truth.targets.items()))
    if targets is None:
        known = ", ".join(sorted(TARGETS))
        raise DataError(
            f"{trajectories.folder}: what to tell of the state of '{trajectories.meta.env_id}' is "
            f"not known; known: {known}. Videos with classes are probed with videos=FOLDER"
        )
    if not trajectories.meta.sim_state_dim:
        raise DataError(f"{trajectories.folder} has no sim_state: collect it again")
    return targets


def stride_of(recorded: float, fps: float | None) -> int:
    """Return the recorded frames from one frame of a clip to the next.

    Args:
        recorded: Frames per second of the trajectories.
        fps: Wanted; None takes every recorded frame.

    Raises:
        DataError: The rate wanted does not divide the recorded one.
    """
    stride = 1.0 if fps is None else recorded / fps if fps > 0 else 0.0
    if stride < 1 or abs(stride - round(stride)) > 1e-3:
        raise DataError(
            f"fps: the trajectories have {recorded:g} frames per second, wanted that or a whole "
            f"part of it, got {fps:g}"
        )
    return round(stride)


def _draw(
    trajectories: Trajectories,
    episodes: NDArray[np.int64],
    count: int,
    num_frames: int,
    stride: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw clips of some episodes, each at most once: frame indices (N, T)."""
    index = WindowIndex(
        trajectories.lengths, num_frames=num_frames, stride=stride, episodes=episodes
    )
    if min(count, len(index)) < MIN_SPLIT:
        raise DataError(
            f"{count} clips wanted of {len(episodes)} episodes, which have {len(index)}: training, "
            f"validation and test want at least {MIN_SPLIT} each; raise clips=, or collect more"
        )
    return index.frames(rng.choice(len(index), min(count, len(index)), replace=False))
