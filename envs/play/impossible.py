"""Impossible twins of clips: what happens to the main object that no law of physics allows.

Privileged like the ground truth: for evaluation only. Both twins are the same scene, simulated from
its beginning; in one of them something is done to it before one frame.

Shapes: T frames, K objects.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.alterations import STUCK_DAMPING
from envs.impossible import COVERED_FRAMES, EVENTS, cover
from envs.play.events import SHOWN_SHARE
from envs.play.simulation import (
    Meddling,
    Motion,
    UnstableError,
    compile_scene,
    object_bodies,
    simulate,
)
from envs.play.stage import FIRST_OBJECT_GROUP, MAIN, Scene
from envs.play.truth import Truth, place_state
from envs.play.views import View, visible_share

NOTICEABLE = 0.04  # picture widths that something must be from where it would be, 2.6 of 64 pixels
LEAST_JUMP, FARTHEST_JUMP = 0.15, 0.5  # picture widths
FALLS_AT = 1.0  # m/s downwards
MOVES_AT = 0.4  # m/s
LEVEL_AT = 0.1  # m/s up or down, at most
STRAIGHT = 0.95  # cosine of the largest turn
_ABOUT = 3  # frames on either side
_JUMP_TRIES = 50
_REST_DEPTH_M = 0.005
_PLATE_MARGIN = 0.02  # picture widths around the object
_PASSES_AS = 2  # contact bit of a thing that touches scenery alone
_FREE = ("fall", "roll", "slide", "collide", "occlude")  # kinds whose main object hangs on nothing


@dataclass(frozen=True)
class Moment:
    """A state in which something is done.

    Attributes:
        model: The scene, to be changed.
        data: Its state.
        scene: What was compiled.
        view: The camera.
        rng: Decides.
    """

    model: mujoco.MjModel
    data: mujoco.MjData
    scene: Scene
    view: View
    rng: np.random.Generator


@dataclass(frozen=True)
class Happening:
    """What happens to the main object, and in which clips it can.

    Attributes:
        says: The same for people.
        kinds: Of scenes.
        may: Tells the frames (T,) of a clip that can be the first to show it, of its truth.
        does: Changes the physics from the frame before on.
        looks: Changes the pictures alone; called once the physics is over.
        covered: Frames before it in which a plate hides the object, in both twins.
    """

    says: str
    kinds: tuple[str, ...]
    may: Callable[[Truth], NDArray[np.bool_]]
    does: Callable[[Moment], None] | None = None
    looks: Callable[[mujoco.MjModel, Scene], None] | None = None
    covered: int = 0

    @property
    def must_move(self) -> bool:
        """Whether it shows in where things are, and so has to be noticeable there."""
        return self.does is not None and self.looks is None


# --- when it can happen ---------------------------------------------------------------------------


def _is_seen(truth: Truth) -> NDArray[np.bool_]:
    """Frames in which the object is seen, as it is in the one before (T,)."""
    return _in_both(truth.visible[:, 0] > SHOWN_SHARE)


def _falls(truth: Truth) -> NDArray[np.bool_]:
    """Frames up to which it falls freely (T,)."""
    is_fast = truth.velocities[:, 0, 2] < -FALLS_AT
    return _is_seen(truth) & _in_both(is_fast & ~truth.motion.touches_scenery)


def _goes_straight(truth: Truth) -> NDArray[np.bool_]:
    """Frames about which it goes on in its direction, level: nothing turns it, no ramp (T,)."""
    velocities = truth.velocities[:, 0]
    level = np.linalg.norm(velocities[:, :2], axis=1)
    is_steady = (level > MOVES_AT) & (np.abs(velocities[:, 2]) < LEVEL_AT)
    headings = velocities[:, :2] / np.maximum(level, MOVES_AT)[:, None]
    goes = np.zeros(len(level), bool)
    for frame in range(_ABOUT, len(level) - _ABOUT):
        about = slice(frame - _ABOUT, frame + _ABOUT + 1)
        turns = (headings[about] @ headings[frame]).min() < STRAIGHT
        goes[frame] = is_steady[about].all() and not turns
    return _is_seen(truth) & goes


def _runs_into_another(truth: Truth) -> NDArray[np.bool_]:
    """The first frame that shows it (T,)."""
    touched = truth.motion.touches_object
    return _is_seen(truth) & touched & (np.cumsum(touched) == 1)


def _in_both(holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell frames (T,) for which something holds in them and in the one before."""
    return holds & np.concatenate([[False], holds[:-1]])


