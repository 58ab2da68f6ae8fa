"""Why a world model plans as it does: figures on held-out trajectories.

Shapes: B windows, T frames, C observed ones, F frames, P tokens, D latent width, A action width,
Q proprio width, S sim_state.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vjepa_wm.data.latents import frames_per_batch
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.evaluation.charts import curves
from vjepa_wm.evaluation.findings import Finding
from vjepa_wm.progress import Progress, no_progress
from vjepa_wm.world_model import Imagination, WorldModel

Rows = slice | Tensor  # which windows

TABLE_STD = 0.02  # of what ViTs add to tokens, before training
MIN_ACTION_RATIO = 1.15  # shuffled / true one-step error under which actions are hardly heard
MAX_COPY_SHARE = 0.8  # of copying's error, what the longest rollout may err by


@dataclass(frozen=True)
class Windows:
    """Windows of held-out trajectories.

    Attributes:
        pixels: uint8 (B, T, H, W, 3).
        latents: (B, T, P, D).
        actions: (B, T - 1, A).
        proprio: (B, T, Q).
        sim_state: (B, T, S); S is 0 where it was not recorded.
        episodes: Which one each window is of (B,).
        context_len: Observed frames C of each window.
    """

    pixels: NDArray[np.uint8]
    latents: Tensor
    actions: Tensor
    proprio: Tensor
    sim_state: NDArray[np.float64]
    episodes: NDArray[np.int64]
    context_len: int

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.latents)

    def observe(self, world_model: WorldModel, rows: Rows = slice(None)) -> Imagination:
        """Show a world model the observed frames of some windows, on its device."""
        device = next(world_model.parameters()).device
        length, sensed = self.context_len, self.proprio[rows, : self.context_len].to(device)
        return world_model.observe(
            self.latents[rows, :length].to(device),
            self.actions[rows, : length - 1].to(device),
            sensed if world_model.takes_proprio else None,
        )

    @property
    def now(self) -> Tensor:
        """Latents of the last observed frame (B, 1, P, D)."""
        return self.latents[:, self.context_len - 1 : self.context_len]

    @property
    def future(self) -> Tensor:
        """Latents of the frames that are imagined (B, T - C, P, D)."""
        return self.latents[:, self.context_len :]

    @property
    def future_actions(self) -> Tensor:
        """Actions that lead to them (B, T - C, A)."""
        return self.actions[:, self.context_len - 1 :]


@torch.no_grad()
def encode_frames(
    encoder: FrozenEncoder,
    pixels: NDArray[np.uint8],
    *,
    desc: str = "encode",
    progress: Progress = no_progress,
) -> Tensor:
    """Encode frames (..., H, W, 3), as many at a time as memory allows, to (..., P, D)."""
    device = next(encoder.parameters()).device
    flat = torch.from_numpy(pixels.reshape(-1, 1, *pixels.shape[-3:]))
    parts = []
    with progress(total=len(flat), desc=desc, unit="frames") as bar:
        for batch in flat.split(frames_per_batch(encoder.frame_bytes, device)):
            parts.append(encoder.encode(batch.to(device)).squeeze(1).cpu())
            bar.update(len(batch))
    return torch.cat(parts).unflatten(0, pixels.shape[:-3])


def random_encoder(encoder: FrozenEncoder, *, seed: int) -> FrozenEncoder:
    """Return a copy whose layers have the random weights PyTorch begins with.

    What no layer begins with (tables of positions, class tokens) gets the small normal numbers that
    ViTs begin with there.
    """
    other = copy.deepcopy(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in other.vit.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            else:
                for parameter in module.parameters(recurse=False):
                    nn.init.trunc_normal_(parameter, std=TABLE_STD)
    return other


def draw_windows(
    trajectories: Trajectories,
    encoder: FrozenEncoder,
    *,
    count: int,
    num_frames: int,
    context_len: int,
    seed: int,
    stride: int = 1,
    progress: Progress = no_progress,
) -> Windows:
    """Draw windows of held-out episodes and encode them.

    Args:
        trajectories: What to draw from.
        encoder: What with.
        count: Number of windows B, drawn with replacement.
        num_frames: Frames per window T.
        context_len: How many of them count as observed.
        seed: Of the draw.
        stride: Recorded steps between two frames, whose actions are side by side.
        progress: Makes the progress bar.

    Raises:
        DataError: No held-out episode is long enough.
    """
    _, held_out = trajectories.split()
    windows = trajectories.windows(num_frames, stride=stride, episodes=held_out)
    batch = windows.sample(np.random.default_rng(seed), count)
    return Windows(
        pixels=batch.pixels,
        latents=encode_frames(encoder, batch.pixels, desc="encode windows", progress=progress),
        actions=torch.from_numpy(batch.actions),
        proprio=torch.from_numpy(trajectories.proprio.gather(batch.frames)),
        sim_state=trajectories.sim_state.gather(batch.frames),
        episodes=trajectories.episodes_of(batch.frames[:, 0]),
        context_len=context_len,
    )


def draw_frames(
    trajectories: Trajectories, count: int, *, held_out: bool, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Draw single frames of training or held-out episodes: pixels (F, H, W, 3), states (F, S)."""
    episodes = trajectories.split()[1 if held_out else 0]
    batch = trajectories.windows(1, episodes=episodes).sample(np.random.default_rng(seed), count)
    return batch.pixels[:, 0], trajectories.sim_state.gather(batch.frames)[:, 0]


