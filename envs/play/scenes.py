"""What happens in clips: one function per kind of scene, each building a random one on a stage.

x points right in the picture, y away from the camera, z up; lengths in metres. The main object, the
first of a scene, is the only one in a full colour.
"""

from collections.abc import Callable

import mujoco
import numpy as np

from envs.play.arms import arm, swing
from envs.play.looks import FloatArray, Shape
from envs.play.stage import Scene, Stage

UP = np.array([0.0, 0.0, 1.0])
# Right, left, away and towards; falling clips are those that go down without coming nearer.
_HEADINGS = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
_HEADING_WEIGHTS = (0.29, 0.29, 0.3, 0.12)
_SEEN_FROM_ABOVE = (24.0, 50.0)  # degrees of elevation, so that away is up in the picture


def fall(stage: Stage) -> None:
    """Things fall, to the floor or onto a table; some are thrown up first, some bounce."""
    rng = stage.rng
    stage.release_s = float(rng.uniform(0.05, 1.0)) if rng.uniform() < 0.6 else 0.0
    is_thrown = stage.release_s == 0.0
    shape = stage.draw_shape()
    x = float(rng.uniform(-0.3, 0.3))
    up = rng.uniform(0.0, 1.8) if is_thrown else 0.0
    stage.object(
        shape,
        pos=(x, rng.uniform(-0.15, 0.15), rng.uniform(1.05, 1.4)),
        quat=random_quaternion(rng),
        velocity=(rng.uniform(-0.35, 0.35) * is_thrown, 0.0, up),
        spin=rng.normal(0, 1.5, 3) * is_thrown,
        damping_ratio=rng.uniform(0.08, 0.8),
    )
    if rng.uniform() < 0.35:
        height = float(rng.uniform(0.08, 0.2))
        stage.block((x, 0.0, height), (rng.uniform(0.25, 0.45), 0.35, height))
    for _ in range(int(rng.integers(3))):
        side = float(rng.choice([-1, 1]))
        stage.object(
            stage.draw_shape(),
            pos=(side * rng.uniform(0.65, 0.9), rng.uniform(0.0, 0.6), rng.uniform(0.5, 3.0)),
            quat=random_quaternion(rng),
            damping_ratio=rng.uniform(0.08, 0.8),
        )
    stage.watch((0, 0, 0.72), width=rng.uniform(1.9, 2.2), elevation=(4, 32), is_moving=moves(rng))


def roll(stage: Stage) -> None:
    """A round thing rolls over the floor, or down a ramp and on."""
    rng = stage.rng
    heading, shape = draw_heading(rng), stage.draw_shape(rolls=True)
    quat = lying(heading)
    rolling = float(rng.uniform(0.0, 0.002))
    if rng.uniform() < 0.4:
        _down_a_ramp(stage, shape, heading, rolling)
    else:
        speed = draw_speed(rng)
        start = -heading * rng.uniform(0.6, 0.8)
        stage.object(
            shape,
            pos=(*start[:2], shape.rolling_radius),
            quat=quat,
            velocity=speed * heading,
            spin=speed / shape.rolling_radius * np.cross(UP, heading),
            slide=0.9,
            rolling=rolling,
            damping_ratio=rng.uniform(0.1, 1.0),
        )
    bumper(stage, heading)
    bystanders(stage, heading)
    stage.watch(
        (0, 0, 0.3), width=rng.uniform(1.8, 2.2), elevation=_SEEN_FROM_ABOVE, is_moving=moves(rng)
    )


def _down_a_ramp(stage: Stage, shape: Shape, heading: FloatArray, rolling: float) -> None:
    rng = stage.rng
    slope, half = np.radians(rng.uniform(12, 24)), float(rng.uniform(0.4, 0.55))
    pitch = np.array([np.cos(slope / 2), 0, np.sin(slope / 2), 0])
    quat = np.empty(4)
    mujoco.mju_mulQuat(quat, turned(_angle(heading)), pitch)
    centre = -0.35 * heading + (0, 0, half * np.sin(slope))
    stage.block(centre, (half, 0.3, 0.03), quat=quat)
    up_the_slope = np.empty(3)
    local = np.array([-0.7 * half, 0, 0.035 + shape.rolling_radius])
    mujoco.mju_rotVecQuat(up_the_slope, local, quat)
    stage.object(shape, pos=centre + up_the_slope, quat=lying(heading), slide=0.9, rolling=rolling)