# --- what is done ---------------------------------------------------------------------------------


def _free_joint(moment: Moment) -> tuple[slice, slice]:
    """Find the main object's 7 positions and 6 velocities."""
    joint = moment.model.joint("object0")
    first, dof = int(joint.qposadr[0]), int(joint.dofadr[0])
    return slice(first, first + 7), slice(dof, dof + 6)


def _hover(moment: Moment) -> None:
    _, velocities = _free_joint(moment)
    moment.data.qvel[velocities] = 0.0
    moment.model.dof_damping[velocities] = STUCK_DAMPING  # it sinks by a centimetre per second


def _turn_back(moment: Moment) -> None:
    _, velocities = _free_joint(moment)
    moment.data.qvel[velocities] *= (-1, -1, 1, -1, -1, -1)


def _leave(moment: Moment) -> None:
    """Let nothing touch it any more."""
    geoms = _geoms(moment.model)
    moment.model.geom_contype[geoms] = moment.model.geom_conaffinity[geoms] = 0


def _pass_through(moment: Moment) -> None:
    """Let it touch scenery alone."""
    model, own = moment.model, _geoms(moment.model)
    is_scenery = (model.geom_group < FIRST_OBJECT_GROUP) & (model.geom_contype > 0)
    model.geom_contype[is_scenery] |= _PASSES_AS
    model.geom_contype[own] = model.geom_conaffinity[own] = _PASSES_AS


def _jump(moment: Moment) -> None:
    """Put it elsewhere beside, above or below in the picture, where it is seen and touches nothing.

    Raises:
        UnstableError: There is no such place.
    """
    model, data, view = moment.model, moment.data, moment.view
    positions, _ = _free_joint(moment)
    start = data.qpos[positions][:3].copy()
    width = 2 * np.tan(view.fovy / 2) * view.seen(start[None])[0, 2]  # metres across the picture
    directions = view.axes[:, :2].T  # right and up, as the camera sees them
    for _ in range(_JUMP_TRIES):
        angle = moment.rng.uniform(-np.pi, np.pi)
        reach = moment.rng.uniform(LEAST_JUMP, FARTHEST_JUMP) * width
        right, up = reach * np.cos(angle), reach * np.sin(angle)
        data.qpos[positions][:3] = start + np.array((right, up)) @ directions
        mujoco.mj_forward(model, data)
        if not _touches(moment) and _share_seen(moment) > SHOWN_SHARE:
            return
    raise UnstableError("there is no room to jump to")


def _touches(moment: Moment) -> bool:
    """Tell whether it is in something, deeper than what rests on the floor."""
    contact = moment.data.contact
    is_own = np.isin(contact.geom, _geoms(moment.model)).any(axis=-1)
    return bool((is_own & (contact.dist < -_REST_DEPTH_M)).any())


def _share_seen(moment: Moment) -> float:
    return visible_share(
        moment.model,
        moment.data,
        moment.view,
        centre=moment.data.xpos[_body(moment.model)],
        radius=moment.scene.radii[0],
        group=FIRST_OBJECT_GROUP,
    )


# --- how it looks ---------------------------------------------------------------------------------


def _body(model: mujoco.MjModel) -> int:
    """Find the main object's body."""
    return object_bodies(model, 1)[0]


def _geoms(model: mujoco.MjModel) -> NDArray[np.int64]:
    """Find the main object's geoms."""
    return np.flatnonzero(model.geom_bodyid == _body(model))


def _hide(model: mujoco.MjModel, scene: Scene) -> None:
    del scene
    _make_invisible(model, _geoms(model))


def _make_invisible(model: mujoco.MjModel, geoms: NDArray[np.int64]) -> None:
    model.geom_matid[geoms] = -1
    model.geom_rgba[geoms, 3] = 0.0


def _recolour(model: mujoco.MjModel, scene: Scene) -> None:
    """Turn every hue by a third of the circle; the pattern stays."""
    del scene
    texture = model.texture(MAIN).id
    first = int(model.tex_adr[texture])
    size = int(model.tex_height[texture]) * int(model.tex_width[texture]) * 3
    pixels = model.tex_data[first : first + size].reshape(-1, 3)
    model.tex_data[first : first + size] = np.roll(pixels, 1, axis=1).ravel()


