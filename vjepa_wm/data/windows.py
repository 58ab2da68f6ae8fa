"""Windows of consecutive frames, the same for pixels, actions and cached latents.

Arrays are flat over frames and cut into shards; an episode never crosses a shard. A frame is named
by its global index: its position when all shards are laid end to end.
"""

from collections.abc import Sequence

import numpy as np

from vjepa_wm.errors import DataError


class FrameArrays:
    """One array over all frames, kept as one (memory-mapped) piece per shard.

    Args:
        shards: Arrays ``(F_i, ...)`` that differ in their first dimension only.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        """Remember where each shard begins."""
        # As plain arrays: slicing a np.memmap costs several times as much.
        self.shards = [np.asarray(shard) for shard in shards]
        self.first_frame = np.cumsum([0] + [len(shard) for shard in self.shards])

    def __len__(self) -> int:
        """Return the number of frames in all shards."""
        return int(self.first_frame[-1])

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame's entry."""
        return self.shards[0].shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return self.shards[0].dtype

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Return frames ``start`` to ``stop - 1``, all of one shard, without copying."""
        shard = int(np.searchsorted(self.first_frame, start, side="right")) - 1
        offset = int(self.first_frame[shard])
        return self.shards[shard][start - offset : stop - offset]

    def gather(self, frames: np.ndarray) -> np.ndarray:
        """Copy rows of evenly spaced frames out of the shards.

        Args:
            frames: Global indices ``(B, T)``; each row lies in one shard and climbs in equal steps,
                as the rows of `WindowIndex` do.

        Returns:
            Entries ``(B, T, ...)``.
        """
        batch, length = frames.shape
        out = np.empty((batch, length, *self.frame_shape), dtype=self.dtype)
        shard_ids = np.searchsorted(self.first_frame, frames[:, 0], side="right") - 1
        step = int(frames[0, 1] - frames[0, 0]) if length > 1 and batch else 1
        # A strided slice of a memory map is a plain copy; fancy indexing is several times slower.
        for row, shard in enumerate(shard_ids):
            start = int(frames[row, 0] - self.first_frame[shard])
            out[row] = self.shards[shard][start : start + (length - 1) * step + 1 : step]
        return out


class WindowIndex:
    """Every position where a window of frames fits inside one episode.

    Args:
        lengths: Frames per episode ``(E,)``, in the order in which the frames are stored.
        num_frames: Frames in a window, T.
        stride: Recorded steps between two frames of a window.
        episodes: Episodes to draw from; all when None.

    Raises:
        DataError: If no episode is long enough.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        num_frames: int,
        stride: int = 1,
        episodes: np.ndarray | None = None,
    ) -> None:
        """List the first frame of every window."""
        if num_frames < 1 or stride < 1:
            raise DataError(
                f"num_frames and stride must be at least 1, got {num_frames} and {stride}"
            )
        lengths = np.asarray(lengths, dtype=np.int64)
        first_frame = np.cumsum(lengths) - lengths
        chosen = np.arange(len(lengths)) if episodes is None else np.asarray(episodes, np.int64)
        span = (num_frames - 1) * stride
        counts = np.maximum(lengths[chosen] - span, 0)
        if counts.sum() == 0:
            longest = int(lengths[chosen].max()) if len(chosen) else 0
            raise DataError(
                f"no window of {num_frames} frames with stride {stride} fits: it spans {span + 1} "
                f"frames, the longest of {len(chosen)} episodes has {longest}"
            )
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.starts = np.repeat(first_frame[chosen], counts) + within
        self.num_frames = num_frames
        self.stride = stride
        self._offsets = np.arange(num_frames, dtype=np.int64) * stride

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.starts)

    def frames(self, windows: np.ndarray) -> np.ndarray:
        """Return the global frame indices ``(B, T)`` of the windows ``(B,)``."""
        return self.starts[windows][:, None] + self._offsets

    def sample(self, rng: np.random.Generator, batch_size: int) -> np.ndarray:
        """Draw windows uniformly, with replacement: global frame indices ``(B, T)``."""
        return self.frames(rng.integers(len(self.starts), size=batch_size))


def gather_actions(actions: FrameArrays, frames: np.ndarray, *, stride: int) -> np.ndarray:
    """Copy the actions between the frames of each window.

    With a stride above 1 all actions between two frames are kept, concatenated in their order.

    Args:
        actions: The action taken at each frame, ``(F, A)`` in all.
        frames: Global indices ``(B, T)`` of a `WindowIndex`.
        stride: That index's stride.

    Returns:
        Actions ``(B, T - 1, stride * A)``.
    """
    batch, length = frames.shape
    if length == 1:
        return np.empty((batch, 0, stride * actions.frame_shape[0]), dtype=actions.dtype)
    every = frames[:, :1] + np.arange((length - 1) * stride)
    return actions.gather(every).reshape(batch, length - 1, -1)
