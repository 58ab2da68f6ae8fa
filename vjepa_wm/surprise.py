"""What a world model is surprised by: python -m vjepa_wm.surprise env=push.

Possible and impossible versions of the same scenes, prediction error per frame, AUROC per event.
Curves of recorded episodes: python -m vjepa_wm.surprise env=push data=data/push episodes=[3]
Of any video, by an encoder alone: python -m vjepa_wm.surprise film.gif encoder=compact
or by a model without actions: python -m vjepa_wm.surprise film.gif model=runs/train_ac/play
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from vjepa_wm.cli import progress, verb
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.videos import UnreadableError, is_video, read_pictures, timeline
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.errors import DataError, SettingError, UnknownNameError
from vjepa_wm.evaluation.diagnostics import encode_frames, random_encoder
from vjepa_wm.evaluation.findings import as_json
from vjepa_wm.evaluation.html.runs import SURPRISE_FILE
from vjepa_wm.evaluation.subject import check_actions
from vjepa_wm.evaluation.surprise import (
    TOKENS,
    TwinSurprise,
    copy_errors,
    curves_of,
    foreseen_errors,
    looks_of,
    peaks,
    twin_surprise,
)
from vjepa_wm.evaluation.surprise_figures import (
    EventFigure,
    curve_lines,
    event_figure,
    frame_lines,
    pair_lines,
    table,
    typical,
)
from vjepa_wm.evaluation.surprise_pictures import film_strip, twin_strip
from vjepa_wm.evaluation.twins import Stage
from vjepa_wm.files import atomic_path, write_json
from vjepa_wm.loading import SHIPPED, load_world_model, warn_of_another_environment
from vjepa_wm.provenance import provenance
from vjepa_wm.world_model import WorldModel

CONTROL = "nothing"  # the event that must never be noticed; only made when it is named
MOST_FRAMES = 5000  # of a video, which are all held in memory
NAMED = 5  # most surprising frames that are printed

Line = Mapping[str, object]


@verb("surprise", file="video")
def main(cfg: DictConfig) -> None:
    """Measure how surprising frames are: of impossible scenes, recorded episodes or a video.

    Example: python -m vjepa_wm.surprise env=push
    """
    if cfg.tokens not in TOKENS:
        raise UnknownNameError("way to weigh tokens", cfg.tokens, TOKENS)
    if cfg.video is not None and cfg.data is not None:
        raise SettingError("video and data: wanted one of them at most, got both")
    if cfg.video is None and cfg.model is None:
        cfg.model = shipped_model(cfg.env.name)
    if cfg.video is not None:
        of_video(cfg)
    elif cfg.data is not None:
        of_episodes(cfg)
    else:
        of_twins(cfg)


def of_twins(cfg: DictConfig) -> None:
    """Measure each event on possible and impossible versions of the same scenes."""
    if cfg.pairs < 2:
        raise SettingError(f"pairs: wanted at least 2, got {cfg.pairs}")
    folder, skip = out_folder(cfg, cfg.env.name), cfg.env.frame_skip
    figures: dict[str, EventFigure] = {}
    pairs: list[Line] = []
    frames: list[Line] = []
    with Stage(cfg.env.id, image_size=cfg.env.image_size, frame_skip=skip) as stage:
        events, skipped = chosen_events(cfg, stage)
        world_model = load(cfg)
        if world_model.action_spec.frame_skip != skip:
            raise SettingError(
                f"env.frame_skip: the world model was trained for "
                f"{world_model.action_spec.frame_skip}, got {skip}"
            )
        warn_of_another_environment(cfg.model, cfg.env.id)
        random = random_encoder(world_model.encoder, seed=cfg.seed)
        (folder / SURPRISE_FILE).unlink(missing_ok=True)  # of other pictures than will be
        for event in events:
            found = surprise_at(cfg, stage, event, world_model, random)
            figures[event] = event_figure(found, tokens=cfg.tokens, seed=cfg.seed)
            pairs += pair_lines(found)
            frames += frame_lines(found)
            strip = twin_strip(found, typical(found, cfg.tokens), tokens=cfg.tokens)
            save_picture(folder / f"{event}.png", strip)
    write_csv(folder / "pairs.csv", pairs)
    write_csv(folder / "frames.csv", frames)
    write_results(cfg, folder, figures, skipped)
    report(cfg, folder, figures, skipped)


def surprise_at(
    cfg: DictConfig,
    stage: Stage,
    event: str,
    world_model: WorldModel,
    random: FrozenEncoder,
) -> TwinSurprise:
    """Draw the twins of an event and measure them."""
    clips = stage.draw(
        event,
        count=cfg.pairs,
        before=cfg.before,
        after=cfg.after,
        seed=cfg.seed,
        progress=progress,
    )
    return twin_surprise(
        world_model,
        random,
        clips,
        context_len=cfg.context_len,
        ahead=cfg.ahead,
        progress=progress,
    )


def report(
    cfg: DictConfig, folder: Path, figures: Mapping[str, EventFigure], skipped: Mapping[str, str]
) -> None:
    """Print the table, what the events are and which cannot be."""
    print(f"{cfg.model}: {cfg.pairs} possible and impossible twins of each event")
    print(f"AUROC [95 %] by the {cfg.tokens} token error, 0.5 is chance\n")
    print(f"{table(list(figures.values()))}\n")
    for event, figure in figures.items():
        print(f"{event}: {figure.says}")
    for event, reason in skipped.items():
        print(f"no {event}: {reason}")
    print(f"all numbers and pictures: {folder}")


def chosen_events(cfg: DictConfig, stage: Stage) -> tuple[list[str], dict[str, str]]:
    """Return the events to be made, and those that cannot be with their reason."""
    wanted = [cfg.events] if isinstance(cfg.events, str) else list(cfg.events)
    if wanted == ["all"]:
        wanted = [event for event in (*stage.events, *stage.missing) if event != CONTROL]
    for event in wanted:
        stage.check(event)
    skipped = {event: stage.missing[event] for event in wanted if event in stage.missing}
    events = [event for event in wanted if event not in skipped]
    if not events:
        reasons = "; ".join(f"no {event}: {reason}" for event, reason in skipped.items())
        raise DataError(f"no event is left: {reasons or 'none was named'}")
    return events, skipped


def of_episodes(cfg: DictConfig) -> None:
    """Draw the curve of recorded episodes under the actions that were taken."""
    trajectories, world_model = Trajectories.open(cfg.data), load(cfg)
    check_actions(world_model, trajectories)
    looks = looks_of(world_model, context_len=cfg.context_len, ahead=cfg.ahead)
    folder = out_folder(cfg, f"{Path(cfg.data).name}_episodes")
    for number in chosen_episodes(cfg, trajectories):
        episode = trajectories.episode(number)
        check_length(f"episode {number}", len(episode.pixels), cfg.ahead)
        pixels = episode.pixels.copy()  # of a file that is only read
        latents = encode_frames(world_model.encoder, pixels, progress=progress)[None]
        foreseen = foreseen_errors(
            world_model,
            latents,
            torch.from_numpy(episode.actions.copy())[None],
            torch.from_numpy(episode.proprio.copy())[None],
            looks,
            progress=progress,
        )
        errors = {"predictor": foreseen, "copy": copy_errors(latents, ahead=cfg.ahead)}
        seconds = np.arange(len(pixels)) / trajectories.meta.fps
        name = f"episode_{number}"
        print(f"episode {number} of {cfg.data}:")
        write_curve(cfg, folder, name, pixels, errors, seconds)


def chosen_episodes(cfg: DictConfig, trajectories: Trajectories) -> list[int]:
    """Return the episodes that were asked for, or the first held-out one."""
    if cfg.episodes is None:
        return trajectories.split()[1][:1].tolist()
    episodes = [cfg.episodes] if isinstance(cfg.episodes, int) else list(cfg.episodes)
    for number in episodes:
        if not isinstance(number, int) or not 0 <= number < trajectories.num_episodes:
            raise DataError(
                f"episodes: wanted numbers from 0 to {trajectories.num_episodes - 1}, got {number}"
            )
    return episodes


def of_video(cfg: DictConfig) -> None:
    """Draw the curve of a video: foreseen by a model, or how much an encoder's latents change."""
    world_model = looks = None
    if cfg.model is not None:
        world_model = load_watcher(cfg)
        looks = looks_of(world_model, context_len=cfg.context_len, ahead=cfg.ahead)
    encoder = world_model.encoder if world_model else instantiate(cfg.encoder, device=cfg.device)
    path = Path(cfg.video)
    pixels, seconds = read_video(cfg, path, side=encoder.image_size)
    check_length(str(path), len(pixels), cfg.ahead)
    latents = encode_frames(encoder, pixels, progress=progress)[None]
    says, errors = f"how much the latents of {encoder.name} change", {}
    if world_model is not None:
        nothing = torch.zeros(1, len(pixels), 0)  # neither actions nor proprio
        says = f"foreseen by {cfg.model}"
        errors["predictor"] = foreseen_errors(
            world_model, latents, nothing[:, 1:], nothing, looks, progress=progress
        )
    errors["copy"] = copy_errors(latents, ahead=cfg.ahead)
    print(f"{path}: {says}")
    folder = out_folder(cfg, f"{path.resolve().parent.name}_{path.stem}")  # or all 0.mp4 are one
    write_curve(cfg, folder, path.stem, pixels, errors, seconds)


