"""Say why a world model plans as it does: python -m vjepa_wm.diagnose env=push.

Looks at held-out episodes and writes diagnostics.json and pictures. A quick look:
python -m vjepa_wm.diagnose env=push frames=500 windows=64
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from vjepa_wm.cli import progress, verb
from vjepa_wm.costs import DISTANCES, METRIC
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.decoder import load_decoder
from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.evaluation.charts import below, save_animation
from vjepa_wm.evaluation.cost_figures import PLANNED, cost_figure, draw_triples
from vjepa_wm.evaluation.counterfactuals import (
    CounterfactualFigure,
    Rate,
    Trials,
    bilinear_is_own,
    imagine_trials,
    nearest_is_own,
    rate_of,
    try_actions,
)
from vjepa_wm.evaluation.diagnostics import action_figure
from vjepa_wm.evaluation.findings import Figure, as_json, table
from vjepa_wm.evaluation.html.runs import DIAGNOSTICS_FILE
from vjepa_wm.evaluation.landscapes import draw_landscapes, landscape_figure
from vjepa_wm.evaluation.novelty import imagined_ends, novelty_figure, plan_to_ends
from vjepa_wm.evaluation.pictures import SHOWN, look, picture_figure
from vjepa_wm.evaluation.probes import ProbeFigure, fit_probe, rollout_figure, score
from vjepa_wm.evaluation.subject import Sizes, Subject
from vjepa_wm.files import atomic_path, read_json, write_json
from vjepa_wm.loading import load_world_model
from vjepa_wm.predictor import open_world_model
from vjepa_wm.provenance import provenance
from vjepa_wm.training.dynamics import horizon_errors

SIZES = tuple(field.name for field in dataclasses.fields(Sizes))

Result = tuple[Figure, Image.Image | None]


@verb("diagnose")
def main(cfg: DictConfig) -> None:
    """Look into a world model: encoder, predictor, cost, each beside its floor.

    Example: python -m vjepa_wm.diagnose env=push
    """
    names = [cfg.what] if isinstance(cfg.what, str) else list(cfg.what)
    check_figures(names)
    subject = build_subject(cfg)
    results = Results(cfg, data=subject.trajectories.digest, without=names)
    figures: dict[str, Figure] = {}
    for name in names:
        if reason := reason_to_skip(name, subject):
            results.skip(name, reason)
            continue
        figures[name], picture = FIGURES[name](subject)
        if picture is not None:
            with atomic_path(Path(cfg.out) / f"{name}.png") as temporary:
                picture.save(temporary)
        if name in ANIMATIONS:
            frames, fps = ANIMATIONS[name](subject), subject.trajectories.meta.fps
            save_animation(Path(cfg.out) / f"{name}.webp", frames, frames_per_second=fps)
        results.add(name, figures[name])
    print(f"{cfg.model} on held-out episodes of {cfg.data}; ! marks what is bad\n")
    print(table(list(figures.values())))
    for name in names:
        if name in results.skipped:
            print(f"no {name}: {results.skipped[name]}")
    print(f"all numbers and pictures: {cfg.out}")


def check_figures(names: Iterable[str]) -> None:
    """Refuse what is no figure.

    Raises:
        UnknownNameError: Naming the nearest.
    """
    for name in names:
        if name not in FIGURES:
            raise UnknownNameError("figure", name, FIGURES)


def build_subject(cfg: DictConfig) -> Subject:
    """Load what is to be diagnosed."""
    sizes = Sizes(**{name: cfg[name] for name in SIZES})
    world_model = load_world_model(
        cfg.model, encoder_checkpoint=cfg.encoder_checkpoint, device=cfg.device
    )
    if not world_model.predictor.action_dim:
        raise SettingError(f"model: {cfg.model} takes no actions, there are no plans to diagnose")
    decoder = None
    if cfg.decoder is not None:
        decoder = load_decoder(cfg.decoder, world_model.encoder, device=cfg.device)
    return Subject(
        world_model,
        Trajectories.open(cfg.data),
        sizes,
        planner=instantiate(cfg.planner),
        context_len=cfg.context_len,
        cost=instantiate(cfg.cost, metric=world_model.metric),
        decoder=decoder,
        seed=cfg.seed,
        progress=progress,
    )


def reason_to_skip(name: str, subject: Subject) -> str:
    """Say why a figure cannot be made; "" if it can."""
    if name in NEED_DECODER and subject.decoder is None:
        return NO_DECODER
    return subject.missing() if name in NEED_STATE else ""


def probe(subject: Subject) -> Result:
    """The state in single frames, beside an encoder with random weights."""
    targets, (pixels, states) = subject.targets, subject.held_out_frames
    r2, rmse = score(targets, subject.probe.predict(subject.encode(pixels)), states)
    training_pixels, training_states = subject.training_frames
    encode = subject.encode_randomly
    floor = fit_probe(encode(training_pixels), targets.values(training_states))
    random_scores = score(targets, floor.predict(encode(pixels)), states)
    return ProbeFigure(len(pixels), r2, rmse, *random_scores), None


def rollout(subject: Subject) -> Result:
    """The state along imagined rollouts."""
    windows = subject.windows
    rows = {
        "imagined": subject.imagined,
        "copy": windows.now.expand_as(windows.future),
        "encoded": windows.future,
    }
    states = windows.sim_state[:, windows.context_len - 1 :]
    figure = rollout_figure(subject.probe, subject.targets, rows, states)
    return figure, figure.draw()


def costs(subject: Subject) -> Result:
    """How costs order frames by their distance to a goal."""
    triples = draw_triples(
        subject.trajectories,
        subject.simulator,
        count=subject.sizes.pairs,
        apart=subject.horizon,
        seed=subject.seed + 3,
        progress=subject.progress,
    )
    latents = subject.encode(triples.pixels).to(subject.device)  # (F, 3, P, D)
    frames, goals = latents[:, :2], latents[:, 2:]
    # Frames as what plans of one step end in
    scores = {PLANNED: subject.cost.at_end()(frames.unsqueeze(2), goals.squeeze(1))}
    scores |= {name: distance(frames, goals) for name, distance in DISTANCES.items()}
    if subject.world_model.metric is not None:
        scores[METRIC] = subject.world_model.metric(frames, goals)
    found = {name: score.detach().cpu().numpy() for name, score in scores.items()}
    pixels = triples.pixels.astype(np.float32)
    found["pixels"] = ((pixels[:, :2] - pixels[:, 2:]) ** 2).mean(axis=(-3, -2, -1))
    figure = cost_figure(
        found,
        triples.distance,
        episodes=triples.episodes,
        apart=subject.horizon,
        seed=subject.seed,
    )
    return figure, None


def actions(subject: Subject) -> Result:
    """Whether actions are listened to."""
    windows, device = subject.windows, subject.device
    sums: dict[str, Tensor] = {}
    for rows in torch.arange(len(windows)).chunk(max(1, len(windows) // 32)):
        errors = horizon_errors(
            subject.world_model,
            windows.latents[rows].to(device),
            windows.actions[rows].to(device),
            windows.proprio[rows].to(device) if subject.world_model.takes_proprio else None,
            context_len=windows.context_len,
        )
        for name, row in errors.items():
            part = row.cpu() * len(rows) / len(windows)
            sums[name] = sums[name] + part if name in sums else part
    figure = action_figure(sums)
    return figure, figure.draw()


def counterfactual(subject: Subject) -> Result:
    """Whether imagined frames are nearest to what their actions really lead to."""
    windows, spec = subject.windows, subject.world_model.action_spec
    trials = try_actions(
        windows,
        subject.simulator,
        low=np.array(spec.low),
        high=np.array(spec.high),
        num_actions=subject.sizes.tried,
        seed=subject.seed + 4,
        progress=subject.progress,
    )
    imagined = imagine_trials(subject.world_model, windows, trials.actions)
    outcomes = subject.encode(trials.pixels)  # (B, K, 2, P, D)

    def rate(imagined: Tensor, outcomes: Tensor) -> Rate:
        return rate_of(nearest_is_own(imagined, outcomes), windows.episodes, seed=subject.seed)

    figure = CounterfactualFigure(
        states=len(windows),
        num_actions=subject.sizes.tried,
        steps=subject.horizon,
        first=rate(imagined[:, :, 0], outcomes[:, :, 0]),
        last=rate(imagined[:, :, 1], outcomes[:, :, 1]),
        copy=rate(windows.now, outcomes[:, :, 0]),
        bilinear=bilinear_floor(subject, trials, subject.encode),
        random_bilinear=bilinear_floor(subject, trials, subject.encode_randomly),
    )
    return figure, None


def bilinear_floor(
    subject: Subject, trials: Trials, encode: Callable[[NDArray[np.uint8]], Tensor]
) -> Rate:
    """The simplest dynamics on an encoder's latents, after one step."""
    pixels, taken = subject.transitions
    now = subject.windows.pixels[:, subject.windows.context_len - 1]
    is_own = bilinear_is_own(
        (encode(pixels), taken),
        encode(now),
        trials.actions[:, :, 0],
        encode(trials.pixels[:, :, 0]),
    )
    return rate_of(is_own, subject.windows.episodes, seed=subject.seed)


