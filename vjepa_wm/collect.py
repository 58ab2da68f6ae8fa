"""Collect trajectories from an environment: python -m vjepa_wm.collect env=push episodes=2000.

Videos of random scenes instead, with their ground truth (docs/corpus.md):
python -m vjepa_wm.collect corpus=play hours=0.5
"""

import math
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from vjepa_wm.cli import progress, verb
from vjepa_wm.data.collection import CollectSettings, available_cores, collect
from vjepa_wm.data.trajectories import Trajectories, TrajectoryMeta
from vjepa_wm.data.truth import Truth
from vjepa_wm.errors import DataError

NOT_OPTIONS = ("name", "id", "image_size")  # of a corpus; the others are its environment's


@verb("collect")
def main(cfg: DictConfig) -> None:
    """Collect trajectories from an environment; a run that was stopped continues.

    Example: python -m vjepa_wm.collect env=push episodes=2000
    """
    settings = env_settings(cfg) if cfg.corpus.id is None else corpus_settings(cfg)
    workers = cfg.workers if cfg.workers is not None else available_cores()
    result = collect(settings, Path(cfg.out), workers=workers, progress=progress)
    rate = result.frames / result.seconds if result.frames else 0.0
    print(
        f"{cfg.out}: {settings.episodes} episodes, {result.total_frames} frames, "
        f"{result.total_bytes / 1e9:.3f} GB; recorded {result.frames} frames in "
        f"{result.seconds:.1f} s ({rate:.0f} frames/s, {workers} workers)"
    )
    report_lengths(Path(cfg.out), settings.steps)
    report_proprio(Path(cfg.out))
    report_truth(Path(cfg.out))


def report_lengths(folder: Path, steps: int) -> None:
    """Say how many episodes the environment ended before their steps were over."""
    lengths = Trajectories.open(folder).lengths
    ended = int((lengths < steps + 1).sum())
    if ended:
        print(
            f"the environment ended {ended} of {len(lengths)} episodes before their {steps} steps "
            f"(shortest {lengths.min() - 1}, median {np.median(lengths) - 1:g} steps); training "
            "leaves out what is too short. Where reaching a goal ends them, see may_lack_goal in "
            "docs/your_environment.md"
        )


def report_proprio(folder: Path) -> None:
    """Say what the robot was recorded to sense of itself: under another key it is not."""
    width = TrajectoryMeta.read(folder).proprio_dim
    what = f"{width} numbers" if width else "none, as the observation has no vector of this name"
    print(f"proprio: {what}")


def env_settings(cfg: DictConfig) -> CollectSettings:
    """Trajectories of an environment."""
    return CollectSettings(
        env_id=cfg.env.id,
        image_size=cfg.env.image_size,
        frame_skip=cfg.env.frame_skip,
        episodes=cfg.episodes,
        steps=cfg.steps,
        seed=cfg.seed,
        shard_episodes=cfg.shard_episodes,
    )


def corpus_settings(cfg: DictConfig) -> CollectSettings:
    """As many clips of a corpus as last the hours wanted.

    Raises:
        DataError: A number is too small.
    """
    corpus = OmegaConf.to_container(cfg.corpus, resolve=True)
    for name, value in (("hours", cfg.hours), ("fps", corpus["fps"])):
        if not value > 0:
            raise DataError(f"{name}: wanted a number above 0, got {value}")
    frames = cfg.hours * 3600 * corpus["fps"]
    return CollectSettings(
        env_id=corpus["id"],
        image_size=corpus["image_size"],
        # Rounded first: 0.1 hours are no hair more than a whole number of clips.
        episodes=math.ceil(round(frames / corpus["num_frames"], 6)),
        steps=corpus["num_frames"] - 1,
        seed=cfg.seed,
        shard_episodes=cfg.shard_episodes,
        env_options={name: value for name, value in corpus.items() if name not in NOT_OPTIONS},
    )


def report_truth(folder: Path) -> None:
    """Print how often each class of each label occurs, where there are labels."""
    truth = Truth.read(folder)
    if truth is None:
        return
    trajectories = Trajectories.open(folder)
    print(f"{trajectories.num_frames / trajectories.meta.fps / 3600:.3f} hours of video; labels:")
    for label, counts in truth.counts(trajectories).items():
        print(f"  {label}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
