"""Lays the ground truth of a clip out as rows of numbers, and says what the columns mean.

A row tells of one frame. What holds for the whole clip, such as labels, is in every row.
"""

import numpy as np

from envs.play.events import EVENTS, LABELS, events, labels
from envs.play.looks import FloatArray
from envs.play.stage import MAX_OBJECTS
from envs.play.truth import Truth

# Of each object, in this order: name -> width.
_OF_OBJECT = {
    "position_m": 3,
    "quaternion": 4,
    "velocity_m_s": 3,
    "turning_rad_s": 3,
    "place_widths": 2,
    "flow_widths_s": 2,
    "depth_m": 1,
    "visible_share": 1,
}
# Of the clip, in this order, after the objects: name -> width.
_OF_CLIP = {
    "camera_position_m": 3,
    "camera_quaternion": 4,
    "camera_fovy_rad": 1,
    "gravity_m_s2": 1,
    "num_objects": 1,
    "redraws": 1,
    **{f"{name}_s": 1 for name in EVENTS},
    **{f"label_{name}": 1 for name in LABELS},
}


def columns() -> dict[str, list[int]]:
    """Return the columns of every name: those of each object begin with ``object0_``."""
    widths = {"time_s": 1}
    for index in range(MAX_OBJECTS):
        widths |= {f"object{index}_{name}": width for name, width in _OF_OBJECT.items()}
    widths |= _OF_CLIP
    ends = np.cumsum(list(widths.values())).tolist()
    return {
        name: list(range(end - width, end))
        for (name, width), end in zip(widths.items(), ends, strict=True)
    }


def num_columns() -> int:
    """Return the width of a row, S."""
    return 1 + max(max(own) for own in columns().values())


def rows(truth: Truth, *, redraws: int) -> FloatArray:
    """Write a clip's truth as rows (T,S); objects that a clip does not have are zeros.

    Args:
        truth: Of the clip.
        redraws: Scenes that were built for it and thrown away.
    """
    when = events(truth)
    told = labels(truth, when)
    table = np.zeros((len(truth.motion.times), num_columns()))
    values: dict[str, FloatArray | float] = {
        "time_s": truth.motion.times[:, None],
        **_objects(truth),
        "camera_position_m": np.stack([view.position for view in truth.views]),
        "camera_quaternion": np.stack([view.quaternion for view in truth.views]),
        "camera_fovy_rad": truth.scene.camera.fovy,
        "gravity_m_s2": truth.scene.gravity,
        "num_objects": len(truth.scene.radii),
        "redraws": redraws,
        **{f"{name}_s": when[name] for name in EVENTS},
        **{f"label_{name}": told[name] for name in LABELS},
    }
    where = columns()
    for name, value in values.items():
        table[:, where[name]] = value
    return table


def _objects(truth: Truth) -> dict[str, FloatArray]:
    """Return the values of each object's columns (T,width)."""
    found = {}
    for index in range(len(truth.scene.radii)):
        own = (
            truth.positions[:, index],
            truth.quaternions[:, index],
            truth.velocities[:, index],
            truth.turning[:, index],
            truth.places[:, index],
            truth.flows[:, index],
            truth.depths[:, index, None],
            truth.visible[:, index, None],
        )
        found |= {f"object{index}_{name}": part for name, part in zip(_OF_OBJECT, own, strict=True)}
    return found


def targets() -> dict[str, list[int]]:
    """Return what probes are to tell of the main object's state, with its columns."""
    where = columns()
    return {
        "object_place_widths": where["object0_place_widths"],
        "object_flow_widths_s": where["object0_flow_widths_s"],
        "object_height_m": where["object0_position_m"][2:],
        "object_depth_m": where["object0_depth_m"],
        "object_visible_share": where["object0_visible_share"],
    }
