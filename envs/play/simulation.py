"""Runs a scene: its states frame by frame, what the main object touches, and whether it is sane.

Shapes: T frames, K objects, L physical steps, A actuators.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.play.looks import FloatArray
from envs.play.stage import Scene

MAX_SPEED = 40.0  # m/s or rad/s; no scene has a reason to be faster
MAX_DEPTH_M = 0.08  # of one thing in another
SCENERY = -1  # owner of geoms that are no object


class UnstableError(Exception):
    """A scene whose physics cannot be trusted."""


@dataclass(frozen=True)
class Motion:
    """A scene's states.

    Attributes:
        times: Of the frames, seconds (T,).
        qpos: Generalised positions (T,nq).
        qvel: Generalised velocities (T,nv).
        touches_object: Whether the main object touched another since the frame before (T,).
        touches_scenery: The same of floor, wall and props (T,).
    """

    times: FloatArray
    qpos: FloatArray
    qvel: FloatArray
    touches_object: NDArray[np.bool_]
    touches_scenery: NDArray[np.bool_]


class Meddling(NamedTuple):
    """Something that is done to a scene while it runs.

    Attributes:
        frame: After which frame.
        act: Changes the model and its state.
    """

    frame: int
    act: Callable[[mujoco.MjModel, mujoco.MjData], None]


def compile_scene(scene: Scene) -> mujoco.MjModel:
    """Compile a scene and put its textures in."""
    model = mujoco.MjModel.from_xml_string(scene.xml)
    for name, image in scene.images.items():
        texture = model.texture(name).id
        first = int(model.tex_adr[texture])
        faces = int(model.tex_height[texture]) // len(image)  # a cube has six
        pixels = np.tile(image, (faces, 1, 1)).ravel()
        model.tex_data[first : first + pixels.size] = pixels
    return model


def begin(model: mujoco.MjModel, scene: Scene) -> mujoco.MjData:
    """Return the scene's first state."""
    data = mujoco.MjData(model)
    for name, (qpos, qvel) in scene.starts.items():
        joint = model.joint(name)
        data.qpos[joint.qposadr[0] : joint.qposadr[0] + len(qpos)] = qpos
        data.qvel[joint.dofadr[0] : joint.dofadr[0] + len(qvel)] = qvel
    return data


def object_bodies(model: mujoco.MjModel, num_objects: int) -> list[int]:
    """Return the bodies of the objects."""
    return [int(model.body(f"object{index}").id) for index in range(num_objects)]


def simulate(
    model: mujoco.MjModel,
    scene: Scene,
    *,
    num_frames: int,
    substeps: int,
    meddling: Meddling | None = None,
) -> Motion:
    """Run a scene from its beginning.

    Args:
        model: The compiled scene; what holds the main object at first is switched off in it.
        scene: What was compiled.
        num_frames: T.
        substeps: Physical steps from one frame to the next.
        meddling: What is done to it on the way, for what no law of physics allows.

    Raises:
        UnstableError: Something is too fast, too deep in something else, or not finite.
    """
    data = begin(model, scene)
    owner = np.full(model.ngeom, SCENERY)
    bodies = object_bodies(model, len(scene.radii))
    for index, body in enumerate(bodies):
        owner[model.geom_bodyid == body] = index
    step_s = model.opt.timestep
    controls = _controls(scene, steps=(num_frames - 1) * substeps, step_s=step_s)
    release = round(scene.release_s / step_s) if scene.release_s > 0 else None
    states, touched = [(data.qpos.copy(), data.qvel.copy())], [(False, False)]
    for frame in range(num_frames - 1):
        on_object = on_scenery = False
        if meddling is not None and frame == meddling.frame:
            meddling.act(model, data)
        for step in range(frame * substeps, (frame + 1) * substeps):
            if step == release:
                model.body_gravcomp[bodies[0]] = 0
            data.ctrl[:] = controls[step]
            mujoco.mj_step(model, data)
            first, second = _touched(data, owner)
            on_object, on_scenery = on_object or first, on_scenery or second
        _check(data)
        states.append((data.qpos.copy(), data.qvel.copy()))
        touched.append((on_object, on_scenery))
    qpos, qvel = (np.stack(part) for part in zip(*states, strict=True))
    touches = np.array(touched)
    times = np.arange(num_frames) * substeps * step_s
    return Motion(times, qpos, qvel, touches[:, 0], touches[:, 1])


def _controls(scene: Scene, *, steps: int, step_s: float) -> FloatArray:
    """Pass from waypoint to waypoint, slowing down at each: targets (L,A)."""
    place = np.arange(steps) * step_s / scene.waypoint_s
    before = np.minimum(place.astype(int), len(scene.waypoints) - 2)
    share = 0.5 - 0.5 * np.cos(np.pi * np.clip(place - before, 0, 1))[:, None]
    return (1 - share) * scene.waypoints[before] + share * scene.waypoints[before + 1]


def _touched(data: mujoco.MjData, owner: NDArray[np.int64]) -> tuple[bool, bool]:
    """Tell whether the main object touches another object, and whether it touches scenery."""
    if not data.ncon:
        return False, False
    pairs = owner[data.contact.geom]
    with_main = pairs[(pairs == 0).sum(axis=1) == 1]
    others = with_main.max(axis=1, initial=SCENERY), with_main.min(axis=1, initial=0)
    return bool((others[0] > 0).any()), bool((others[1] == SCENERY).any())


def _check(data: mujoco.MjData) -> None:
    """Refuse what looks like an explosion."""
    if not (np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all()):
        raise UnstableError("a state is not finite")
    if any(data.warning[index].number for index in range(len(data.warning))):
        raise UnstableError("MuJoCo warns")
    if np.abs(data.qvel).max() > MAX_SPEED:
        raise UnstableError(f"faster than {MAX_SPEED}")
    if data.ncon and data.contact.dist.min() < -MAX_DEPTH_M:
        raise UnstableError(f"deeper than {MAX_DEPTH_M} m in something")
