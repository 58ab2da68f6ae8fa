"""Batches of clips: decided ahead of time, read and decoded while the network trains.

A batch is planned with the training's own generator, before any pixel is read, so it is a function
of seed and step alone: not of the number of workers, nor of how many processes train.

Shapes: B clips of a batch, T frames, S side of the square.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa_wm.data.held import Room
from vjepa_wm.errors import DataError, SettingError
from vjepa_wm.pretraining.clips import Clip
from vjepa_wm.pretraining.sources import Source

AHEAD = 2  # batches decided and handed to the workers before they are wanted
_Read = tuple[NDArray[np.uint8], dict[str, str]]  # a clip, and videos that broke -> why


class Plan(NamedTuple):
    """What a batch will be.

    Attributes:
        source: Index of the source of each clip (B,).
        clips: The clips, B.
        masks: Context ids (B, Lc) and target ids (B, Lt) for each kind of mask.
        is_still: Whether the first frames are shown alone, as images.
    """

    source: NDArray[np.int64]
    clips: Sequence[Clip]
    masks: Sequence[tuple[Tensor, Tensor]]
    is_still: bool = False


class ClipSampler:
    """Decides on clips from several sources.

    Args:
        sources: What they are drawn from.
        weights: How often each source is drawn, in any unit. None gives each source the same part
            of every batch; with weights the parts of a batch are drawn.

    Raises:
        SettingError: There are not as many weights as sources, or one is not above 0.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None = None) -> None:
        self.sources = sources
        self.shares: NDArray[np.float64] | None = None
        if weights is not None:
            if len(weights) != len(sources) or min(weights) <= 0:
                folders = ", ".join(str(source.folder) for source in sources)
                raise SettingError(
                    f"weights: wanted {len(sources)} numbers above 0, one for each of data "
                    f"({folders}), got {list(weights)}"
                )
            self.shares = np.array(weights, np.float64) / sum(weights)

    def draw(
        self, rng: np.random.Generator, batch_size: int
    ) -> tuple[NDArray[np.int64], list[Clip]]:
        """Decide on the clips of a batch: the source of each (B,), and the clips."""
        if self.shares is None:
            parts = np.array_split(np.arange(batch_size), len(self.sources))
            counts = [len(part) for part in parts]
        else:
            counts = rng.multinomial(batch_size, self.shares).tolist()
        clips = []
        for source, count in zip(self.sources, counts, strict=True):
            if count:
                clips += source.draw(rng, count)
        return np.repeat(np.arange(len(counts)), counts), clips


@dataclass
class Batch:
    """A planned batch, its clips perhaps being decoded.

    Attributes:
        plan: What it is.
        begun: State of the generator before it was planned.
        ended: And after.
        decoding: Row -> its clip, where a worker decodes it.
        copying: Row -> its clip of those that need no decoding, where a thread copies them.
    """

    plan: Plan
    begun: Mapping[str, Any]
    ended: Mapping[str, Any]
    decoding: dict[int, "Future[_Read]"] = field(default_factory=dict)
    copying: "Future[dict[int, _Read]] | None" = None


