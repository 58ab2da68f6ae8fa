"""What truly is in each frame of a clip, measured in the simulation: the ground truth.

Shapes: T frames, K objects of this clip.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from envs.play.looks import FloatArray
from envs.play.simulation import Motion, object_bodies
from envs.play.stage import FIRST_OBJECT_GROUP, Scene
from envs.play.views import View, visible_share

_BODY_FRAME = int(mujoco.mjtObj.mjOBJ_XBODY)


@dataclass(frozen=True)
class Truth:
    """Everything measured of a clip; object 0 is the main one.

    Attributes:
        scene: What was built.
        motion: What came of it.
        views: What the camera saw, one per frame.
        positions: Metres (T,K,3).
        quaternions: (T,K,4).
        velocities: m/s (T,K,3).
        turning: rad/s about the axes of the world (T,K,3).
        places: In the picture, widths right and up from its middle (T,K,2).
        flows: Widths/s there, as if the camera stood still (T,K,2).
        depths: Metres before the camera (T,K).
        visible: Share of the outline in the picture with nothing before it (T,K).
    """

    scene: Scene
    motion: Motion
    views: tuple[View, ...]
    positions: FloatArray
    quaternions: FloatArray
    velocities: FloatArray
    turning: FloatArray
    places: FloatArray
    flows: FloatArray
    depths: FloatArray
    visible: FloatArray


def observe(model: mujoco.MjModel, scene: Scene, motion: Motion) -> Truth:
    """Measure every frame.

    Args:
        model: The compiled scene.
        scene: What was compiled.
        motion: Its states.
    """
    data = mujoco.MjData(model)
    bodies = object_bodies(model, len(scene.radii))
    views = tuple(view_at(scene, time_s) for time_s in motion.times)
    frames = []
    for frame, view in enumerate(views):
        place_state(model, data, motion, frame)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        positions = data.xpos[bodies].copy()
        turning, velocities = _velocities(model, data, bodies)
        frames.append(
            {
                "positions": positions,
                "quaternions": data.xquat[bodies].copy(),
                "velocities": velocities,
                "turning": turning,
                "places": view.place(positions),
                "flows": view.motion(positions, velocities),
                "depths": view.seen(positions)[:, 2],
                "visible": _visible(model, data, scene, view, positions),
            }
        )
    measured = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    return Truth(scene=scene, motion=motion, views=views, **measured)


def view_at(scene: Scene, time_s: float) -> View:
    """Return what the scene's camera sees at a time."""
    position, axes = scene.camera.pose(time_s)
    return View(position, axes, scene.camera.fovy)


def place_state(model: mujoco.MjModel, data: mujoco.MjData, motion: Motion, frame: int) -> None:
    """Put data into the state of a frame, bodies and geoms where they are then."""
    data.qpos[:] = motion.qpos[frame]
    data.qvel[:] = motion.qvel[frame]
    mujoco.mj_kinematics(model, data)


def _velocities(
    model: mujoco.MjModel, data: mujoco.MjData, bodies: list[int]
) -> tuple[FloatArray, FloatArray]:
    """Return turning (K,3) and velocities (K,3) of bodies along the world's axes."""
    both = np.empty((len(bodies), 6))
    for row, body in zip(both, bodies, strict=True):
        mujoco.mj_objectVelocity(model, data, _BODY_FRAME, body, row, 0)
    return both[:, :3].copy(), both[:, 3:].copy()


def _visible(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    scene: Scene,
    view: View,
    positions: FloatArray,
) -> FloatArray:
    return np.array(
        [
            visible_share(
                model,
                data,
                view,
                centre=centre,
                radius=radius,
                group=FIRST_OBJECT_GROUP + index,
            )
            for index, (centre, radius) in enumerate(zip(positions, scene.radii, strict=True))
        ]
    )
