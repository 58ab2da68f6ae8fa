"""A folder of videos, class/clip.mp4, as clips with classes.

Shapes: N clips, B of them, T frames, S side of the square.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.data.videos import UnreadableError, is_picture, is_video, read_pictures, timeline
from vjepa_wm.errors import DataError
from vjepa_wm.files import digest
from vjepa_wm.progress import Progress, no_progress

VERSION = 2  # of how videos are read; features of what was read otherwise are made again
END_BYTES = 1 << 16  # of a file's beginning and end, which go into its digest


@dataclass(frozen=True)
class VideoFolder:
    """One clip from the middle of each video, a square from the middle of each picture.

    Attributes:
        root: The folder.
        classes: Names of the classes: the folders in it, sorted.
        paths: The videos, N.
        labels: Class of each video (N,).
        pictures: Which pictures of each video make its clip (N, T).
        side: Of the square, pixels.
        skipped: Video -> why it is left out.
        digest: Names the videos and how clips are cut from them.
    """

    root: Path
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    pictures: NDArray[np.int64]
    side: int
    skipped: Mapping[str, str]
    digest: str

    @classmethod
    def open(
        cls,
        root: str | Path,
        *,
        num_frames: int,
        fps: float | None,
        folder_fps: float,
        side: int,
        progress: Progress = no_progress,
    ) -> Self:
        """Look at every video of a folder; those that cannot be used are listed in `skipped`.

        Args:
            root: Holds one folder per class, which holds videos, or folders of pictures.
            num_frames: Frames of a clip, T.
            fps: Frames per second of a clip; None spreads them over the whole video.
            folder_fps: Pictures per second of folders of pictures.
            side: Of the square, pixels.
            progress: Makes the progress bar.

        Raises:
            DataError: The folder is missing, has fewer than two classes, or a class has no video.
        """
        for name, rate in (("fps", fps), ("folder_fps", folder_fps)):
            if rate is not None and not rate > 0:
                raise DataError(f"{name}: wanted a number above 0, got {rate}")
        root = Path(root)
        classes = _classes(root)
        entries = [(path, label) for label, name in enumerate(classes) for path in _in(root / name)]
        kept, skipped = [], {}
        for path, label in progress(entries, desc="look at videos", unit="videos"):
            try:
                if not is_video(path):
                    raise UnreadableError("no video: of another type, or a folder without pictures")
                chosen = timeline(path, folder_fps=folder_fps).choose(num_frames, fps)
            except UnreadableError as error:
                skipped[str(path.relative_to(root))] = str(error)
                continue
            kept.append((path, label, chosen))
        _check_counts(root, classes, Counter(label for _, label, _ in kept), skipped)
        paths = tuple(path for path, _, _ in kept)
        pictures = np.stack([chosen for _, _, chosen in kept])
        how = digest(pictures.tobytes() + f"{side} {VERSION}".encode())
        return cls(
            root=root,
            classes=classes,
            paths=paths,
            labels=np.array([label for _, label, _ in kept]),
            pictures=pictures,
            side=side,
            skipped=skipped,
            digest=_digest(root, paths, how),
        )

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.paths)

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """Read clips (B, T, S, S, 3); those that cannot be read are black, and row -> why."""
        length = self.pictures.shape[1]
        pixels = np.zeros((len(rows), length, self.side, self.side, 3), np.uint8)
        faults = {}
        for place, row in enumerate(rows.tolist()):
            try:
                pixels[place] = read_pictures(self.paths[row], self.pictures[row], side=self.side)
            except UnreadableError as error:
                faults[row] = str(error)
        return pixels, faults

    def named(self, faults: Mapping[int, str]) -> dict[str, str]:
        """Name the videos of rows: row -> why becomes video -> why."""
        return {str(self.paths[row].relative_to(self.root)): why for row, why in faults.items()}


def _classes(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(f"no folder of videos at {root}: wanted class/clip.mp4 in it")
    names = tuple(path.name for path in _in(root) if path.is_dir())
    if len(names) < 2:
        raise DataError(
            f"{root} has {len(names)} folders, wanted one per class, at least two, with the videos "
            "in them: class/clip.mp4"
        )
    return names


def _in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _check_counts(
    root: Path, classes: tuple[str, ...], counts: Counter[int], skipped: Mapping[str, str]
) -> None:
    """Refuse classes without a video."""
    for label, name in enumerate(classes):
        if counts[label]:
            continue
        own = {path: why for path, why in skipped.items() if Path(path).parts[0] == name}
        if not own:
            raise DataError(f"class '{name}' is empty: put videos into {root / name}, or delete it")
        first, why = next(iter(own.items()))
        deeper = any(path.is_dir() and any(map(is_video, _in(path))) for path in _in(root / name))
        hint = f"; if classes are one level deeper, name {root / name}" if deeper else ""
        raise DataError(
            f"class '{name}' has no video that can be used; {len(own)} skipped, such as {first} "
            f"({why}){hint}"
        )


def _digest(root: Path, paths: tuple[Path, ...], how: str) -> str:
    """Name videos by path, size, beginning and end: whole corpora would take hours to read."""
    state = hashlib.blake2b(how.encode(), digest_size=16)
    for path in paths:
        files = list(filter(is_picture, _in(path))) if path.is_dir() else [path]
        for file in files:
            entry = [str(file.relative_to(root)), file.stat().st_size]
            state.update(json.dumps(entry).encode())
            state.update(_ends(file))
    return state.hexdigest()


def _ends(path: Path) -> bytes:
    with open(path, "rb") as file:
        start = file.read(END_BYTES)
        size = path.stat().st_size
        file.seek(max(len(start), size - END_BYTES))
        return start + file.read()
