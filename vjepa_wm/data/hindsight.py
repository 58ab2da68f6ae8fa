"""Pairs of frames of one episode, the later of which serves as the goal of the earlier.

Shapes: E episodes, B pairs.
"""

import numpy as np

from vjepa_wm.errors import DataError


class HindsightPairs:
    """Every frame that has a later one, with a goal 1 to `max_steps` recorded steps after it.

    Args:
        lengths: Frames per episode (E,), in the order in which the frames are stored.
        max_steps: Farthest goal, in recorded steps; nearer where the episode ends before.
        episodes: Episodes to draw from; all when None.

    Attributes:
        frames: Global indices of the frames that have a later one.

    Raises:
        DataError: `max_steps` is below 1, or no episode has two frames.
    """

    def __init__(
        self, lengths: np.ndarray, *, max_steps: int, episodes: np.ndarray | None = None
    ) -> None:
        """List the frames and how many follow each of them."""
        if max_steps < 1:
            raise DataError(f"goal steps: wanted at least 1, got {max_steps}")
        lengths = np.asarray(lengths, dtype=np.int64)
        first_frame = np.cumsum(lengths) - lengths
        chosen = np.arange(len(lengths)) if episodes is None else np.asarray(episodes, np.int64)
        counts = np.maximum(lengths[chosen] - 1, 0)
        if counts.sum() == 0:
            raise DataError(f"no pair of frames: none of {len(chosen)} episodes has two frames")
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.frames = np.repeat(first_frame[chosen], counts) + within
        self._farthest = np.minimum(np.repeat(counts, counts) - within, max_steps)

    def __len__(self) -> int:
        """Return the number of frames that have a later one."""
        return len(self.frames)

    def sample(self, rng: np.random.Generator, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw frames uniformly and a goal for each, as global frame indices (B,) and (B,)."""
        rows = rng.integers(len(self.frames), size=batch_size)
        return self.frames[rows], self.frames[rows] + rng.integers(self._farthest[rows]) + 1
