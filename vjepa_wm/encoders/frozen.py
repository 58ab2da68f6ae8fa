"""A frozen encoder: uint8 pixels in, layer-normed latents per frame out.

Shapes: B trajectories, T frames, H W C image, P tokens per frame, D width.
"""

from typing import Literal, Protocol, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.encoders.pixels import PixelTransform, normalise
from vjepa_wm.errors import SettingError
from vjepa_wm.observations import Pixels, as_tensor

HEAD_DIM = 64  # of nearly every ViT

__all__ = ["Backbone", "FrozenEncoder", "layer_norm", "normalise"]

FrameMode = Literal["repeat", "image"]
PoolBy = Literal["mean", "stack"]
FRAME_RECORDS = {"repeat": "repeated to one tubelet", "image": "by the image path"}


class Backbone(Protocol):
    """The network inside a frozen encoder: an nn.Module with these, such as `VideoViT`.

    Attributes:
        patch_size: side of a patch in pixels.
        tubelet_size: frames per token.
        embed_dim: width D.
        image_path: whether a video of one frame is embedded as an image.
    """

    patch_size: int
    tubelet_size: int
    embed_dim: int
    image_path: bool

    def __call__(self, video: Tensor) -> Tensor:
        """Encode a normalised video (B, C, T, H, W) to tokens (B, L, D)."""


def layer_norm(latents: Tensor) -> Tensor:
    """Layer norm over channels without affine, as V-JEPA 2-AC applies to every latent."""
    return F.layer_norm(latents, latents.shape[-1:])


def check_pool(vit: Backbone, *, image_size: int, pool: int) -> int:
    """Return the patches along a side of the image, which `pool` divides.

    Raises:
        SettingError: the image cannot be cut so.
    """
    if image_size < 1 or pool < 1 or image_size % (vit.patch_size * pool):
        raise SettingError(
            f"image_size {image_size} must be a multiple of patch size {vit.patch_size} times "
            f"pool {pool}, both at least 1"
        )
    return image_size // vit.patch_size


