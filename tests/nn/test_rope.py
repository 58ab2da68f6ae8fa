"""Rotary positions: what turns, by how much, and what of it attention can see."""

import math

import pytest
import torch
from torch import Tensor

from vjepa_wm.errors import SettingError
from vjepa_wm.nn.rope import RopeStyle, apply_rope, as_rotation, grid_positions, rope_3d, token_rope

HEAD_DIM = 16  # 4 channels per axis; the last 4 pass through


def turned(x: Tensor, position: tuple[int, int, int], style: RopeStyle = "interleaved") -> Tensor:
    """Turn vectors (N, D) as if all stood at one position."""
    rope = rope_3d(torch.tensor([position]), head_dim=x.shape[-1], style=style)
    return apply_rope(x[:, None, None], rope)[:, 0, 0]


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(50, HEAD_DIM, generator=torch.Generator().manual_seed(0))


def test_token_ids_run_over_columns_then_rows_then_frames() -> None:
    positions = grid_positions(torch.arange(12), rows=2, columns=3)
    wanted = [[t, r, c] for t in range(2) for r in range(2) for c in range(3)]
    assert positions.tolist() == wanted


def test_interleaved_keeps_norms(vectors: Tensor) -> None:
    """A rotation; `tiled`, which the published V-JEPA 2 needs, is none."""
    norm = vectors.norm(dim=-1)
    torch.testing.assert_close(turned(vectors, (3, 1, 2)).norm(dim=-1), norm)
    tiled = turned(vectors, (3, 1, 2), "tiled").norm(dim=-1)
    assert float((tiled / norm - 1).abs().max()) > 0.05


def test_dot_products_depend_on_the_offset_only(vectors: Tensor) -> None:
    """Moving query and key by the same step along any axis changes nothing; `tiled` does."""
    query, key = vectors[:25], vectors[25:]

    def product(shift: int, axis: int, style: RopeStyle) -> Tensor:
        at, other = [1, 2, 3], [4, 0, 2]
        at[axis] += shift
        other[axis] += shift
        return (turned(query, tuple(at), style) * turned(key, tuple(other), style)).sum(-1)

    for axis in range(3):
        still, moved = (product(shift, axis, "interleaved") for shift in (0, 5))
        torch.testing.assert_close(still, moved, atol=1e-4, rtol=1e-4)
        tiled, tiled_moved = (product(shift, axis, "tiled") for shift in (0, 5))
        assert float((tiled - tiled_moved).abs().max()) > 0.1


def test_each_axis_turns_its_own_channels(vectors: Tensor) -> None:
    """Time the first 4, rows the next, columns the next; the rest is never touched."""
    for axis in range(3):
        position = tuple(3 if axis == other else 0 for other in range(3))
        changed = (turned(vectors, position) - vectors).abs().amax(0) > 1e-6
        assert changed.nonzero().flatten().tolist() == list(range(4 * axis, 4 * axis + 4))


def test_a_pair_turns_by_position_times_frequency(vectors: Tensor) -> None:
    """Frequencies 1 and 1/100 at 4 channels per axis; counter-clockwise."""
    out = turned(vectors, (2, 0, 0))
    for pair, angle in enumerate((2.0, 0.02)):
        a, b = vectors[:, 2 * pair], vectors[:, 2 * pair + 1]
        cos, sin = math.cos(angle), math.sin(angle)
        torch.testing.assert_close(out[:, 2 * pair], a * cos - b * sin)
        torch.testing.assert_close(out[:, 2 * pair + 1], b * cos + a * sin)


def test_positions_may_differ_by_sample() -> None:
    """A table of (B, L, 3) positions turns each sample by its own."""
    positions = torch.tensor([[[0, 1, 2], [3, 0, 0]], [[1, 1, 1], [2, 2, 0]]])
    x = torch.randn(2, 3, 2, HEAD_DIM)
    both = apply_rope(x, rope_3d(positions, head_dim=HEAD_DIM, style="interleaved"))
    for b in range(2):
        alone = rope_3d(positions[b], head_dim=HEAD_DIM, style="interleaved")
        torch.testing.assert_close(both[b : b + 1], apply_rope(x[b : b + 1], alone))


def test_dtype_is_kept(vectors: Tensor) -> None:
    assert turned(vectors.bfloat16(), (1, 1, 1)).dtype == torch.bfloat16


def test_interpolated_positions_span_the_same_range() -> None:
    """The corners of any grid stand where those of 16 x 16 patches do; time is not touched."""
    options = {"head_dim": HEAD_DIM, "style": "interpolated"}
    corners = torch.tensor([0, 2, 9, 11, 12])  # of 4 rows of 3 columns; the last of frame 1
    small = token_rope(corners, rows=4, columns=3, **options)
    places = torch.tensor([[0, 0, 0], [0, 0, 15], [0, 15, 0], [0, 15, 15], [1, 0, 0]])
    wanted = rope_3d(places, head_dim=HEAD_DIM, style="interleaved")
    for table, other in zip(small, wanted, strict=True):
        torch.testing.assert_close(table, other, atol=1e-5, rtol=1e-5)


def test_interpolation_changes_nothing_at_16_by_16() -> None:
    ids = torch.arange(512)
    for table, other in zip(
        *(
            token_rope(ids, rows=16, columns=16, head_dim=HEAD_DIM, style=style)
            for style in ("interpolated", "interleaved")
        ),
        strict=True,
    ):
        assert torch.equal(table, other)


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (4, 1)])
def test_one_patch_cannot_be_spread(rows: int, columns: int) -> None:
    ids = torch.arange(4)
    with pytest.raises(SettingError, match=f"at least 2 patches .* got {rows} x {columns}"):
        token_rope(ids, rows=rows, columns=columns, head_dim=HEAD_DIM, style="interpolated")


def test_no_table_turns_nothing(vectors: Tensor) -> None:
    assert apply_rope(vectors, None) is vectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_complex_numbers_turn_as_the_table_does(dtype: torch.dtype) -> None:
    """Also queries that lie apart in memory, as a projection leaves them."""
    positions = grid_positions(torch.arange(12), rows=2, columns=3)
    rope = rope_3d(positions, head_dim=HEAD_DIM, style="interleaved")
    x = torch.randn(2, 12, 3, 2, HEAD_DIM, generator=torch.Generator().manual_seed(0)).to(dtype)
    query = x[:, :, 1].transpose(1, 2)  # (2, 2, 12, D)
    found, wanted = apply_rope(query, as_rotation(rope)), apply_rope(query.float(), rope)
    assert found.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found.float(), wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("head_dim", [4, 9])
def test_heads_too_narrow_to_turn_are_refused(head_dim: int) -> None:
    with pytest.raises(SettingError, match=f"at least 6 per head, got {head_dim}"):
        rope_3d(torch.zeros(1, 3), head_dim=head_dim, style="interleaved")
