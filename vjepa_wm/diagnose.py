"""Say why a world model plans as it does: python -m vjepa_wm.diagnose env=push.

Looks at held-out episodes and writes diagnostics.json and pictures. A quick look:
python -m vjepa_wm.diagnose env=push frames=500 windows=64
"""

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vjepa_wm.cli import progress, verb
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.errors import DataError, SettingError, UnknownNameError
from vjepa_wm.evaluation.diagnostics import (
    ActionFigure,
    Windows,
    action_figure,
    draw_frames,
    draw_windows,
    encode_frames,
    imagine,
    random_encoder,
)
from vjepa_wm.evaluation.findings import Figure, as_json, table
from vjepa_wm.evaluation.probes import (
    Probe,
    ProbeFigure,
    RolloutFigure,
    fit_probe,
    rollout_figure,
    score,
    targets_of,
)
from vjepa_wm.files import write_json
from vjepa_wm.loading import load_world_model
from vjepa_wm.provenance import provenance
from vjepa_wm.training.dynamics import horizon_errors
from vjepa_wm.world_model import WorldModel

logger = logging.getLogger(__name__)

RESULTS_FILE = "diagnostics.json"


@verb("diagnose")
def main(cfg: DictConfig) -> None:
    """Look into a world model: encoder, predictor, cost, each beside its floor.

    Example: python -m vjepa_wm.diagnose env=push
    """
    names = chosen_figures(cfg)
    subject = Subject(cfg)
    figures: dict[str, Figure] = {}
    skipped: dict[str, str] = {}
    for name in names:
        reason = subject.missing() if name in NEED_STATE else ""
        if reason:
            skipped[name] = reason
        else:
            figures[name] = FIGURES[name](subject)
    write_results(cfg, figures, skipped)
    print(f"{cfg.model} on held-out episodes of {cfg.data}; ! marks what is bad\n")
    print(table(list(figures.values())))
    for name, reason in skipped.items():
        print(f"no {name}: {reason}")
    print(f"all numbers: {cfg.out}")


def chosen_figures(cfg: DictConfig) -> list[str]:
    """Return the figures to make, refusing unknown ones and sizes below one."""
    names = [cfg.what] if isinstance(cfg.what, str) else list(cfg.what)
    for name in names:
        if name not in FIGURES:
            raise UnknownNameError("figure", name, FIGURES)
    for name in ("frames", "windows"):
        if cfg[name] < 2:
            raise DataError(f"{name}: wanted at least 2, got {cfg[name]}")
    return names