class FrozenEncoder(nn.Module):
    """Encodes each frame on its own; by default repeated to fill one tubelet, as V-JEPA 2-AC does.

    arXiv 2506.09985, section 3.1. Pixels become squares; the network itself, called with a video
    that is normalised already, takes any rectangle. The weights get no gradient, and the module
    stays in evaluation mode whatever `train()` is called with.

    Args:
        vit: the pretrained network.
        name: public name, recorded beside everything made from the latents.
        digest: of its weights.
        image_size: side of the square the ViT sees; other sizes are cropped and resized.
        pool: side of the square of tokens that become one; 1 keeps all.
        dtype: of the computation; latents are float32.
        transform: how pictures are cut, resized and normalised; None is V-JEPA 2-AC's way.
        frame: `repeat`, or `image` for the image path that V-JEPA 2.1 has. The latents differ.
        pool_by: `mean` averages the tokens of a square, `stack` puts them side by side in one token
            `pool`^2 times as wide, which keeps where in the square something is.

    Raises:
        SettingError: the image cannot be cut into patches or pooled, there is no image path, or
            `frame` or `pool_by` is another word.
    """

    def __init__(
        self,
        vit: Backbone,
        *,
        name: str,
        digest: str,
        image_size: int,
        pool: int,
        dtype: torch.dtype = torch.float32,
        transform: PixelTransform | None = None,
        frame: FrameMode = "repeat",
        pool_by: PoolBy = "mean",
    ) -> None:
        super().__init__()
        if frame not in FRAME_RECORDS:
            raise SettingError(f"frame must be one of {', '.join(FRAME_RECORDS)}, got {frame!r}")
        if pool_by not in get_args(PoolBy):
            raise SettingError(f"pool_by must be mean or stack, got {pool_by!r}")
        if frame == "image" and not vit.image_path:
            raise SettingError(
                f"encoder '{name}' has no image path: only V-JEPA 2.1 has one. Choose frame=repeat"
            )
        side = check_pool(vit, image_size=image_size, pool=pool)
        self.vit = vit.to(dtype).eval().requires_grad_(False)
        self.name = name
        self.digest = digest
        self.image_size = image_size
        self.pool = pool
        self.pool_by: PoolBy = pool_by
        self.dtype = dtype
        self.transform = transform or PixelTransform()
        self.frame: FrameMode = frame
        self.grid = (side // pool, side // pool)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Tokens per frame P and width D of what `encode` returns."""
        stacked = self.pool**2 if self.pool_by == "stack" else 1
        return self.grid[0] * self.grid[1], stacked * self.vit.embed_dim

    @property
    def preprocessing(self) -> dict[str, object]:
        """How pixels become latents, for cache keys and checkpoints."""
        stacked = {"pool_by": "stack"} if self.pool > 1 and self.pool_by == "stack" else {}
        return {
            "image_size": self.image_size,
            "pool": self.pool,
            **stacked,  # named where it matters only: latents of before keep their keys
            "frame": FRAME_RECORDS[self.frame],
            "dtype": str(self.dtype),
            **self.transform.record(),
        }

    @property
    def frame_bytes(self) -> int:
        """Rough working memory of encoding one frame: one block's activations and scores."""
        return self._bytes(num_frames=1, tokens_in_time=1)

    def clip_bytes(self, num_frames: int) -> int:
        """The same for a clip that is encoded as one video."""
        steps = num_frames // self.vit.tubelet_size
        return self._bytes(num_frames=num_frames, tokens_in_time=steps)

    def _bytes(self, *, num_frames: int, tokens_in_time: int) -> int:
        tokens = tokens_in_time * (self.image_size // self.vit.patch_size) ** 2
        width = self.vit.embed_dim
        scores = tokens**2 * max(1, width // HEAD_DIM)
        return 4 * (16 * tokens * width + 2 * scores) + 24 * num_frames * self.image_size**2

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: frozen means frozen."""
        return super().train(False)

    def forward(self, video: Tensor) -> Tensor:
        """Encode a normalised video (B, C, T, H, W) to tokens (B, L, D)."""
        return self.vit(video.to(self.dtype))

    @torch.no_grad()
    def encode(self, pixels: Pixels) -> Tensor:
        """Encode frames.

        Args:
            pixels: uint8 (B, T, H, W, C), RGB: a tensor where the network is, or an array.

        Returns:
            Latents float32 (B, T, P, D): layer-normed, `pool` x `pool` tokens averaged and
            layer-normed again, or stacked.

        Raises:
            SettingError: the dtype or the shape is another.
        """
        images = self.prepare(pixels).flatten(0, 1)  # (B * T, C, S, S)
        frames_per_token = 1 if self.frame == "image" else self.vit.tubelet_size
        video = images.unsqueeze(2).expand(-1, -1, frames_per_token, -1, -1)
        return self._latents(video).squeeze(1).unflatten(0, pixels.shape[:2])

    @torch.no_grad()
    def encode_clips(self, pixels: Pixels) -> Tensor:
        """Encode clips as video, so that tokens see motion.

        Args:
            pixels: as those of `encode`; T a multiple of the tubelet's frames.

        Returns:
            Latents float32 (B, T / tubelet, P, D), normed and pooled as those of `encode`.

        Raises:
            SettingError: the dtype or the shape is another, or the network sees no motion.
        """
        tubelet = self.vit.tubelet_size
        if tubelet == 1:
            raise SettingError(f"encoder '{self.name}' sees single frames only, not video")
        if pixels.ndim == 5 and pixels.shape[1] % tubelet:
            raise SettingError(
                f"encoder '{self.name}' sees {tubelet} frames at a time: wanted clips of a "
                f"multiple of that, got {pixels.shape[1]} frames"
            )
        return self._latents(self.prepare(pixels).transpose(1, 2))

    def prepare(self, pixels: Pixels) -> Tensor:
        """Cut, resize and normalise frames uint8 (B, T, H, W, C): float32 (B, T, C, S, S).

        Raises:
            SettingError: the dtype or the shape is another.
        """
        if isinstance(pixels, np.ndarray):
            pixels = as_tensor(pixels).to(next(self.parameters()).device)
        if pixels.dtype != torch.uint8 or pixels.ndim != 5 or pixels.shape[-1] != 3:
            raise SettingError(
                f"pixels must be uint8 (B, T, H, W, 3), got {pixels.dtype} {tuple(pixels.shape)}"
            )
        images = pixels.flatten(0, 1).permute(0, 3, 1, 2)  # (B * T, C, H, W)
        return self.transform(images, self.image_size).unflatten(0, pixels.shape[:2])

    def _latents(self, video: Tensor) -> Tensor:
        """Encode a normalised video (B, C, T, S, S) to (B, T / tubelet, P, D)."""
        tokens = (self.image_size // self.vit.patch_size) ** 2
        latents = layer_norm(self(video).float()).unflatten(1, (-1, tokens))
        if self.pool == 1:
            return latents
        cells = self._cells(latents)
        return cells.flatten(-2) if self.pool_by == "stack" else layer_norm(cells.mean(dim=-2))

    def _cells(self, latents: Tensor) -> Tensor:
        """Sort tokens (..., L, D) by square of `pool` x `pool` tokens: (..., P, pool^2, D)."""
        (rows, columns), pool = self.grid, self.pool
        maps = latents.unflatten(-2, (rows, pool, columns, pool))
        return maps.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3)
