"""What is done to clips before the network sees them: crops, flips, stills.

Shapes: B clips, T frames, H W C image.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError

MAX_DRAWS = 10  # of a box, before the whole picture is taken


class CropFlip:
    """Cut a box out of each clip, the same in all its frames, resize it to the picture, mirror it.

    Args:
        crop_scale: least and greatest area of the box, as a share of the picture.
        crop_aspect: least and greatest width / height of the box.
        flip: share of the clips that is mirrored, left to right.

    Raises:
        SettingError: a range does not ascend, or is impossible.
    """

    def __init__(
        self, *, crop_scale: Sequence[float], crop_aspect: Sequence[float], flip: float
    ) -> None:
        for name, (low, high) in {"crop_scale": crop_scale, "crop_aspect": crop_aspect}.items():
            if not 0 < low <= high:
                raise SettingError(f"{name}: wanted two ascending numbers above 0, got {low, high}")
        if crop_scale[1] > 1:
            raise SettingError(f"crop_scale: wanted at most 1, got {crop_scale[1]}")
        if not 0 <= flip <= 1:
            raise SettingError(f"flip: wanted a share in [0, 1], got {flip}")
        self.crop_scale = tuple(crop_scale)
        self.crop_aspect = tuple(crop_aspect)
        self.flip = flip

    def __call__(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Map pixels (B, T, H, W, C) to float32 pixels of the same shape and range."""
        clips = [self._one(clip, rng) for clip in pixels.movedim(-1, -3).float()]
        return torch.stack(clips).movedim(-3, -1)

    def _one(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Cut, resize and mirror one clip (T, C, H, W)."""
        height, width = clip.shape[-2:]
        top, left, rows, columns = self.box(rng, height, width)
        clip = clip[..., top : top + rows, left : left + columns]
        if (rows, columns) != (height, width):
            clip = F.interpolate(clip, (height, width), mode="bilinear")
        return clip.flip(-1) if rng.random() < self.flip else clip

    def box(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw a box (top, left, rows, columns) inside a picture.

        Area and the logarithm of width / height are drawn evenly; if none of the draws fits into
        the picture, it is taken whole.
        """
        for _ in range(MAX_DRAWS):
            area = height * width * rng.uniform(*self.crop_scale)
            aspect = math.exp(rng.uniform(*(math.log(limit) for limit in self.crop_aspect)))
            rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < rows <= height and 0 < columns <= width:
                top = int(rng.integers(height - rows + 1))
                left = int(rng.integers(width - columns + 1))
                return top, left, rows, columns
        return 0, 0, height, width


def stills(video: Tensor, vit: VideoViT) -> Tensor:
    """Take the first frame of each clip (B, C, T, H, W) as the encoder sees images.

    By its image path where it has one, a clip of one frame; else repeated to one tubelet.
    """
    frames = 1 if vit.image_path else vit.tubelet_size
    return video[:, :, :1].expand(-1, -1, frames, -1, -1)
