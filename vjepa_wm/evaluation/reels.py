"""Films episodes while they run, keeps a few, and writes them as one PNG sheet per agent.

A sheet can be looked at as it is: one line per episode, the goal first, then where the last plan
was imagined to end, if that was drawn, then frames from start to end. What each line is stands in
the PNG's text, so that no sheet can be taken for another's.

Shapes: F frames, H W image.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from vjepa_wm.errors import DataError
from vjepa_wm.files import atomic_path, digest

# Place of an episode in its batch -> where its last plan was imagined to end, (H,W,3), or None
Imagine = Callable[[int], NDArray[np.uint8] | None]

BETWEEN = 6  # frames kept between start and end
MAX_SIDE = 128  # pixels; larger pictures are made smaller
SUCCESS_SHARE = 4  # one in so many is kept for successes, where there are any
_SHEETS = "pictures_*.png"
_TEXT = "vjepa_wm.pictures"


@dataclass(frozen=True)
class Strip:
    """What was filmed of one episode.

    Attributes:
        number: Which episode of its agent, from 0.
        seed: Of its task.
        steps: Environment steps taken before each frame (F,), from 0 to the last.
        goal: What the agent was to reach, (H,W,3).
        frames: (F,H,W,3), the first at the start, the last at the end.
        imagined: Where the agent's last plan was imagined to end, (H,W,3); None where not drawn.
    """

    number: int
    seed: int
    steps: tuple[int, ...]
    goal: NDArray[np.uint8]
    frames: NDArray[np.uint8]
    imagined: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Sheet:
    """What a file of pictures holds.

    Attributes:
        agent: Whose episodes they are.
        episodes_digest: Of the list of all episodes the pictures belong to.
        strips: Failures first.
    """

    agent: str
    episodes_digest: str
    strips: Sequence[Strip]


class Film:
    """The frames of one running episode; holds few, however long the episode gets.

    Args:
        goal: What the agent is to reach, (H,W,3).
        start: First observation, (H,W,3).
    """

    def __init__(self, goal: NDArray[np.uint8], start: NDArray[np.uint8]) -> None:
        self._goal = goal.copy()
        self._kept = [(0, start.copy())]
        self._last = self._kept[0]
        self._stride = 1

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Add the observation after the next step."""
        step = self._last[0] + 1
        # An environment may draw into the same array again.
        self._last = (step, pixels.copy())
        if step % self._stride == 0:
            self._kept.append(self._last)
        if len(self._kept) > 4 * BETWEEN:
            self._kept = self._kept[::2]
            self._stride *= 2

    def strip(self, number: int, seed: int, imagined: NDArray[np.uint8] | None = None) -> Strip:
        """Return start, end, and frames evenly spaced between them, beside what was imagined."""
        last = self._last[0]
        inner = [frame for frame in self._kept[1:] if frame[0] < last]
        if len(inner) > BETWEEN:
            wanted = [last * place / (BETWEEN + 1) for place in range(1, BETWEEN + 1)]
            inner = [min(inner, key=lambda frame: abs(frame[0] - step)) for step in wanted]
        frames = [self._kept[0], *inner]
        if last:
            frames.append(self._last)
        return Strip(
            number=number,
            seed=seed,
            steps=tuple(step for step, _ in frames),
            goal=_smaller(self._goal),
            frames=np.stack([_smaller(pixels) for _, pixels in frames]),
            imagined=None if imagined is None else _resized(imagined, _smaller(self._goal).shape),
        )


