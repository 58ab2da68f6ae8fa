"""Draws surprise as curves under the frames they are of.

Shapes: T frames, F of them that are shown, H W image.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vjepa_wm.evaluation.charts import below, beside, curves, picture
from vjepa_wm.evaluation.surprise import TwinSurprise
from vjepa_wm.evaluation.surprise_figures import TWINS

PANEL = 96  # side of a frame, pixels
GAP = 8  # between panels, as charts lays them
NAMES = 150  # room for the names of curves, pixels
FRAMES = 10  # shown of a long film
BEFORE = 4  # frames shown before an event
AFTER = 6  # frames shown from it on


def twin_strip(found: TwinSurprise, pair: int, *, tokens: str) -> Image.Image:
    """Draw both twins around the event, and under them how surprising each frame is."""
    clips = found.clips
    first = max(found.looks.ahead, clips.frame - BEFORE)
    last = min(clips.pixels.shape[2], clips.frame + AFTER)
    shown = range(first, last)
    steps = [f"{frame - clips.frame:+d}" for frame in shown]
    rows = [
        beside(
            [
                picture(pixels[pair, frame], f"{twin} {step}", size=PANEL)
                for frame, step in zip(shown, steps, strict=True)
            ]
        )
        for twin, pixels in zip(TWINS, clips.pixels, strict=True)
    ]
    own, copied = (found.curves[row][tokens][:, pair, first:last] for row in ("predictor", "copy"))
    named = {"impossible": own[1], "possible": own[0], "impossible, copy": copied[1]}
    caption = f"{clips.event}: surprise, {tokens} L1 error of the latents' tokens"
    return below([*rows, _chart(named, caption, steps, panels=len(shown))])


def film_strip(
    pixels: NDArray[np.uint8],
    rows: Mapping[str, NDArray[np.float64]],
    *,
    ahead: int,
    tokens: str,
) -> Image.Image:
    """Draw some frames of a film, evenly spaced, and under them how surprising each frame is.

    Args:
        pixels: (T, H, W, 3).
        rows: Name -> surprise of each frame (T,).
        ahead: Frames at the start that were not foreseen; they are left out.
        tokens: How the errors of tokens became surprise.
    """
    places = np.linspace(ahead, len(pixels) - 1, min(FRAMES, len(pixels) - ahead))
    shown = sorted({round(place) for place in places.tolist()})
    panels = beside([picture(pixels[frame], f"frame {frame}", size=PANEL) for frame in shown])
    ticks = [str(frame) if frame in shown else "" for frame in range(ahead, len(pixels))]
    named = {name: row[ahead:] for name, row in rows.items()}
    caption = f"surprise, {tokens} L1 error of the latents' tokens"
    return below([panels, _chart(named, caption, ticks, panels=len(shown))])


def _chart(
    rows: Mapping[str, NDArray[np.float64]], caption: str, ticks: Sequence[str], *, panels: int
) -> Image.Image:
    """Draw curves whose first and last step are under the middles of the first and last panel."""
    left = PANEL // 2
    right = left + (panels - 1) * (PANEL + GAP)
    values = {name: row.tolist() for name, row in rows.items()}
    width = right + left + NAMES
    return curves(values, caption, ticks=ticks, width=width, span=(left, right))
