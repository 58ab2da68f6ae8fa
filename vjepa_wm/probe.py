"""What heads can tell of clips from frozen tokens: python -m vjepa_wm.probe env=push.

Beside the encoder stand the same network with random weights, raw pixels and, asked for, other
encoders. Videos with classes:
python -m vjepa_wm.probe videos=FOLDER encoder=vjepa2_vitl_256 head=attentive4
Labels of a corpus (docs/corpus.md): python -m vjepa_wm.probe data=data/play label=event
A quick look: python -m vjepa_wm.probe env=push clips=600 percents=[100] draws=1
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vjepa_wm.cli import progress, verb
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.registry import NAMES, TIMM, load_encoder
from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.files import atomic_path, write_json
from vjepa_wm.probing.cache import Clips, Features, build_or_open
from vjepa_wm.probing.episodes import labelled_clips
from vjepa_wm.probing.features import FLOORS, all_features, clip_mode
from vjepa_wm.probing.grid import Setting
from vjepa_wm.probing.labels import ClassLabels, Labels
from vjepa_wm.probing.protocol import Outcome, ProbeProtocol, Schedule
from vjepa_wm.probing.results import (
    Difference,
    as_json,
    differences,
    draw,
    paired_table,
    summarise,
    table,
    write_csv,
)
from vjepa_wm.probing.splits import Splits, check_shares, split_classes
from vjepa_wm.probing.states import draw_clips
from vjepa_wm.probing.videos import VideoFolder
from vjepa_wm.provenance import provenance

STATE_FRAMES = 4
VIDEO_FRAMES = 16
SHOWN_SKIPPED = 5

Encoders = Mapping[str, FrozenEncoder]


@dataclass(frozen=True)
class Task:
    """Clips, what is to be told of them, and which are for what.

    Attributes:
        clips: To be encoded.
        labels: Of the clips.
        splits: Rows of the clips.
        features: Of each encoder.
        skipped: Videos that are left out, and why.
    """

    clips: Clips
    labels: Labels
    splits: Splits
    features: Mapping[str, Features]
    skipped: Mapping[str, str]


@verb("probe")
def main(cfg: DictConfig) -> None:
    """Train heads on a frozen encoder's tokens and on what is beside it, on shares of the labels.

    Example: python -m vjepa_wm.probe env=push
    """
    protocol = build_protocol(cfg)
    encoder: FrozenEncoder = instantiate(cfg.encoder, device=cfg.device)
    others = load_others(cfg)
    task = make_task(cfg, encoder, others)
    labels = task.labels
    if cfg.shuffle_labels:
        labels = labels.shuffled(task.splits, np.random.default_rng(cfg.seed))
    outcomes = protocol.run(task.features, labels, task.splits, progress=progress)
    paired = differences(outcomes)
    write_results(cfg, task, outcomes, paired)
    report(cfg, task, outcomes, paired)


def build_protocol(cfg: DictConfig) -> ProbeProtocol:
    """Check all amounts before anything is loaded or encoded."""
    check_shares(cfg.validation_share, cfg.test_share)
    known = (*FLOORS, *NAMES)
    for name in cfg.beside:
        if not (name in known or name.startswith(TIMM) or Path(name).is_dir()):
            raise UnknownNameError("floor or encoder", name, known)
    return ProbeProtocol(
        make_head=lambda width, num_outputs: instantiate(
            cfg.head, width=width, num_outputs=num_outputs
        ),
        settings=[
            Setting(learning_rate, weight_decay)
            for learning_rate in cfg.learning_rates
            for weight_decay in cfg.weight_decays
        ],
        schedule=Schedule(cfg.epochs, cfg.min_steps, cfg.batch_size),
        percents=list(cfg.percents),
        draws=cfg.draws,
        seed=cfg.seed,
    )


def load_others(cfg: DictConfig) -> dict[str, FrozenEncoder]:
    """Load the encoders that stand beside, by the names they are given by."""
    return {
        name: load_encoder(name, device=cfg.device, dtype=cfg.encoder.dtype)
        for name in cfg.beside
        if name not in FLOORS
    }


def make_task(cfg: DictConfig, encoder: FrozenEncoder, others: Encoders) -> Task:
    """Take the clips the options are about."""
    if cfg.videos is not None:
        if cfg.label is not None:
            raise SettingError("label is of the trajectories in data, not of videos: leave one out")
        return video_task(cfg, encoder, others)
    make = state_task if cfg.label is None else label_task
    return make(cfg, encoder, others)


def state_task(cfg: DictConfig, encoder: FrozenEncoder, others: Encoders) -> Task:
    """Tell the simulator's state at the end of clips of trajectories."""
    num_frames = STATE_FRAMES if cfg.num_frames is None else cfg.num_frames
    mode = clip_mode(encoder, cfg.clip, num_frames=num_frames)
    clips, labels, splits = draw_clips(
        Trajectories.open(cfg.data),
        clips=cfg.clips,
        num_frames=num_frames,
        fps=cfg.fps,
        validation_share=cfg.validation_share,
        test_share=cfg.test_share,
        seed=cfg.seed,
    )
    features = encode(cfg, encoder, others, clips, mode=mode, num_frames=num_frames)
    return Task(clips, labels, splits, features, {})


