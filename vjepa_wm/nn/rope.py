"""Rotary position embedding over the three axes of a video: time, row, column.

Shapes: B batch, L tokens, D head width.
"""

from typing import Literal

import torch
from torch import Tensor

from vjepa_wm.errors import SettingError

RopeStyle = Literal["tiled", "interleaved", "interpolated"]
Rope = tuple[Tensor, Tensor]  # cos and signed sin, each (B or 1, 1, L, D)

NUM_AXES = 3
INTERPOLATED_SIDE = 16  # rows and columns V-JEPA 2.1 maps every grid to: 256 pixels of patch 16


def grid_positions(token_ids: Tensor, *, rows: int, columns: int) -> Tensor:
    """Turn flat token ids (..., L), t-major then row then column, into (..., L, 3) positions."""
    frame = token_ids // (rows * columns)
    row = token_ids // columns % rows
    column = token_ids % columns
    return torch.stack([frame, row, column], dim=-1)


def token_rope(
    token_ids: Tensor, *, rows: int, columns: int, head_dim: int, style: RopeStyle
) -> Rope:
    """Compute the rotary table of tokens (L,) or (B, L) on a grid of rows and columns.

    `interpolated` spreads the rows and columns of every grid evenly over 0..15 and then turns as
    `interleaved` does; time is not touched (V-JEPA 2.1). The other styles count 0, 1, 2, ...

    Raises:
        SettingError: `interpolated`, and a side has one patch only.
    """
    positions = grid_positions(token_ids, rows=rows, columns=columns)
    if style == "interpolated":
        if min(rows, columns) < 2:
            raise SettingError(
                f"interpolated rotary positions need at least 2 patches on each side, got "
                f"{rows} x {columns}: use a larger image"
            )
        scale = [1.0] + [(INTERPOLATED_SIDE - 1) / (side - 1) for side in (rows, columns)]
        positions = positions * torch.tensor(scale, device=positions.device)
    return rope_3d(positions, head_dim=head_dim, style=style)


def rope_3d(positions: Tensor, *, head_dim: int, style: RopeStyle) -> Rope:
    """Compute the rotary table of the given positions.

    Each axis turns `2 * (head_dim // 3 // 2)` channels, in the order time, row, column; the
    remaining channels pass unchanged. Channels are paired (2j, 2j + 1).

    `interleaved` gives both channels of a pair the same frequency: a rotation (V-JEPA 2.1, and
    everything trained here); so does `interpolated`, see `token_rope`. `tiled` repeats the list of
    frequencies instead, so the two channels of a pair turn by different angles. That is not a
    rotation, but V-JEPA 2 and 2-AC were trained with it and their weights need it.

    Args:
        positions: (L, 3) or (B, L, 3) grid positions.
        head_dim: width of one attention head.
        style: how frequencies are laid over the channels.

    Returns:
        cos and sin, each float32 (1 or B, 1, L, head_dim); the sin of a pair's first channel is
        negated, as `apply_rope` wants it.

    Raises:
        SettingError: the heads are too narrow to turn a pair per axis, or of odd width.
    """
    if head_dim < 2 * NUM_AXES or head_dim % 2:
        raise SettingError(
            f"rotary positions need an even width of at least {2 * NUM_AXES} per head, got "
            f"{head_dim}: wanted a wider network or fewer heads"
        )
    width = 2 * (head_dim // NUM_AXES // 2)
    half = torch.arange(width // 2, device=positions.device, dtype=torch.float32)
    frequencies = 10_000.0 ** (-half / (width / 2))
    angles = positions.float().unsqueeze(-1) * frequencies  # (..., L, 3, width / 2)
    if style == "tiled":
        angles = torch.cat([angles, angles], dim=-1)
    else:
        angles = angles.repeat_interleave(2, dim=-1)
    angles = angles.flatten(-2)  # (..., L, 3 * width)
    angles = torch.nn.functional.pad(angles, (0, head_dim - angles.shape[-1]))  # angle 0: unchanged
    if angles.ndim == 2:
        angles = angles.unsqueeze(0)
    angles = angles.unsqueeze(1)
    sin = angles.sin()
    sin[..., 0::2].neg_()
    return angles.cos(), sin


def as_rotation(rope: Rope) -> Tensor:
    """Turn a table of rotations (any style but `tiled`) into complex numbers (B or 1, 1, L, D / 2).

    They turn the same way in one multiplication, which on a CPU is several times faster.
    """
    cos, sin = rope
    return torch.complex(cos[..., 0::2].float(), sin[..., 1::2].float())


def apply_rope(x: Tensor, rope: Rope | Tensor | None) -> Tensor:
    """Turn queries or keys (B, heads, L, D) by their positions; keeps the dtype of `x`.

    None, where positions were added to the tokens instead, turns nothing; a tensor is what
    `as_rotation` made of the table.
    """
    if rope is None:
        return x
    if isinstance(rope, Tensor):
        turned = torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * rope
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)
    cos, sin = (table.to(x.dtype) for table in rope)
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * cos, swapped, sin)