def read_video(
    cfg: DictConfig, path: Path, *, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Read a video as squares (T, S, S, 3), and when each is shown (T,), in seconds."""
    for name in ("fps", "folder_fps"):
        if cfg[name] is not None and not cfg[name] > 0:
            raise SettingError(f"{name}: wanted a number above 0, got {cfg[name]}")
    if not path.exists() or not is_video(path):
        raise DataError(f"{path} is no video: wanted a film, a gif, a webp or a folder of pictures")
    try:
        line = timeline(path, folder_fps=cfg.folder_fps)
        count = len(line.starts)
        # Every n-th picture: an uneven choice would be surprising in itself. One picture lasts 0 s
        wanted = count if cfg.fps is None else max(1.0, line.duration * cfg.fps)
        chosen = np.arange(0, count, max(1, round(count / wanted)))
        if len(chosen) > MOST_FRAMES:
            every = -(-count // MOST_FRAMES)
            raise SettingError(
                f"{path} has {len(chosen)} pictures, wanted at most {MOST_FRAMES}: choose fewer "
                f"per second, such as fps={count / every / line.duration:.4g}"
            )
        pixels = read_pictures(path, chosen, side=side)
    except UnreadableError as error:
        raise DataError(f"{path}: {error}") from error
    return pixels, line.starts[chosen]


def check_length(name: str, length: int, ahead: int) -> None:
    """Refuse films in which no frame is foreseen."""
    if ahead < 1:
        raise SettingError(f"ahead: wanted at least 1, got {ahead}")
    if length <= ahead:
        raise DataError(f"{name}: wanted more than {ahead} frames, got {length}")


def write_curve(
    cfg: DictConfig,
    folder: Path,
    name: str,
    pixels: NDArray[np.uint8],
    errors: Mapping[str, Tensor],
    seconds: NDArray[np.float64],
) -> None:
    """Write the curve of one film and name its most surprising frames.

    Errors are row -> (1, T, P); what the first row says is named.
    """
    curves = curves_of({row: found[0] for row, found in errors.items()})
    timed = zip(curve_lines(curves), seconds.tolist(), strict=True)
    lines = [{"frame": line["frame"], "seconds": second, **line} for line, second in timed]
    write_csv(folder / f"{name}.csv", lines)
    shown = {row: own[cfg.tokens] for row, own in curves.items()}
    strip = film_strip(pixels, shown, ahead=cfg.ahead, tokens=cfg.tokens)
    save_picture(folder / f"{name}.png", strip)
    first = next(iter(shown.values()))
    usual = float(np.nanmedian(first))
    for frame in peaks(first, NAMED):
        times = f", {first[frame] / usual:.1f} times the median" if usual > 0 else ""
        print(f"  frame {frame} ({seconds[frame]:.2f} s): {first[frame]:.3f}{times}")
    print(f"  curve and picture: {folder}/{name}.csv, .png")


def shipped_model(name: str) -> str:
    """Return the name of the world model that is shipped for an environment."""
    if name not in SHIPPED:
        raise SettingError(
            f"model: none is shipped for env={name}; make one with python -m vjepa_wm.train_ac "
            f"env={name} and name its folder, model=runs/train_ac/{name}"
        )
    return name


def load(cfg: DictConfig) -> WorldModel:
    """Load the world model, which must foresee every recorded frame."""
    world_model = load_world_model(
        cfg.model, encoder_checkpoint=cfg.encoder_checkpoint, device=cfg.device
    )
    count = world_model.action_spec.actions_per_step
    if count > 1:
        raise SettingError(
            f"model: wanted one that foresees every frame, got {cfg.model}, whose steps are of "
            f"{count} actions"
        )
    return world_model


def load_watcher(cfg: DictConfig) -> WorldModel:
    """Load a world model that takes no actions."""
    world_model = load(cfg)
    if world_model.predictor.action_dim or world_model.takes_proprio:
        raise SettingError(
            "model: a video has neither actions nor proprio, wanted a model that takes none, got "
            f"{cfg.model}; python -m vjepa_wm.train_ac env=play makes one"
        )
    return world_model


def out_folder(cfg: DictConfig, name: str) -> Path:
    """Where results go."""
    return Path("runs/surprise") / name if cfg.out is None else Path(cfg.out)


def save_picture(path: Path, image: Image.Image) -> None:
    """Write a picture, whole or not at all."""
    with atomic_path(path) as temporary:
        image.save(temporary)


def write_csv(path: Path, lines: Iterable[Line]) -> None:
    """Write lines of the same columns, whole or not at all."""
    lines = list(lines)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def write_results(
    cfg: DictConfig, folder: Path, figures: dict[str, EventFigure], skipped: dict[str, str]
) -> None:
    """Write all figures to one JSON file."""
    results = {
        "figures": as_json(figures),
        "skipped": skipped,
        "config": OmegaConf.to_container(cfg, resolve=True),
        **provenance(),
    }
    write_json(folder / SURPRISE_FILE, results)


if __name__ == "__main__":
    main()
