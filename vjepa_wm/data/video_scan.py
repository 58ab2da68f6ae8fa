"""Looks at every video in a folder, once: which there are, and when their pictures are shown.

What was found is kept in one JSON file per folder, named by a digest of the folder's path. A video
whose size and time of change are the same is not looked at again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vjepa_wm.data.videos import (
    ANIMATIONS,
    FILMS,
    PICTURES,
    Timeline,
    UnreadableError,
    is_picture,
    timeline,
)
from vjepa_wm.errors import DataError
from vjepa_wm.files import digest, read_json, write_json
from vjepa_wm.progress import Progress, no_progress

VERSION = 2  # of the file; others are made again
EVEN_S = 1e-3  # how far pictures may be off an even pace without being listed one by one
WEBP = ".webp"

_Record = dict[str, Any]


@dataclass(frozen=True)
class Video:
    """A video that can be read.

    Attributes:
        name: Its path within the folder.
        timeline: When its pictures are shown.
    """

    name: str
    timeline: Timeline


@dataclass(frozen=True)
class VideoScan:
    """The videos of a folder.

    Attributes:
        root: The folder.
        videos: Those that can be read, by name.
        skipped: Name -> why it cannot be read.
        digest: Names the videos by path, size and pictures.
    """

    root: Path
    videos: tuple[Video, ...]
    skipped: Mapping[str, str]
    digest: str


def scan_videos(
    root: str | Path,
    *,
    folder_fps: float,
    cache: str | Path | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> VideoScan:
    """Look at every video at any depth of a folder; links to folders are not followed.

    A folder of pictures is one video, unless there are also films or animations in it: pictures
    beside those, such as previews, are left alone. Hidden files and folders are, too.

    Args:
        root: The folder.
        folder_fps: Pictures per second of folders of pictures, which do not say.
        cache: Folder of what was found before; None looks at everything.
        threads: Videos looked at side by side.
        progress: Makes the progress bar.

    Raises:
        DataError: The folder is missing, has no videos, or none that can be read; or PyAV is
            needed and not installed.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"no folder at {root}: wanted a folder of videos or of trajectories")
    if not folder_fps > 0:
        raise DataError(f"folder_fps: wanted a number above 0, got {folder_fps}")
    found = sorted(_walk(root))
    if not found:
        raise DataError(_nothing(root))
    place = None if cache is None else _cache_path(Path(cache), root, folder_fps)
    known = {} if place is None else _known(place)
    states = {_name(root, path): _state(path) for path in found}
    records = {
        name: known[name]
        for name, state in states.items()
        if name in known and known[name]["state"] == state
    }
    missing = [path for path in found if _name(root, path) not in records]
    try:
        for record in _look(root, missing, folder_fps, threads=threads, progress=progress):
            name = record.pop("name")
            records[name] = {"state": states[name], **record}
    finally:  # what was found before Ctrl-C counts, too
        if place is not None and missing:
            write_json(place, {"version": VERSION, "root": str(root), "videos": records})
    return _as_scan(root, {name: records[name] for name in states})


def _walk(root: Path) -> Iterator[Path]:
    """Yield the films, animations and folders of pictures in a folder."""
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        paths = [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
        pictures = [path for path in paths if path.suffix.lower() in PICTURES]
        films = [path for path in paths if path.suffix.lower() in (*FILMS, *ANIMATIONS)]
        if any(path.suffix.lower() != WEBP for path in films):
            yield from films
        elif films and (len(films) < len(pictures) or not _moves(films[0])):
            yield Path(folder)  # pictures, some of them WebP
        elif films:
            yield from films
        elif pictures:
            yield Path(folder)


def _moves(path: Path) -> bool:
    """Whether a WebP is an animation; one that cannot be opened may be."""
    try:
        with Image.open(path) as picture:
            return bool(getattr(picture, "is_animated", False))
    except (OSError, SyntaxError, ValueError):
        return True


def _nothing(root: Path) -> str:
    others = sorted({path.suffix or path.name for path in root.rglob("*") if path.is_file()})
    held = f"it holds {', '.join(others[:8])}" if others else "it is empty"
    kinds = ", ".join(kind.removeprefix(".") for kind in (*FILMS, *ANIMATIONS))
    return (
        f"no videos in {root}: wanted {kinds} or folders of pictures, at any depth; {held}. A "
        "folder of trajectories has a meta.json"
    )


def _cache_path(cache: Path, root: Path, folder_fps: float) -> Path:
    key = json.dumps([str(root.resolve()), folder_fps])
    return cache / f"{digest(key.encode())[:16]}.json"


def _known(place: Path) -> dict[str, _Record]:
    """Read what was found before; a damaged file is made again."""
    try:
        kept = read_json(place)
    except DataError:
        return {}
    is_ours = isinstance(kept, dict) and ("version", VERSION) in kept.items()
    return kept["videos"] if is_ours else {}


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _state(path: Path) -> list[int]:
    """Tell a file, or the pictures of a folder, from what they may become: size and time."""
    files = [path]
    if path.is_dir():
        files = list(filter(is_picture, path.iterdir()))
    try:
        stats = [file.stat() for file in files]
    except OSError:  # such as a link to nowhere; why is said by who opens it
        return [0, 0, 0]
    return [len(stats), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)]


def _look(
    root: Path, paths: list[Path], folder_fps: float, *, threads: int, progress: Progress
) -> Iterator[_Record]:
    """Yield what there is to know of each video, in their order."""

    def look(path: Path) -> _Record:
        name = _name(root, path)
        try:
            return {"name": name, "fault": None, **_record(timeline(path, folder_fps=folder_fps))}
        except UnreadableError as error:
            return {"name": name, "fault": str(error)}

    pool = ThreadPoolExecutor(max(1, threads))
    try:
        looked = pool.map(look, paths)
        yield from progress(looked, total=len(paths), desc=f"look at {root.name}", unit="videos")
    finally:
        pool.shutdown(cancel_futures=True)


def _record(times: Timeline) -> _Record:
    """Write a timeline for JSON; one at an even pace is two numbers."""
    pace = _even_starts(len(times.starts), times.duration)
    is_paced = bool(np.abs(times.starts - pace).max() < EVEN_S)
    starts = None if is_paced else times.starts.round(4).tolist()
    return {
        "pictures": len(times.starts),
        "seconds": times.duration,
        "is_even": times.is_even,
        "starts": starts,
    }


def _even_starts(count: int, duration: float) -> NDArray[np.float64]:
    return np.arange(count) * (duration / count)


def _as_scan(root: Path, records: Mapping[str, _Record]) -> VideoScan:
    """Make videos of records, new or kept alike, so that a restart draws the same clips."""
    skipped = {name: r["fault"] for name, r in records.items() if r["fault"] is not None}
    videos = []
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(records.keys() - skipped.keys()):
        record = records[name]
        if record["starts"] is None:
            starts = _even_starts(record["pictures"], record["seconds"])
        else:
            starts = np.array(record["starts"])
        videos.append(Video(name, Timeline(starts, record["seconds"], record["is_even"])))
        contents = [name, record["state"][:2], record["pictures"], record["seconds"]]
        state.update(json.dumps(contents).encode())
    if not videos:
        name, why = next(iter(skipped.items()))
        raise DataError(f"none of the {len(skipped)} videos in {root} can be read: {name} ({why})")
    return VideoScan(root, tuple(videos), skipped, state.hexdigest())
