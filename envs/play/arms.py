"""Scenes of things that hang on joints: a pendulum, and arms that move by motors.

The same axes and units as in `scenes`.
"""

from xml.etree.ElementTree import Element, SubElement

import numpy as np

from envs.play.looks import muted
from envs.play.stage import PROPS_GROUP, Stage

_AXES = {"bends": (0, 1, 0), "nods": (1, 0, 0), "turns": (0, 0, 1)}


def swing(stage: Stage) -> None:
    """A thing swings on a rod; some hit what stands below."""
    rng = stage.rng
    shape = stage.draw_shape()
    length = float(rng.uniform(0.55, 0.85))
    has_target = rng.uniform() < 0.4
    clearance = rng.uniform(0.02, 0.06) if has_target else rng.uniform(0.1, 0.35)
    height = length + shape.radius + float(clearance)
    sideways = float(rng.uniform(-0.7, 0.7))  # rad from the picture's plane
    axis = np.array([-np.sin(sideways), np.cos(sideways), 0.0])
    reach = 0.12 + shape.radius
    stage.block((0, 0, height), np.abs(axis) * reach + 0.025, is_solid=False)
    body = SubElement(stage.world, "body", name="rod", pos=f"0 0 {height:.6f}")
    _joint(body, "rod", axis, damping=rng.uniform(0.0, 0.05))
    _rod(stage, body, (0, 0, 0), (0, 0, -length), rng.uniform(0.012, 0.025))
    bob = SubElement(body, "body", name="object0", pos=f"0 0 {-length:.6f}")
    stage.parts(bob, shape, damping_ratio=rng.uniform(0.3, 1.0))
    angle = rng.choice([-1, 1]) * rng.uniform(np.radians(40), np.radians(100))
    stage.starts["rod"] = (np.array([angle]), np.zeros(1))
    if has_target:
        target = stage.draw_shape(lies_flat=True)
        stage.object(target, pos=(0, 0, target.flat_height), slide=0.3)
    stage.watch(
        (0, 0, 0.55 * height),
        width=float(rng.uniform(1.05, 1.2)) * max(2 * length + shape.radius, height + 0.3),
        elevation=(4, 28),
    )


def arm(stage: Stage) -> None:
    """An arm of two to four links waves its hand, the main object; others may be in its way."""
    rng = stage.rng
    hand = stage.draw_shape()
    num_links = int(rng.integers(2, 5))
    length = float(rng.uniform(0.75, 1.0)) / num_links
    base = float(rng.uniform(0.1, 0.35))
    stage.block((0, 0.1, base / 2), (0.12, 0.12, base / 2), is_solid=False)
    parent, place = stage.world, (0.0, 0.1, base)
    for index in range(num_links):
        body = SubElement(parent, "body", name=f"link{index}", pos=_join(place), gravcomp="1")
        # Bending moves the hand in the picture's plane; the other two add depth.
        weights = (0.6, 0.3, 0.1) if index else (0.8, 0.1, 0.1)
        kind = str(rng.choice(list(_AXES), p=weights))
        _motor(stage, body, f"link{index}", np.array(_AXES[kind], float))
        thickness = float(rng.uniform(0.035, 0.065))
        if rng.uniform() < 0.5:
            _rod(stage, body, (0, 0, 0), (0, 0, length), thickness)
        else:
            _rod(stage, body, (0, 0, 0), (0, 0, length), thickness, kind="box")
        parent, place = body, (0.0, 0.0, length)
    end = SubElement(parent, "body", name="object0", pos=_join((0, 0, length)), gravcomp="1")
    stage.parts(end, hand, density=20.0)
    _waypoints(stage, num_links)
    for _ in range(int(rng.integers(3))):
        shape = stage.draw_shape(lies_flat=True)
        side = float(rng.choice([-1, 1]))
        pos = (side * rng.uniform(0.45, 0.95), rng.uniform(-0.2, 0.5), shape.flat_height)
        stage.object(shape, pos=pos)
    stage.watch(
        (0, 0, 0.75),
        width=rng.uniform(2.2, 2.6),
        elevation=(6, 35),
        is_moving=bool(rng.uniform() < 0.2),
    )


def _waypoints(stage: Stage, num_links: int) -> None:
    """Draw where the motors go: each from one angle to another, back and forth, or anywhere."""
    rng = stage.rng
    stage.waypoint_s = float(np.exp(rng.uniform(np.log(0.45), np.log(1.6))))
    count = 40  # more than any clip lasts
    reach = rng.uniform(0.5, 1.3, num_links)
    points = rng.uniform(-1, 1, (count, num_links))
    # The first joint swings to and fro, so that the hand has somewhere to go.
    points[:, 0] = rng.choice([-1, 1]) * (-1.0) ** np.arange(count) * rng.uniform(0.7, 1.0, count)
    stage.waypoints = points * reach
    for index in range(num_links):
        stage.starts[f"link{index}"] = (stage.waypoints[0, index : index + 1], np.zeros(1))


def _motor(stage: Stage, body: Element, name: str, axis: np.ndarray) -> None:
    """Give a body a hinge and a motor that holds its angle."""
    _joint(body, name, axis, damping=0.5, armature=0.05)
    SubElement(stage.actuators, "position", joint=name, kp="60", kv="9", forcerange="-60 60")


def _joint(
    body: Element, name: str, axis: np.ndarray, *, damping: float, armature: float = 0.0
) -> None:
    SubElement(
        body,
        "joint",
        name=name,
        type="hinge",
        axis=_join(axis),
        damping=f"{damping:.6f}",
        armature=f"{armature:.6f}",
    )


def _rod(
    stage: Stage,
    body: Element,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    thickness: float,
    *,
    kind: str = "capsule",
) -> None:
    """Draw a rod from one end to the other; things go through it."""
    SubElement(
        body,
        "geom",
        type=kind,
        fromto=_join((*start, *end)),
        size=f"{thickness:.6f}",
        density="300",
        rgba=_join((*muted(stage.rng), 1)),
        contype="0",
        conaffinity="0",
        group=str(PROPS_GROUP),
    )


def _join(numbers: np.ndarray | tuple[float, ...]) -> str:
    return " ".join(f"{float(number):.9g}" for number in numbers)