def landscape(subject: Subject) -> Result:
    """Whether the cheapest action is a good one."""
    found = draw_landscapes(
        subject.world_model,
        subject.windows,
        subject.simulator,
        subject.cost.at_end(),
        encode=subject.encode,
        count=subject.sizes.landscapes,
        side=subject.sizes.grid,
        progress=subject.progress,
    )
    return landscape_figure(found), below([scape.draw() for scape in found])


def novelty(subject: Subject) -> Result:
    """How far from the data plans end."""
    windows, planner = subject.windows, subject.planner
    planned = plan_to_ends(
        subject.world_model,
        windows,
        planner,
        subject.cost,
        count=subject.sizes.plans,
        seed=subject.seed,
    )
    taken = windows.future_actions[: len(planned), : planner.horizon]
    figure = novelty_figure(
        imagined_ends(subject.world_model, windows, planned),
        imagined_ends(subject.world_model, windows, taken),
        windows.latents[: len(planned), windows.context_len - 1 + planner.horizon],
        subject.training_latents,
        episodes=windows.episodes[: len(planned)],
        seed=subject.seed,
    )
    return figure, None


def pictures(subject: Subject) -> Result:
    """What is imagined, drawn beside what then really happened."""
    shown = subject.decoder, subject.world_model.encoder, subject.windows, subject.imagined
    return picture_figure(*shown), look(*shown, slice(SHOWN)).still()