class Reel:
    """The films of an agent that are kept: failures first, some successes.

    Args:
        count: Episodes to keep, 0 for none.
        imagine: Draws where an agent's last plan was imagined to end; None does not.

    Raises:
        DataError: If `count` is negative.
    """

    def __init__(self, count: int, imagine: Imagine | None = None) -> None:
        if count < 0:
            raise DataError(f"pictures: wanted 0 or more episodes, got {count}")
        self._count = count
        self._imagine = imagine
        self._failures: list[Strip] = []
        self._successes: list[Strip] = []
        self._seen = 0

    def film(self, goal: NDArray[np.uint8], start: NDArray[np.uint8]) -> Film | None:
        """Begin to film an episode; None where nothing is kept."""
        return Film(goal, start) if self._count else None

    def keep(self, film: Film | None, *, place: int, seed: int, is_success: bool) -> None:
        """Add the film of the next episode that is over; `place` is its place in its batch."""
        kept = self._successes if is_success else self._failures
        if film is not None and len(kept) < self._count:
            imagined = None if self._imagine is None else self._imagine(place)
            kept.append(film.strip(self._seen, seed, imagined))
        self._seen += 1

    def strips(self) -> list[Strip]:
        """Return the first failures, then the first successes."""
        reserved = min(len(self._successes), self._count // SUCCESS_SHARE)
        failures = self._failures[: self._count - reserved]
        return failures + self._successes[: self._count - len(failures)]


def _smaller(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make a picture fit `MAX_SIDE`; smaller ones stay as they are."""
    height, width = pixels.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    return _resized(pixels, (max(1, round(scale * height)), max(1, round(scale * width))))


def _resized(pixels: NDArray[np.uint8], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Give a picture the height and width that a shape begins with."""
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def write_pictures(folder: str | Path, reels: Mapping[str, Reel], *, episodes_digest: str) -> None:
    """Write one sheet per agent that has pictures; those of an earlier run are removed.

    Args:
        folder: Where to.
        reels: Agent name -> what was kept of its episodes.
        episodes_digest: Of the file that lists the episodes, to tell by what the pictures are of.
    """
    for old in Path(folder).glob(_SHEETS):
        old.unlink()
    for agent, reel in reels.items():
        if strips := reel.strips():
            sheet = Sheet(agent, episodes_digest, strips)
            _write_sheet(Path(folder) / _file_name(agent), sheet)


def _file_name(agent: str) -> str:
    """Name the sheet of an agent, whose name may hold what file names may not."""
    plain = re.sub(r"\W+", "-", agent, flags=re.ASCII)
    mark = "" if plain == agent else f"-{digest(agent.encode())[:6]}"
    return f"pictures_{plain}{mark}.png"


def _write_sheet(path: Path, sheet: Sheet) -> None:
    height, width = sheet.strips[0].goal.shape[:2]
    lines = [_tiles(strip) for strip in sheet.strips]
    columns = max(len(tiles) for tiles in lines)
    drawn = np.full((len(lines) * height, columns * width, 3), 255, np.uint8)
    for row, tiles in enumerate(lines):
        for column, pixels in enumerate(tiles):
            top, left = row * height, column * width
            drawn[top : top + height, left : left + width] = pixels
    about = {
        "agent": sheet.agent,
        "episodes_digest": sheet.episodes_digest,
        "height": height,
        "width": width,
        "episodes": [_line(strip) for strip in sheet.strips],
    }
    text = PngImagePlugin.PngInfo()
    text.add_text(_TEXT, json.dumps(about))
    with atomic_path(path) as temporary:
        Image.fromarray(drawn).save(temporary, pnginfo=text, optimize=True)


def _tiles(strip: Strip) -> list[NDArray[np.uint8]]:
    """Return the pictures of a line of a sheet."""
    imagined = [] if strip.imagined is None else [strip.imagined]
    return [strip.goal, *imagined, *strip.frames]


def _line(strip: Strip) -> dict[str, object]:
    """Say what a line of a sheet is."""
    imagined = {} if strip.imagined is None else {"imagined": True}
    return {"number": strip.number, "seed": strip.seed, "steps": strip.steps, **imagined}


def find_sheets(folder: str | Path) -> list[Path]:
    """Return the sheets in a folder, by name."""
    return sorted(Path(folder).glob(_SHEETS))


def read_sheet(path: Path) -> Sheet:
    """Read a sheet that `write_pictures` wrote.

    Raises:
        DataError: If it is damaged or no sheet.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
            about = json.loads(image.text[_TEXT])
        height, width = about["height"], about["width"]
        strips = [
            _cut(pixels[row * height : (row + 1) * height], width, line)
            for row, line in enumerate(about["episodes"])
        ]
        return Sheet(str(about["agent"]), str(about["episodes_digest"]), strips)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SyntaxError) as error:
        raise DataError(
            f"{path} cannot be read as pictures of episodes ({error!r}): run evaluate again"
        ) from error


def _cut(row: NDArray[np.uint8], width: int, line: Mapping) -> Strip:
    """Cut the line of a sheet into frames."""
    steps = tuple(int(step) for step in line["steps"])
    count = len(steps) + (2 if "imagined" in line else 1)
    tiles = [row[:, left * width : (left + 1) * width] for left in range(count)]
    if any(tile.shape != tiles[0].shape or not tile.size for tile in tiles):
        raise ValueError(f"{len(tiles)} pictures do not fit {row.shape}")
    return Strip(
        number=int(line["number"]),
        seed=int(line["seed"]),
        steps=steps,
        goal=tiles[0],
        frames=np.stack(tiles[-len(steps) :]),
        imagined=tiles[1] if "imagined" in line else None,
    )
