"""Arrays over all frames, held in the memory of a GPU, so that batches are gathered there.

Shapes: B windows, T frames.
"""

import numpy as np
import torch
from torch import Tensor

from vjepa_wm.data.windows import FrameArrays
from vjepa_wm.gpu_memory import spare_bytes


class HeldFrames:
    """A copy of an array over all frames, on a device.

    Args:
        arrays: What is copied.
        device: Where to.
    """

    def __init__(self, arrays: FrameArrays, device: torch.device | str) -> None:
        dtype = torch.from_numpy(np.empty(0, arrays.dtype)).dtype
        shape = (len(arrays), *arrays.frame_shape)
        self.frames = torch.empty(shape, dtype=dtype, device=device)
        for first, shard in zip(arrays.first_frame[:-1], arrays.shards, strict=True):
            self.frames[first : first + len(shard)] = torch.from_numpy(np.array(shard))

    def gather(self, frames: np.ndarray) -> Tensor:
        """Return the entries of frames with global indices ``(B, T)``: ``(B, T, ...)``."""
        return self.frames[torch.from_numpy(frames).to(self.frames.device)]


class Room:
    """What data may take of the memory of a GPU; on a CPU there is none, as nothing is gained.

    Args:
        device: Whose memory.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.free = 0.0
        if self.device.type == "cuda":
            self.free = spare_bytes(self.device)

    def hold(self, arrays: FrameArrays) -> HeldFrames | None:
        """Copy an array over all frames there; None where it does not fit any more."""
        needed = len(arrays) * int(np.prod(arrays.frame_shape)) * arrays.dtype.itemsize
        if needed > self.free:
            return None
        self.free -= needed
        return HeldFrames(arrays, self.device)