def slide(stage: Stage) -> None:
    """A thing with a flat side slides over the floor and slows down."""
    rng = stage.rng
    heading, speed, shape = draw_heading(rng), draw_speed(rng), stage.draw_shape(lies_flat=True)
    start = -heading * rng.uniform(0.6, 0.8)
    stage.object(
        shape,
        pos=(*start[:2], shape.flat_height),
        quat=turned(rng.uniform(-np.pi, np.pi)),
        velocity=speed * heading,
        spin=(0, 0, rng.uniform(-2.5, 2.5)),
        # Slow ones, too, are to get somewhere.
        slide=rng.uniform(0.0, min(0.08, speed**2 / (1.8 * stage.gravity))),
        damping_ratio=rng.uniform(0.1, 1.0),
    )
    bumper(stage, heading)
    bystanders(stage, heading)
    stage.watch(
        (0, 0, 0.3), width=rng.uniform(1.8, 2.2), elevation=_SEEN_FROM_ABOVE, is_moving=moves(rng)
    )


def collide(stage: Stage) -> None:
    """The main thing runs into another, which may run into a third."""
    rng = stage.rng
    heading = draw_heading(rng)
    across = np.cross(UP, heading)
    start = -heading * rng.uniform(0.75, 0.95)
    shape = stage.draw_shape()
    stage.object(
        shape,
        **resting(shape, start, heading, rng),
        velocity=rng.uniform(0.7, 2.0) * heading,
        slide=0.02,
        damping_ratio=rng.uniform(0.1, 1.0),
    )
    for number in range(2 if rng.uniform() < 0.35 else 1):
        place = heading * 0.5 * number + across * rng.uniform(-0.08, 0.08)
        shape = stage.draw_shape()
        stage.object(
            shape,
            **resting(shape, place, heading, rng),
            slide=rng.uniform(0.02, 0.3),
            damping_ratio=rng.uniform(0.1, 1.0),
        )
    stage.watch(
        (0, 0, 0.3), width=rng.uniform(1.9, 2.3), elevation=_SEEN_FROM_ABOVE, is_moving=moves(rng)
    )


def occlude(stage: Stage) -> None:
    """A thing passes behind a screen and comes out again."""
    rng = stage.rng
    side = float(rng.choice([-1, 1]))
    angle = rng.uniform(-0.12, 0.12)
    heading = np.array([side * np.cos(angle), np.sin(angle), 0.0])
    shape = stage.draw_shape()
    rolls = bool(shape.rolling_radius) and rng.uniform() < 0.7
    extent = shape.rolling_radius if rolls else shape.radius  # along its way
    half = float(rng.uniform(1.05, 1.5)) * extent
    reach = half + extent + float(rng.uniform(0.1, 0.3))
    distance = -(shape.radius + rng.uniform(0.12, 0.25))
    centre = float(rng.uniform(-0.15, 0.15))
    tall = float(rng.uniform(1.05, 1.4)) * shape.radius
    stage.block((centre, distance, tall), (half, rng.uniform(0.02, 0.06), tall))
    speed = 2 * reach / rng.uniform(1.0, 2.3)
    place = -heading * reach + (centre, 0, 0)
    pose = {"pos": (*place[:2], shape.rolling_radius), "quat": lying(heading)}
    stage.object(
        shape,
        **(pose if rolls else resting(shape, place, heading, rng)),
        velocity=speed * heading,
        spin=speed / shape.rolling_radius * np.cross(UP, heading) if rolls else (0, 0, 0),
        slide=0.9 if rolls else 0.0,
        rolling=0.0,
    )
    width = max(1.3, 2 * reach + rng.uniform(0.1, 0.4))
    stage.watch((centre, 0, 0.35), width=width, elevation=(4, 16), azimuth=0.12)


