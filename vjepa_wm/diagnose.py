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
from vjepa_wm.vjepa2_ac import PREDICTORS

SIZES = tuple(field.name for field in dataclasses.fields(Sizes))

Result = tuple[Figure, Image.Image | None]
Results = dict[str, dict[str, Any]]  # figures, and reasons of those left out, by name


@verb("diagnose")
def main(cfg: DictConfig) -> None:
    """Look into a world model: encoder, predictor, cost, each beside its floor.

    Example: python -m vjepa_wm.diagnose env=push
    """
    names = list(cfg.what)
    check_figures(names)
    subject = build_subject(cfg)
    said, path = about(cfg, subject), Path(cfg.out) / DIAGNOSTICS_FILE
    earlier = earlier_results(path, said, names)
    figures: dict[str, Figure] = {}
    skipped: dict[str, str] = {}
    for name in names:
        if reason := reason_to_skip(name, subject):
            skipped[name] = reason
            continue
        figures[name], picture = FIGURES[name](subject)
        if picture is not None:
            with atomic_path(Path(cfg.out) / f"{name}.png") as temporary:
                picture.save(temporary)
        if name in ANIMATIONS:
            frames, fps = ANIMATIONS[name](subject), subject.trajectories.meta.fps
            save_animation(Path(cfg.out) / f"{name}.webp", frames, frames_per_second=fps)
    write_results(path, said, earlier, {"figures": as_json(figures), "skipped": skipped})
    print(f"{cfg.model} on held-out episodes of {cfg.data}; ! marks what is bad\n")
    print(table(list(figures.values())))
    for name, reason in skipped.items():
        print(f"no {name}: {reason}")
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


def about(cfg: DictConfig, subject: Subject) -> dict[str, Any]:
    """What figures are of."""
    is_ours = cfg.model not in PREDICTORS
    model = open_world_model(cfg.model, None).digest if is_ours else str(cfg.model)
    return {
        "digests": {"model": model, "data": subject.trajectories.digest},
        "config": OmegaConf.to_container(cfg, resolve=True),
        **provenance(),
    }


def earlier_results(path: Path, said: Mapping[str, Any], names: Sequence[str]) -> Results:
    """What a diagnosis of the same model, episodes and options left, but for some figures.

    That of others is deleted, before its pictures are written over.
    """
    if not path.is_file():
        return {"figures": {}, "skipped": {}}
    earlier = read_json(path)
    config, other = said["config"], earlier["config"]
    same = {name for name in config if name in FREE or config[name] == other.get(name)}
    if earlier.get("digests") != said["digests"] or same != set(config):
        path.unlink()
        return {"figures": {}, "skipped": {}}
    stale = {*names, *(NEED_DECODER if config["decoder"] != other["decoder"] else ())}
    return {
        part: {name: told for name, told in earlier[part].items() if name not in stale}
        for part in ("figures", "skipped")
    }


def write_results(path: Path, said: Mapping[str, Any], earlier: Results, measured: Results) -> None:
    """Write all numbers to one JSON file, last of all: a folder that has it is complete."""
    figures = earlier["figures"] | measured["figures"]
    config = said["config"] | {"what": list(figures)}
    skipped = earlier["skipped"] | measured["skipped"]
    write_json(path, {**said, "config": config, "figures": figures, "skipped": skipped})


if __name__ == "__main__":
    main()
