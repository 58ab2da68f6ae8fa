"""Poses: rotations compose as they should, and wrong units are refused."""

import math

import pytest
import torch
from torch import Tensor

from vjepa_wm.poses import (
    actions_between,
    check_poses,
    euler_to_matrix,
    integrate,
    matrix_to_euler,
)


def random_poses(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(*shape, 7, generator=generator, dtype=torch.float64)
    low = torch.tensor([-1, -1, 0, -math.pi, -math.pi / 2, -math.pi, 0], dtype=torch.float64)
    high = torch.tensor([1, 1, 1, math.pi, math.pi / 2, math.pi, 1], dtype=torch.float64)
    return low + (high - low) * uniform


def about(axis: int, angle: float) -> Tensor:
    """Return the rotation about one axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = torch.eye(3, dtype=torch.float64)
    i, j = [k for k in range(3) if k != axis]
    sign = -1 if axis == 1 else 1
    rotation[i, i] = rotation[j, j] = cos
    rotation[i, j], rotation[j, i] = -sign * sin, sign * sin
    return rotation


def test_angles_turn_about_the_fixed_axes_x_then_y_then_z() -> None:
    angles = torch.tensor([0.3, -0.7, 1.9], dtype=torch.float64)
    wanted = about(2, 1.9) @ about(1, -0.7) @ about(0, 0.3)
    torch.testing.assert_close(euler_to_matrix(angles), wanted)


def test_angles_and_matrices_are_the_same_rotation() -> None:
    angles = random_poses(500)[:, 3:6]
    rotation = euler_to_matrix(angles)
    torch.testing.assert_close(matrix_to_euler(rotation), angles)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(500, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(500).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("quarter", [-math.pi / 2, math.pi / 2])
def test_a_quarter_turn_about_y_is_still_the_same_rotation(quarter: float, dtype) -> None:
    """There x and z turn about one axis: the angles are not unique, the rotation is."""
    angles = torch.tensor([[0.4, quarter, -1.1], [-3.0, quarter, 2.0]], dtype=dtype)
    rotation = euler_to_matrix(angles)
    found = matrix_to_euler(rotation)
    torch.testing.assert_close(euler_to_matrix(found), rotation, atol=1e-5, rtol=0)
    assert not found[:, 2].any()


def test_actions_lead_from_pose_to_pose() -> None:
    """`actions_between` and `integrate` undo each other, for any batch shape."""
    poses = random_poses(4, 3, 6)
    actions = actions_between(poses)
    assert actions.shape == (4, 3, 5, 7)
    torch.testing.assert_close(integrate(poses[..., :-1, :], actions), poses[..., 1:, :])


def test_the_new_rotation_is_applied_after_the_old_one() -> None:
    """A turn about the robot's z axis adds to the last angle, however the hand is held."""
    pose = torch.tensor([0.4, 0.0, 0.3, 0.5, -0.3, 1.0, 0.9])
    action = torch.tensor([0.1, 0.0, -0.1, 0.0, 0.0, 0.7, 0.3])
    wanted = torch.tensor([0.5, 0.0, 0.2, 0.5, -0.3, 1.7, 1.0])  # the gripper is full at 1
    torch.testing.assert_close(integrate(pose, action), wanted)


def test_integrated_poses_pass_the_check() -> None:
    poses = random_poses(200).float()
    actions = torch.randn(200, 7, generator=torch.Generator().manual_seed(1)) * 2
    for _ in range(5):
        poses = integrate(poses, actions)
        check_poses(poses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({3: -179.26, 4: 90.0}, r"radians .*\(-179.3, 90, 0.3\).* degrees; pass numpy.deg2rad"),
        ({5: 3.3}, r"radians .* got \(0.1, 0.2, 3.3\): if they are radians, wrap them"),
        ({6: 85.0}, "closedness .* 0 open to 1 closed, got 85"),
        ({6: -0.5}, "closedness .* got -0.5"),
        ({0: float("nan")}, "finite"),
    ],
)
def test_other_units_are_refused(changes: dict[int, float], message: str) -> None:
    """The pose of vjepa2's issue 110 had angles in degrees, and planned the wrong way."""
    poses = torch.tensor([0.4, 0.1, 0.3, 0.1, 0.2, 0.3, 0.04]).repeat(2, 3, 1)
    check_poses(poses)
    for entry, value in changes.items():
        poses[1, 2, entry] = value
    with pytest.raises(ValueError, match=message):
        check_poses(poses)


def test_a_single_pose_is_checked_too() -> None:
    pose = torch.tensor([0.4, 0.1, 0.3, -179.26, 90.0, 0.3, 0.04])
    with pytest.raises(ValueError, match=r"got \(-179.3, 90, 0.3\): these look like degrees"):
        check_poses(pose)


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted poses \(..., 7\).* got \(2, 6\)"):
        check_poses(torch.zeros(2, 6))
