"""Pictures are checked by what they show: sizes, places and colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos.pictures import (
    BACKGROUND,
    CAPTION,
    INK,
    LINE,
    SIZE,
    curve,
    panel,
    save_animation,
    save_image,
    side_by_side,
)

RED, BLUE = (250, 10, 20), (10, 20, 250)


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    """Return pixels (8, 8, 3) of one colour."""
    return np.broadcast_to(np.array(colour, np.uint8), (8, 8, 3))


def column_of_line(image: Image.Image, x: int) -> float:
    """Return the mean height of the curve's colour at a column, from the top; NaN without it."""
    is_line = (np.asarray(image)[:, x] == LINE).all(axis=-1)
    return float(np.flatnonzero(is_line).mean()) if is_line.any() else float("nan")


def test_panel_shows_the_pixels_below_the_caption() -> None:
    image = panel(plain(RED), "now")
    assert image.size == (SIZE, SIZE + CAPTION)
    shown = np.asarray(image)
    assert (shown[CAPTION:] == RED).all()
    assert np.ptp(shown[:CAPTION]) > 100  # letters
    assert (np.asarray(panel(plain(RED), ""))[:CAPTION] == BACKGROUND).all()


def test_panel_keeps_up_and_left_where_they_are() -> None:
    pixels = plain(RED).copy()
    pixels[:4, :4] = BLUE
    shown = np.asarray(panel(pixels, ""))[CAPTION:]
    quarter = SIZE // 4
    for row, column, colour in ((1, 1, BLUE), (1, 3, RED), (3, 1, RED), (3, 3, RED)):
        # The edges of what is enlarged swing a little around their colours.
        assert np.abs(shown[row * quarter, column * quarter].astype(int) - colour).max() < 20


def test_curve_falls_with_its_values_and_grows_to_the_right() -> None:
    image = curve([4.0, 2.0, 1.0, 0.0], total=4, caption="cost")
    heights = [column_of_line(image, x) for x in (20, 80, 140, 200)]
    assert heights == sorted(heights)
    assert heights[0] < SIZE / 2 < heights[-1]
    half = curve([4.0, 2.0], total=4, caption="cost")
    assert np.isnan(column_of_line(half, 200))
    assert column_of_line(half, 20) == pytest.approx(heights[0], abs=1)


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0]])
def test_curve_of_little_is_still_a_picture(values: list[float]) -> None:
    shown = np.asarray(curve(values, total=1, caption="cost"))
    assert (shown == INK).all(axis=-1).any()
    assert (shown == LINE).all(axis=-1).any() == bool(values)


def test_side_by_side_keeps_order() -> None:
    row = side_by_side([panel(plain(colour), "") for colour in (RED, BLUE, RED)])
    assert row.height == SIZE + CAPTION
    assert 3 * SIZE < row.width < 3.2 * SIZE
    middle = np.asarray(row)[row.height // 2]
    assert [tuple(middle[x]) for x in (SIZE // 2, row.width // 2, row.width - SIZE // 2)] == [
        RED,
        BLUE,
        RED,
    ]


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_animation_has_every_frame_for_its_time(suffix: str, tmp_path: Path) -> None:
    """A second for the last one; the colours come in order, and it starts over for ever."""
    colours = [RED, BLUE, (20, 240, 30)]
    frames = [panel(plain(colour), "") for colour in colours]
    path = tmp_path / "deep" / f"shown.{suffix}"
    save_animation(path, frames, frames_per_second=10)
    with Image.open(path) as animation:
        assert animation.n_frames == 3
        assert animation.size == (SIZE, SIZE + CAPTION)
        assert animation.info["loop"] == 0
        durations = []
        for index, colour in enumerate(colours):
            animation.seek(index)
            shown = np.asarray(animation.convert("RGB"))[CAPTION + 10 : -10].astype(int)
            assert np.abs(shown.mean(axis=(0, 1)) - colour).max() < 12  # WebP is lossy
            durations.append(animation.info["duration"])
    assert durations == [100, 100, 1000]
    assert list(path.parent.iterdir()) == [path]


def test_saved_picture_is_the_one_given(tmp_path: Path) -> None:
    image = panel(plain(BLUE), "goal")
    save_image(tmp_path / "shown.png", image)
    with Image.open(tmp_path / "shown.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(image))
