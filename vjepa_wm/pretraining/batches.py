"""A step of pretraining: what is decided on for its batch, and the loss of it.

Shapes: B clips, C H W image, T frames, S side of the square.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vjepa_wm import distributed
from vjepa_wm.encoders.frozen import normalise
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError
from vjepa_wm.pretraining.jepa import JEPA
from vjepa_wm.pretraining.loader import Batch, ClipLoader, ClipSampler, Plan
from vjepa_wm.pretraining.masks import MultiBlockMasks, TubeMasks
from vjepa_wm.pretraining.objective import Objective, Parts

logger = logging.getLogger(__name__)


def own_rows(batch_size: int, *, pieces: int) -> list[int]:
    """Rows of every batch that are this process's: every n-th, so that each has all sources.

    Raises:
        SettingError: A batch cannot be shared out evenly over processes and pieces.
    """
    processes = distributed.world_size()
    if batch_size % (processes * pieces):
        raise SettingError(
            f"trainer.batch_size {batch_size} must be a multiple of {processes} processes times "
            f"trainer.accumulate {pieces}"
        )
    return list(range(distributed.rank(), batch_size, processes))


def warn_of_parted_terms(objective: Objective, batch_size: int, *, pieces: int) -> None:
    """Say how few clips the terms against collapse compare where a batch comes in pieces."""
    if pieces > 1 and isinstance(objective, JEPA) and objective.terms:
        logger.warning(
            "the terms against collapse compare the %d clips of one piece, not the %d of a batch: "
            "make trainer.accumulate smaller, or set the weights of objective.terms to 0",
            batch_size // pieces,
            batch_size,
        )


def planner(
    sampler: ClipSampler,
    masks: MultiBlockMasks | TubeMasks,
    vit: VideoViT,
    *,
    batch_size: int,
    num_frames: int,
    image_size: int,
    image_share: float,
) -> Callable[[np.random.Generator], Plan]:
    """Make what decides on a batch: its clips, whether it is stills, its masks, in this order.

    Args:
        sampler: Decides on clips.
        masks: Decides on masks.
        vit: Whose tokens are masked.
        batch_size: Clips of a batch, of all processes together.
        num_frames: Frames per clip.
        image_size: Side of the square, pixels.
        image_share: Share of the batches that are stills.

    Raises:
        SettingError: `image_share` is no share, or a batch has no clip for some source.
    """
    if sampler.shares is None and batch_size < len(sampler.sources):
        raise SettingError(
            f"trainer.batch_size: wanted at least {len(sampler.sources)}, a clip of each of data, "
            f"got {batch_size}; or give weights, by which the clips of a batch are drawn"
        )
    if not 0 <= image_share <= 1:
        raise SettingError(f"image_share: wanted a share in [0, 1], got {image_share}")
    clip_grid, still_grid = (
        vit.grid(torch.Size([batch_size, 3, frames, image_size, image_size]))
        for frames in (num_frames, still_frames(vit))
    )

    def plan(rng: np.random.Generator) -> Plan:
        source, clips = sampler.draw(rng, batch_size)
        # Without stills nothing is drawn for them, so their option changes no other batch
        is_still = image_share > 0 and rng.random() < image_share
        grid = still_grid if is_still else clip_grid
        drawn = masks.draw(rng, batch_size=batch_size, grid=grid, is_image=is_still)
        return Plan(source, clips, drawn, is_still)

    return plan


class BatchLoss:
    """Loss of this process's rows of the next batch, in one piece or in several.

    Args:
        objective: Whose loss it is.
        loader: Gives out batches, where the objective is.
        rows: This process's.
        pieces: In which they are worked through.
    """

    def __init__(
        self,
        objective: Objective,
        loader: ClipLoader,
        rows: Sequence[int],
        *,
        pieces: int,
    ) -> None:
        self.objective = objective
        self.loader = loader
        self.rows = rows
        self.pieces = pieces

    def __call__(
        self, rng: np.random.Generator, share: float
    ) -> tuple[Tensor, Parts] | Iterator[tuple[Tensor, Parts]]:
        """Return the loss and its parts, or those of one piece after the other, to be summed."""
        batch = self.loader.next(rng)
        if self.pieces == 1:
            return self._piece(batch, self.rows, share)
        return self._in_pieces(batch, share)

    def _in_pieces(self, batch: Batch, share: float) -> Iterator[tuple[Tensor, Parts]]:
        for index in range(self.pieces):
            loss, parts = self._piece(batch, self.rows[index :: self.pieces], share)
            yield loss / self.pieces, {name: part / self.pieces for name, part in parts.items()}

    def _piece(self, batch: Batch, rows: Sequence[int], share: float) -> tuple[Tensor, Parts]:
        video = to_video(self.loader.read(batch, rows))
        if batch.plan.is_still:
            video = stills(video, self.objective.encoder)
        masks = [
            (context[rows].to(video.device), target[rows].to(video.device))
            for context, target in batch.plan.masks
        ]
        source = torch.from_numpy(batch.plan.source[rows]).to(video.device)
        return self.objective.loss(video, masks, source, share)


def to_video(pixels: Tensor) -> Tensor:
    """Turn uint8 clips (B, T, H, W, C) into normalised video (B, C, T, H, W)."""
    return normalise(pixels.movedim(-1, -3)).movedim(-4, -3)


def stills(video: Tensor, vit: VideoViT) -> Tensor:
    """Take the first frame of each clip (B, C, T, H, W) as the encoder sees images."""
    return video[:, :, :1].expand(-1, -1, still_frames(vit), -1, -1)


def still_frames(vit: VideoViT) -> int:
    """Frames an image has to an encoder: one where it has an image path, else a tubelet."""
    return 1 if vit.image_path else vit.tubelet_size
