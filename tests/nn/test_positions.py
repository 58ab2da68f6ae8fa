"""The fixed position table: what it says of each axis, and what resizing keeps."""

import pytest
import torch
from torch import Tensor

from vjepa_wm.nn.positions import resize_table, sincos_table

GRID = (2, 3, 4)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def volume(table: Tensor) -> Tensor:
    return table.unflatten(1, GRID)[0]  # (time, rows, columns, D)


def test_each_axis_has_its_own_channels() -> None:
    """Time, row, column, of 8 channels each; D = 20 cuts the last short."""
    places = volume(sincos_table(GRID, dim=20))
    for axis, channels in enumerate((slice(0, 8), slice(8, 16), slice(16, 20))):
        own = places[..., channels].movedim(axis, 0)
        assert torch.equal(own, own[:, :1, :1].expand_as(own))
        assert float((own[0] - own[1]).abs().max()) > 0.1


def test_sines_come_before_cosines_at_falling_frequencies() -> None:
    places = volume(sincos_table(GRID, dim=24))
    angles = 3 * torch.tensor([1.0, 0.1, 0.01, 0.001])
    wanted = torch.cat([angles.sin(), angles.cos()])
    torch.testing.assert_close(places[0, 0, 3, 16:], wanted, **CLOSE)


@pytest.mark.parametrize(("dim", "width"), [(1024, 342), (1280, 428), (96, 32)])
def test_published_widths_per_axis(dim: int, width: int) -> None:
    """The first cosine of time 0 stands behind half an axis of sines."""
    start = sincos_table((1, 1, 1), dim=dim)[0, 0]
    assert start[: width // 2].abs().max() == 0
    assert start[width // 2 : width].min() == 1
    assert start[width] == 0


def test_resizing_to_fewer_frames_takes_the_first() -> None:
    table = sincos_table(GRID, dim=24)
    assert torch.equal(resize_table(table, grid=GRID, to=(1, 3, 4)), table[:, :12])
    assert torch.equal(resize_table(table, grid=GRID, to=GRID), table)


def test_other_grids_are_interpolated() -> None:
    """Twice the columns of a ramp is a ramp of half the slope, flat at both ends."""
    ramp = torch.arange(4.0).expand(2, 3, 4).reshape(1, 24, 1)
    wide = resize_table(ramp, grid=GRID, to=(2, 3, 8)).view(2, 3, 8)
    wanted = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    torch.testing.assert_close(wide, wanted.expand(2, 3, 8))
    longer = resize_table(ramp, grid=GRID, to=(5, 3, 4)).view(5, 3, 4)
    torch.testing.assert_close(longer, torch.arange(4.0).expand(5, 3, 4))
