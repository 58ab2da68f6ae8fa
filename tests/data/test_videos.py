"""Pictures come out of videos at the right time, squared, whatever they are kept in."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from tests import films
from vjepa_wm.data.videos import (
    Cut,
    Timeline,
    UnreadableError,
    is_video,
    read_pictures,
    timeline,
)
from vjepa_wm.errors import DataError

EVEN = Timeline(np.arange(10) / 10, 1.0, is_even=True)


def test_a_clip_is_cut_from_the_middle_in_steps_of_physical_time() -> None:
    assert EVEN.choose(3, fps=5.0).tolist() == [3, 5, 7]
    assert EVEN.choose(5, fps=None).tolist() == [1, 3, 5, 7, 9]
    assert EVEN.choose(10, fps=None).tolist() == list(range(10))
    twice_as_fine = Timeline(np.arange(20) / 20, 1.0, is_even=True)
    assert (twice_as_fine.choose(3, fps=5.0) // 2).tolist() == [3, 5, 7]


def test_a_picture_that_is_shown_for_long_comes_as_often_as_it_is_shown() -> None:
    slow = Timeline(np.array([0.0, 0.1, 0.9]), 1.0, is_even=False)
    assert slow.choose(5, fps=None).tolist() == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("frames", "fps", "said"),
    [(11, None, "10 pictures, wanted 11"), (4, 2.0, "1.00 s, wanted 1.50 s for 4 pictures at 2")],
)
def test_short_videos_are_unreadable(frames: int, fps: float | None, said: str) -> None:
    with pytest.raises(UnreadableError, match=f"too short: {said}"):
        EVEN.choose(frames, fps)


@pytest.mark.parametrize("kind", ["gif", "webp", "folder"])
def test_pictures_are_read_at_their_time(tmp_path: Path, kind: str) -> None:
    shades = [20, 70, 120, 170, 220]
    frames = [Image.new("RGB", (40, 20), (shade, shade, shade)) for shade in shades]
    if kind == "folder":
        path = films.write_folder(tmp_path / "clip", frames)
    else:
        path = films.write_gif(tmp_path / f"clip.{kind}", frames, duration_ms=200)
    assert is_video(path)
    times = timeline(path, folder_fps=5.0)
    np.testing.assert_allclose(times.starts, np.arange(5) * 0.2)
    assert times.duration == pytest.approx(1.0)
    found = read_pictures(path, np.array([0, 3, 3, 4]), side=8)
    assert found.shape == (4, 8, 8, 3) and found.dtype == np.uint8
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), [20, 170, 170, 220], atol=3)


def test_the_middle_is_cut_out_and_resized(tmp_path: Path) -> None:
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40, 0] = 200  # the middle square is red, the borders are not
    path = films.write_folder(tmp_path / "clip", [Image.fromarray(picture)] * 2)
    found = read_pictures(path, np.array([0, 1]), side=10)
    assert (found[..., 0] == 200).all() and not found[..., 1:].any()


@pytest.mark.parametrize("kind", ["mp4", "mkv"])  # the second does not say how long it is
def test_films_are_read_where_pyav_is(tmp_path: Path, kind: str) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"clip.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for shade in range(20, 220, 20):
            frame = av.VideoFrame.from_ndarray(np.full((32, 64, 3), shade, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    times = timeline(path, folder_fps=1.0)
    np.testing.assert_allclose(times.starts, np.arange(10) / 10, atol=1e-3)
    assert times.duration == pytest.approx(1.0, abs=1e-3)
    found = read_pictures(path, np.array([2, 7]), side=16)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), [60, 160], atol=8)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableError, match="damaged"):
        timeline(path, folder_fps=1.0)


def test_a_film_without_pyav_names_the_extra(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"film")
    with pytest.raises(DataError, match=r"needs PyAV.*vjepa-wm\[video\]") as found:
        timeline(tmp_path / "clip.mp4", folder_fps=1.0)
    assert not isinstance(found.value, UnreadableError)  # all films would be left out in silence


def test_damaged_files_and_stills_are_unreadable(tmp_path: Path) -> None:
    gif = films.write_gif(tmp_path / "cut.gif", films.pictures(moves=True, seed=0))
    gif.write_bytes(gif.read_bytes()[:600])
    (tmp_path / "text.gif").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "still.webp")
    for name, said in (("cut.gif", "damaged"), ("text.gif", "damaged"), ("still.webp", "still")):
        with pytest.raises(UnreadableError, match=said):
            timeline(tmp_path / name, folder_fps=1.0)


def test_a_cut_is_read_in_place_of_the_middle(tmp_path: Path) -> None:
    """Left quarter of the picture, mirrored."""
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :5, 0], picture[:, 5:10, 1] = 200, 200
    path = films.write_folder(tmp_path / "clip", [Image.fromarray(picture)] * 2)
    cut = Cut(area=0.25, aspect=0.5, left=0.0, top=0.5, mirrored=True)
    found = read_pictures(path, np.array([0, 1]), side=8, cut=cut)
    assert (found[:, :, 6:, 0] == 200).all() and not found[:, :, :2, 0].any()
    assert (found[:, :, :2, 1] == 200).all()


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_films_are_read_from_a_key_frame_on(tmp_path: Path, kind: str) -> None:
    """The same pictures as from the beginning, without decoding what comes before."""
    av = pytest.importorskip("av")
    path = tmp_path / f"long.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.gop_size = 12
        for index in range(200):
            frame = np.full((32, 64, 3), index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    starts = timeline(path, folder_fps=1.0).starts
    for wanted in ([60, 61, 75], [149, 150, 199], [3, 5]):
        plain = read_pictures(path, np.array(wanted), side=8)
        found = read_pictures(path, np.array(wanted), side=8, starts=starts)
        assert np.array_equal(found, plain)
        np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), wanted, atol=6)


def write_film(av: object, path: Path, frames: list[np.ndarray], *, gop_size: int = 12) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        height, width = frames[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = gop_size
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("begin", [1.5, 1.53])
@pytest.mark.parametrize("kind", ["mp4", "mov"])
def test_what_was_cut_off_a_film_is_not_counted(tmp_path: Path, kind: str, begin: float) -> None:
    """Without encoding it anew: an edit list hides what lies before, from a key frame on."""
    av = pytest.importorskip("av", minversion="14")
    shades = [np.full((32, 64, 3), 2 * index, np.uint8) for index in range(100)]
    whole = write_film(av, tmp_path / f"whole.{kind}", shades, gop_size=1 if begin > 1.5 else 10)
    path = tmp_path / f"cut.{kind}"
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = source.streams.video[0]
        copied = container.add_stream_from_template(stream)
        offset = int(begin / stream.time_base)
        source.seek(offset, stream=stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
                packet.stream = copied
                container.mux(packet)
    first = 15 if begin == 1.5 else 16
    times = timeline(path, folder_fps=1.0)
    np.testing.assert_allclose(times.starts, np.arange(100 - first) / 10, atol=1e-3)
    for wanted in ([0, 1, 20], [60, 99 - first]):
        for starts in (None, times.starts):
            found = read_pictures(path, np.array(wanted), side=8, starts=starts)
            shown = 2 * (np.array(wanted) + first)
            np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), shown, atol=6)


def rotated(quarters: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda square: np.rot90(square, quarters)


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), rotated(0)),
        ((0, 1, -1, 0), rotated(-1)),  # as phones write it that are held upright
        ((-1, 0, 0, -1), rotated(2)),
        ((0, -1, 1, 0), rotated(1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda square: square.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda square: np.rot90(square, 2).swapaxes(0, 1)),
        ((0, 0, 0, 0), rotated(0)),  # of damaged heads
    ],
)
def test_films_are_read_as_they_are_shown(
    tmp_path: Path, matrix: tuple[int, ...], turned: Callable[[np.ndarray], np.ndarray]
) -> None:
    """By the matrix in the head of the track: where right and down point to."""
    av = pytest.importorskip("av")
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:16, :32], frame[:16, 32:] = 220, 110
    path = write_film(av, tmp_path / "clip.mp4", [frame] * 3)
    plain = read_pictures(path, np.array([1]), side=8)[0]
    head = bytearray(path.read_bytes())
    place = head.index(b"tkhd") + 44
    right, down = ([part << 16 for part in axis] for axis in (matrix[:2], matrix[2:]))
    head[place : place + 36] = struct.pack(">9i", *right, 0, *down, 0, 0, 0, 1 << 30)
    path.write_bytes(head)
    found = read_pictures(path, np.array([1]), side=8)[0]
    np.testing.assert_allclose(found.astype(int), turned(plain), atol=1)


@pytest.mark.parametrize(
    "names",
    [
        ["frame1", "frame2", "frame9", "frame10", "frame11", "frame100"],
        ["a2_b3", "a2_b10", "a10_b1"],
        ["0001", "0002", "0010", "0100"],
        ["clip-1", "clip", "clip1", "clip_1"],  # of equally long numbers: as text
    ],
)
def test_pictures_of_a_folder_are_in_the_order_of_their_numbers(
    tmp_path: Path, names: list[str]
) -> None:
    for index, name in reversed(list(enumerate(names))):
        Image.new("RGB", (8, 8), (40 * index, 0, 0)).save(tmp_path / f"{name}.png")
    found = read_pictures(tmp_path, np.arange(len(names)), side=4)
    assert found[:, 0, 0, 0].tolist() == [40 * index for index in range(len(names))]


@pytest.mark.parametrize("orientation", range(9))
def test_pictures_are_read_as_their_exif_says(tmp_path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(tmp_path / "0.png", exif=exif)
    with Image.open(tmp_path / "0.png") as saved:
        upright = ImageOps.exif_transpose(saved)
    upright.save(tmp_path / "1.png")
    found = read_pictures(tmp_path, np.array([0, 1]), side=12)
    assert np.array_equal(found[0], found[1])


def test_greys_of_16_bits_are_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 16).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (16, 1))).save(tmp_path / "0.png")
    found = read_pictures(tmp_path, np.array([0]), side=16)[0]
    assert (found[0, :, 0] == np.arange(16) * 17).all()
    assert (found == found[:1, :, :1]).all()


@pytest.mark.parametrize("numbers", [[0.5, 1.0], [-1, 7], [0, 65536]])
def test_pictures_of_other_numbers_say_what_to_do(tmp_path: Path, numbers: list[float]) -> None:
    kind = np.float32 if isinstance(numbers[0], float) else np.int32
    Image.fromarray(np.array([numbers] * 2, kind)).save(tmp_path / "0.png", format="TIFF")
    with pytest.raises(UnreadableError, match=r"0\.png: wanted 8 or 16 bits .*save it with 8 bits"):
        read_pictures(tmp_path, np.array([0]), side=2)


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    """Such as macOS writes beside those it copies."""
    (tmp_path / "._0000.png").write_bytes(b"resources")
    assert not is_video(tmp_path)
    for index, shade in enumerate((50, 100)):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(tmp_path / f"{index:04d}.png")
    assert is_video(tmp_path)
    assert len(timeline(tmp_path, folder_fps=1.0).starts) == 2
    assert read_pictures(tmp_path, np.array([0, 1]), side=2)[:, 0, 0, 0].tolist() == [50, 100]