def label_task(cfg: DictConfig, encoder: FrozenEncoder, others: Encoders) -> Task:
    """Tell the class of whole episodes, by labels kept beside them."""
    num_frames = VIDEO_FRAMES if cfg.num_frames is None else cfg.num_frames
    mode = clip_mode(encoder, cfg.clip, num_frames=num_frames)
    clips, labels, splits = labelled_clips(
        Trajectories.open(cfg.data),
        cfg.label,
        num_frames=num_frames,
        fps=cfg.fps,
        validation_share=cfg.validation_share,
        seed=cfg.seed,
    )
    features = encode(cfg, encoder, others, clips, mode=mode, num_frames=num_frames)
    return Task(clips, labels, splits, features, {})


def video_task(cfg: DictConfig, encoder: FrozenEncoder, others: Encoders) -> Task:
    """Tell the class of videos; those that cannot be read are left out."""
    num_frames = VIDEO_FRAMES if cfg.num_frames is None else cfg.num_frames
    mode = clip_mode(encoder, cfg.clip, num_frames=num_frames)
    clips = VideoFolder.open(
        cfg.videos,
        num_frames=num_frames,
        fps=cfg.fps,
        folder_fps=cfg.folder_fps,
        side=max(seen.image_size for seen in (encoder, *others.values())),
        progress=progress,
    )
    shares = {"validation_share": cfg.validation_share, "test_share": cfg.test_share}
    every = np.arange(len(clips))
    # Before hours of encoding: are there enough videos at all?
    split_classes(clips.labels, clips.classes, usable=every, seed=cfg.seed, **shares)
    features = encode(cfg, encoder, others, clips, mode=mode, num_frames=num_frames)
    damaged = {row: why for own in features.values() for row, why in own.unreadable.items()}
    usable = np.setdiff1d(every, list(damaged))
    splits = split_classes(clips.labels, clips.classes, usable=usable, seed=cfg.seed, **shares)
    skipped = {**clips.skipped, **clips.named(damaged)}
    return Task(clips, ClassLabels(clips.classes, clips.labels), splits, features, skipped)


def encode(
    cfg: DictConfig,
    encoder: FrozenEncoder,
    others: Encoders,
    clips: Clips,
    *,
    mode: str,
    num_frames: int,
) -> dict[str, Features]:
    """Make or open the features of the encoder and of what stands beside it."""
    makers = all_features(
        encoder,
        floors=cfg.beside,
        others=others,
        mode=mode,
        num_frames=num_frames,
        has_places=cfg.has_places,
        seed=cfg.seed,
    )
    with torch.device("meta"):  # a head that cannot be made says so before hours of encoding
        for make in makers:
            instantiate(cfg.head, width=make.shape[1], num_outputs=1)
    return {
        make.name: build_or_open(clips, make, root=cfg.cache, device=cfg.device, progress=progress)
        for make in makers
    }


def write_results(
    cfg: DictConfig, task: Task, outcomes: list[Outcome], paired: list[Difference]
) -> None:
    """Write all numbers to a JSON and a CSV file, and draw them."""
    results = {
        **as_json(outcomes, paired),
        "chance": task.labels.chance(task.splits.test),
        "clips": {name: len(rows) for name, rows in task.splits._asdict().items()},
        "clips_digest": task.clips.digest,
        "skipped": dict(task.skipped),
        "config": OmegaConf.to_container(cfg, resolve=True),
        **provenance(),
    }
    folder = out_folder(cfg)
    write_json(folder / "probe.json", results)
    write_csv(folder / "probe.csv", outcomes)
    with atomic_path(folder / "probe.png") as temporary:
        draw(summarise(outcomes)).save(temporary)


def report(cfg: DictConfig, task: Task, outcomes: list[Outcome], paired: list[Difference]) -> None:
    """Print the table, what it was measured on and what was left out."""
    source = cfg.data if cfg.videos is None else cfg.videos
    source = source if cfg.label is None else f"{source}, {cfg.label}"
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in task.splits._asdict().items())
    over = f"mean of {cfg.draws} draws and its 95 % interval" if cfg.draws > 1 else "one draw"
    print(f"{source}: clips: {counts}; {over}")
    if cfg.shuffle_labels:
        print("control: the labels are shuffled, nothing must be found")
    print(f"\n{table(summarise(outcomes))}\n")
    if paired:
        print(f"{paired_table(paired)}\n")
    print(f"{task.labels.metric} by chance: {task.labels.chance(task.splits.test):.3f}")
    if task.skipped:
        print(f"{len(task.skipped)} videos skipped (all are listed in probe.json):")
        for name, why in list(task.skipped.items())[:SHOWN_SKIPPED]:
            print(f"  {name}: {why}")
    print(f"all numbers and the chart: {out_folder(cfg)}")


def out_folder(cfg: DictConfig) -> Path:
    """Where results go."""
    if cfg.out is not None:
        return Path(cfg.out)
    name = Path(cfg.data if cfg.videos is None else cfg.videos).name
    return Path("runs/probe") / (name if cfg.label is None else f"{name}_{cfg.label}")


if __name__ == "__main__":
    main()
