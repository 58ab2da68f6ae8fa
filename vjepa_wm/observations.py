"""What agents read of environments: pixels and proprio, refused where they are something else.

Shapes: n environments, H W image, Q proprio width.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vjepa_wm.errors import SettingError

Pixels = np.ndarray | Tensor
_OVERSHOOT = 0.1  # of images that were resized, beyond 0 to 1


def as_tensor(pixels: Pixels) -> Tensor:
    """Take pixels as a tensor: also views of arrays that are upside down, or not to be written."""
    if isinstance(pixels, np.ndarray):
        pixels = np.ascontiguousarray(pixels)
        pixels = pixels if pixels.flags.writeable else pixels.copy()
    return torch.as_tensor(pixels)


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


def read_images(images: Tensor, name: str) -> Tensor:
    """Take images (..., 3, H, W), uint8 or floating in [0, 1], as uint8 pixels (..., H, W, 3).

    Raises:
        SettingError: they have another shape, dtype or range.
    """
    got = f"{images.dtype} {tuple(images.shape)}"
    if images.is_floating_point():
        low, high = (float(value) for value in images.aminmax())
        got += f" from {low:.4g} to {high:.4g}"
        if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:  # not so where one is NaN
            images = (images * 255).round().clamp(0, 255).to(torch.uint8)
    if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-3] != 3:
        raise SettingError(
            f"{name}: wanted images (n, 3, H, W), uint8 or floating in [0, 1], got {got}; give "
            "them as they were before they were normalised, or divide 0 to 255 by 255"
        )
    return images.movedim(-3, -1)


def which_changed(before: Tensor, now: Tensor) -> np.ndarray:
    """Tell which of n frames (n, H, W, 3), or of one (H, W, 3), changed: their numbers (k,)."""
    return np.flatnonzero((before != now).flatten(-3).any(dim=-1).cpu())


def read_goal(goal: Pixels | Mapping[str, Pixels]) -> Tensor:
    """Take the pixels of a goal, or of a mapping that holds them under `pixels`.

    Raises:
        SettingError: there are none, or they have another shape or dtype.
    """
    if goal is None:
        raise SettingError("goal: wanted an image, got None: this episode has no goal")
    return read_pixels(_entry(goal, "goal") if isinstance(goal, Mapping) else goal, "goal")


def read_subgoals(subgoals: Pixels, *, count: int | None) -> Tensor:
    """Take subgoals (n, G, H, W, 3) of so many environments, or (G, H, W, 3) of a single one.

    Returns:
        uint8 pixels (n, G, H, W, 3), n being 1 for a single one.

    Raises:
        SettingError: there are none, or they have another shape or dtype.
    """
    tensor = as_tensor(subgoals)
    pixels = tensor.unsqueeze(0) if count is None else tensor
    is_fit = pixels.ndim == 5 and len(pixels) == (count or 1) and pixels.shape[1] > 0
    if not is_fit or pixels.shape[-1] != 3 or pixels.dtype != torch.uint8:
        wanted = "(G, H, W, 3)" if count is None else f"({count}, G, H, W, 3)"
        raise SettingError(
            f"subgoals: wanted uint8 pixels {wanted}, at least one, as the goal is, got "
            f"{tensor.dtype} {tuple(tensor.shape)}"
        )
    return pixels


def replaced(pixels: Tensor | None, rows: np.ndarray, new: Tensor) -> Tensor | None:
    """Put new frames (k, H, W, 3) in place of some of (n, H, W, 3); None where sizes differ."""
    if pixels is None or pixels.shape[-3:] != new.shape[-3:]:
        return None
    frames = pixels.reshape(-1, *pixels.shape[-3:]).clone()
    frames[torch.from_numpy(rows)] = new.reshape(-1, *new.shape[-3:]).to(frames.device)
    return frames.reshape(pixels.shape)


def read_mask(mask: np.ndarray, count: int, name: str) -> np.ndarray:
    """Take which of n environments are meant, bool (n,).

    Raises:
        SettingError: it is something else, such as their numbers.
    """
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != (count,):
        raise SettingError(
            f"{name}: wanted bool ({count},), one per environment, got {mask.dtype} {mask.shape}"
        )
    return mask


def read_env_ids(env_ids: np.ndarray, *, count: int) -> np.ndarray:
    """Take which of n environments are meant, as numbers (k,) or bool (n,); returns numbers.

    Raises:
        SettingError: they are no whole numbers, outside 0 to n - 1, or one of them comes twice.
    """
    ids = np.asarray(env_ids)
    if ids.dtype == bool:
        return np.flatnonzero(read_mask(ids, count, "env_ids"))
    is_fit = ids.ndim == 1 and (ids.dtype.kind in "iu" or not ids.size)
    if not is_fit or len(set(ids.tolist())) < len(ids) or not ((ids >= 0) & (ids < count)).all():
        raise SettingError(
            f"env_ids: wanted different numbers from 0 to {count - 1}, or bool ({count},), "
            f"got {ids.tolist()}"
        )
    return ids.astype(np.int64)


def read_frames(obs: Mapping[str, Pixels], *, count: int) -> Tensor:
    """Take the pixels (n, H, W, 3) of as many environments as there are goals.

    Raises:
        SettingError: there are none, they have another shape or dtype, or are of another number of
            environments.
    """
    if not isinstance(obs, Mapping):
        raise SettingError(
            f"obs: wanted a mapping with 'pixels', got {type(obs).__name__}: "
            'give {"pixels": image}'
        )
    pixels = read_pixels(_entry(obs, "obs"), "obs['pixels']")
    pixels = pixels.unsqueeze(0) if pixels.ndim == 3 else pixels
    if len(pixels) != count:
        raise SettingError(f"the goal is for {count} environments, got pixels of {len(pixels)}")
    return pixels


def _entry(mapping: Mapping[str, Pixels], name: str) -> Pixels:
    if "pixels" not in mapping:
        raise SettingError(f"{name}: wanted 'pixels' in it, got only {', '.join(sorted(mapping))}")
    return mapping["pixels"]


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
