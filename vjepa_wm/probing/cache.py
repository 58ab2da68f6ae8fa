"""The feature cache: the tokens of every clip made once, then memory-mapped for all heads.

    <root>/<key>/key.json       whose features these are: clips, encoder, weights, preprocessing
                 manifest.json  per shard: size and digest of its file, and clips nobody could read
                 00000.npy      (N, L, D) float16

Shards are written whole or not at all; a run that was stopped goes on with the next one.
"""

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vjepa_wm.data.windows import FrameArrays
from vjepa_wm.errors import DataError
from vjepa_wm.files import atomic_path, digest, read_json, write_json
from vjepa_wm.probing.features import ClipFeatures
from vjepa_wm.progress import Progress, no_progress

_log = logging.getLogger(__name__)

DTYPE = np.dtype(np.float16)
SHARD_BYTES = 1 << 27
MAX_SHARD = 256  # clips


class Clips(Protocol):
    """Clips that can be read.

    Attributes:
        digest: Names their contents and how they are cut.
    """

    digest: str

    def __len__(self) -> int:
        """Return the number of clips N."""

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """Read clips (B, T, H, W, 3); those that cannot be read are black, and row -> why."""


class Features:
    """The tokens of clips.

    Args:
        shards: (N_i, L, D) float16 each.
        unreadable: Row -> why this clip could not be read; its tokens mean nothing.
        places: Added to the tokens of every clip, (L, D); None adds nothing.
        device: Where tokens are wanted.
    """

    def __init__(
        self,
        shards: list[NDArray],
        unreadable: dict[int, str],
        *,
        places: Tensor | None,
        device: torch.device | str,
    ) -> None:
        self._arrays = FrameArrays(shards)
        self.unreadable = unreadable
        self._places = None if places is None else places.to(device)
        self.device = device

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self._arrays)

    @property
    def width(self) -> int:
        """Width D of the tokens."""
        return self._arrays.frame_shape[1]

    @property
    def numbers(self) -> int:
        """Numbers L x D of a clip."""
        return math.prod(self._arrays.frame_shape)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Read the tokens of clips (B,): float32 (B, L, D)."""
        tokens = self._arrays.gather(rows[:, None])[:, 0]
        tokens = torch.from_numpy(tokens).to(self.device).float()
        return tokens if self._places is None else tokens + self._places


def build_or_open(
    clips: Clips,
    make: ClipFeatures,
    *,
    root: str | Path,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> Features:
    """Open the features of these clips, making those that are missing or damaged.

    Args:
        clips: Of what.
        make: Makes the tokens.
        root: Folder of all caches.
        device: Where tokens are wanted later.
        progress: Makes the progress bar.

    Raises:
        DataError: The disk is too small, or a token is not finite.
    """
    key = {"clips": clips.digest, "dtype": DTYPE.name, **make.identity}
    folder = Path(root) / digest(json.dumps(key, sort_keys=True).encode())[:16]
    write_json(folder / "key.json", key)
    shards = _shards(len(clips), make.shape)
    manifest = _read_manifest(folder)
    missing = [i for i in range(len(shards)) if not _is_good(folder, i, manifest)]
    if missing:
        _check_disk(folder, sum(len(shards[i]) for i in missing), make)
    total = sum(len(shards[i]) for i in missing)
    with progress(total=total, desc=f"encode, {make.name}", unit="clips") as bar:
        for i in missing:
            manifest[str(i)] = _write_shard(folder, i, clips, shards[i], make, bar)
            write_json(folder / "manifest.json", manifest)
    unreadable = {
        int(row): reason
        for i in range(len(shards))
        for row, reason in manifest[str(i)]["unreadable"].items()
    }
    arrays = [np.load(_path(folder, i), mmap_mode="r") for i in range(len(shards))]
    return Features(arrays, unreadable, places=make.places, device=device)


def _shards(count: int, shape: tuple[int, int]) -> list[NDArray[np.int64]]:
    """Cut the rows of all clips into shards."""
    size = SHARD_BYTES // (shape[0] * shape[1] * DTYPE.itemsize)
    size = max(1, min(MAX_SHARD, size))
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except DataError as error:
        _log.warning("making all features again: %s", error)
        return {}


def _is_good(folder: Path, shard: int, manifest: dict[str, dict[str, Any]]) -> bool:
    """Say whether a shard's file is there and is what was written."""
    path = _path(folder, shard)
    if str(shard) not in manifest:
        return False
    if path.exists() and digest(path) == manifest[str(shard)]["digest"]:
        return True
    _log.warning("making features again: %s is missing or damaged", path)
    return False


def _check_disk(folder: Path, clips: int, make: ClipFeatures) -> None:
    """Say how much disk is needed; refuse when there is less."""
    needed = clips * make.shape[0] * make.shape[1] * DTYPE.itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"features need {needed / 1e9:.2f} GB in {folder}, only {free / 1e9:.2f} GB are free: "
            "name another folder with cache=, take fewer frames, or pool tokens (encoder.pool=2)"
        )
    _log.info(
        "%s: %d clips, %d tokens of width %d each: %.2f GB in %s",
        make.name,
        clips,
        *make.shape,
        needed / 1e9,
        folder,
    )


def _write_shard(
    folder: Path,
    shard: int,
    clips: Clips,
    rows: NDArray[np.int64],
    make: ClipFeatures,
    bar: tqdm,
) -> dict[str, Any]:
    """Make the features of some clips and return their entry in the manifest."""
    path = _path(folder, shard)
    unreadable: dict[str, str] = {}
    out = np.empty((len(rows), *make.shape), DTYPE)
    for start in range(0, len(rows), make.batch_size):
        batch = rows[start : start + make.batch_size]
        pixels, faults = clips.read(batch)
        unreadable |= {str(row): reason for row, reason in faults.items()}
        tokens = make(torch.from_numpy(pixels)).to(torch.float16)
        if not torch.isfinite(tokens).all():
            raise DataError(f"'{make.name}' gave features that float16 cannot hold")
        out[start : start + len(batch)] = tokens.numpy()
        bar.update(len(batch))
    with atomic_path(path) as temporary:
        np.save(temporary, out)
    return {"digest": digest(path), "unreadable": unreadable}


def _path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.npy"