def _reshape(model: mujoco.MjModel, scene: Scene) -> None:
    """Make a ball of what is none, and a bar of a ball."""
    first, *others = _geoms(model)
    _make_invisible(model, np.array(others, int))
    radius = scene.radii[0]
    model.geom_pos[first], model.geom_quat[first] = 0.0, (1, 0, 0, 0)
    if scene.look["shape"] == "sphere":
        model.geom_type[first] = int(mujoco.mjtGeom.mjGEOM_BOX)
        model.geom_size[first] = radius * np.array((1.4, 0.45, 0.45))
    else:
        model.geom_type[first] = int(mujoco.mjtGeom.mjGEOM_SPHERE)
        model.geom_size[first] = (0.8 * radius, 0.0, 0.0)


def _says(event: str) -> str:
    return EVENTS[event].says


HAPPENINGS: dict[str, Happening] = {
    "nothing": Happening(_says("nothing"), _FREE, _is_seen),
    "hovers": Happening("what falls stops in the air and stays there", ("fall",), _falls, _hover),
    "vanishes": Happening(_says("vanishes"), _FREE, _is_seen, _leave, _hide),
    "teleports": Happening(_says("teleports"), _FREE, _is_seen, _jump),
    "passes_through": Happening(
        _says("passes_through"), ("collide",), _runs_into_another, _pass_through
    ),
    "turns_back": Happening(
        "the object turns back and nothing stands in its way",
        ("roll", "slide"),
        _goes_straight,
        _turn_back,
    ),
    "changes_colour": Happening(_says("changes_colour"), _FREE, _is_seen, looks=_recolour),
    "changes_shape": Happening(_says("changes_shape"), _FREE, _is_seen, looks=_reshape),
    "vanishes_hidden": Happening(
        _says("vanishes_hidden"), _FREE, _is_seen, _leave, _hide, COVERED_FRAMES
    ),
    "teleports_hidden": Happening(
        _says("teleports_hidden"), _FREE, _is_seen, _jump, covered=COVERED_FRAMES
    ),
    "changes_shape_hidden": Happening(
        _says("changes_shape_hidden"), _FREE, _is_seen, looks=_reshape, covered=COVERED_FRAMES
    ),
}
MISSING = {
    "slides": "what moves by itself turns back here, see turns_back",
    "stays": "what is heavy enough stays as well",
    "disobeys": "nothing is told to move",
}


# --- the impossible twin --------------------------------------------------------------------------


def tell_otherwise(
    told: Happening,
    truth: Truth,
    rng: np.random.Generator,
    *,
    frame: int,
    num_frames: int,
    substeps: int,
) -> tuple[mujoco.MjModel, Motion] | None:
    """Run the scene of a clip again with something that happens.

    Args:
        told: What.
        truth: The clip as it was.
        rng: Decides how.
        frame: The first to show it.
        num_frames: To run.
        substeps: Physical steps from one frame to the next.

    Returns:
        The scene as it looks from that frame on, and its states; None where it hardly shows.
    """
    scene, model = truth.scene, compile_scene(truth.scene)

    def act(model: mujoco.MjModel, data: mujoco.MjData) -> None:
        if told.does is not None:
            told.does(Moment(model, data, scene, truth.views[frame - 1], rng))

    try:
        motion = simulate(
            model,
            scene,
            num_frames=num_frames,
            substeps=substeps,
            meddling=Meddling(frame - 1, act),
        )
    except UnstableError:
        return None
    shown = range(frame, num_frames)
    if told.must_move and gap(truth, model, motion, shown) < NOTICEABLE:
        return None
    if told.looks is not None:
        told.looks(model, scene)
    return model, motion


def gap(truth: Truth, model: mujoco.MjModel, motion: Motion, frames: Iterable[int]) -> float:
    """Measure how far apart, in picture widths, any object gets in some frames of two motions."""
    data = mujoco.MjData(model)
    bodies = object_bodies(model, len(truth.scene.radii))
    gaps = []
    for frame in frames:
        place_state(model, data, motion, frame)
        places = truth.views[frame].place(data.xpos[bodies])
        gaps.append(np.linalg.norm(places - truth.places[frame], axis=1).max())
    return float(max(gaps))


def hide(pixels: NDArray[np.uint8], truth: Truth, frames: Sequence[int]) -> None:
    """Draw a plate over wherever the main object is in some frames (T,H,W,3) of a clip."""
    reach = max(_reach(truth, frame) for frame in frames) + _PLATE_MARGIN
    cover(pixels, truth.places[frames, 0], reach=reach)


def _reach(truth: Truth, frame: int) -> float:
    """Radius of the main object in a picture, in picture widths."""
    width = 2 * np.tan(truth.views[frame].fovy / 2) * truth.depths[frame, 0]
    return float(truth.scene.radii[0] / width)