class ClipLoader:
    """Gives out batches in the order of training. Use it as a context manager.

    Args:
        sources: What clips are drawn from; slow ones are read by the workers, all others by one
            thread.
        plan: Decides on a batch with a generator, in which all of it has to be drawn.
        rows: Rows of every batch that this process reads, when several train.
        workers: Processes that decode; 0 reads every clip when it is wanted.
        device: Where clips are wanted; a GPU holds the frames of trajectories, if it can.

    Attributes:
        device: Where clips come out.
        faults: Source -> video that could not be read -> why; so far.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        plan: Callable[[np.random.Generator], Plan],
        *,
        rows: Sequence[int],
        workers: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if workers < 0:
            raise SettingError(f"workers: wanted at least 0, got {workers}")
        self.sources = sources
        self.faults: list[dict[str, str]] = [{} for _ in sources]
        self._plan = plan
        self._rows = rows
        self._slow = {i: source for i, source in enumerate(sources) if source.is_slow}
        room = Room(device)
        held = {i: source.hold(room) for i, source in enumerate(sources)}
        self._held = {i: read for i, read in held.items() if read is not None}
        self.device = device
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: deque[Batch] = deque()
        self._rng = np.random.default_rng(0)  # runs ahead of the training's; its state is set

    def __enter__(self) -> Self:
        """Make the workers, which start with the first batch."""
        if not self._workers:
            return self
        self._thread = ThreadPoolExecutor(1)
        if self._slow:
            # A forked process would share the threads and the device of the parent.
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(self._slow,),
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the workers; each ends the clip it is at."""
        self._forget()
        for executor in filter(None, (self._pool, self._thread)):
            executor.shutdown(cancel_futures=True)
        self._pool = self._thread = None

    def next(self, rng: np.random.Generator) -> Batch:
        """Return the next batch, and leave the generator as if it were planned now."""
        if self._thread is None:
            return self._planned(rng)
        begun = rng.bit_generator.state
        if self._ahead and self._ahead[0].begun != begun:  # a run was resumed
            self._forget()
        if not self._ahead:
            self._rng.bit_generator.state = begun
            self._hand_out()
        batch = self._ahead.popleft()
        while len(self._ahead) < AHEAD:
            self._hand_out()
        rng.bit_generator.state = batch.ended
        return batch

    def read(self, batch: Batch, rows: Sequence[int]) -> Tensor:
        """Read some rows of a batch, uint8 (len(rows), T, S, S, 3), waiting for the workers.

        Raises:
            DataError: A worker died, or videos broke one after the other.
        """
        sources = batch.plan.source[list(rows)]
        parts, order = [], []
        for source in np.unique(sources).tolist():
            places = np.flatnonzero(sources == source)
            parts.append(self._clips(batch, [rows[place] for place in places], source))
            order.append(places)
        if len(parts) == 1:
            return parts[0]
        back = np.argsort(np.concatenate(order))
        return torch.cat(parts)[torch.from_numpy(back).to(self.device)]

    def _clips(self, batch: Batch, rows: Sequence[int], source: int) -> Tensor:
        """Read rows that are of one source."""
        if source in self._held:
            return self._held[source]([batch.plan.clips[row] for row in rows])
        clips = []
        for row in rows:
            pixels, faults = self._pixels(batch, row, source)
            self.faults[source] |= faults
            clips.append(pixels)
        return torch.from_numpy(np.stack(clips)).to(self.device)

    def _pixels(self, batch: Batch, row: int, source: int) -> _Read:
        if row in batch.decoding:
            with _alive():
                return batch.decoding.pop(row).result()
        if batch.copying is not None:
            return batch.copying.result()[row]
        return self.sources[source].read(batch.plan.clips[row])

    def _planned(self, rng: np.random.Generator) -> Batch:
        begun = rng.bit_generator.state
        plan = self._plan(rng)
        return Batch(plan, begun, rng.bit_generator.state)

    def _hand_out(self) -> None:
        """Plan one more batch; hand its slow clips to the workers, the others to the thread."""
        batch = self._planned(self._rng)
        fast = []
        for row in self._rows:
            source = int(batch.plan.source[row])
            if source in self._slow:
                with _alive():
                    batch.decoding[row] = self._pool.submit(_read, source, batch.plan.clips[row])
            elif source not in self._held:
                fast.append(row)
        batch.copying = self._thread.submit(self._copied, batch.plan, fast)
        self._ahead.append(batch)

    def _copied(self, plan: Plan, rows: Sequence[int]) -> dict[int, _Read]:
        return {row: self.sources[plan.source[row]].read(plan.clips[row]) for row in rows}

    def _forget(self) -> None:
        """Drop what was planned ahead."""
        for batch in self._ahead:
            for future in (*batch.decoding.values(), batch.copying):
                future.cancel()
        self._ahead.clear()


@contextmanager
def _alive() -> Iterator[None]:
    """Say what to do where a worker has died."""
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decodes videos died (out of memory, or killed); run the same command "
            "again to continue, with fewer workers if it happens again"
        ) from error


_SOURCES: dict[int, Source] = {}  # of a worker


def _begin(sources: Mapping[int, Source]) -> None:
    """Set up a worker: it ends with its parent, which alone hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _SOURCES.update(sources)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _read(source: int, clip: Clip) -> _Read:
    return _SOURCES[source].read(clip)
