"""Reads pictures out of videos: films with PyAV, GIF and WebP with Pillow, folders of pictures.

Shapes: F pictures of a video, T those that are wanted, H W image, S side of the square.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from vjepa_wm.errors import DataError

FILMS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
ANIMATIONS = (".gif", ".webp")
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
EXTRA = 'pip install "vjepa-wm[video]"'
UNTIMED_S = 0.1  # how long a picture of an animation is shown that does not say so, as in browsers
# What Pillow raises on a file that is cut off, damaged or no picture.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class UnreadableError(DataError):
    """A video that is damaged, too short or none; it is left out, others are not."""


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
        return np.maximum(np.searchsorted(self.starts, times, side="right") - 1, 0)


def is_video(path: Path) -> bool:
    """Whether a path may be a video: a file by its suffix, a folder by a picture in it."""
    if path.is_dir():
        return any(inner.suffix.lower() in PICTURES for inner in path.iterdir())
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


def read_pictures(path: Path, wanted: NDArray[np.int64], *, side: int) -> NDArray[np.uint8]:
    """Read pictures (T,) of a video, their middles as squares: (T, S, S, 3).

    Args:
        path: A file, or a folder of pictures.
        wanted: Which pictures, ascending; one may come several times.
        side: Of the square, pixels.

    Raises:
        UnreadableError: It is damaged.
        DataError: PyAV is needed and not installed.
    """
    distinct = np.unique(wanted).tolist()
    if path.is_dir():
        found = _read_folder(path, distinct, side)
    elif path.suffix.lower() in FILMS:
        found = _read_film(path, distinct, side)
    else:
        found = _read_animation(path, distinct, side)
    return np.stack([found[index] for index in wanted.tolist()])


def _square(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """Cut out the middle and resize it, with anti-aliasing."""
    short = min(picture.size)
    left, top = ((length - short) // 2 for length in picture.size)
    middle = picture.convert("RGB").crop((left, top, left + short, top + short))
    return np.asarray(middle.resize((side, side), Image.Resampling.BILINEAR))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def _read_folder(folder: Path, wanted: Sequence[int], side: int) -> dict[int, NDArray[np.uint8]]:
    paths = _pictures(folder)
    try:
        found = {}
        for index in wanted:
            with Image.open(paths[index]) as picture:
                found[index] = _square(picture, side)
    except _DAMAGED as error:
        raise UnreadableError(f"{paths[index].name}: {error}") from error
    return found


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


def _read_animation(path: Path, wanted: Sequence[int], side: int) -> dict[int, NDArray[np.uint8]]:
    try:
        found = {}
        with Image.open(path) as film:
            for index in wanted:
                film.seek(index)
                found[index] = _square(film, side)
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
            if stream.frames and rate and rate == stream.base_rate:
                return np.arange(stream.frames) / float(rate)
            marks = [
                packet.dts if packet.pts is None else packet.pts
                for packet in container.demux(stream)
                if packet.size
            ]
            starts = np.sort([float(mark * stream.time_base) for mark in marks])
    except (av.FFmpegError, IndexError, TypeError) as error:
        raise UnreadableError(f"damaged: {error}") from error
    if not len(starts):
        raise UnreadableError("no pictures in it")
    return starts - starts[0]


def _read_film(path: Path, wanted: Sequence[int], side: int) -> dict[int, NDArray[np.uint8]]:
    av = _import_av(path)
    found, left = {}, set(wanted)
    try:
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in left:
                    found[index] = _square(frame.to_image(), side)
                    left.remove(index)
                if not left:
                    return found
    except (av.FFmpegError, IndexError) as error:
        raise UnreadableError(f"damaged: {error}") from error
    raise UnreadableError(f"damaged: it ends before picture {min(left)}")


def _import_av(path: Path) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise DataError(
            f"{path.name} needs PyAV, which is not installed: {EXTRA}. GIF, WebP and folders of "
            "pictures need nothing"
        ) from error
    return av
