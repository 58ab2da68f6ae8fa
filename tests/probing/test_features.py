"""Features: of encoder and floors alike in size, encoded once, and never another's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.errors import DataError, SettingError
from vjepa_wm.probing import cache
from vjepa_wm.probing.cache import build_or_open
from vjepa_wm.probing.features import (
    ClipFeatures,
    EncoderFeatures,
    PixelFeatures,
    all_features,
    clip_mode,
)


class Recorded:
    """Clips in memory that remember which of them were read."""

    def __init__(self, pixels: torch.Tensor, *, digest: str = "clips") -> None:
        self.pixels = pixels.numpy()
        self.digest = digest
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        self.asked.extend(rows.tolist())
        return self.pixels[rows], {row: "damaged" for row in rows.tolist() if row == 3}


@pytest.fixture
def clips() -> Recorded:
    return Recorded(tiny.pixels(5, 4, 16, 16))


def encoder_features(*, mode: str = "video", num_frames: int = 4, pool: int = 2) -> EncoderFeatures:
    encoder = tiny.encoder(pool=pool)
    return EncoderFeatures(encoder, name="tiny", weights="0", mode=mode, num_frames=num_frames)


def test_clips_are_video_wherever_the_encoder_sees_motion() -> None:
    encoder = tiny.encoder()
    assert clip_mode(encoder, "auto", num_frames=4) == "video"
    assert clip_mode(encoder, "auto", num_frames=1) == "frames"
    assert clip_mode(encoder, "frames", num_frames=4) == "frames"
    encoder.vit.tubelet_size = 1
    assert clip_mode(encoder, "auto", num_frames=4) == "frames"
    with pytest.raises(SettingError, match="sees single frames only"):
        clip_mode(encoder, "video", num_frames=4)


@pytest.mark.parametrize(
    ("mode", "frames", "said"),
    [
        ("movie", 4, "clip: wanted one of auto, video, frames"),
        ("auto", 3, "a multiple of 2"),
        ("auto", 0, "num_frames: wanted at least 1"),
    ],
)
def test_clips_that_cannot_be_encoded_are_refused(mode: str, frames: int, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        clip_mode(tiny.encoder(), mode, num_frames=frames)


def made_beside(
    others: dict[str, FrozenEncoder], *, mode: str, has_places: bool = False
) -> list[ClipFeatures]:
    return all_features(
        tiny.encoder(pool=2),
        floors=("random", "pixels"),
        others=others,
        mode=mode,
        num_frames=4,
        has_places=has_places,
        seed=0,
    )


@pytest.mark.parametrize(("mode", "tokens"), [("video", 2 * 4), ("frames", 4 * 4)])
def test_encoder_and_floors_have_the_same_shape(clips, mode: str, tokens: int) -> None:
    made = made_beside({"other": tiny.encoder(pool=2)}, mode=mode)
    assert [make.name for make in made] == ["tiny", "other", "random", "pixels"]
    pixels = torch.from_numpy(clips.pixels)
    for make in made:
        assert make.shape == (tokens, 24)
        found = make(pixels)
        assert found.shape == (5, tokens, 24) and found.dtype == torch.float32
        torch.testing.assert_close(make(pixels[1:3]), found[1:3], atol=1e-4, rtol=1e-4)
    assert made[1].identity == made[0].identity  # the same weights, encoded once
    assert len({repr(make.identity) for make in made}) == 3


def test_rows_of_one_name_are_refused() -> None:
    with pytest.raises(SettingError, match="rows of different names, got tiny, random, random"):
        made_beside({"random": tiny.encoder(pool=2)}, mode="video")


def test_another_encoder_must_see_such_clips_too() -> None:
    single = tiny.encoder(pool=2)
    single.vit.tubelet_size = 1
    with pytest.raises(SettingError, match="sees single frames only"):
        made_beside({"single": single}, mode="video")


def test_frame_by_frame_tokens_know_when_they_were(tmp_path: Path) -> None:
    still = Recorded(tiny.pixels(1, 1, 16, 16).expand(-1, 4, -1, -1, -1))
    make = encoder_features(mode="frames")
    tokens = build_or_open(still, make, root=tmp_path).take(np.array([0]))
    frames = tokens.unflatten(1, (4, 4))
    assert not torch.allclose(frames[:, 0], frames[:, 3], atol=0.1)
    shift = (frames - make(torch.from_numpy(still.pixels)).unflatten(1, (4, 4)))[0]
    torch.testing.assert_close(shift[:, 0], shift[:, 3], atol=1e-2, rtol=0)  # time alone
    assert encoder_features(mode="frames", num_frames=1).places is None


@pytest.mark.parametrize(("mode", "tokens"), [("video", 2 * 4), ("frames", 4 * 4)])
def test_tokens_are_told_where_they_are(clips, tmp_path: Path, mode: str, tokens: int) -> None:
    """Every token something else, the same in every clip; nothing is encoded again for it."""
    settings = {"name": "tiny", "weights": "0", "mode": mode, "num_frames": 4}
    encoder = tiny.encoder(pool=2)
    build_or_open(clips, EncoderFeatures(encoder, **settings), root=tmp_path)
    make = EncoderFeatures(encoder, **settings, has_places=True)
    placed = build_or_open(clips, make, root=tmp_path)
    assert clips.asked == list(range(5))
    wanted = make(torch.from_numpy(clips.pixels)) + make.places
    torch.testing.assert_close(placed.take(np.array([4, 1])), wanted[[4, 1]], atol=1e-2, rtol=1e-2)
    assert len(torch.unique(make.places, dim=0)) == tokens
    rows = made_beside({"other": encoder}, mode=mode, has_places=True)
    assert [row.places is not None for row in rows] == [True, True, True, False]  # not of pixels


def test_a_pixel_token_holds_its_patch_and_its_place() -> None:
    """Of 24 numbers, 12 at most are pixels: one colour per frame of the tubelet."""
    make = PixelFeatures(tiny.encoder(pool=2), mode="video", num_frames=4)
    pixels = torch.full((1, 4, 16, 16, 3), 128, dtype=torch.uint8)
    plain = make(pixels).unflatten(1, (2, 2, 2))
    assert make.side == 1
    pixels[:, 3, 8:, :8] = 255  # the last frame, lower left
    changed = (make(pixels).unflatten(1, (2, 2, 2)) != plain).nonzero().tolist()
    assert changed == [[0, 1, 1, 0, channel] for channel in (3, 4, 5)]
    places = plain[..., 6:].flatten(1, 3)[0]
    assert len({tuple(place.tolist()) for place in places}) == 8


def test_every_clip_is_encoded_once(clips: Recorded, tmp_path: Path) -> None:
    make = encoder_features()
    features = build_or_open(clips, make, root=tmp_path)
    assert clips.asked == list(range(5)) and features.unreadable == {3: "damaged"}
    wanted = make(torch.from_numpy(clips.pixels))
    torch.testing.assert_close(
        features.take(np.array([4, 1])), wanted[[4, 1]], atol=1e-2, rtol=1e-2
    )
    again = build_or_open(clips, make, root=tmp_path)
    assert clips.asked == list(range(5)) and again.unreadable == {3: "damaged"}


def test_a_stopped_run_goes_on_and_damage_is_mended(clips, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "MAX_SHARD", 2)
    make, read = encoder_features(), clips.read

    def stopped(rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        if rows[0] == 2:
            raise KeyboardInterrupt
        return read(rows)

    clips.read = stopped
    with pytest.raises(KeyboardInterrupt):
        build_or_open(clips, make, root=tmp_path)
    clips.read = read
    clips.asked.clear()
    build_or_open(clips, make, root=tmp_path)
    assert clips.asked == [2, 3, 4]  # the first shard was finished
    (shard,) = tmp_path.glob("*/00001.npy")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    clips.asked.clear()
    features = build_or_open(clips, make, root=tmp_path)
    assert clips.asked == [2, 3] and len(features) == 5


def test_other_clips_weights_or_modes_are_encoded_anew(clips: Recorded, tmp_path: Path) -> None:
    build_or_open(clips, encoder_features(), root=tmp_path)
    other = Recorded(tiny.pixels(5, 4, 16, 16, seed=1), digest="others")
    build_or_open(other, encoder_features(), root=tmp_path)
    build_or_open(clips, encoder_features(mode="frames"), root=tmp_path)
    build_or_open(clips, encoder_features(pool=1), root=tmp_path)
    weights = EncoderFeatures(
        tiny.encoder(pool=2), name="", weights="1", mode="video", num_frames=4
    )
    build_or_open(clips, weights, root=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5 and len(clips.asked) == 20


def test_what_float16_cannot_hold_is_refused(clips: Recorded, tmp_path: Path, monkeypatch) -> None:
    make = encoder_features()
    monkeypatch.setattr(
        EncoderFeatures, "__call__", lambda self, pixels: torch.full((5, *make.shape), 1e6)
    )
    with pytest.raises(DataError, match="float16 cannot hold"):
        build_or_open(clips, make, root=tmp_path)