Kind = Callable[[Stage], None]
KINDS: dict[str, Kind] = {
    "fall": fall,
    "roll": roll,
    "slide": slide,
    "collide": collide,
    "swing": swing,
    "occlude": occlude,
    "arm": arm,
}


def build(kind: str, rng: np.random.Generator, *, step_s: float, shadow_share: float) -> Scene:
    """Build a random scene of a kind.

    Args:
        kind: One of `KINDS`.
        rng: Decides everything.
        step_s: Physical time step.
        shadow_share: Chance of shadows.
    """
    stage = Stage(rng, step_s, has_shadows=bool(rng.uniform() < shadow_share))
    KINDS[kind](stage)
    return stage.finish(kind)


def draw_heading(rng: np.random.Generator) -> FloatArray:
    """Draw a horizontal direction (3,): about right, left, away or towards the camera."""
    x, y = _HEADINGS[int(rng.choice(len(_HEADINGS), p=_HEADING_WEIGHTS))]
    angle = np.arctan2(y, x) + rng.uniform(-0.25, 0.25)
    return np.array([np.cos(angle), np.sin(angle), 0.0])


def draw_speed(rng: np.random.Generator) -> float:
    """Draw a speed in m/s: as often slow as fast, in factors."""
    return float(np.exp(rng.uniform(np.log(0.45), np.log(2.6))))


def moves(rng: np.random.Generator) -> bool:
    """Draw whether the camera moves."""
    return bool(rng.uniform() < 0.2)


def random_quaternion(rng: np.random.Generator) -> FloatArray:
    """Draw how a thing is turned, all ways alike (4,)."""
    quat = rng.normal(size=4)
    return quat / np.linalg.norm(quat)


def turned(angle: float) -> FloatArray:
    """Turn about the vertical by an angle in rad (4,)."""
    return np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])


def lying(heading: FloatArray) -> FloatArray:
    """Lay the z axis of a thing across a heading (4,), so that it rolls along it."""
    quat = np.empty(4)
    mujoco.mju_quatZ2Vec(quat, np.cross(UP, heading))
    return quat


def resting(
    shape: Shape, place: FloatArray, heading: FloatArray, rng: np.random.Generator
) -> dict[str, FloatArray | tuple[float, ...]]:
    """Position and turn of a shape that rests on the floor, flat where it has a flat side."""
    if shape.flat_height:
        quat = turned(rng.uniform(-np.pi, np.pi))
        return {"pos": (*place[:2], shape.flat_height), "quat": quat}
    return {"pos": (*place[:2], shape.rolling_radius), "quat": lying(heading)}


def bumper(stage: Stage, heading: FloatArray) -> None:
    """Often, put a low block across the way, which what is fast bounces back from."""
    rng = stage.rng
    hides_from_camera = heading[1] < -0.5
    if hides_from_camera or rng.uniform() < 0.25:
        return
    height = float(rng.uniform(0.06, 0.15))
    place = heading * rng.uniform(0.85, 1.0) + (0, 0, height)
    stage.block(place, (0.05, rng.uniform(0.4, 0.7), height), quat=turned(_angle(heading)))


def bystanders(stage: Stage, heading: FloatArray) -> None:
    """Put up to two things beside the way of the main one."""
    rng = stage.rng
    across = np.cross(UP, heading)
    sides = rng.permutation([-1, 1])[: int(rng.integers(3))]
    for side in sides:
        # What goes from side to side is not to be hidden by what stands nearer to the camera.
        if side * across[1] < -0.5:
            continue
        place = across * side * rng.uniform(0.55, 0.85) + heading * rng.uniform(-0.6, 0.6)
        shape = stage.draw_shape()
        stage.object(shape, **resting(shape, place, heading, rng))


def _angle(heading: FloatArray) -> float:
    return float(np.arctan2(heading[1], heading[0]))
