"""The latent cache gives what the encoder gives, and is never used when it is stale or damaged."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data import fake_env
from vjepa_wm.data.collection import CollectSettings, collect
from vjepa_wm.data.held import HeldFrames
from vjepa_wm.data.latents import LatentCache
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.errors import DataError

SETTINGS = {
    "env_id": f"{fake_env.__name__}:fake/Point-v0",
    "image_size": 8,
    "steps": 6,
    "shard_episodes": 3,
}


class FakeEncoder:
    """Means over quarters of the picture, counting the frames it is given."""

    name = "fake"
    digest = "0123"

    def __init__(self, scale: float = 1.0, fail_after: int = 10**9) -> None:
        self.scale = scale
        self.frames = 0
        self.fail_after = fail_after

    @property
    def preprocessing(self) -> dict[str, object]:
        """Return what changes the latents."""
        return {"scale": self.scale}

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Four tokens of three channels."""
        return 4, 3

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode (B, T, 8, 8, 3) to (B, T, 4, 3)."""
        assert pixels.dtype == torch.uint8
        self.frames += pixels.shape[0] * pixels.shape[1]
        if self.frames > self.fail_after:
            raise KeyboardInterrupt
        quarters = pixels.float().unflatten(3, (2, 4)).unflatten(2, (2, 4))
        return self.scale * quarters.mean(dim=(3, 5)).flatten(2, 3)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collect seven episodes in three shards, once."""
    folder = tmp_path_factory.mktemp("data") / "point"
    collect(CollectSettings(episodes=7, **SETTINGS), folder)
    return folder


@pytest.fixture
def trajectories(collected: Path) -> Trajectories:
    """Open the collected trajectories."""
    return Trajectories.open(collected)


def test_windows_are_what_encoding_them_gives(trajectories: Trajectories, tmp_path: Path) -> None:
    """Whatever the batch size, and the second opening encodes nothing."""
    encoder = FakeEncoder()
    cache = LatentCache.build_or_open(trajectories, encoder, root=tmp_path, batch_size=5)
    assert encoder.frames == trajectories.num_frames == len(cache.latents)
    assert cache.latent_shape == (4, 3)
    batch = cache.windows(4).sample(np.random.default_rng(0), 16)
    pixels = trajectories.windows(4).take(batch.frames)
    wanted = FakeEncoder().encode(torch.from_numpy(pixels.pixels)).half()
    assert torch.equal(batch.latents, wanted)
    assert torch.equal(batch.actions, torch.from_numpy(pixels.actions))
    assert torch.equal(batch.proprio, torch.from_numpy(pixels.proprio))
    again = FakeEncoder()
    LatentCache.build_or_open(trajectories, again, root=tmp_path)
    assert again.frames == 0


def test_held_windows_are_those_that_are_read(trajectories: Trajectories, tmp_path: Path) -> None:
    """From the memory of a GPU, here a CPU's, as from disk; a CPU holds nothing by itself."""
    cache = LatentCache.build_or_open(trajectories, FakeEncoder(), root=tmp_path)
    windows = cache.windows(3)
    wanted = windows.sample(np.random.default_rng(0), 16)
    cache.hold("cpu")
    assert cache.held is None
    cache.held = HeldFrames(cache.latents, "cpu")
    found = windows.sample(np.random.default_rng(0), 16)
    for one, other in zip(found[:3], wanted[:3], strict=True):
        assert torch.equal(one, other)


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(bytes(raw))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink])
def test_only_the_damaged_shard_is_encoded_again(
    trajectories: Trajectories, tmp_path: Path, damage, caplog
) -> None:
    """One flipped bit, a cut file, a missing one: a warning, and the latents are right again."""
    cache = LatentCache.build_or_open(trajectories, FakeEncoder(), root=tmp_path)
    before = np.concatenate(cache.latents.shards)
    damage(cache.folder / "00001.npy")
    encoder = FakeEncoder()
    cache = LatentCache.build_or_open(trajectories, encoder, root=tmp_path)
    assert encoder.frames == 21
    assert "shard 1 again" in caplog.text
    assert np.array_equal(np.concatenate(cache.latents.shards), before)


def test_a_stopped_build_continues(trajectories: Trajectories, tmp_path: Path) -> None:
    """Finished shards are kept, half a shard is not."""
    with pytest.raises(KeyboardInterrupt):
        LatentCache.build_or_open(
            trajectories, FakeEncoder(fail_after=30), root=tmp_path, batch_size=4
        )
    assert not list(tmp_path.rglob("*.tmp*"))
    encoder = FakeEncoder()
    LatentCache.build_or_open(trajectories, encoder, root=tmp_path)
    assert encoder.frames == 28


def test_another_preprocessing_has_another_cache(
    trajectories: Trajectories, tmp_path: Path
) -> None:
    """Both stay, each with a key to read by eye."""
    caches = [
        LatentCache.build_or_open(trajectories, FakeEncoder(scale), root=tmp_path)
        for scale in (1.0, 2.0)
    ]
    assert caches[0].folder != caches[1].folder
    key = json.loads((caches[1].folder / "key.json").read_text())
    assert (key["encoder"], key["preprocessing"]) == ("fake", {"scale": 2.0})


def test_a_grown_dataset_keeps_its_cache(tmp_path: Path) -> None:
    """Only shards that are new, or have grown, are encoded."""
    collect(CollectSettings(episodes=4, **SETTINGS), tmp_path / "data")
    first = Trajectories.open(tmp_path / "data")
    LatentCache.build_or_open(first, FakeEncoder(), root=tmp_path / "cache")
    collect(CollectSettings(episodes=9, **SETTINGS), tmp_path / "data")
    encoder, grown = FakeEncoder(), Trajectories.open(tmp_path / "data")
    cache = LatentCache.build_or_open(grown, encoder, root=tmp_path / "cache")
    assert encoder.frames == 6 * 7
    assert len(cache.latents) == 9 * 7


def test_latents_that_overflow_are_refused(trajectories: Trajectories, tmp_path: Path) -> None:
    """Infinity would spoil every training on the cache."""
    with pytest.raises(DataError, match="float16 cannot hold"):
        LatentCache.build_or_open(trajectories, FakeEncoder(scale=1e9), root=tmp_path)
