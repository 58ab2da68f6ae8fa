"""Reads pictures out of videos: films with PyAV, GIF and WebP with Pillow, folders of pictures.

Shapes: F pictures of a video, T those that are wanted, H W image, S side of the square.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageSequence

from vjepa_wm.errors import DataError

FILMS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
ANIMATIONS = (".gif", ".webp")
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
EXTRA = 'pip install "vjepa-wm[video]"'
UNTIMED_S = 0.1  # how long a picture of an animation is shown that does not say so, as in browsers
SEEK_FROM = 50  # picture of a film; what comes before is decoded, as looking for a key frame costs
MOST_OFF = 0.1  # pictures by which a film's head may be off its duration and still be believed
MOST_GREY = 65535  # of 16 bits
_NUMBER = re.compile(r"\d+")
_DIGITS = 32  # to which numbers in names are filled up
_TURN = Image.Transpose
# What makes a picture upright, by its EXIF orientation; any other says that it is.
_EXIF_TURNS = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
# The same by the signs of a film's display matrix, (right, down) of what was right, then of down.
_MATRIX_TURNS = {
    (-1, 0, 0, 1): _TURN.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): _TURN.ROTATE_180,
    (1, 0, 0, -1): _TURN.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): _TURN.TRANSPOSE,
    (0, 1, -1, 0): _TURN.ROTATE_270,
    (0, -1, -1, 0): _TURN.TRANSVERSE,
    (0, -1, 1, 0): _TURN.ROTATE_90,
}
# What Pillow raises on a file that is cut off, damaged or no picture.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_Square = Callable[[Image.Image], NDArray[np.uint8]]
_Found = dict[int, NDArray[np.uint8]]


class UnreadableError(DataError):
    """A video that is damaged, too short or none; it is left out, others are not."""


class Cut(NamedTuple):
    """A rectangle of a picture that becomes the square, the same in all pictures of a clip.

    Attributes:
        area: Share of the picture's area, in (0, 1]; None is its middle square.
        aspect: Width / height.
        left: Its place between the borders, 0 to 1.
        top: Likewise.
        mirrored: Whether left and right change places.
    """

    area: float | None
    aspect: float
    left: float
    top: float
    mirrored: bool

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Place it in a picture (width, height), whose borders may make it smaller."""
        if self.area is None:
            short = min(size)
            left, top = ((length - short) // 2 for length in size)
            return left, top, left + short, top + short
        area = self.area * size[0] * size[1]
        sides = math.sqrt(area * self.aspect), math.sqrt(area / self.aspect)
        width, height = (
            min(whole, max(1, round(side))) for whole, side in zip(size, sides, strict=True)
        )
        left = round(self.left * (size[0] - width))
        top = round(self.top * (size[1] - height))
        return left, top, left + width, top + height


MIDDLE = Cut(area=None, aspect=1.0, left=0.5, top=0.5, mirrored=False)


@dataclass(frozen=True)
class Timeline:
    """When the pictures of a video are shown.

    Attributes:
        starts: Seconds from the first (F,), ascending.
        duration: Seconds in all.
        is_even: Whether each picture stands for one moment; in an animation one may be shown for
            long, where nothing moves.
    """

    starts: NDArray[np.float64]
    duration: float
    is_even: bool

    def choose(self, num_frames: int, fps: float | None) -> NDArray[np.int64]:
        """Choose the pictures (T,) of a clip from the middle of the video.

        Args:
            num_frames: How many.
            fps: How many per second; None spreads them over the whole video.

        Raises:
            UnreadableError: The video is too short.
        """
        if fps is None:
            if self.is_even and len(self.starts) < num_frames:
                raise UnreadableError(
                    f"too short: {len(self.starts)} pictures, wanted {num_frames}"
                )
            times = (np.arange(num_frames) + 0.5) * self.duration / num_frames
        else:
            span = (num_frames - 1) / fps
            if self.duration < span:
                raise UnreadableError(
                    f"too short: {self.duration:.2f} s, wanted {span:.2f} s for {num_frames} "
                    f"pictures at {fps:g} per second"
                )
            times = (self.duration - span) / 2 + np.arange(num_frames) / fps
        return self.at(times)

    def at(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the pictures that are shown at these times, seconds from the first."""
        return np.maximum(np.searchsorted(self.starts, times, side="right") - 1, 0)


def is_picture(path: Path) -> bool:
    """Whether a file may be a picture: by its suffix, and where it is not hidden."""
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def is_video(path: Path) -> bool:
    """Whether a path may be a video: a file by its suffix, a folder by a picture in it."""
    if path.is_dir():
        return any(map(is_picture, path.iterdir()))
    return path.suffix.lower() in (*FILMS, *ANIMATIONS)


def timeline(path: Path, *, folder_fps: float) -> Timeline:
    """Find out when the pictures of a video are shown, without decoding films.

    Args:
        path: A file, or a folder of pictures.
        folder_fps: Pictures per second of folders, which do not say.

    Raises:
        UnreadableError: It is damaged, or a still picture.
        DataError: PyAV is needed and not installed.
    """
    if path.is_dir():
        starts = np.arange(len(_pictures(path))) / folder_fps
        return Timeline(starts, len(starts) / folder_fps, is_even=True)
    if path.suffix.lower() in FILMS:
        starts = _film_starts(path)
        step = float(np.median(np.diff(starts))) if len(starts) > 1 else 0.0
        return Timeline(starts, float(starts[-1]) + step, is_even=True)
    durations = _durations(path)
    ends = np.cumsum(durations)
    return Timeline(ends - durations, float(ends[-1]), is_even=False)


def read_pictures(
    path: Path,
    wanted: NDArray[np.int64],
    *,
    side: int,
    cut: Cut | None = None,
    starts: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """Read pictures (T,) of a video, cut to squares: (T, S, S, 3).

    Args:
        path: A file, or a folder of pictures.
        wanted: Which pictures, ascending; one may come several times.
        side: Of the square, pixels.
        cut: What becomes the square; None is the middle.
        starts: When the pictures are shown, of its `Timeline`. A film is then decoded from the key
            frame before the first wanted picture on; None decodes it from its beginning.

    Raises:
        UnreadableError: It is damaged.
        DataError: PyAV is needed and not installed.
    """
    distinct = np.unique(wanted).tolist()

    def square(picture: Image.Image) -> NDArray[np.uint8]:
        return cut_square(picture, side=side, cut=cut)

    if path.is_dir():
        found = _read_folder(path, distinct, square)
    elif path.suffix.lower() in FILMS:
        found = _read_film(path, distinct, square, starts)
    else:
        found = _read_animation(path, distinct, square)
    return np.stack([found[index] for index in wanted.tolist()])


def cut_square(picture: Image.Image, *, side: int, cut: Cut | None) -> NDArray[np.uint8]:
    """Cut a picture, None is the middle, and resize it with anti-aliasing: (S, S, 3).

    Raises:
        UnreadableError: It has more than 16 bits per colour.
    """
    cut = MIDDLE if cut is None else cut
    part = _as_rgb(picture).crop(cut.box(picture.size))
    pixels = np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if cut.mirrored else pixels


def _as_rgb(picture: Image.Image) -> Image.Image:
    """Convert to 8 bits; Pillow alone would make white of all but the darkest of 16 bits."""
    if not picture.mode.startswith(("I", "F")):
        return picture.convert("RGB")
    greys = np.asarray(picture)
    if picture.mode == "F" or greys.min() < 0 or greys.max() > MOST_GREY:
        raise UnreadableError(
            f"wanted 8 or 16 bits per colour, got numbers from {greys.min():g} to "
            f"{greys.max():g}: save it with 8 bits"
        )
    return Image.fromarray(np.rint(greys / (MOST_GREY / 255)).astype(np.uint8)).convert("RGB")


def _pictures(folder: Path) -> list[Path]:
    """List the pictures of a folder, those with numbers in their names by these."""

    def place(path: Path) -> tuple[str, str]:
        return _NUMBER.sub(lambda found: found[0].zfill(_DIGITS), path.name), path.name

    return sorted(filter(is_picture, folder.iterdir()), key=place)


def _read_folder(folder: Path, wanted: Sequence[int], square: _Square) -> _Found:
    paths = _pictures(folder)
    try:
        found = {}
        for index in wanted:
            with Image.open(paths[index]) as picture:
                lies = picture.getexif().get(ExifTags.Base.Orientation, 1)
                found[index] = square(_turned(picture, _EXIF_TURNS, lies))
    except IndexError as error:
        raise UnreadableError(f"it has {len(paths)} pictures by now") from error
    except (*_DAMAGED, UnreadableError) as error:
        raise UnreadableError(f"{paths[index].name}: {error}") from error
    return found


def _turned(picture: Image.Image, turns: Mapping[Any, Any], lies: Any) -> Image.Image:
    return picture.transpose(turns[lies]) if lies in turns else picture


def _durations(path: Path) -> NDArray[np.float64]:
    """How long each picture of an animation is shown (F,), seconds."""
    durations = []
    try:
        with Image.open(path) as film:
            for picture in ImageSequence.Iterator(film):
                picture.load()  # a WebP knows how long it is shown once it is decoded
                info = {"duration": 0} | picture.info
                durations.append(info["duration"] / 1000)
    except _DAMAGED as error:
        raise UnreadableError(f"damaged: {error}") from error
    if len(durations) == 1 and not durations[0]:
        raise UnreadableError("too short: a still picture")
    return np.array([shown or UNTIMED_S for shown in durations])


def _read_animation(path: Path, wanted: Sequence[int], square: _Square) -> _Found:
    try:
        found = {}
        with Image.open(path) as film:
            for index in wanted:
                film.seek(index)
                found[index] = square(film)
    except _DAMAGED as error:
        raise UnreadableError(f"damaged: {error}") from error
    return found


def _film_starts(path: Path) -> NDArray[np.float64]:
    """When the pictures of a film are shown (F,): read off its head, or else off its packets."""
    av = _import_av(path)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate
            if stream.frames and stream.duration and rate and rate == stream.base_rate:
                # Where a film was cut without encoding it anew, its head counts what was cut off
                shown = float(stream.duration * stream.time_base * rate)
                if abs(shown - stream.frames) < MOST_OFF:
                    return np.arange(stream.frames) / float(rate)
            marks = [
                packet.dts if packet.pts is None else packet.pts
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard
            ]
            starts = np.sort([float(mark * stream.time_base) for mark in marks])
    except (av.FFmpegError, IndexError, TypeError) as error:
        raise UnreadableError(f"damaged: {error}") from error
    if not len(starts):
        raise UnreadableError("no pictures in it")
    return starts - starts[0]


def _read_film(
    path: Path, wanted: Sequence[int], square: _Square, starts: NDArray[np.float64] | None
) -> _Found:
    """Read a film from a key frame on; where that does not give every picture, from its start."""
    av = _import_av(path)
    try:
        with av.open(str(path)) as container:
            if starts is not None and wanted[0] >= SEEK_FROM:
                found = _collect(_from_key_frame(container, starts, wanted[0]), wanted, square)
                if len(found) == len(wanted):
                    return found
                container.seek(0)
            found = _collect(enumerate(container.decode(video=0)), wanted, square)
    except (av.FFmpegError, IndexError) as error:
        raise UnreadableError(f"damaged: {error}") from error
    if left := set(wanted) - found.keys():
        raise UnreadableError(f"damaged: it ends before picture {min(left)}")
    return found


def _collect(frames: Iterable[tuple[int, Any]], wanted: Sequence[int], square: _Square) -> _Found:
    """Take the wanted pictures out of numbered frames, and stop where the last one has passed."""
    found, left = {}, set(wanted)
    for index, frame in frames:
        if index in left:
            found[index] = square(_upright(frame))
            left.remove(index)
        if not left or index > wanted[-1]:
            break
    return found


def _upright(frame: Any) -> Image.Image:
    """Turn a decoded picture as its film says, as phones record them lying."""
    picture = frame.to_image()
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives none where there is also one of a kind it does not know
        matrix = None
    if matrix is None:
        return picture
    numbers = np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]].astype(np.int64)
    signs = np.sign(numbers) * (2 * np.abs(numbers) > np.abs(numbers).max())
    return _turned(picture, _MATRIX_TURNS, tuple(signs.tolist()))


def _from_key_frame(
    container: Any, starts: NDArray[np.float64], first: int
) -> Iterator[tuple[int, Any]]:
    """Decode from the key frame before a picture on; frames are numbered by when they are shown."""
    stream = container.streams.video[0]
    base = float(stream.time_base)
    origin = 0 if stream.start_time is None else stream.start_time
    container.seek(origin + int(starts[first] / base), stream=stream)
    between = (starts[1:] + starts[:-1]) / 2
    for frame in container.decode(stream):
        if frame.pts is None:
            return
        yield int(np.searchsorted(between, (frame.pts - origin) * base)), frame


def _import_av(path: Path) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise DataError(
            f"{path.name} needs PyAV, which is not installed: {EXTRA}. GIF, WebP and folders of "
            "pictures need nothing"
        ) from error
    return av
