"""Reacher: a planar two-joint arm that must take the pose in a picture."""

from collections.abc import Mapping
from typing import ClassVar

import mujoco
import numpy as np

from envs.alterations import Alteration, alterations_of
from envs.base import FloatArray
from envs.impossible import ELSEWHERE, TwinEnv
from envs.policies import Policy, SmoothRandom

LINK_LENGTHS = (0.20, 0.19)  # metres
_MIN_DISPLACEMENT = 0.12  # metres, of the fingertip
_DRIFT = 0.4  # rad in a frame, of joints that something else moves


class ReacherEnv(TwinEnv):
    """Planar arm with links of 0.20 m and 0.19 m and unlimited joints.

    Action: joint velocities (2,), 1 is 3 rad/s. Proprio (4,): cosines of shoulder and elbow
    angle, then their sines. qpos: shoulder, elbow in rad.
    Success: elbow and fingertip both less than 0.05 m from where the goal's are, for 3 steps.
    Levels: `near`, what up to 25 steps of exploration reach; `far`, an independent pose; both with
    the fingertip at least 0.12 m away.
    """

    scene: ClassVar[str] = "reacher"
    criteria: ClassVar[dict[str, float]] = {"arm_position_m": 0.05}
    max_speed: ClassVar[float] = 3.0
    proprio_dim: ClassVar[int] = 4
    proprio_limit: ClassVar[float] = 1.0
    alterations: ClassVar[Mapping[str, Alteration]] = alterations_of(
        "fore",
        colours=((0.95, 0.45, 0.05, 1.0), (0.90, 0.15, 0.15, 1.0)),
        shapes=(("capsule", (0.045, 0.095)), ("sphere", (0.05,))),
    )
    missing_events: ClassVar[Mapping[str, str]] = {
        **ELSEWHERE,
        "passes_through": "its links touch nothing anyway",
        "stays": "nothing is pushed here",
    }
    noticeable: ClassVar[float] = 0.05
    object_radius: ClassVar[float] = 0.03

    def distances(self, qpos: FloatArray, goal_qpos: FloatArray) -> FloatArray:
        """Take the larger of elbow's and fingertip's distance in metres: (...,2) -> (...,1)."""
        gaps = np.linalg.norm(_joint_positions(qpos) - _joint_positions(goal_qpos), axis=-1)
        return gaps.max(axis=-1, keepdims=True)

    def _proprio(self, qpos: FloatArray) -> FloatArray:
        return np.concatenate([np.cos(qpos), np.sin(qpos)])

    def _sample_qpos(self, rng: np.random.Generator) -> FloatArray:
        return rng.uniform(-np.pi, np.pi, 2)

    def _accepts_goal(self, level: str, qpos: FloatArray, goal_qpos: FloatArray) -> bool:
        tips = _joint_positions(np.stack([qpos, goal_qpos]))[:, 1]
        return bool(np.linalg.norm(tips[1] - tips[0]) >= _MIN_DISPLACEMENT)

    def _points(self, qpos: FloatArray) -> FloatArray:
        return _joint_positions(qpos)

    def _object_points(self, qpos: FloatArray) -> FloatArray:
        return _joint_positions(qpos)

    def _put_object(self, qpos: FloatArray, drawn: FloatArray) -> FloatArray | None:
        del qpos  # the arm is all there is
        return drawn

    def _drift(self, rng: np.random.Generator) -> FloatArray:
        return rng.choice([-_DRIFT, _DRIFT], 2)

    def _policy(self, data: mujoco.MjData, *, frame_skip: int) -> Policy:
        del data, frame_skip  # it looks at nothing and goes nowhere in particular
        return SmoothRandom(self._model.nu)


def _joint_positions(qpos: FloatArray) -> FloatArray:
    """Place elbow and fingertip in metres: (...,2) angles -> (...,2 points,2)."""
    shoulder, total = qpos[..., 0], qpos[..., 0] + qpos[..., 1]
    elbow = LINK_LENGTHS[0] * np.stack([np.cos(shoulder), np.sin(shoulder)], axis=-1)
    tip = elbow + LINK_LENGTHS[1] * np.stack([np.cos(total), np.sin(total)], axis=-1)
    return np.stack([elbow, tip], axis=-2)
