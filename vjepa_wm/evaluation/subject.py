"""What is diagnosed: a world model, held-out trajectories, and what several figures need of them.

Shapes: F frames, H W image, S sim_state, P tokens, D latent width, A action width.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planners import Planner
from vjepa_wm.bounds import same_actions
from vjepa_wm.costs import GoalCost
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.decoder import Decoder
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.errors import DataError, SettingError
from vjepa_wm.evaluation.diagnostics import (
    Windows,
    draw_frames,
    draw_windows,
    encode_frames,
    imagine,
    random_encoder,
)
from vjepa_wm.evaluation.probes import Probe, Targets, fit_probe, targets_of
from vjepa_wm.evaluation.simulator import Simulator
from vjepa_wm.progress import Progress, no_progress
from vjepa_wm.world_model import WorldModel

Frames = tuple[NDArray[np.uint8], NDArray[np.float64]]

_LEAST = {"windows": 2, "pairs": 2, "tried": 2, "landscapes": 1, "grid": 2, "plans": 2}
_LEAST["frames"] = 20


@dataclass(frozen=True)
class Sizes:
    """How much is looked at; see `configs/diagnose.yaml`.

    Raises:
        DataError: A size is too small to say anything.
    """

    frames: int
    windows: int
    pairs: int
    tried: int
    landscapes: int
    grid: int
    plans: int

    def __post_init__(self) -> None:
        """Refuse what is too small."""
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise DataError(f"{name}: wanted at least {least}, got {getattr(self, name)}")


class Subject:
    """A world model and trajectories it was not trained on, with draws made when first asked for.

    Args:
        world_model: What is diagnosed.
        trajectories: Of the same actions; probes are fitted on its training episodes, everything
            else is measured on its held-out ones.
        sizes: How much is looked at.
        planner: What plans are made with.
        context_len: Observed frames the predictor sees.
        cost: What is planned with.
        decoder: Draws its latents, where there is one.
        seed: Of every draw.
        progress: Makes the progress bars.

    Raises:
        DataError: The trajectories are not of the actions or proprio the model was trained for.
        SettingError: Context or plans are too long for the model.
    """

    def __init__(
        self,
        world_model: WorldModel,
        trajectories: Trajectories,
        sizes: Sizes,
        *,
        planner: Planner,
        context_len: int,
        cost: GoalCost,
        decoder: Decoder | None = None,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> None:
        self.world_model = world_model
        self.trajectories = trajectories
        self.sizes = sizes
        self.planner = planner
        self.context_len = context_len
        self.decoder = decoder
        self.seed = seed
        self.progress = progress
        self.targets: Targets | None = targets_of(trajectories.meta.env_id)
        self.cost = cost
        self._check_fit()

    def missing(self) -> str:
        """Say what is missing for figures that need the simulator's state; "" if nothing is."""
        if self.targets is None:
            return f"what to probe is not known of {self.trajectories.meta.env_id}"
        if not self.trajectories.meta.sim_state_dim:
            return "the trajectories have no sim_state"
        return ""

    @property
    def device(self) -> torch.device:
        """Where the world model is."""
        return next(self.world_model.parameters()).device

    @property
    def horizon(self) -> int:
        """Steps that are imagined after the observed frames of a window."""
        return self.world_model.predictor.max_frames + 1 - self.context_len

    @cached_property
    def simulator(self) -> Simulator:
        """The environment the trajectories are from."""
        meta = self.trajectories.meta
        return Simulator(meta.env_id, image_size=meta.image_size[0], frame_skip=meta.frame_skip)

    @cached_property
    def windows(self) -> Windows:
        """Held-out windows as long as the predictor was trained for."""
        return draw_windows(
            self.trajectories,
            self.world_model.encoder,
            count=self.sizes.windows,
            num_frames=self.context_len + self.horizon,
            context_len=self.context_len,
            seed=self.seed,
            stride=self.world_model.action_spec.actions_per_step,
            progress=self.progress,
        )

    @cached_property
    def imagined(self) -> Tensor:
        """Future of the windows, imagined under their own actions (B, T - C, P, D)."""
        return imagine(self.world_model, self.windows)

    @cached_property
    def training_frames(self) -> Frames:
        """Pixels and states the probe is fitted on."""
        count = self.sizes.frames
        return draw_frames(self.trajectories, count, held_out=False, seed=self.seed + 1)

    @cached_property
    def training_latents(self) -> Tensor:
        """Latents of `training_frames` (F, P, D)."""
        return self.encode(self.training_frames[0])

    @cached_property
    def held_out_frames(self) -> Frames:
        """Pixels and states the probe is tested on."""
        count = self.sizes.frames // 2
        return draw_frames(self.trajectories, count, held_out=True, seed=self.seed + 2)

    @cached_property
    def transitions(self) -> tuple[NDArray[np.uint8], Tensor]:
        """Training frames before and after a model step (F, 2, H, W, 3), its actions (F, K * A)."""
        stride = self.world_model.action_spec.actions_per_step
        episodes = self.trajectories.split()[0]
        windows = self.trajectories.windows(2, stride=stride, episodes=episodes)
        batch = windows.sample(np.random.default_rng(self.seed + 5), self.sizes.frames // 2)
        return batch.pixels, torch.from_numpy(batch.actions[:, 0])

    @cached_property
    def probe(self) -> Probe:
        """Reads the state off latents."""
        return fit_probe(self.training_latents, self.targets.values(self.training_frames[1]))

    @cached_property
    def random_encoder(self) -> FrozenEncoder:
        """The encoder with random weights."""
        return random_encoder(self.world_model.encoder, seed=self.seed)

    def encode(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Encode frames (..., H, W, 3) to (..., P, D)."""
        return encode_frames(self.world_model.encoder, pixels, progress=self.progress)

    def encode_randomly(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Encode frames with random weights."""
        return encode_frames(
            self.random_encoder, pixels, desc="encode, random weights", progress=self.progress
        )

    def _check_fit(self) -> None:
        """Refuse what cannot be diagnosed together."""
        check_actions(self.world_model, self.trajectories)
        longest = self.world_model.predictor.max_frames
        if not 1 <= self.context_len <= longest:
            raise SettingError(f"context_len: wanted 1 to {longest}, got {self.context_len}")
        if self.planner.horizon > self.horizon:
            raise SettingError(
                f"planner.horizon: wanted at most {self.horizon}, got {self.planner.horizon}: the "
                "predictor was trained on no more frames; or take a smaller context_len"
            )


def check_actions(world_model: WorldModel, trajectories: Trajectories) -> None:
    """Raise a `DataError` for trajectories whose actions or proprio a world model does not know."""
    width, found = world_model.predictor.proprio_dim, trajectories.meta.proprio_dim
    if width not in (None, found):
        raise DataError(
            f"{trajectories.folder} has proprio of {found} numbers, the world model takes "
            f"{width}; name another folder with data="
        )
    spec, meta = world_model.action_spec, trajectories.meta
    wanted = (spec.low, spec.high, spec.frame_skip)
    got = (meta.action_low, meta.action_high, meta.frame_skip)
    if not same_actions(wanted, got):
        raise DataError(
            f"{trajectories.folder} has other actions than the world model was trained "
            f"for: low, high, frame_skip: wanted {wanted}, got {got}; name another folder "
            "with data="
        )
