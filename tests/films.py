"""Tiny videos written on the fly: a square that moves or rests over a noisy floor."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32
LENGTH = 8
DURATION_MS = 100


def pictures(*, moves: bool, seed: int, size: int = SIZE, length: int = LENGTH) -> list:
    """Return the pictures of a video; the square moves three pixels per picture, or rests."""
    rng = np.random.default_rng(seed)
    floor = rng.integers(0, 80, (length, size, size, 3), dtype=np.uint8)
    row, column = rng.integers(0, size - 8, 2)
    step = rng.choice([-3, 3], 2) * moves
    for t in range(length):
        # Bounces off the border
        r, c = (abs((p + t * s) % (2 * (size - 8))) for p, s in ((row, step[0]), (column, step[1])))
        r, c = (min(p, 2 * (size - 8) - p) for p in (r, c))
        floor[t, r : r + 8, c : c + 8] = 255
    return [Image.fromarray(picture) for picture in floor]


def write_gif(path: Path, frames: list, *, duration_ms: int = DURATION_MS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"save_all": True, "append_images": frames[1:], "duration": duration_ms, "loop": 0}
    frames[0].save(path, **options)
    return path


def write_folder(folder: Path, frames: list) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        frame.save(folder / f"{index:04d}.png")
    return folder


def write_classes(root: Path, *, videos: int) -> Path:
    """Write videos of two classes, `moving` and `still`."""
    for number in range(videos):
        for name in ("moving", "still"):
            seed = 2 * number + (name == "still")
            frames = pictures(moves=name == "moving", seed=seed)
            write_gif(root / name / f"{number:03d}.gif", frames)
    return root