@torch.no_grad()
def imagine(world_model: WorldModel, windows: Windows) -> Tensor:
    """Imagine the future of windows under their own actions: (B, T - C, P, D)."""
    device = next(world_model.parameters()).device
    parts = []
    for rows in torch.arange(len(windows)).split(32):
        actions = windows.future_actions[rows].unsqueeze(1).to(device)
        imagined = windows.observe(world_model, rows).rollout(actions)
        parts.append(imagined.squeeze(1).cpu())
    return torch.cat(parts)


@dataclass(frozen=True)
class ActionFigure:
    """Whether the predictor listens to actions: open-loop error per step, L1 on latents.

    Attributes:
        true: With the actions that were taken.
        shuffled: With those of another window.
        copy: Of the last observed frame.
    """

    title: ClassVar[str] = "actions: open-loop error on latents (L1)"
    advice: ClassVar[str] = (
        "shuffled / true near 1 means that actions are ignored: train longer, raise change_weight, "
        "or let a step be longer (env.frame_skip) so that more changes in it; true / copy near 1 "
        "means that rollouts drift: raise rollout_steps and rollout_weight, or plan less far"
    )
    true: list[float]
    shuffled: list[float]
    copy: list[float]

    def draw(self) -> Image.Image:
        """Draw the errors over steps."""
        rows = {"true": self.true, "shuffled": self.shuffled, "copy": self.copy}
        return curves(rows, "open-loop L1 error")

    def findings(self) -> list[Finding]:
        """The ratios at the first and the last step."""
        ratio = self.shuffled[0] / max(self.true[0], 1e-9)
        share = self.true[-1] / max(self.copy[-1], 1e-9)
        steps = len(self.true)
        return [
            Finding(
                "shuffled / true, step 1",
                ratio,
                is_bad=ratio < MIN_ACTION_RATIO,
                beside={"true": self.true[0], "shuffled": self.shuffled[0], "copy": self.copy[0]},
            ),
            Finding(
                f"true / copy, step {steps}",
                share,
                is_bad=share > MAX_COPY_SHARE,
                beside={
                    "true": self.true[-1],
                    "shuffled": self.shuffled[-1],
                    "copy": self.copy[-1],
                },
            ),
        ]


def action_figure(errors: Mapping[str, Tensor]) -> ActionFigure:
    """Make a figure of what `horizon_errors` returns: rows `true`, `shuffled`, `copy`."""
    return ActionFigure(**{name: row.tolist() for name, row in errors.items()})
