"""The camera of a clip: where it stands, where it sees things, and how much of them it sees.

Shapes: T frames, N points. Picture coordinates: right and up from the middle, in picture widths.
"""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.play.looks import FloatArray

NUM_GROUPS = 6  # of geoms in MuJoCo, which rays can be told apart by
_RAYS_ACROSS = 9  # rays over the diameter of an object
_MIN_DEPTH_M = 0.05  # what is nearer to the lens, or behind it, is shown at its edge
_BESIDE = 1.0  # picture widths, the farthest place told of what is not in the picture


@dataclass(frozen=True)
class Camera:
    """A camera that looks at a point, and may go round it and nearer during the clip.

    Attributes:
        centre: The point, metres (3,).
        width: Of what the picture shows at that point, metres.
        azimuth: Direction it looks in at first, rad from y towards -x.
        elevation: How far above the point's height it stands, rad.
        fovy: Height of the picture, rad; pictures are square.
        turning: Change of azimuth, rad/s.
        approach: Share of the distance by which it comes nearer per second.
    """

    centre: tuple[float, float, float]
    width: float
    azimuth: float
    elevation: float
    fovy: float
    turning: float = 0.0
    approach: float = 0.0

    @property
    def is_moving(self) -> bool:
        """Whether it moves."""
        return self.turning != 0 or self.approach != 0

    def pose(self, time_s: float) -> tuple[FloatArray, FloatArray]:
        """Return position (3,) and axes (3,3), columns right, up, backwards, at a time."""
        azimuth = self.azimuth + self.turning * time_s
        level = np.cos(self.elevation)
        forward = np.array(
            [-np.sin(azimuth) * level, np.cos(azimuth) * level, -np.sin(self.elevation)]
        )
        right = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        distance = self.width / (2 * np.tan(self.fovy / 2)) * (1 - self.approach * time_s)
        axes = np.stack([right, np.cross(right, forward), -forward], axis=1)
        return np.array(self.centre) - distance * forward, axes


@dataclass(frozen=True)
class View:
    """What the camera sees at one moment.

    Attributes:
        position: Of the camera, metres (3,).
        axes: Right, up and backwards (3,3) as columns.
        fovy: Height of the picture, rad.
    """

    position: FloatArray
    axes: FloatArray
    fovy: float

    @property
    def quaternion(self) -> FloatArray:
        """The axes as a quaternion (4,)."""
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, self.axes.ravel())
        return quat

    def seen(self, points: FloatArray) -> FloatArray:
        """Turn points (N,3) into right, up and depth (N,3), metres."""
        seen = (points - self.position) @ self.axes
        return seen * (1.0, 1.0, -1.0)

    def place(self, points: FloatArray) -> FloatArray:
        """Where points (N,3) are in the picture (N,2), in picture widths from its middle."""
        seen = self.seen(points)
        depth = np.maximum(seen[:, 2:], _MIN_DEPTH_M)
        return np.clip(seen[:, :2] / (2 * np.tan(self.fovy / 2) * depth), -_BESIDE, _BESIDE)

    def motion(self, points: FloatArray, velocities: FloatArray) -> FloatArray:
        """How points (N,3) at velocities (N,3) move in the picture (N,2), widths/s."""
        step = 1e-3
        moved = self.place(points + 0.5 * step * velocities)
        return (moved - self.place(points - 0.5 * step * velocities)) / step


def is_inside(places: FloatArray) -> NDArray[np.bool_]:
    """Tell which places (...,2) are in the picture (...,)."""
    return (np.abs(places) <= 0.5).all(axis=-1)


def visible_share(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    view: View,
    *,
    centre: FloatArray,
    radius: float,
    group: int,
) -> float:
    """Measure which share of an object's outline is in the picture with nothing before it.

    Rays go from the camera through a grid over the object, first past everything else: those that
    hit the object are its outline. Of these, the ones count that stay in the picture and hit the
    object first when everything is there.

    Args:
        model: The scene.
        data: Its state, positions up to date (`mj_kinematics`).
        view: The camera.
        centre: Of the object, metres (3,).
        radius: Of a ball around it, metres.
        group: The geom group that is the object's alone.

    Returns:
        A share of 0 to 1; 0 for what is behind the camera.
    """
    if view.seen(centre[None])[0, 2] < _MIN_DEPTH_M + radius:
        return 0.0
    across = np.linspace(-radius, radius, _RAYS_ACROSS)
    offsets = np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2)
    targets = centre + offsets @ view.axes[:, :2].T
    rays = targets - view.position
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    only = np.zeros(NUM_GROUPS, np.uint8)
    only[group] = 1
    outline = cast(model, data, view.position, rays, only) >= 0
    if not outline.any():
        return 0.0
    first = cast(model, data, view.position, rays[outline], None)
    is_first = model.geom_group[np.maximum(first, 0)] == group
    in_picture = is_inside(view.place(targets[outline]))
    return float(np.mean(is_first & (first >= 0) & in_picture))


def cast(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    start: FloatArray,
    rays: FloatArray,
    groups: NDArray[np.uint8] | None,
) -> NDArray[np.int32]:
    """Find the first geom (N,) on each unit ray (N,3), -1 for none.

    Args:
        model: The scene.
        data: Its state.
        start: Where all rays begin (3,).
        rays: Their directions.
        groups: 1 for each geom group that stops rays (6,); None for all.
    """
    hits = np.full(len(rays), -1, np.int32)
    mujoco.mj_multiRay(
        m=model,
        d=data,
        pnt=np.ascontiguousarray(start),
        vec=np.ascontiguousarray(rays).ravel(),
        geomgroup=groups,
        flg_static=1,
        bodyexclude=-1,
        geomid=hits,
        dist=np.empty(len(rays)),
        normal=None,
        nray=len(rays),
        cutoff=mujoco.mjMAXVAL,
    )
    return hits
