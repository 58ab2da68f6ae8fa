"""The latent cache: every frame encoded once, then memory-mapped for training.

    <root>/<key>/key.json       whose latents these are: dataset, encoder, weights, preprocessing
                 manifest.json  per shard: the pixels it was made of, its size and digest
                 00000.npy      (F, P, D) float16, the frames of trajectory shard 00000

The key names the encoder and the first shard of the trajectories, so that a dataset which grows
keeps its cache: only new or changed shards are encoded.
"""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vjepa_wm.data.held import HeldFrames, Room
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.windows import FrameArrays, WindowIndex, gather_actions
from vjepa_wm.errors import DataError
from vjepa_wm.files import atomic_path, digest, read_json, write_json
from vjepa_wm.gpu_memory import spare_bytes
from vjepa_wm.progress import Progress, no_progress

_log = logging.getLogger(__name__)

DTYPE = np.dtype(np.float16)

MAX_BATCH = 64
CUDA_MAX_BATCH = 1024
CPU_BYTES = 1 << 30
LONG_S = 3600.0


class FrameEncoder(Protocol):
    """What the cache needs of an encoder.

    Attributes:
        name: Public name.
        digest: Digest of the weights.
        preprocessing: Everything between pixels and network that changes the latents.
        latent_shape: Tokens per frame P and width D.
    """

    name: str
    digest: str

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How pixels become latents."""

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Tokens per frame and width."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels ``(B, T, H, W, C)`` uint8 to latents ``(B, T, P, D)``."""


def frames_per_batch(frame_bytes: int, device: torch.device | str) -> int:
    """Return how many frames to encode at once.

    Args:
        frame_bytes: Working memory of encoding one frame.
        device: Where; on a CPU a gigabyte is spent, on a GPU a quarter of what is free.
    """
    budget, most = float(CPU_BYTES), MAX_BATCH
    if torch.device(device).type == "cuda":
        budget, most = spare_bytes(device), CUDA_MAX_BATCH
    return max(1, min(most, int(budget / frame_bytes)))


class LatentBatch(NamedTuple):
    """A batch of windows of latents.

    Attributes:
        latents: ``(B, T, P, D)`` float16; on a GPU where they are held there.
        actions: ``(B, T-1, stride*A)`` float32; action t leads from frame t to frame t+1.
        proprio: ``(B, T, Q)`` float32.
        frames: Global frame indices ``(B, T)``, to gather more of the trajectories with.
    """

    latents: Tensor
    actions: Tensor
    proprio: Tensor
    frames: np.ndarray


