"""Panels, strips and animations of an episode, drawn with Pillow."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vjepa_wm.evaluation.charts import save_animation
from vjepa_wm.files import atomic_path

__all__ = ["curve", "panel", "save_animation", "save_image", "side_by_side"]

SIZE = 224  # side of a panel, pixels
CAPTION = 22  # height of the line above it
BACKGROUND = (255, 255, 255)
INK = (40, 44, 52)
LINE = (220, 60, 50)


def panel(pixels: np.ndarray, caption: str) -> Image.Image:
    """One captioned picture of pixels (H, W, 3)."""
    image = Image.new("RGB", (SIZE, SIZE + CAPTION), BACKGROUND)
    ImageDraw.Draw(image).text((6, 3), caption, fill=INK, font=ImageFont.load_default(14))
    picture = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    image.paste(picture, (0, CAPTION))
    return image


def curve(values: list[float], total: int, caption: str) -> Image.Image:
    """A captioned line of values over `total` steps, from zero to the largest."""
    image = Image.new("RGB", (SIZE, SIZE + CAPTION), BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((6, 3), caption, fill=INK, font=ImageFont.load_default(14))
    left, top, right, bottom = 12, CAPTION + 10, SIZE - 10, SIZE + CAPTION - 14
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=INK)
    highest = max(values, default=1.0) or 1.0
    points = [
        (left + (right - left) * i / max(total - 1, 1), bottom - (bottom - top) * value / highest)
        for i, value in enumerate(values)
    ]
    if len(points) > 1:
        draw.line(points, fill=LINE, width=3)
    if points:
        x, y = points[-1]
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=LINE)
    return image


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Lay pictures of one height next to each other."""
    gap = 6
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new("RGB", (width, images[0].height), BACKGROUND)
    x = 0
    for image in images:
        row.paste(image, (x, 0))
        x += image.width + gap
    return row


def save_image(path: Path, image: Image.Image) -> None:
    """Write a picture, whole or not at all."""
    with atomic_path(path) as temporary:
        image.save(temporary)
