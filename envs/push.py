"""Push and PushT: a disc must push a block to where the picture shows it."""

from typing import ClassVar

import mujoco
import numpy as np

from envs.base import FloatArray, PixelGoalEnv
from envs.policies import Policy, SeekContact

_PUSHER_LIMIT = 0.26  # metres, largest sampled |coordinate| of the pusher
_BLOCK_LIMIT = 0.14  # metres, largest sampled |coordinate| of the block; its joints end at 0.155
_CLEARANCE = 0.135  # metres between centres: 8.5 cm to a corner, 3 cm of pusher, 2 cm of air
_FAR_DISPLACEMENT = 0.15  # metres, of the block


class PushEnv(PixelGoalEnv):
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
