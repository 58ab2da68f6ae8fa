"""One shard of trajectories: the arrays of some episodes, written whole and checked when read."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vjepa_wm.errors import DataError
from vjepa_wm.files import read_json, write_json

if TYPE_CHECKING:
    from vjepa_wm.data.trajectories import TrajectoryMeta

ARRAYS = ("pixels", "actions", "proprio", "sim_state")


class Episode(NamedTuple):
    """One episode of T frames and the T - 1 actions between them.

    Attributes:
        pixels: ``(T, H, W, 3)`` uint8.
        actions: ``(T-1, A)`` float32.
        proprio: ``(T, Q)`` float32; None where there is none.
        sim_state: ``(T, S)`` float64, privileged; None where there is none.
    """

    pixels: np.ndarray
    actions: np.ndarray
    proprio: np.ndarray | None = None
    sim_state: np.ndarray | None = None

    def checked(self, meta: "TrajectoryMeta") -> "Episode":
        """Return the episode in the format's types.

        Raises:
            DataError: If shapes, pixel type or values contradict ``meta``.
        """
        pixels = np.asarray(self.pixels)
        length = len(pixels)
        if length < 2:
            raise DataError(f"an episode needs at least 2 frames, got {length}")
        if pixels.dtype != np.uint8:
            raise DataError(f"pixels: wanted uint8 in 0..255, got {pixels.dtype}")
        shapes = array_shapes(meta, length)
        _check_shape("pixels", pixels, shapes["pixels"])
        return Episode(
            pixels=pixels,
            actions=_checked_actions(self.actions, meta, length),
            proprio=_as_float("proprio", self.proprio, shapes["proprio"], np.float32),
            sim_state=_as_float("sim_state", self.sim_state, shapes["sim_state"], np.float64),
        )


class Shard(NamedTuple):
    """The memory-mapped arrays of a shard and their digest."""

    pixels: np.ndarray
    actions: np.ndarray
    proprio: np.ndarray
    sim_state: np.ndarray
    lengths: np.ndarray
    digest: str


def shard_path(folder: str | Path, index: int) -> Path:
    """Return where shard ``index`` lies."""
    return Path(folder) / "shards" / f"{index:05d}"


def array_shapes(meta: "TrajectoryMeta", num_frames: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of ``num_frames`` frames."""
    return {
        "pixels": (num_frames, *meta.image_size, 3),
        "actions": (num_frames, meta.action_dim),
        "proprio": (num_frames, meta.proprio_dim),
        "sim_state": (num_frames, meta.sim_state_dim),
    }


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise DataError(f"{name}: wanted shape {shape}, got {array.shape}")


def _as_float(
    name: str, array: np.ndarray | None, shape: tuple[int, ...], dtype: type
) -> np.ndarray:
    """Convert one array, refusing another shape and values that are not finite."""
    array = np.zeros((shape[0], 0), dtype) if array is None else np.asarray(array, dtype)
    _check_shape(name, array, shape)
    bad = ~np.isfinite(array).reshape(shape[0], -1).all(axis=1)
    if bad.any():
        raise DataError(
            f"{name}: {int(bad.sum())} of {shape[0]} rows hold NaN or infinity, "
            f"the first is row {int(bad.argmax())}"
        )
    return array


def _checked_actions(actions: np.ndarray, meta: "TrajectoryMeta", length: int) -> np.ndarray:
    """Convert actions, refusing those outside of the bounds."""
    actions = _as_float("actions", actions, (length - 1, meta.action_dim), np.float32)
    low, high = np.float32(meta.action_low), np.float32(meta.action_high)
    # Half a thousandth of the range: float32 noise of a recording is no mistake.
    slack = 5e-4 * (high - low)
    outside = ((actions < low - slack) | (actions > high + slack)).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise DataError(
            f"actions: {int(outside.sum())} of {length - 1} are out of bounds, the first is row "
            f"{row}: wanted {list(meta.action_low)} to {list(meta.action_high)}, "
            f"got {actions[row].tolist()}; clip them, or widen action_low and action_high"
        )
    return actions


def write_shard(
    folder: str | Path, index: int, episodes: Sequence[Episode], *, meta: "TrajectoryMeta"
) -> None:
    """Write episodes as shard ``index``, under a temporary name until all of it is there.

    Args:
        folder: The dataset's folder.
        index: Which shard; one that is already there is replaced.
        episodes: The episodes, checked against ``meta``.
        meta: What the dataset holds.

    Raises:
        DataError: If an episode contradicts ``meta``.
    """
    checked = [episode.checked(meta) for episode in episodes]
    arrays = {
        name: np.concatenate([_padded(getattr(episode, name), name) for episode in checked])
        for name in ARRAYS
    }
    arrays["lengths"] = np.array([len(episode.pixels) for episode in checked], np.int64)
    target = shard_path(folder, index)
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    state = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        with open(temporary / f"{name}.npy", "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        state.update(f"{name}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    counts = {"episodes": len(checked), "frames": int(arrays["lengths"].sum())}
    write_json(temporary / "shard.json", {**counts, "digest": state.hexdigest()})
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)


def _padded(array: np.ndarray, name: str) -> np.ndarray:
    """Give the last frame of an episode an action of zeros, so that all arrays are as long."""
    if name != "actions":
        return array
    return np.concatenate([array, np.zeros_like(array[:1])])


def read_shard(path: Path, *, meta: "TrajectoryMeta") -> Shard:
    """Map a shard's arrays.

    Raises:
        DataError: If a file is missing, cut off, or contradicts ``meta`` or another file.
    """
    try:
        counts = read_json(path / "shard.json")
        lengths = np.array(_load(path / "lengths.npy"))
        arrays = {name: _load(path / f"{name}.npy") for name in ARRAYS}
        if set(counts) != {"episodes", "frames", "digest"}:
            raise DataError(f"{path / 'shard.json'}: unexpected fields {sorted(counts)}")
        _check_counts(path, lengths, counts)
        dtypes = {"pixels": np.uint8, "sim_state": np.float64}
        for name, shape in array_shapes(meta, counts["frames"]).items():
            array = arrays[name]
            _check_shape(str(path / f"{name}.npy"), array, shape)
            wanted = np.dtype(dtypes.get(name, np.float32))
            if array.dtype != wanted:
                raise DataError(f"{path / name}.npy: wanted {wanted}, got {array.dtype}")
    except DataError as error:
        raise DataError(
            f"damaged shard: {error}. Delete the folder {path} and run the same collect command "
            "again; it makes only what is missing"
        ) from error
    return Shard(**arrays, lengths=lengths, digest=counts["digest"])


def _check_counts(path: Path, lengths: np.ndarray, counts: dict[str, int]) -> None:
    """Check that lengths.npy says what shard.json says."""
    if lengths.ndim != 1 or lengths.dtype != np.int64 or (lengths < 2).any():
        raise DataError(f"{path / 'lengths.npy'}: wanted (E,) int64 of at least 2 frames each")
    if (len(lengths), int(lengths.sum())) != (counts["episodes"], counts["frames"]):
        raise DataError(
            f"{path / 'lengths.npy'}: wanted {counts['episodes']} episodes of {counts['frames']} "
            f"frames in all, got {len(lengths)} of {int(lengths.sum())}"
        )


def _load(path: Path) -> np.ndarray:
    """Map an array, or say which file cannot be."""
    if not path.exists():
        raise DataError(f"{path} is missing")
    try:
        # A memory map of zero bytes is an error; such an array has nothing to map.
        array = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as second:
            raise DataError(f"{path} cannot be read ({second})") from error
    return array
