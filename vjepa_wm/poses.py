"""DROID's robot state: seven numbers, how an action moves it, and whether it is in the right units.

A pose (..., 7) is the gripper's place x, y, z in metres and its orientation, both in the frame of
the robot's base, and how far the gripper is closed: 0 open, 1 closed. The orientation is three
Euler angles in radians about the fixed axes x, y, z, in this order: R = Rz(c) Ry(b) Rx(a). An
action (..., 7) is the change to the next pose: the difference in place, the angles of
R_next R^T, the difference in closedness. Neither is normalised (V-JEPA 2-AC, arXiv 2506.09985,
section 3.1).
"""

import math

import torch
from torch import Tensor

from vjepa_wm.errors import SettingError

POSE_DIM = 7
ACTION_UNITS = ("m", "m", "m", "rad", "rad", "rad", "closedness")
_PLACE, _ANGLES, _GRIPPER = slice(0, 3), slice(3, 6), slice(6, 7)
_ANGLE_SLACK = 1e-3  # a full half turn, rounded
_GRIPPER_SLACK = 0.02  # sensors overshoot a little
_GIMBAL_COSINE = 1e-6  # below, the first and last axis coincide in float32


class PoseIntegrator:
    """Moves poses along actions, batched and on their device; what a `WorldModel` integrates by."""

    def __call__(self, poses: Tensor, actions: Tensor) -> Tensor:
        """Take one step; see `integrate`."""
        return integrate(poses, actions)

    def check(self, poses: Tensor) -> None:
        """Refuse degrees and other units; see `check_poses`."""
        check_poses(poses)


def integrate(poses: Tensor, actions: Tensor) -> Tensor:
    """Move poses (..., 7) by actions (..., 7).

    Places add, orientations compose as R_next = dR R, the gripper adds and stays within [0, 1].

    Returns:
        The next poses (..., 7), angles in [-pi, pi].
    """
    turned = euler_to_matrix(actions[..., _ANGLES]) @ euler_to_matrix(poses[..., _ANGLES])
    return torch.cat(
        [
            poses[..., _PLACE] + actions[..., _PLACE],
            matrix_to_euler(turned),
            (poses[..., _GRIPPER] + actions[..., _GRIPPER]).clamp(0, 1),
        ],
        dim=-1,
    )


def actions_between(poses: Tensor) -> Tensor:
    """The actions (..., T - 1, 7) that lead along a trajectory of poses (..., T, 7)."""
    before, after = poses[..., :-1, :], poses[..., 1:, :]
    rotation = euler_to_matrix(after[..., _ANGLES]) @ euler_to_matrix(before[..., _ANGLES]).mT
    return torch.cat(
        [
            after[..., _PLACE] - before[..., _PLACE],
            matrix_to_euler(rotation),
            after[..., _GRIPPER] - before[..., _GRIPPER],
        ],
        dim=-1,
    )


def euler_to_matrix(angles: Tensor) -> Tensor:
    """Turn angles about the fixed axes x, y, z (..., 3) into rotations (..., 3, 3)."""
    sin_a, sin_b, sin_c = angles.sin().unbind(-1)
    cos_a, cos_b, cos_c = angles.cos().unbind(-1)
    rows = [
        [
            cos_c * cos_b,
            cos_c * sin_b * sin_a - sin_c * cos_a,
            cos_c * sin_b * cos_a + sin_c * sin_a,
        ],
        [
            sin_c * cos_b,
            sin_c * sin_b * sin_a + cos_c * cos_a,
            sin_c * sin_b * cos_a - cos_c * sin_a,
        ],
        [-sin_b, cos_b * sin_a, cos_b * cos_a],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_euler(rotation: Tensor) -> Tensor:
    """Turn rotations (..., 3, 3) into angles (..., 3): y in [-pi/2, pi/2], x and z in [-pi, pi].

    Where y is a quarter turn, x and z turn about the same axis; then all of it is given to x.
    """
    cos_b = torch.hypot(rotation[..., 0, 0], rotation[..., 1, 0])
    b = torch.atan2(-rotation[..., 2, 0], cos_b)
    is_locked = cos_b < _GIMBAL_COSINE
    a = torch.where(
        is_locked,
        torch.atan2(-rotation[..., 1, 2], rotation[..., 1, 1]),
        torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2]),
    )
    c = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return torch.stack([a, b, c.masked_fill(is_locked, 0.0)], dim=-1)


def check_poses(poses: Tensor) -> None:
    """Refuse poses that are not in DROID's units.

    Args:
        poses: (..., 7).

    Raises:
        SettingError: not seven numbers, not finite, an angle beyond pi (degrees, most often), or a
            gripper outside [0, 1] (a width in metres or millimetres, most often).
    """
    if poses.shape[-1:] != (POSE_DIM,):
        raise SettingError(
            f"proprio: wanted poses (..., {POSE_DIM}) = x, y, z in metres, three Euler angles in "
            f"radians, gripper closedness; got {tuple(poses.shape)}"
        )
    angles, gripper = poses[..., _ANGLES], poses[..., _GRIPPER]
    if not torch.isfinite(poses).all():
        raise SettingError("proprio: wanted finite poses, got NaN or infinity in them")
    largest = float(angles.abs().max())
    if largest > math.pi + _ANGLE_SLACK:
        rows = angles.reshape(-1, 3)  # also of a single pose
        worst = rows[rows.abs().amax(-1).argmax()]
        advice = "these look like degrees; pass numpy.deg2rad(angles)"
        if largest < 2 * math.pi:
            advice = "if they are radians, wrap them: (angles + pi) % (2 * pi) - pi"
        raise SettingError(
            "proprio: wanted Euler angles in radians (entries 3 to 5, about the fixed axes x, y, "
            f"z, each within [-pi, pi]), got {_numbers(worst)}: {advice}"
        )
    low, high = float(gripper.min()), float(gripper.max())
    if low < -_GRIPPER_SLACK or high > 1 + _GRIPPER_SLACK:
        raise SettingError(
            "proprio: wanted gripper closedness (entry 6), 0 open to 1 closed, got "
            f"{low if low < -_GRIPPER_SLACK else high:.4g}: pass 1 - width / greatest width"
        )


def _numbers(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values.tolist()) + ")"
