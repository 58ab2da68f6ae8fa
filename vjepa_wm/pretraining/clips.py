"""Draws clips for pretraining from several sets of trajectories."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.errors import DataError


class ClipSampler:
    """Draws clips at random, all sets alike, each clip at its own stride.

    Args:
        sets: trajectories with frames of one size; only their training episodes are used.
        num_frames: frames per clip.
        strides: recorded steps between two frames of a clip; one is drawn per set and batch. 0 is
            a still, one frame repeated, as V-JEPA 2 shows images (arXiv 2506.09985, section 2.2).
    """

    def __init__(
        self, sets: Sequence[Trajectories], *, num_frames: int, strides: Sequence[int]
    ) -> None:
        self.num_frames = num_frames
        self.windows = [
            [
                trajectories.windows(
                    num_frames=num_frames if stride else 1,
                    stride=stride or 1,
                    episodes=trajectories.split()[0],
                )
                for stride in strides
            ]
            for trajectories in sets
        ]

    def sample(self, rng: np.random.Generator, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draw uint8 clips (B, T, H, W, C) and the index of the set each comes from (B,)."""
        parts = np.array_split(np.arange(batch_size), len(self.windows))
        source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        clips = [
            self._fill(by_stride[rng.integers(len(by_stride))].sample(rng, len(part)).pixels)
            for by_stride, part in zip(self.windows, parts, strict=True)
            if len(part)
        ]
        return torch.from_numpy(np.concatenate(clips)), torch.from_numpy(source)

    def _fill(self, pixels: np.ndarray) -> np.ndarray:
        """Repeat stills (B, 1, H, W, C) to the length of a clip; others pass."""
        return np.broadcast_to(pixels, (len(pixels), self.num_frames, *pixels.shape[2:]))


def validation_frames(trajectories: Trajectories, *, num_episodes: int) -> Tensor:
    """Frames of the first held-out episodes, uint8 (E, T, H, W, C), cut to the shortest.

    Raises:
        DataError: no episode is held out.
    """
    _, held_out = trajectories.split()
    if not len(held_out):
        raise DataError(
            f"{trajectories.folder} holds out no episode of its {trajectories.num_episodes} for "
            "validation: record at least two"
        )
    episodes = [trajectories.episode(int(i)).pixels for i in held_out[:num_episodes]]
    length = min(len(pixels) for pixels in episodes)
    return torch.from_numpy(np.stack([pixels[:length] for pixels in episodes]))
