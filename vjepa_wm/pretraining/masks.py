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
        masks = [self._sample_one(rng, grid, size) for _ in range(batch_size)]
        context = [np.flatnonzero(~mask) for mask in masks]
        target = [np.flatnonzero(mask) for mask in masks]
        return _stack(rng, context), _stack(rng, target)

    def _block_size(
        self, rng: np.random.Generator, grid: tuple[int, int, int]
    ) -> tuple[int, int, int]:
        frames, rows, columns = grid
        aspect = rng.uniform(self.min_aspect, self.max_aspect)
        area = rows * columns * self.spatial_scale
        height = min(rows, max(1, round(math.sqrt(area * aspect))))
        width = min(columns, max(1, round(math.sqrt(area / aspect))))
        if self.spatial_scale == 1:
            height, width = rows, columns
        return max(1, round(frames * self.temporal_scale)), height, width

    def _sample_one(
        self, rng: np.random.Generator, grid: tuple[int, int, int], size: tuple[int, int, int]
    ) -> np.ndarray:
        for _ in range(MAX_DRAWS):
            mask = np.zeros(grid, dtype=bool)
            for _ in range(self.num_blocks):
                start = [rng.integers(0, g - s + 1) for g, s in zip(grid, size, strict=True)]
                mask[tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))] = True
            if not mask.all():  # an empty context teaches nothing: draw again
                return mask.reshape(-1)
        raise SettingError(
            f"{self.num_blocks} blocks of {size} tokens cover the whole grid of {grid} (frames, "
            "rows, columns) and leave no context: lower num_blocks or a scale, or use longer clips "
            "or larger images"
        )


def _stack(rng: np.random.Generator, ids: list[np.ndarray]) -> Tensor:
    count = min(len(row) for row in ids)
    rows = [np.sort(rng.permutation(row)[:count]) for row in ids]
    return torch.from_numpy(np.stack(rows))


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
