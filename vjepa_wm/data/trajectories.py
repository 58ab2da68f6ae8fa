"""The native trajectory format: a folder of memory-mapped NumPy arrays, read by eye and by machine.

    meta.json                  what was recorded: environment, image size, action bounds and meaning
    shards/00000/pixels.npy    (F, H, W, 3) uint8, the frames of some episodes end to end
                 actions.npy   (F, A) float32, action taken at a frame; zeros at an episode's last
                 proprio.npy   (F, Q) float32
                 sim_state.npy (F, S) float64, privileged: for probes and diagnostics only
                 lengths.npy   (E,) int64, frames per episode
                 shard.json    counts, and the digest of the arrays

A folder of your own recordings takes ten lines:

    meta = TrajectoryMeta(
        env_id="my_robot", image_size=(64, 64), fps=10.0,
        action_low=(-1.0, -1.0), action_high=(1.0, 1.0), proprio_dim=4,
    )
    with TrajectoryWriter("data/my_robot", meta) as writer:
        for pixels, actions, proprio in recordings:  # (T,64,64,3), (T-1,2), (T,4)
            writer.add(Episode(pixels, actions, proprio))
    trajectories = Trajectories.open("data/my_robot")
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from vjepa_wm.data.shards import ARRAYS, Episode, read_shard, shard_path, write_shard
from vjepa_wm.data.windows import FrameArrays, WindowIndex, gather_actions
from vjepa_wm.errors import DataError, IncompleteDataError
from vjepa_wm.files import digest, read_json, write_json

FORMAT_VERSION = 1
VALIDATION_FRACTION = 0.1


@dataclasses.dataclass(frozen=True)
class TrajectoryMeta:
    """What a folder of trajectories holds.

    Attributes:
        env_id: Gymnasium id, or any name for recordings of your own.
        image_size: Height and width of the frames, pixels.
        fps: Recorded frames per second of simulated or real time.
        action_low: Lowest value of each action entry, ``A`` numbers.
        action_high: Highest value of each action entry, ``A`` numbers.
        action_meaning: What the entries do, with units.
        frame_skip: Environment steps per recorded step; the action is repeated for each of them.
        proprio_dim: Width of proprio, 0 for none.
        sim_state_dim: Width of the privileged simulator state, 0 for none.
        seed: Seed of the collection, None for recordings.
        steps: Most recorded steps in an episode, None where they differ freely.
        policy: What chose the actions.
        versions: Versions of the programs that recorded.
        episodes: Number of episodes.
        format_version: Version of this format.
    """

    env_id: str
    image_size: tuple[int, int]
    fps: float
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_meaning: str = ""
    frame_skip: int = 1
    proprio_dim: int = 0
    sim_state_dim: int = 0
    seed: int | None = None
    steps: int | None = None
    policy: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    episodes: int = 0
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Take arrays and lists as tuples; refuse what nobody could read afterwards."""
        for name, kind in (("image_size", int), ("action_low", float), ("action_high", float)):
            given = getattr(self, name)
            if np.ndim(given) != 1:
                raise DataError(f"{name}: wanted a list of numbers, got {given!r}")
            object.__setattr__(self, name, tuple(kind(value) for value in given))
        if len(self.image_size) != 2:
            raise DataError(f"image_size: wanted height and width, got {self.image_size}")
        if not 0 < self.fps < math.inf:
            raise DataError(f"fps: wanted a number above 0, got {self.fps}")
        if self.frame_skip < 1:
            raise DataError(f"frame_skip: wanted at least 1, got {self.frame_skip}")
        low, high = np.asarray(self.action_low), np.asarray(self.action_high)
        if low.shape != high.shape or not (low < high).all():
            raise DataError(
                "action_low and action_high must be equally many numbers with low < high, "
                f"got {self.action_low} and {self.action_high}"
            )

    @property
    def action_dim(self) -> int:
        """Width of an action, A."""
        return len(self.action_low)

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read ``meta.json``.

        Raises:
            DataError: If it is missing, damaged, of another version or has other fields.
        """
        path = Path(folder) / "meta.json"
        if not path.exists():
            raise DataError(f"no trajectories at {folder}: {path} does not exist")
        fields = read_json(path)
        version = fields["format_version"] if isinstance(fields, dict) else None
        if version != FORMAT_VERSION:
            raise DataError(f"{path}: wanted format_version {FORMAT_VERSION}, got {version}")
        fields.pop("action_dim", None)
        names = {field.name for field in dataclasses.fields(cls)}
        if set(fields) != names:
            wrong = ", ".join(sorted(set(fields) ^ names))
            raise DataError(f"{path}: missing or unknown fields: {wrong}")
        return cls(**fields)

    def write(self, folder: str | Path) -> None:
        """Write ``meta.json``, atomically."""
        fields = {**dataclasses.asdict(self), "action_dim": self.action_dim}
        write_json(Path(folder) / "meta.json", fields)


class TrajectoryWriter:
    """Write episodes of your own into a new folder, one shard after the other.

    Use it as a context manager: ``meta.json`` is written when the block ends without an error.

    Args:
        folder: Where to write; must hold no trajectories yet.
        meta: What is written; ``episodes`` is filled in.
        shard_episodes: Episodes per shard; they are held in memory until the shard is full.

    Raises:
        DataError: If the folder holds trajectories, or an episode does not fit ``meta``.
    """

    def __init__(
        self, folder: str | Path, meta: TrajectoryMeta, *, shard_episodes: int = 50
    ) -> None:
        """Check that the folder is free."""
        self.folder = Path(folder)
        self.meta = meta
        self.shard_episodes = shard_episodes
        self._pending: list[Episode] = []
        self._num_episodes = 0
        self._num_shards = 0
        if (self.folder / "meta.json").exists() or (self.folder / "shards").exists():
            raise DataError(f"{folder} already holds trajectories: delete it or name another")

    def add(self, episode: Episode) -> None:
        """Append one episode, checking it against ``meta``."""
        self._pending.append(episode.checked(self.meta))
        self._num_episodes += 1
        if len(self._pending) == self.shard_episodes:
            self._flush()

    def _flush(self) -> None:
        write_shard(self.folder, self._num_shards, self._pending, meta=self.meta)
        self._num_shards += 1
        self._pending = []

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the last shard and ``meta.json``, unless the block failed.

        Raises:
            DataError: There was no episode.
        """
        if kind is not None:
            return
        if not self._num_episodes:
            raise DataError(f"{self.folder}: wanted at least one episode, none was added")
        if self._pending:
            self._flush()
        dataclasses.replace(self.meta, episodes=self._num_episodes).write(self.folder)