def moving_pictures(subject: Subject) -> list[Image.Image]:
    """The same as a film."""
    shown = subject.decoder, subject.world_model.encoder, subject.windows, subject.imagined
    return look(*shown, slice(SHOWN)).frames()


FIGURES: dict[str, Callable[[Subject], Result]] = {
    "probe": probe,
    "rollout": rollout,
    "costs": costs,
    "actions": actions,
    "counterfactual": counterfactual,
    "landscape": landscape,
    "novelty": novelty,
    "pictures": pictures,
}
FREE = {"what", "decoder", "device", "out"}  # options that change no figure but those they add
ANIMATIONS = {"pictures": moving_pictures}
NEED_STATE = ("probe", "rollout", "costs", "counterfactual", "landscape")
NEED_DECODER = ("pictures",)
NO_DECODER = (
    "no decoder is given: train one with python -m vjepa_wm.train_decoder, then decoder=FOLDER"
)


class Results:
    """All numbers in one JSON file, written anew after each figure, when its picture is there.

    What is in the file of the same model, episodes and options stays: figures may be asked for one
    after the other. What is of others goes before a picture of it is written over.

    Args:
        cfg: Options of the verb.
        data: Digest of the trajectories.
        without: Figures that are measured again.
    """

    def __init__(self, cfg: DictConfig, *, data: str, without: Sequence[str]) -> None:
        """Take over what stays."""
        self._path = Path(cfg.out) / DIAGNOSTICS_FILE
        self._about = {
            "digests": {"model": open_world_model(cfg.model, None).digest, "data": data},
            "config": OmegaConf.to_container(cfg, resolve=True),
            **provenance(),
        }
        earlier = self._earlier()
        self._figures, self.skipped = (
            {name: told for name, told in earlier.get(part, {}).items() if name not in without}
            for part in ("figures", "skipped")
        )
        self._write()

    def _earlier(self) -> dict[str, Any]:
        """What the file holds, if it is of the same."""
        if not self._path.is_file():
            return {}
        earlier = read_json(self._path)
        is_same = earlier.get("digests") == self._about["digests"]
        is_same = is_same and fixed(earlier["config"]) == fixed(self._about["config"])
        return earlier if is_same else {}

    def add(self, name: str, figure: Figure) -> None:
        """Add a figure."""
        self._figures |= as_json({name: figure})
        self._write()

    def skip(self, name: str, reason: str) -> None:
        """Say why a figure is left out."""
        self.skipped[name] = reason
        self._write()

    def _write(self) -> None:
        write_json(self._path, {"figures": self._figures, "skipped": self.skipped, **self._about})


def fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make a figure another one."""
    return {name: value for name, value in config.items() if name not in FREE}


if __name__ == "__main__":
    main()