class Subject:
    """What is diagnosed, and what several figures need of it, made when first asked for.

    Args:
        cfg: The verb's config.

    Raises:
        DataError: The trajectories are not of the actions the model was trained for.
        SettingError: The model needs proprio, or the context is too long for it.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.trajectories = Trajectories.open(cfg.data)
        self.world_model: WorldModel = load_world_model(cfg.model, device=cfg.device)
        self.targets = targets_of(self.trajectories.meta.env_id)
        check_fit(cfg, self.world_model, self.trajectories)

    def missing(self) -> str:
        """Say what is missing for figures that need the simulator's state; "" if nothing is."""
        if self.targets is None:
            return f"what to probe is not known of {self.trajectories.meta.env_id}"
        if not self.trajectories.meta.sim_state_dim:
            return "the trajectories have no sim_state"
        return ""

    @cached_property
    def windows(self) -> Windows:
        """Held-out windows as long as the predictor was trained for."""
        return draw_windows(
            self.trajectories,
            self.world_model.encoder,
            count=self.cfg.windows,
            num_frames=self.world_model.predictor.max_frames + 1,
            context_len=self.cfg.context_len,
            seed=self.cfg.seed,
            device=self.cfg.device,
            progress=progress,
        )

    @cached_property
    def imagined(self) -> Tensor:
        """The windows' future, imagined."""
        return imagine(self.world_model, self.windows, device=self.cfg.device)

    @cached_property
    def training_frames(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Pixels and states the probe is fitted on."""
        return draw_frames(
            self.trajectories, self.cfg.frames, held_out=False, seed=self.cfg.seed + 1
        )

    @cached_property
    def training_latents(self) -> Tensor:
        """Latents of `training_frames` (F, P, D)."""
        return self.encode(self.world_model.encoder, self.training_frames[0])

    @cached_property
    def held_out_frames(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Pixels and states the probe is tested on."""
        count = self.cfg.frames // 2
        return draw_frames(self.trajectories, count, held_out=True, seed=self.cfg.seed + 2)

    @cached_property
    def held_out_latents(self) -> Tensor:
        """Latents of `held_out_frames` (F, P, D)."""
        return self.encode(self.world_model.encoder, self.held_out_frames[0])

    @cached_property
    def probe(self) -> Probe:
        """Reads the state off latents."""
        return fit_probe(self.training_latents, self.targets.values(self.training_frames[1]))

    def encode(self, encoder: FrozenEncoder, pixels: NDArray[np.uint8]) -> Tensor:
        """Encode frames with the verb's device and progress bar."""
        return encode_frames(encoder, pixels, device=self.cfg.device, progress=progress)


def check_fit(cfg: DictConfig, world_model: WorldModel, trajectories: Trajectories) -> None:
    """Refuse what cannot be diagnosed together."""
    if world_model.takes_proprio:
        raise SettingError(f"model {cfg.model} takes proprio: diagnose is for models without")
    longest = world_model.predictor.max_frames
    if not 1 <= cfg.context_len <= longest:
        raise SettingError(f"context_len: wanted 1 to {longest}, got {cfg.context_len}")
    spec, meta = world_model.action_spec, trajectories.meta
    wanted = (tuple(spec.low), tuple(spec.high), spec.frame_skip)
    found = (tuple(meta.action_low), tuple(meta.action_high), meta.frame_skip)
    if wanted != found:
        raise DataError(
            f"{cfg.data} has other actions than model {cfg.model} was trained for: low, high, "
            f"frame_skip: wanted {wanted}, got {found}; name another folder with data="
        )


def probe(subject: Subject) -> ProbeFigure:
    """Figure 1: the state in single frames, beside an encoder with random weights."""
    targets, (pixels, states) = subject.targets, subject.held_out_frames
    r2, rmse = score(targets, subject.probe.predict(subject.held_out_latents), states)
    other = random_encoder(subject.world_model.encoder, seed=subject.cfg.seed)
    training_pixels, training_states = subject.training_frames
    floor = fit_probe(subject.encode(other, training_pixels), targets.values(training_states))
    predicted = floor.predict(subject.encode(other, pixels))
    return ProbeFigure(len(pixels), r2, rmse, *score(targets, predicted, states))


def rollout(subject: Subject) -> RolloutFigure:
    """Figure 2: the state along imagined rollouts."""
    windows = subject.windows
    rows = {
        "imagined": subject.imagined,
        "copy": windows.context[:, -1:].expand_as(windows.future),
        "encoded": windows.future,
    }
    states = windows.sim_state[:, windows.context_len - 1 :]
    return rollout_figure(subject.probe, subject.targets, rows, states)


def actions(subject: Subject) -> ActionFigure:
    """Figure 4: whether actions are listened to."""
    windows, device = subject.windows, subject.cfg.device
    sums: dict[str, Tensor] = {}
    for rows in torch.arange(len(windows)).chunk(max(1, len(windows) // 32)):
        errors = horizon_errors(
            subject.world_model,
            windows.latents[rows].to(device),
            windows.actions[rows].to(device),
            context_len=windows.context_len,
        )
        for name, row in errors.items():
            part = row.cpu() * len(rows) / len(windows)
            sums[name] = sums[name] + part if name in sums else part
    return action_figure(sums)


FIGURES: dict[str, Callable[[Subject], Figure]] = {
    "probe": probe,
    "rollout": rollout,
    "actions": actions,
}
NEED_STATE = ("probe", "rollout")


def write_results(cfg: DictConfig, figures: dict[str, Figure], skipped: dict[str, str]) -> None:
    """Write everything to one JSON file."""
    results = {
        "figures": as_json(figures),
        "skipped": skipped,
        "config": OmegaConf.to_container(cfg, resolve=True),
        **provenance(),
    }
    write_json(Path(cfg.out) / RESULTS_FILE, results)


if __name__ == "__main__":
    main()
