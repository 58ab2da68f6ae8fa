"""Masks over a clip: which tokens are seen, which are predicted.

V-JEPA (arXiv 2404.08471, section 3.2 and appendix): the union of a few blocks is the target and
its complement the context. Two kinds are used on every clip: many small blocks (short range) and
few large ones (long range), both spanning the whole clip in time. VideoMAE hides random patches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa_wm.errors import SettingError

MAX_DRAWS = 1000  # of one sample's mask, before the blocks are called too large for the grid


@dataclass(frozen=True)
class MultiBlockMask:
    """One kind of mask.

    Args:
        num_blocks: blocks whose union is the target.
        spatial_scale: area of one block as a share of the frame.
        temporal_scale: share of the clip's frames a block spans; 1 is the whole clip.
        min_aspect: lowest height / width of a block.
        max_aspect: highest height / width of a block.
    """

    num_blocks: int
    spatial_scale: float
    temporal_scale: float = 1.0
    min_aspect: float = 0.75
    max_aspect: float = 1.5

    def __post_init__(self) -> None:
        for name in ("spatial_scale", "temporal_scale"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        if self.spatial_scale == 1 and self.temporal_scale == 1:
            raise SettingError(
                "a block of the whole clip leaves no context: lower one of its scales"
            )

    def sample(
        self, rng: np.random.Generator, *, batch_size: int, grid: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor]:
        """Draw masks for a batch on a token grid (frames, rows, columns).

        The size of a block is shared by the batch, its place is each sample's own. Samples are cut
        to the smallest count in the batch (a random subset), so that they stack.

        Returns:
            Context ids (B, Lc) and target ids (B, Lt), both sorted, disjoint within a sample.

        Raises:
            SettingError: blocks of this size leave no context on this grid.
        """
        size = self._block_size(rng, grid)
        masks = self._hidden(rng, batch_size, grid, size)  # (B, L)
        return _stack(rng, ~masks), _stack(rng, masks)

    def _block_size(
        self, rng: np.random.Generator, grid: tuple[int, int, int]
    ) -> tuple[int, int, int]:
        frames, rows, columns = grid
        aspect = rng.uniform(self.min_aspect, self.max_aspect)
        area = rows * columns * self.spatial_scale  # published code cuts it to a whole number
        height = min(rows, max(1, round(math.sqrt(area * aspect))))
        width = min(columns, max(1, round(math.sqrt(area / aspect))))
        if self.spatial_scale == 1:
            height, width = rows, columns
        return max(1, round(frames * self.temporal_scale)), height, width

    def _hidden(
        self,
        rng: np.random.Generator,
        batch_size: int,
        grid: tuple[int, int, int],
        size: tuple[int, int, int],
    ) -> NDArray[np.bool_]:
        """Hide blocks at random places of each clip (B, L); something of each stays visible."""
        masks = self._covered(rng, batch_size, grid, size)
        for _ in range(MAX_DRAWS):
            is_full = masks.all(axis=1)
            if not is_full.any():
                return masks
            # An empty context teaches nothing: draw again
            masks[is_full] = self._covered(rng, int(is_full.sum()), grid, size)
        raise SettingError(
            f"{self.num_blocks} blocks of {size} tokens cover the whole grid of {grid} (frames, "
            "rows, columns) and leave no context: lower num_blocks or a scale, or use longer clips "
            "or larger images"
        )

    def _covered(
        self,
        rng: np.random.Generator,
        batch_size: int,
        grid: tuple[int, int, int],
        size: tuple[int, int, int],
    ) -> NDArray[np.bool_]:
        """Draw where blocks lie; True where one of them covers a token (B, L)."""
        inside = []
        for length, extent in zip(grid, size, strict=True):
            first = rng.integers(0, length - extent + 1, size=(batch_size, self.num_blocks, 1))
            place = np.arange(length)
            inside.append((first <= place) & (place < first + extent))  # (B, blocks, length)
        frames, rows, columns = inside
        blocks = frames[:, :, :, None, None] & rows[:, :, None, :, None] & columns[:, :, None, None]
        return blocks.any(axis=1).reshape(batch_size, -1)


def _stack(rng: np.random.Generator, masks: NDArray[np.bool_]) -> Tensor:
    """Ids of the True entries of masks (B, L), cut to the fewest of a row by a random choice."""
    count = int(masks.sum(axis=1).min())
    keys = np.where(masks, rng.random(masks.shape), 1.0)  # below 1 where True
    chosen = np.argsort(keys, axis=1)[:, :count]
    return torch.from_numpy(np.sort(chosen, axis=1))


class MultiBlockMasks:
    """All kinds of masks of a recipe, those of clips and those of stills.

    Args:
        video: keywords of `MultiBlockMask`, one mapping per kind; all are used on every clip.
        image: the same for stills.
    """

    def __init__(
        self, *, video: Sequence[Mapping[str, float]], image: Sequence[Mapping[str, float]]
    ) -> None:
        self.video = [MultiBlockMask(**kind) for kind in video]
        self.image = [MultiBlockMask(**kind) for kind in image]

    def draw(
        self,
        rng: np.random.Generator,
        *,
        batch_size: int,
        grid: tuple[int, int, int],
        is_image: bool = False,
    ) -> list[tuple[Tensor, Tensor]]:
        """Draw context and target ids of each kind, as `MultiBlockMask.sample` does."""
        kinds = self.image if is_image else self.video
        return [kind.sample(rng, batch_size=batch_size, grid=grid) for kind in kinds]


class TubeMasks:
    """One kind of mask: random patches, hidden through the whole clip (VideoMAE, arXiv 2203.12602).

    Args:
        ratio: share of the patches that is hidden. At least one patch is seen and one hidden.
    """

    def __init__(self, *, ratio: float) -> None:
        if not 0 < ratio < 1:
            raise SettingError(f"ratio must be in (0, 1), got {ratio}")
        self.ratio = ratio

    def draw(
        self,
        rng: np.random.Generator,
        *,
        batch_size: int,
        grid: tuple[int, int, int],
        is_image: bool = False,
    ) -> list[tuple[Tensor, Tensor]]:
        """Draw context ids (B, Lc) and target ids (B, Lt), both sorted; one kind.

        Raises:
            SettingError: a frame has one patch only.
        """
        del is_image  # a still is hidden as a clip is
        frames, patches = grid[0], grid[1] * grid[2]
        if patches < 2:
            raise SettingError(f"a frame of {patches} patch cannot be masked: use a larger image")
        hidden = min(max(round(patches * self.ratio), 1), patches - 1)
        order = np.stack([rng.permutation(patches) for _ in range(batch_size)])
        first = np.arange(frames)[:, None] * patches  # id of each frame's first token
        context, target = (
            torch.from_numpy((first + np.sort(part)[:, None]).reshape(batch_size, -1))
            for part in (order[:, hidden:], order[:, :hidden])
        )
        return [(context, target)]
