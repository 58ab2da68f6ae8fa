"""What agents read of environments: pixels and proprio, refused where they are something else.

Shapes: n environments, H W image, Q proprio width.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vjepa_wm.errors import SettingError

Pixels = np.ndarray | Tensor


def as_tensor(pixels: Pixels) -> Tensor:
    """Take pixels as a tensor, also a view of an array that is upside down, as renderers make."""
    return torch.as_tensor(
        np.ascontiguousarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    )


def read_pixels(pixels: Pixels, name: str) -> Tensor:
    """Take uint8 pixels (..., H, W, 3), called `name` in what is said of others.

    Raises:
        SettingError: they have another shape or dtype.
    """
    tensor = as_tensor(pixels)
    if tensor.dtype != torch.uint8 or tensor.ndim < 3 or tensor.shape[-1] != 3:
        raise SettingError(
            f"{name}: wanted uint8 pixels (H, W, 3) or (n, H, W, 3), "
            f"got {tensor.dtype} {tuple(tensor.shape)}"
        )
    return tensor


def read_goal(goal: Pixels | Mapping[str, Pixels]) -> Tensor:
    """Take the pixels of a goal, or of a mapping that holds them under `pixels`.

    Raises:
        SettingError: they have another shape or dtype.
    """
    return read_pixels(goal["pixels"] if isinstance(goal, Mapping) else goal, "goal")


def read_frames(obs: Mapping[str, Pixels], *, count: int) -> Tensor:
    """Take the pixels (n, H, W, 3) of as many environments as there are goals.

    Raises:
        SettingError: they have another shape or dtype, or are of another number of environments.
    """
    pixels = read_pixels(obs["pixels"], "obs['pixels']")
    pixels = pixels.unsqueeze(0) if pixels.ndim == 3 else pixels
    if len(pixels) != count:
        raise SettingError(f"the goal is for {count} environments, got pixels of {len(pixels)}")
    return pixels


def read_proprio(obs: Mapping[str, Pixels], *, shape: tuple[int, int], need: str) -> Tensor:
    """Take the proprio float32 (n, Q) of n environments.

    Args:
        obs: holds it under `proprio`, as (Q,) where n is 1.
        shape: n and Q.
        need: what it is needed for, as the beginning of a sentence.

    Raises:
        SettingError: it is missing, or has another shape.
    """
    if "proprio" not in obs:
        raise SettingError(f"{need}: obs has no 'proprio', only {', '.join(sorted(obs))}")
    proprio = torch.as_tensor(obs["proprio"], dtype=torch.float32)
    proprio = proprio.unsqueeze(0) if proprio.ndim == 1 else proprio
    if proprio.shape != shape:
        raise SettingError(f"obs['proprio']: wanted {shape}, got {tuple(proprio.shape)}")
    return proprio