class PixelBatch(NamedTuple):
    """A batch of windows of frames.

    Attributes:
        pixels: ``(B, T, H, W, 3)`` uint8.
        actions: ``(B, T-1, stride*A)`` float32; action t leads from frame t to frame t+1.
        proprio: ``(B, T, Q)`` float32.
        frames: Global frame indices ``(B, T)``, to gather more with, such as ``sim_state``.
    """

    pixels: np.ndarray
    actions: np.ndarray
    proprio: np.ndarray
    frames: np.ndarray


class Trajectories:
    """Read-only view of a folder of trajectories; nothing is loaded before it is asked for.

    Attributes:
        folder: Where they lie.
        meta: What was recorded.
        lengths: Frames per episode ``(E,)``.
        shard_lengths: The same, one array per shard.
        pixels: Frames, ``(H, W, 3)`` uint8 each.
        actions: Action taken at each frame, ``(A,)`` float32; zeros at an episode's last frame.
        proprio: ``(Q,)`` float32 per frame.
        sim_state: ``(S,)`` float64 per frame; privileged, for probes and diagnostics only.
        shard_digests: Digest of each shard's arrays.
        digest: Names the contents of all.
    """

    def __init__(self, folder: Path, meta: TrajectoryMeta) -> None:
        """Map the shards; use `open`."""
        self.folder = folder
        self.meta = meta
        shards = [read_shard(path, meta=meta) for path in _shard_paths(folder)]
        found = sum(len(shard.lengths) for shard in shards)
        if found != meta.episodes or not shards:
            raise IncompleteDataError(
                f"{folder} is incomplete: wanted {meta.episodes} episodes, got {found}; "
                "run the same collect command again to add those that are missing"
            )
        self.shard_lengths = [shard.lengths for shard in shards]
        self.lengths = np.concatenate(self.shard_lengths)
        self.pixels, self.actions, self.proprio, self.sim_state = (
            FrameArrays([getattr(shard, name) for shard in shards]) for name in ARRAYS
        )
        self._first_frame = np.cumsum(self.lengths) - self.lengths
        self.shard_digests = [shard.digest for shard in shards]
        self.digest = _dataset_digest(meta, self.shard_digests)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a folder, checking every file's presence, size, type and shape.

        Raises:
            DataError: Naming the file that is missing, cut off or contradicts another.
        """
        return cls(Path(folder), TrajectoryMeta.read(folder))

    def __repr__(self) -> str:
        """Name the folder and how much is in it."""
        return (
            f"Trajectories({self.folder}: {self.num_episodes} episodes, {self.num_frames} frames)"
        )

    @property
    def num_episodes(self) -> int:
        """Number of episodes, E."""
        return len(self.lengths)

    @property
    def num_frames(self) -> int:
        """Number of frames in all episodes, F."""
        return len(self.pixels)

    def episode(self, index: int) -> Episode:
        """Return episode ``index`` as views of the memory maps."""
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"episode {index} of {self.num_episodes}")
        start = int(self._first_frame[index])
        stop = start + int(self.lengths[index])
        return Episode(
            pixels=self.pixels.slice(start, stop),
            actions=self.actions.slice(start, stop)[:-1],
            proprio=self.proprio.slice(start, stop),
            sim_state=self.sim_state.slice(start, stop),
        )

    def episodes_of(self, frames: np.ndarray) -> np.ndarray:
        """Return which episodes global frame indices ``(F,)`` are of."""
        return np.searchsorted(self._first_frame, frames, side="right") - 1

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of training and validation episodes."""
        return split_episodes(self.num_episodes)

    def windows(
        self, num_frames: int, *, stride: int = 1, episodes: np.ndarray | None = None
    ) -> "PixelWindows":
        """Return the windows of ``num_frames`` frames, ``stride`` recorded steps apart.

        Args:
            num_frames: Frames in a window, T.
            stride: Recorded steps between two frames.
            episodes: Episodes to draw from, such as one half of `split`; all when None.
        """
        index = WindowIndex(self.lengths, num_frames=num_frames, stride=stride, episodes=episodes)
        return PixelWindows(self, index)


