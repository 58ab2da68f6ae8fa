"""How far the latents of trajectories move in a step, and how far they spread.

Shapes: P tokens, D latent width.
"""

import numpy as np
import torch
from torch import Tensor

from vjepa_wm.data.latents import LatentCache, LatentWindows
from vjepa_wm.training.inputs import draw, split_windows

STEP_DRAWS, STEP_PAIRS = 16, 64  # pairs of frames that say how far latents move in a step
SPREAD_DRAWS, SPREAD_WINDOWS = 16, 8  # pieces of trajectories that say how far they spread


def squared_step(cache: LatentCache) -> float:
    """Mean squared difference of latents one recorded step apart, over the training windows."""
    train_windows, _ = split_windows(cache, num_frames=2)
    rng, changes = np.random.default_rng(0), []
    for _ in range(STEP_DRAWS):  # a few at a time: large encoders make large latents
        latents = train_windows.sample(rng, STEP_PAIRS).latents.float()
        changes.append(float((latents[:, 1] - latents[:, 0]).square().mean()))
    # Where nothing ever changes a warning was given already; the metric wants a positive number
    return max(sum(changes) / len(changes), 1e-6)


def spread(windows: LatentWindows, *, device: str) -> tuple[Tensor, float]:
    """Mean latents (P, D) over windows, and the root mean square of what differs from them."""
    rng, means, squares = np.random.default_rng(0), [], []
    for _ in range(SPREAD_DRAWS):  # a few at a time: large encoders make large latents
        latents, _, _ = draw(windows, rng, SPREAD_WINDOWS, device=device)
        means.append(latents.mean(dim=(0, 1)))
        squares.append(float(latents.square().mean()))
    mean = torch.stack(means).mean(dim=0)  # (P, D)
    variance = sum(squares) / SPREAD_DRAWS - float(mean.square().mean())
    return mean, max(variance, 1e-6) ** 0.5  # 1e-6: nothing ever changes, as was warned of already
