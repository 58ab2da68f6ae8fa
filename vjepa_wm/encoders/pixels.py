"""From pictures of any size to the normalised squares a network sees.

Shapes: F images, C H W image, S side of the square.
"""

import math
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PixelTransform:
    """Cut, resize and normalise; the defaults are those of V-JEPA 2-AC and of planning.

    Attributes:
        mean: of each channel, of pixels in [0, 1].
        std: of each channel.
        interpolation: filter of the resizing, with anti-aliasing.
        crop_pct: share of the picture's side that stays after cutting off the border.
        squash: press a wide picture into a square instead of cutting out its middle.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_pct: float = 1.0
    squash: bool = False

    def __call__(self, images: Tensor, image_size: int) -> Tensor:
        """Map uint8 (F, 3, H, W) to float32 (F, 3, S, S), S being `image_size`."""
        return normalise(self.cut(images, image_size), mean=self.mean, std=self.std)

    def cut(self, images: Tensor, image_size: int) -> Tensor:
        """Cut and resize uint8 (F, 3, H, W) to whole numbers 0 to 255 (F, 3, S, S)."""
        side = math.floor(image_size / self.crop_pct)
        if not self.squash:
            images = _middle(images, min(images.shape[-2:]))
        if images.shape[-2:] != (side, side):
            images = F.interpolate(
                images.float(), (side, side), mode=self.interpolation, antialias=True
            )
            images = images.round().clamp(0, 255)
        border = round((side - image_size) / 2)  # as torchvision rounds it
        kept = slice(border, border + image_size)
        return images[..., kept, kept]

    def record(self) -> dict[str, object]:
        """What makes it differ, for cache keys; a setting that is the default is left out."""
        plain = asdict(PixelTransform())
        always = ("mean", "std")
        return {k: v for k, v in asdict(self).items() if k in always or v != plain[k]}


def normalise(
    pixels: Tensor,
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Tensor:
    """Map uint8 (..., C, H, W) to float32 with a mean and a standard deviation per channel."""
    centre = torch.tensor(mean, device=pixels.device).view(3, 1, 1)
    scale = torch.tensor(std, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - centre) / scale


def _middle(images: Tensor, side: int) -> Tensor:
    height, width = images.shape[-2:]
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]