class PixelWindows:
    """Windows of pixels with their actions and proprio.

    Args:
        trajectories: What to read from.
        index: Which windows there are.
    """

    def __init__(self, trajectories: Trajectories, index: WindowIndex) -> None:
        """Keep both."""
        self.trajectories = trajectories
        self.index = index

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.index)

    def sample(self, rng: np.random.Generator, batch_size: int) -> PixelBatch:
        """Draw windows uniformly, with replacement."""
        return self.take(self.index.sample(rng, batch_size))

    def take(self, frames: np.ndarray) -> PixelBatch:
        """Read the windows with the global frame indices ``(B, T)``."""
        return PixelBatch(
            pixels=self.trajectories.pixels.gather(frames),
            actions=gather_actions(self.trajectories.actions, frames, stride=self.index.stride),
            proprio=self.trajectories.proprio.gather(frames),
            frames=frames,
        )


def split_episodes(num_episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Split episodes into training and validation; an episode keeps its side as others are added.

    Multiples of the golden ratio are spread evenly, so about a tenth of every long stretch of
    episodes is validation. Of two or more episodes at least one is: of so few that none would be,
    one that is for training where there are more.

    Returns:
        Sorted indices of training and of validation episodes.
    """
    position = (np.arange(1, num_episodes + 1, dtype=np.uint64) * 2654435769) % 2**32 / 2**32
    is_validation = position < VALIDATION_FRACTION
    if num_episodes > 1 and not is_validation.any():
        is_validation[position.argmin()] = True
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def _shard_paths(folder: Path) -> list[Path]:
    """Return the finished shards in order, refusing gaps."""
    paths = sorted(path for path in (folder / "shards").glob("[0-9]*") if path.is_dir())
    for index, path in enumerate(paths):
        if path != shard_path(folder, index):
            raise DataError(
                f"{folder} is incomplete: {shard_path(folder, index)} is missing; "
                "run the same collect command again to add it"
            )
    return paths


def _dataset_digest(meta: TrajectoryMeta, shard_digests: list[str]) -> str:
    """Digest of the contents and of what they mean; versions and policy do not matter."""
    fields = dataclasses.asdict(meta)
    kept = {name: fields[name] for name in ("env_id", "frame_skip", "action_low", "action_high")}
    return digest(json.dumps([kept, shard_digests], sort_keys=True).encode())
