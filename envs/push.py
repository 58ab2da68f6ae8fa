"""Push and PushT: a disc must push a block to where the picture shows it."""

from collections.abc import Mapping
from typing import ClassVar

import mujoco
import numpy as np

from envs.alterations import Alteration, alterations_of
from envs.base import FloatArray
from envs.impossible import TwinEnv
from envs.policies import Policy, SeekContact

_PUSHER_LIMIT = 0.26  # metres, largest sampled |coordinate| of the pusher
_BLOCK_LIMIT = 0.14  # metres, largest sampled |coordinate| of the block; its joints end at 0.155
_CLEARANCE = 0.135  # metres between centres: 8.5 cm to a corner, 3 cm of pusher, 2 cm of air
_FAR_DISPLACEMENT = 0.15  # metres, of the block
_DRIFT = 0.04  # metres in a frame, of a block that nothing moves


class PushEnv(TwinEnv):
    """Disc of 6 cm that pushes a box of 12 cm on a walled table of 0.6 m.

    Action: the pusher's velocity along x and y (2,), 1 is 0.6 m/s. Proprio (2,): the pusher's x, y
    in metres. qpos: pusher x, y, block x, y in metres, block angle in rad. The block stops within a
    step of the pushing, and its centre stays within 0.155 m of the middle, so that the pusher can
    get behind it everywhere.
    Success: the block's centre less than 0.04 m from the goal's, for 3 steps; angle and pusher
    do not count.
    Levels: `near`, what up to 25 steps of exploration reach, the block at least 0.06 m away;
    `far`, an independent state, the block at least 0.15 m away.
    """

    scene: ClassVar[str] = "push"
    criteria: ClassVar[dict[str, float]] = {"block_position_m": 0.04}
    max_speed: ClassVar[float] = 0.6
    proprio_dim: ClassVar[int] = 2
    proprio_limit: ClassVar[float] = 0.3
    alterations: ClassVar[Mapping[str, Alteration]] = alterations_of(
        "block",
        colours=((0.05, 0.70, 0.25, 1.0), (0.90, 0.15, 0.15, 1.0)),
        shapes=(("cylinder", (0.035, 0.02)),) * 2,
    )
    noticeable: ClassVar[float] = 0.03
    object_radius: ClassVar[float] = 0.087  # corners of box and T

    def distances(self, qpos: FloatArray, goal_qpos: FloatArray) -> FloatArray:
        """Measure the block's distance to the goal in metres: (...,5) -> (...,1)."""
        return np.linalg.norm(qpos[..., 2:4] - goal_qpos[2:4], axis=-1, keepdims=True)

    def _proprio(self, qpos: FloatArray) -> FloatArray:
        return qpos[:2]

    def _sample_qpos(self, rng: np.random.Generator) -> FloatArray:
        block = rng.uniform(-_BLOCK_LIMIT, _BLOCK_LIMIT, 2)
        pusher = block
        while np.linalg.norm(pusher - block) < _CLEARANCE:
            pusher = rng.uniform(-_PUSHER_LIMIT, _PUSHER_LIMIT, 2)
        return np.concatenate([pusher, block, rng.uniform(-np.pi, np.pi, 1)])

    def _accepts_goal(self, level: str, qpos: FloatArray, goal_qpos: FloatArray) -> bool:
        moved = np.linalg.norm(goal_qpos[2:4] - qpos[2:4])
        return bool(moved >= (_FAR_DISPLACEMENT if level == "far" else 0.06))

    def _points(self, qpos: FloatArray) -> FloatArray:
        return np.stack([qpos[:2], qpos[2:4]])

    def _object_points(self, qpos: FloatArray) -> FloatArray:
        return qpos[None, 2:4]

    def _put_object(self, qpos: FloatArray, drawn: FloatArray) -> FloatArray | None:
        qpos[2:4] = drawn[2:4]
        return qpos if self._is_untouched(qpos) else None

    def _drift(self, rng: np.random.Generator) -> FloatArray:
        heading = rng.uniform(-np.pi, np.pi)
        return _DRIFT * np.array([0.0, 0.0, np.cos(heading), np.sin(heading), 0.0])

    def _is_untouched(self, qpos: FloatArray) -> bool:
        return bool(np.linalg.norm(qpos[:2] - qpos[2:4]) >= _CLEARANCE)

    def _policy(self, data: mujoco.MjData, *, frame_skip: int) -> Policy:
        return SeekContact(
            lambda: data.qpos,
            step_length=0.1 * self.max_speed * frame_skip,
            clearance=_CLEARANCE,
            limit=_PUSHER_LIMIT,
        )


class PushTEnv(PushEnv):
    """The same with a T, whose angle counts as well.

    The T is a bar of 12 x 4 cm and a stem of 4 x 9 cm; its position is its centre of mass.
    Success: the centre of mass less than 0.03 m and the angle less than 0.35 rad from the
    goal's, for 3 steps.
    Levels: `near`, what up to 25 steps of exploration reach, the block at least 0.05 m or 0.4 rad
    away; `far`, an independent state, the block at least 0.15 m away.
    """

    scene: ClassVar[str] = "push_t"
    criteria: ClassVar[dict[str, float]] = {"block_position_m": 0.03, "block_angle_rad": 0.35}

    def distances(self, qpos: FloatArray, goal_qpos: FloatArray) -> FloatArray:
        """Measure the block's distance in metres and radians: (...,5) -> (...,2)."""
        turned = qpos[..., 4:5] - goal_qpos[4]
        angle = np.abs((turned + np.pi) % (2 * np.pi) - np.pi)
        return np.concatenate([super().distances(qpos, goal_qpos), angle], axis=-1)

    def _accepts_goal(self, level: str, qpos: FloatArray, goal_qpos: FloatArray) -> bool:
        moved, turned = self.distances(goal_qpos, qpos)
        if level == "far":
            return bool(moved >= _FAR_DISPLACEMENT)
        return bool(moved >= 0.05 or turned >= 0.4)
