"""What every training on latents begins with: trajectories, their latents, and that both stay.

Shapes: B windows, T frames, P tokens, D latent width, A action width, Q proprio width.
"""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vjepa_wm.data.collection import CollectSettings, available_cores, collect
from vjepa_wm.data.latents import LatentCache, LatentWindows, frames_per_batch
from vjepa_wm.data.trajectories import Trajectories, TrajectoryMeta
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.recorded import portable
from vjepa_wm.errors import DataError, IncompleteDataError
from vjepa_wm.files import read_json, write_json
from vjepa_wm.progress import Progress, no_progress

logger = logging.getLogger(__name__)

INPUTS = "inputs.json"
OURS = {
    "envs:vjepa_wm/Push-v0": "push",
    "envs:vjepa_wm/PushT-v0": "push_t",
    "envs:vjepa_wm/Reacher-v0": "reacher",
    "envs:vjepa_wm/TwoRooms-v0": "two_rooms",
}


def open_or_collect(
    folder: str | Path,
    env: Mapping[str, Any],
    *,
    episodes: int,
    progress: Progress = no_progress,
) -> Trajectories:
    """Open trajectories, collecting first what is missing of them.

    Args:
        folder: where they lie, or will.
        env: `name`, `id`, `image_size` and `frame_skip` of the environment, as in the config group
            `env`.
        episodes: how many to collect if there are none.
        progress: makes the progress bar.

    Raises:
        DataError: some are missing, and nothing acts in the environment: its clips are a corpus; or
            the environment is another one's but for its name.
    """
    settings = CollectSettings(
        env_id=env["id"],
        image_size=env["image_size"],
        frame_skip=env["frame_skip"],
        episodes=episodes,
    )
    if (Path(folder) / "meta.json").exists():
        try:
            return Trajectories.open(folder)
        except IncompleteDataError:  # the collection was killed: go on with it
            meta = TrajectoryMeta.read(folder)
            kept = {"episodes": meta.episodes, "steps": meta.steps, "seed": meta.seed}
            known = {name: value for name, value in kept.items() if value is not None}
            settings = dataclasses.replace(settings, **known)
    else:
        _check_name(folder, env)
    recorder = settings.recorder()
    recorder.close()
    if not recorder.low.size:
        raise DataError(
            f"clips are missing in {folder}, and nothing acts in {env['id']}: film them with "
            f"python -m vjepa_wm.collect corpus={env['name']} hours=3, which goes on where it was"
        )
    logger.info(
        "trajectories missing in %s: collecting %d episodes of %s",
        folder,
        settings.episodes,
        settings.env_id,
    )
    collect(settings, folder, workers=available_cores(), progress=progress)
    return Trajectories.open(folder)


def _check_name(folder: str | Path, env: Mapping[str, Any]) -> None:
    """Refuse to collect from an environment of ours under the name of something else."""
    name = OURS.get(env["id"], env["name"])
    if name != env["name"]:
        raise DataError(
            f"no trajectories at {folder}, and env.name={env['name']} has no environment of its "
            f"own: env.id={env['id']} is {name}'s. Name the folder with data=, give env.id, or "
            f"record them first: python -m vjepa_wm.collect env={name} env.name={env['name']}"
        )


def require_lengths(trajectories: Trajectories, wanted: Mapping[str, int]) -> None:
    """Refuse trajectories in which no episode is long enough, and warn of those left out.

    Args:
        trajectories: of which the training and the held-out episodes are looked at.
        wanted: frames, by the option that asks for them.

    Raises:
        DataError: naming the option.
    """
    for option, frames in wanted.items():
        for episodes in trajectories.split():
            if not len(episodes):
                raise DataError(
                    f"{trajectories.folder} holds {trajectories.num_episodes} episode: wanted at "
                    "least two, as one is held out"
                )
            longest = int(trajectories.lengths[episodes].max(initial=0))
            if longest < frames:
                raise DataError(
                    f"{option} asks for pieces of {frames} frames, the longest of {len(episodes)} "
                    f"episodes has {longest}: give {option} a smaller value, or record longer ones"
                )
        short = int((trajectories.lengths < frames).sum())
        if short:
            logger.warning(
                "%d of %d episodes of %s are left out, being shorter than the %d frames that %s "
                "asks for",
                short,
                trajectories.num_episodes,
                trajectories.folder,
                frames,
                option,
            )


def open_latents(
    trajectories: Trajectories,
    encoder: FrozenEncoder,
    *,
    root: str | Path,
    device: torch.device | str,
    progress: Progress = no_progress,
) -> LatentCache:
    """Open the latents of trajectories, encoding first what is missing, as fast as memory allows.

    On a GPU with room for them they are held there.

    Args:
        trajectories: what to encode.
        encoder: what with.
        root: folder of all caches.
        device: where the encoder is.
        progress: makes the progress bars.
    """
    cache = LatentCache.build_or_open(
        trajectories,
        encoder,
        root=root,
        batch_size=frames_per_batch(encoder.frame_bytes, device),
        device=device,
        progress=progress,
    )
    cache.hold(device)
    return cache


def inputs_of(trajectories: Trajectories, encoder: FrozenEncoder) -> dict[str, object]:
    """What a run on these trajectories and this encoder depends on, for `keep_inputs`."""
    meta = trajectories.meta
    return {
        "action_dim": meta.action_dim,
        "action_low": list(meta.action_low),
        "action_high": list(meta.action_high),
        "image_size": list(meta.image_size),
        "frame_skip": meta.frame_skip,
        "encoder": encoder.digest,
        "latent_shape": list(encoder.latent_shape),
        "preprocessing": portable(encoder.preprocessing),
        "data": trajectories.digest,
    }


def keep_inputs(
    out: str | Path, inputs: Mapping[str, object], *, unwritten: Mapping[str, object]
) -> None:
    """Refuse to go on with a run on other inputs than it was begun with.

    Args:
        out: folder of the run, which remembers them.
        inputs: what the run depends on, as JSON gives it back.
        unwritten: what to take an input for that the run did not write down; one that is not in
            here either is not checked.

    Raises:
        DataError: naming what was wanted and what came.
    """
    path = Path(out) / INPUTS
    if not path.exists():
        write_json(path, inputs)
        return
    begun = {**unwritten, **read_json(path)}
    faults = [
        f"{name}: wanted {begun[name]}, got {inputs[name]}"
        for name in inputs
        if name in begun and begun[name] != inputs[name]
    ]
    if faults:
        raise DataError(
            f"{out} was begun with other inputs ({'; '.join(faults)}): choose another out=, or "
            "delete the folder to start anew"
        )


def split_windows(
    cache: LatentCache, *, num_frames: int, stride: int = 1
) -> tuple[LatentWindows, LatentWindows]:
    """Windows of the training episodes and of the held-out ones."""
    train, held_out = cache.trajectories.split()
    return (
        cache.windows(num_frames, stride=stride, episodes=train),
        cache.windows(num_frames, stride=stride, episodes=held_out),
    )


def draw(
    windows: LatentWindows, rng: np.random.Generator, batch_size: int, *, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw latents (B, T, P, D) float32, actions (B, T - 1, A) and proprio (B, T, Q)."""
    batch = windows.sample(rng, batch_size)
    return batch.latents.to(device).float(), batch.actions.to(device), batch.proprio.to(device)
