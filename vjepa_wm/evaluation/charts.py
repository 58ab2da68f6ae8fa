"""Heat maps, curves and pictures side by side, drawn with Pillow.

Shapes: G side of a grid, H W C image.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vjepa_wm.files import atomic_path

SIZE = 220  # side of a panel, pixels
CAPTION = 24  # height of the line above it
LINE = 13  # height of a curve's name
MARGIN = 34  # around the curves of a chart
PAPER = (255, 255, 255)
INK = (40, 44, 52)
LOW = np.array([20, 60, 120])  # of a heat map
HIGH = np.array([245, 240, 225])
COLOURS = ((214, 69, 65), (120, 124, 132), (38, 130, 90), (60, 100, 180))

Cell = tuple[int, int]


def picture(pixels: NDArray[np.uint8], caption: str, *, size: int = SIZE) -> Image.Image:
    """Draw pixels (H, W, 3) in a square of so many pixels below a caption."""
    panel = _panel(caption, width=size, height=size)
    drawn = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    panel.paste(drawn, (0, CAPTION))
    return panel


def heat_map(values: NDArray, caption: str, *, cross: Cell, ring: Cell) -> Image.Image:
    """Draw a grid (G, G), dark where it is low; row 0 is at the bottom.

    The highest quarter is one colour, so that a few outliers do not hide the rest.

    Args:
        values: The grid.
        caption: Above it.
        cross: Row and column to mark by a cross.
        ring: Row and column to mark by a ring.
    """
    panel = _panel(caption)
    draw = ImageDraw.Draw(panel)
    spread = max(float(np.quantile(values, 0.75) - values.min()), 1e-12)
    share = np.clip((values - values.min()) / spread, 0.0, 1.0)
    colours = (LOW + share[..., None] * (HIGH - LOW)).astype(np.uint8)
    grid = Image.fromarray(np.ascontiguousarray(colours[::-1]))
    panel.paste(grid.resize((SIZE, SIZE), Image.Resampling.NEAREST), (0, CAPTION))
    cell = SIZE / len(values)
    x, y = _centre(cross, len(values))
    arm = 0.35 * cell
    for turn in (-1, 1):
        draw.line([(x - arm, y - turn * arm), (x + arm, y + turn * arm)], fill=COLOURS[0], width=4)
    x, y = _centre(ring, len(values))
    radius = 0.42 * cell
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=(240, 180, 40), width=4)
    return panel


def curves(
    rows: Mapping[str, Sequence[float]],
    caption: str,
    *,
    ticks: Sequence[str] | None = None,
    width: int = 2 * SIZE,
    span: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw curves from zero upwards over steps 1, 2, ..., each named beside its end.

    Args:
        rows: Name -> one number per step.
        caption: Above them.
        ticks: What is written below the steps instead of their numbers.
        width: Of the panel, pixels.
        span: Where the first and the last step are, pixels from the left; as there is room if None.
    """
    panel = _panel(caption, width=width)
    draw = ImageDraw.Draw(panel)
    highest = max(max(0.0, *row) for row in rows.values()) or 1.0
    steps = max(len(row) for row in rows.values())
    left, right = (MARGIN, width - 3 * MARGIN) if span is None else span
    top, bottom = CAPTION + 12, CAPTION + SIZE - 20
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=INK)
    draw.text((2, top - 6), f"{highest:.2g}", fill=INK, font=_font(11))
    for step in range(steps):
        x = left + (right - left) * step / max(steps - 1, 1)
        tick = str(step + 1) if ticks is None else ticks[step]
        draw.text((x - 3, bottom + 3), tick, fill=INK, font=_font(11))
    ends = []
    for colour, (name, row) in zip(COLOURS, rows.items(), strict=False):
        points = [
            (
                left + (right - left) * step / max(steps - 1, 1),
                bottom - (bottom - top) * max(value, 0.0) / highest,
            )
            for step, value in enumerate(row)
        ]
        draw.line(points, fill=colour, width=3)
        ends.append((points[-1][1], points[-1][0], name, colour))
    free = float(bottom + LINE)
    for y, x, name, colour in sorted(ends, reverse=True):  # from below, none over another
        free = min(y, free - LINE)
        draw.text((x + 6, free - 7), name, fill=colour, font=_font(12))
    return panel


def beside(panels: Sequence[Image.Image]) -> Image.Image:
    """Lay panels of one height next to each other."""
    return _join(panels, is_row=True)


def below(panels: Sequence[Image.Image]) -> Image.Image:
    """Lay panels of one width below each other."""
    return _join(panels, is_row=False)


def save_animation(
    path: str | Path, frames: Sequence[Image.Image], *, frames_per_second: float
) -> None:
    """Write frames as WebP or GIF, by the suffix; the last one stays for a second."""
    durations = [round(1000 / frames_per_second)] * len(frames)
    durations[-1] = 1000
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary, save_all=True, append_images=frames[1:], duration=durations, loop=0
        )


def _join(panels: Sequence[Image.Image], *, is_row: bool) -> Image.Image:
    gap = 8
    ends = np.cumsum([(panel.width if is_row else panel.height) + gap for panel in panels])
    across = max(panel.height if is_row else panel.width for panel in panels)
    length = int(ends[-1]) - gap
    joined = Image.new("RGB", (length, across) if is_row else (across, length), PAPER)
    for panel, end in zip(panels, ends.tolist(), strict=True):
        start = end - gap - (panel.width if is_row else panel.height)
        joined.paste(panel, (start, 0) if is_row else (0, start))
    return joined


def _panel(caption: str, *, width: int = SIZE, height: int = SIZE) -> Image.Image:
    panel = Image.new("RGB", (width, height + CAPTION), PAPER)
    ImageDraw.Draw(panel).text((4, 4), caption, fill=INK, font=_font(13))
    return panel


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _centre(cell: Cell, side: int) -> tuple[float, float]:
    """Middle of a cell (row, column) in pixels of its panel."""
    row, column = cell
    return (column + 0.5) * SIZE / side, CAPTION + SIZE - (row + 0.5) * SIZE / side
