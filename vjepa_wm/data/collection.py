"""Collect trajectories with several processes, so that a killed run continues where it stopped."""

import dataclasses
import logging
import multiprocessing
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vjepa_wm.bounds import same_actions
from vjepa_wm.data.recorder import Recorder
from vjepa_wm.data.shards import read_shard, shard_path, write_shard
from vjepa_wm.data.trajectories import TrajectoryMeta
from vjepa_wm.data.truth import Truth, check_same
from vjepa_wm.errors import DataError
from vjepa_wm.progress import Progress, no_progress

_log = logging.getLogger(__name__)

FREE_FIELDS = ("episodes", "versions")


@dataclasses.dataclass(frozen=True)
class CollectSettings:
    """What to collect; the same settings always give the same trajectories.

    Attributes:
        env_id: Gymnasium id, ``module:id`` to import a module that registers it.
        image_size: Height and width of the frames, pixels.
        frame_skip: Environment steps per recorded step; the action is repeated.
        episodes: Number of episodes.
        steps: Recorded steps per episode; an episode has one frame more.
        seed: Seed of everything.
        shard_episodes: Episodes per shard, the unit that is lost when a run is killed.
        env_options: Further arguments of the environment.
    """

    env_id: str
    image_size: int = 64
    frame_skip: int = 1
    episodes: int = 2000
    steps: int = 50
    seed: int = 0
    shard_episodes: int = 50
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        for name in ("image_size", "frame_skip", "episodes", "steps", "shard_episodes"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise DataError(f"seed: wanted at least 0, got {self.seed}")

    def shard_sizes(self) -> list[int]:
        """Return the episodes in each shard; the last may be smaller."""
        full, rest = divmod(self.episodes, self.shard_episodes)
        return [self.shard_episodes] * full + ([rest] if rest else [])

    def recorder(self) -> Recorder:
        """Make what records these episodes."""
        return Recorder(
            self.env_id,
            image_size=self.image_size,
            frame_skip=self.frame_skip,
            options=self.env_options,
        )


class CollectResult(NamedTuple):
    """What a call of `collect` did.

    Attributes:
        frames: Frames recorded by this call.
        seconds: Wall-clock time of the recording.
        total_frames: Frames in the folder.
        total_bytes: Size of the folder.
    """

    frames: int
    seconds: float
    total_frames: int
    total_bytes: int


def collect(
    settings: CollectSettings,
    folder: str | Path,
    *,
    workers: int = 1,
    progress: Progress = no_progress,
) -> CollectResult:
    """Record what is still missing in ``folder``.

    Args:
        settings: What to collect.
        folder: Where to; run one collection per folder at a time.
        workers: Processes, each with its own environment; they do not change the result.
        progress: Makes the progress bar.

    Raises:
        DataError: If the folder holds trajectories of other settings, or a worker fails.
    """
    if workers < 1:
        raise DataError(f"workers: wanted at least 1, got {workers}")
    folder = Path(folder)
    meta, truth = _prepare(settings, folder)
    for leftover in (folder / "shards").glob(".tmp-*"):
        shutil.rmtree(leftover)
    sizes = settings.shard_sizes()
    missing = [index for index in range(len(sizes)) if not _is_done(folder, index, settings, meta)]
    # Only now is it sure that the folder takes these settings.
    if truth is not None:
        truth.write(folder)
    meta.write(folder)
    wanted = sum(sizes[index] for index in missing) * (settings.steps + 1)
    began, frames = time.perf_counter(), 0
    with (
        progress(total=wanted, desc=f"collect {folder.name}", unit="frames") as bar,
        _workers(settings, folder, meta=meta, missing=missing, workers=workers) as pipes,
    ):
        for count in _receive(pipes):
            frames += count
            bar.update(count)
    return CollectResult(frames, time.perf_counter() - began, *_totals(folder, meta, len(sizes)))


def available_cores() -> int:
    """Return the CPU cores this process may use."""
    # macOS cannot say which cores a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(settings: CollectSettings, folder: Path) -> tuple[TrajectoryMeta, Truth | None]:
    """Return what the folder is to hold, refusing one that holds something else."""
    recorder = settings.recorder()
    meta = recorder.meta(episodes=settings.episodes, steps=settings.steps, seed=settings.seed)
    truth = recorder.truth()
    recorder.close()
    if (folder / "meta.json").exists():
        there = TrajectoryMeta.read(folder)
        if same_actions(_actions(there), _actions(meta)):  # those of before were not rounded
            meta = dataclasses.replace(
                meta, action_low=there.action_low, action_high=there.action_high
            )
        _check_same(there, meta, folder=folder)
        check_same(Truth.read(folder), truth, folder=folder)
        if there.episodes > meta.episodes:
            raise DataError(
                f"{folder} already has {there.episodes} episodes, wanted {meta.episodes}: "
                f"ask for at least {there.episodes}, or name another folder with out="
            )
    elif (folder / "shards").exists():
        raise DataError(f"{folder} has shards but no meta.json: delete it, or name another folder")
    return meta, truth


def _actions(meta: TrajectoryMeta) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    return meta.action_low, meta.action_high, meta.frame_skip


def _check_same(there: TrajectoryMeta, wanted: TrajectoryMeta, *, folder: Path) -> None:
    """Refuse to mix trajectories of different settings."""
    names = [field.name for field in dataclasses.fields(there) if field.name not in FREE_FIELDS]
    differing = [name for name in names if getattr(there, name) != getattr(wanted, name)]
    if differing:
        listed = "; ".join(
            f"{name}: wanted {getattr(wanted, name)}, it has {getattr(there, name)}"
            for name in differing
        )
        raise DataError(
            f"{folder} holds trajectories of other settings ({listed}): "
            "delete it, or name another folder with out="
        )


def _is_done(folder: Path, index: int, settings: CollectSettings, meta: TrajectoryMeta) -> bool:
    """Say whether a shard is there, whole, and of the size wanted."""
    path = shard_path(folder, index)
    if not path.exists():
        return False
    try:
        found = len(read_shard(path, meta=meta).lengths)
    except DataError as error:
        _log.warning("collecting shard %s again: %s", path, error)
        return False
    wanted = settings.shard_sizes()[index]
    is_last_of_fewer = found < wanted and not shard_path(folder, index + 1).exists()
    if found != wanted and not is_last_of_fewer:
        raise DataError(
            f"{path} has {found} episodes, wanted {wanted}: keep shard_episodes as it was when "
            "this folder was begun, or name another folder with out="
        )
    return found == wanted


@contextmanager
def _workers(
    settings: CollectSettings,
    folder: Path,
    *,
    meta: TrajectoryMeta,
    missing: list[int],
    workers: int,
) -> Iterator[list[Connection]]:
    """Start the processes, each with its share of the shards; stop them when the block ends."""
    # A forked process would share the parent's OpenGL context, which is not allowed to be.
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        for worker in range(min(workers, len(missing))):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (settings, folder, meta, missing[worker::workers], sender)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            sender.close()
            processes.append(process)
            pipes.append(receiver)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.terminate()
            process.join()


def _receive(pipes: list[Connection]) -> Iterator[int]:
    """Yield frame counts as the workers report them, until all have finished.

    A worker says 0 as its last word; a pipe that closes before is a process that died.
    """
    waiting = list(pipes)
    while waiting:
        for pipe in wait(waiting):
            try:
                message = pipe.recv()
            except EOFError as error:
                raise DataError(
                    "a worker process died (out of memory, or killed); run the same command again "
                    "to continue, with fewer workers if it happens again"
                ) from error
            if isinstance(message, str):
                raise DataError(f"a worker failed: {message}")
            if message == 0:
                waiting.remove(pipe)
            else:
                yield message


def _work(
    settings: CollectSettings,
    folder: Path,
    meta: TrajectoryMeta,
    shards: list[int],
    sender: Connection,
) -> None:
    """Record shards in a process of its own, reporting each episode's frames."""
    # Ctrl-C reaches the whole group of processes; the parent stops the workers, quietly.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        recorder = settings.recorder()
        for shard in shards:
            _record_shard(recorder, settings, folder, meta=meta, shard=shard, report=sender.send)
        recorder.close()
        sender.send(0)
    except BrokenPipeError:
        # The parent is gone: stop, too, so that a new run has the folder for itself.
        return
    except Exception as error:
        last_line = traceback.format_exception_only(error)[-1].strip()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        sender.send(f"{last_line} ({frame.filename}, line {frame.lineno})")


def _record_shard(
    recorder: Recorder,
    settings: CollectSettings,
    folder: Path,
    *,
    meta: TrajectoryMeta,
    shard: int,
    report: Callable[[int], None],
) -> None:
    """Record one shard; seed, shard and episode alone decide what is in it."""
    episodes = []
    for index in range(settings.shard_sizes()[shard]):
        seed = np.random.SeedSequence([settings.seed, shard, index])
        episodes.append(recorder.episode(seed, steps=settings.steps))
        report(len(episodes[-1].pixels))
    write_shard(folder, shard, episodes, meta=meta)


def _totals(folder: Path, meta: TrajectoryMeta, num_shards: int) -> tuple[int, int]:
    """Return the frames in the folder and its size in bytes."""
    shards = [read_shard(shard_path(folder, index), meta=meta) for index in range(num_shards)]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(int(shard.lengths.sum()) for shard in shards), size
