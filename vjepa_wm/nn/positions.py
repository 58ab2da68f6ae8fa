"""The fixed sine-cosine position table of V-JEPA 1, and its resizing to other grids.

Shapes: L tokens (t-major, then row, then column), D width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int, int]  # tokens along time, rows, columns

NUM_AXES = 3


def sincos_table(grid: Grid, *, dim: int) -> Tensor:
    """Compute the table that is added to the tokens of a grid.

    Time, row and column get the same, even number of channels: first the sines, then the cosines
    of the position times falling frequencies. What exceeds the width is cut off at the end.

    Returns:
        float32 (1, L, D).
    """
    width = 2 * -(-dim // (2 * NUM_AXES))  # the least even number that thrice covers D
    frequencies = 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    axes = [torch.arange(size, dtype=torch.float64) for size in grid]
    positions = torch.stack(
        torch.meshgrid(*axes, indexing="ij"), dim=-1
    )  # (time, rows, columns, 3)
    angles = positions.unsqueeze(-1) * frequencies  # (time, rows, columns, 3, width / 2)
    table = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
    return table.flatten(0, 2)[:, :dim].float().unsqueeze(0)


def resize_table(table: Tensor, *, grid: Grid, to: Grid) -> Tensor:
    """Fit a table (1, L, D) of one grid to another.

    A shorter clip of the same size takes the beginning; any other grid is interpolated.
    """
    if grid[1:] == to[1:] and to[0] <= grid[0]:
        return table[:, : to[0] * to[1] * to[2]]
    volume = table.unflatten(1, grid).permute(0, 4, 1, 2, 3)  # (1, D, time, rows, columns)
    return F.interpolate(volume, size=to, mode="trilinear").flatten(2).transpose(1, 2)
