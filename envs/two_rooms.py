"""TwoRooms: a disc must get to where the picture shows it, through a door when need be."""

from collections.abc import Mapping
from typing import ClassVar

import mujoco
import numpy as np

from envs.alterations import Alteration, alterations_of
from envs.base import FloatArray
from envs.impossible import ELSEWHERE, TwinEnv
from envs.policies import Policy, SeekWaypoints

DOOR_WIDTH = 0.12  # metres
_DOOR_LIMIT = 0.18  # metres, largest |y| of the door's middle
_UNSEEN_DOORS = (0.20, 0.235)  # metres, |y| of doors in places where no other level has one
_REACH = 0.27  # metres, largest sampled |coordinate| of the robot
_WALL_CLEARANCE = 0.045  # metres, smallest sampled |x|: the robot clear of the wall
_WALL_HALF_LENGTH = 0.30  # metres, as in the scene
_MIN_DISPLACEMENT = 0.20  # metres
_MAX_DOOR_PATH = 0.60  # metres; 20 steps at full speed
_DRIFT = 0.04  # metres in a frame, of a robot that something else moves


class TwoRoomsEnv(TwinEnv):
    """Disc of 5 cm in a square of 0.6 m, cut in two by a wall with a 12 cm door.

    Action: velocity along x and y (2,), 1 is 0.3 m/s. Proprio (2,): x, y in metres. qpos: x, y. The
    height of the door varies between episodes and is part of the sim_state (mocap poses).
    Success: the robot's centre less than 0.04 m from the goal's, for 3 steps.
    Levels: `near`, in the same room and at least 0.20 m away, what up to 25 steps of exploration
    reach; `door`, in the other room, at most 0.60 m by way of the door; `far`, an independent
    state at least 0.20 m away; `unseen`, as `door`, in a layout that no other level and no
    collection has: the door is 0.20 to 0.235 m from the middle of the wall instead of at most 0.18.
    """

    scene: ClassVar[str] = "two_rooms"
    criteria: ClassVar[dict[str, float]] = {"robot_position_m": 0.04}
    levels: ClassVar[tuple[str, ...]] = ("near", "far", "door", "unseen")
    max_speed: ClassVar[float] = 0.3
    proprio_dim: ClassVar[int] = 2
    proprio_limit: ClassVar[float] = 0.3
    alterations: ClassVar[Mapping[str, Alteration]] = alterations_of(
        "robot",
        colours=((0.10, 0.35, 0.90, 1.0),),
        shapes=(("box", (0.022, 0.022, 0.025)),),
    )
    missing_events: ClassVar[Mapping[str, str]] = {
        **ELSEWHERE,
        "stays": "nothing is pushed here",
    }
    noticeable: ClassVar[float] = 0.02
    object_radius: ClassVar[float] = 0.025

    def distances(self, qpos: FloatArray, goal_qpos: FloatArray) -> FloatArray:
        """Measure the robot's distance to the goal in metres: (...,2) -> (...,1)."""
        return np.linalg.norm(qpos - goal_qpos, axis=-1, keepdims=True)

    def _proprio(self, qpos: FloatArray) -> FloatArray:
        return qpos

    def _sample_qpos(self, rng: np.random.Generator) -> FloatArray:
        x = rng.uniform(_WALL_CLEARANCE, _REACH) * rng.choice([-1.0, 1.0])
        return np.array([x, rng.uniform(-_REACH, _REACH)])

    def _sample_scene(
        self, rng: np.random.Generator, data: mujoco.MjData, *, level: str | None
    ) -> None:
        if level == "unseen":
            door_y = rng.uniform(*_UNSEEN_DOORS) * rng.choice([-1.0, 1.0])
        else:
            door_y = rng.uniform(-_DOOR_LIMIT, _DOOR_LIMIT)
        middle = DOOR_WIDTH / 2 + _WALL_HALF_LENGTH
        data.mocap_pos[:, 1] = door_y - middle, door_y + middle

    def _accepts_goal(self, level: str, qpos: FloatArray, goal_qpos: FloatArray) -> bool:
        is_same_room = qpos[0] * goal_qpos[0] > 0
        if level in ("door", "unseen"):
            door = np.array([0.0, _door_y(self._data)])
            path = np.linalg.norm(qpos - door) + np.linalg.norm(goal_qpos - door)
            return bool(not is_same_room and path <= _MAX_DOOR_PATH)
        is_away = np.linalg.norm(goal_qpos - qpos) >= _MIN_DISPLACEMENT
        return bool(is_away and (is_same_room or level == "far"))

    def _points(self, qpos: FloatArray) -> FloatArray:
        return qpos[None]

    def _object_points(self, qpos: FloatArray) -> FloatArray:
        return qpos[None]

    def _put_object(self, qpos: FloatArray, drawn: FloatArray) -> FloatArray | None:
        del qpos  # the robot is all there is
        return drawn

    def _drift(self, rng: np.random.Generator) -> FloatArray:
        heading = rng.uniform(-np.pi, np.pi)
        return _DRIFT * np.array([np.cos(heading), np.sin(heading)])

    def _policy(self, data: mujoco.MjData, *, frame_skip: int) -> Policy:
        def propose(rng: np.random.Generator, qpos: FloatArray) -> list[FloatArray]:
            target = self._sample_qpos(rng)
            if target[0] * qpos[0] > 0:
                return [target]
            side = np.sign(qpos[0]) * _WALL_CLEARANCE
            door_y = _door_y(data)
            return [np.array([side, door_y]), np.array([-side, door_y]), target]

        return SeekWaypoints(
            lambda: data.qpos,
            propose,
            step_length=0.1 * self.max_speed * frame_skip,
            share=0.6,
        )


def _door_y(data: mujoco.MjData) -> float:
    """Read the height of the door's middle in metres: half way between the two wall halves."""
    return float(data.mocap_pos[:, 1].mean())