class LatentCache:
    """The latents of all frames of some trajectories; use `build_or_open`.

    Args:
        trajectories: What was encoded.
        folder: Where the latents lie.

    Attributes:
        trajectories: What was encoded.
        folder: Where the latents lie.
        latents: ``(P, D)`` float16 per frame, one memory map per shard.
        held: The same on a GPU, from which windows are then taken; see `hold`.
    """

    def __init__(self, trajectories: Trajectories, folder: Path) -> None:
        """Map the shards."""
        self.held: HeldFrames | None = None
        self.trajectories = trajectories
        self.folder = folder
        indices = range(len(trajectories.shard_lengths))
        self.latents = FrameArrays([np.load(_path(folder, i), mmap_mode="r") for i in indices])

    @classmethod
    def build_or_open(
        cls,
        trajectories: Trajectories,
        encoder: FrameEncoder,
        *,
        root: str | Path,
        batch_size: int = MAX_BATCH,
        device: torch.device | str = "cpu",
        progress: Progress = no_progress,
    ) -> Self:
        """Open the cache of these trajectories and this encoder, encoding what is missing.

        Size and digest of every shard are checked; one that is damaged, or was made of other
        pixels, is encoded again, with a warning. A run that was stopped continues.

        Args:
            trajectories: What to encode.
            encoder: What with.
            root: Folder of all caches.
            batch_size: Frames encoded at once.
            device: Where the encoder's weights are.
            progress: Makes the progress bars.

        Raises:
            DataError: If the disk is too small, or a latent is not finite.
        """
        key = _key(trajectories, encoder)
        folder = Path(root) / digest(json.dumps(key, sort_keys=True).encode())[:16]
        write_json(folder / "key.json", key)
        build = _Build(trajectories, encoder, folder=folder, batch_size=batch_size, device=device)
        build.run(progress)
        return cls(trajectories, folder)

    def hold(self, device: torch.device | str) -> None:
        """Copy the latents to a GPU, if there is room; elsewhere nothing is done."""
        self.held = Room(device).hold(self.latents)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Tokens per frame P and width D."""
        tokens, width = self.latents.frame_shape
        return tokens, width

    def windows(
        self, num_frames: int, *, stride: int = 1, episodes: np.ndarray | None = None
    ) -> "LatentWindows":
        """Return the windows of ``num_frames`` frames, ``stride`` recorded steps apart.

        Args:
            num_frames: Frames in a window, T.
            stride: Recorded steps between two frames.
            episodes: Episodes to draw from, such as one half of the split; all when None.
        """
        lengths = self.trajectories.lengths
        index = WindowIndex(lengths, num_frames=num_frames, stride=stride, episodes=episodes)
        return LatentWindows(self, index)


class LatentWindows:
    """Windows of latents with their actions and proprio.

    Args:
        cache: What to read from.
        index: Which windows there are.
    """

    def __init__(self, cache: LatentCache, index: WindowIndex) -> None:
        """Keep both."""
        self.cache = cache
        self.index = index

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.index)

    def sample(self, rng: np.random.Generator, batch_size: int) -> LatentBatch:
        """Draw windows uniformly, with replacement."""
        return self.take(self.index.sample(rng, batch_size))

    def take(self, frames: np.ndarray) -> LatentBatch:
        """Read the windows with the global frame indices ``(B, T)``."""
        trajectories, held = self.cache.trajectories, self.cache.held
        actions = gather_actions(trajectories.actions, frames, stride=self.index.stride)
        return LatentBatch(
            latents=torch.from_numpy(self.cache.latents.gather(frames))
            if held is None
            else held.gather(frames),
            actions=torch.from_numpy(actions),
            proprio=torch.from_numpy(trajectories.proprio.gather(frames)),
            frames=frames,
        )


class _Build:
    """One pass over a cache folder: check what is there, encode the rest."""

    def __init__(
        self,
        trajectories: Trajectories,
        encoder: FrameEncoder,
        *,
        folder: Path,
        batch_size: int,
        device: torch.device | str,
    ) -> None:
        self.trajectories = trajectories
        self.encoder = encoder
        self.folder = folder
        self.batch_size = batch_size
        self.device = device
        self.manifest = self._read_manifest()

    def run(self, progress: Progress) -> None:
        """Leave the folder complete and correct."""
        shards = range(len(self.trajectories.shard_lengths))
        with progress(total=len(shards), desc="check latents", unit="shards") as bar:
            missing = []
            for shard in shards:
                if not self._is_good(shard):
                    missing.append(shard)
                bar.update(1)
        if not missing:
            return
        frames = sum(len(self.trajectories.pixels.shards[shard]) for shard in missing)
        self._announce(frames)
        with progress(total=frames, desc="encode", unit="frames") as bar:
            for shard in missing:
                self._encode_shard(shard, bar, total=frames)

    def _read_manifest(self) -> dict[str, dict[str, Any]]:
        path = self.folder / "manifest.json"
        if not path.exists():
            return {}
        try:
            return read_json(path)
        except DataError as error:
            _log.warning("encoding everything again: %s", error)
            return {}

    def _is_good(self, shard: int) -> bool:
        """Say whether a shard's file is there and is what was written."""
        path, name = _path(self.folder, shard), str(shard)
        if name not in self.manifest:
            return False
        entry = self.manifest[name]
        if entry["source"] != self.trajectories.shard_digests[shard]:
            _log.warning("encoding shard %d again: its trajectories have changed", shard)
            return False
        if not path.exists() or path.stat().st_size != entry["bytes"]:
            _log.warning("encoding shard %d again: %s is missing or cut off", shard, path)
            return False
        if digest(path) != entry["digest"]:
            _log.warning("encoding shard %d again: %s is damaged", shard, path)
            return False
        return True

    def _announce(self, frames: int) -> None:
        """Say how much disk is needed; refuse when there is less."""
        tokens, width = self.encoder.latent_shape
        needed = frames * tokens * width * DTYPE.itemsize
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"latents need {needed / 1e9:.2f} GB in {self.folder}, only {free / 1e9:.2f} GB "
                "are free: name another folder, or pool more tokens"
            )
        _log.info(
            "encoding %d frames with %s, %d tokens of width %d each: %.2f GB in %s (%.0f GB free)",
            frames,
            self.encoder.name,
            tokens,
            width,
            needed / 1e9,
            self.folder,
            free / 1e9,
        )

    def _encode_shard(self, shard: int, bar: tqdm, *, total: int) -> None:
        """Encode one shard into its file and enter it in the manifest."""
        pixels = self.trajectories.pixels.shards[shard]
        path = _path(self.folder, shard)
        with atomic_path(path) as temporary:
            shape = (len(pixels), *self.encoder.latent_shape)
            out = np.lib.format.open_memmap(temporary, mode="w+", dtype=DTYPE, shape=shape)
            for start in range(0, len(pixels), self.batch_size):
                began = time.perf_counter()
                batch = pixels[start : start + self.batch_size]
                out[start : start + len(batch)] = self._encode(batch, shape[1:])
                if bar.n == 0:
                    _announce_time((time.perf_counter() - began) / len(batch), total)
                bar.update(len(batch))
            out.flush()
            del out
        self.manifest[str(shard)] = {
            "source": self.trajectories.shard_digests[shard],
            "bytes": path.stat().st_size,
            "digest": digest(path),
        }
        write_json(self.folder / "manifest.json", self.manifest)

    @torch.no_grad()
    def _encode(self, pixels: np.ndarray, latent_shape: tuple[int, ...]) -> np.ndarray:
        """Encode frames ``(F, H, W, 3)`` to ``(F, P, D)``."""
        video = torch.from_numpy(pixels.copy()).unsqueeze(1).to(self.device)
        latents = self.encoder.encode(video).squeeze(1)
        if tuple(latents.shape[1:]) != tuple(latent_shape):
            raise DataError(
                f"encoder '{self.encoder.name}': wanted latents (F, {latent_shape[0]}, "
                f"{latent_shape[1]}), got {tuple(latents.shape)}"
            )
        halved = latents.to(device="cpu", dtype=torch.float16)
        if not torch.isfinite(halved).all():
            raise DataError(f"encoder '{self.encoder.name}' gave latents that float16 cannot hold")
        return halved.numpy()


def _announce_time(frame_s: float, frames: int) -> None:
    """Say how long encoding will take, and what makes it shorter when that is very long."""
    seconds = frame_s * frames
    if seconds < LONG_S:
        _log.info("encoding will take about %.0f s", seconds)
        return
    _log.warning(
        "encoding will take about %.1f hours, %.2f frames per second; stopped, it continues where "
        "it was. A smaller image_size, encoder or data set, or a GPU (device=cuda) is faster",
        seconds / 3600,
        1 / frame_s,
    )


def _path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.npy"


def _key(trajectories: Trajectories, encoder: FrameEncoder) -> dict[str, Any]:
    """Name whose latents these are."""
    return {
        "env_id": trajectories.meta.env_id,
        "first_shard": trajectories.shard_digests[0],
        "encoder": encoder.name,
        "weights": encoder.digest,
        "preprocessing": encoder.preprocessing,
        "dtype": DTYPE.name,
    }
