"""Collect trajectories from an environment: python -m vjepa_wm.collect env=push episodes=2000."""

from pathlib import Path

from omegaconf import DictConfig

from vjepa_wm.cli import progress, verb
from vjepa_wm.data.collection import CollectSettings, available_cores, collect


@verb("collect")
def main(cfg: DictConfig) -> None:
    """Collect trajectories from an environment; a run that was stopped continues.

    Example: python -m vjepa_wm.collect env=push episodes=2000
    """
    settings = CollectSettings(
        env_id=cfg.env.id,
        image_size=cfg.env.image_size,
        frame_skip=cfg.env.frame_skip,
        episodes=cfg.episodes,
        steps=cfg.steps,
        seed=cfg.seed,
        shard_episodes=cfg.shard_episodes,
    )
    workers = cfg.workers if cfg.workers is not None else available_cores()
    result = collect(settings, Path(cfg.out), workers=workers, progress=progress)
    rate = result.frames / result.seconds if result.frames else 0.0
    print(
        f"{cfg.out}: {settings.episodes} episodes, {result.total_frames} frames, "
        f"{result.total_bytes / 1e9:.3f} GB; recorded {result.frames} frames in "
        f"{result.seconds:.1f} s ({rate:.0f} frames/s, {workers} workers)"
    )


if __name__ == "__main__":
    main()
