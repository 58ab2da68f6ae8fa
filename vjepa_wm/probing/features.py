"""What heads are trained on: tokens of clips, of an encoder or of the floors beside it.

Shapes: B clips, T frames, H W C image, S side of the square, L tokens of a clip, D width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from vjepa_wm.data.latents import frames_per_batch
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.timm_vit import state_digest
from vjepa_wm.errors import SettingError
from vjepa_wm.evaluation.diagnostics import random_encoder
from vjepa_wm.nn.positions import Grid, sincos_table

ClipMode = Literal["video", "frames"]
MODES = ("auto", "video", "frames")
FLOORS = ("random", "pixels")


class ClipFeatures(Protocol):
    """Makes tokens of clips.

    Attributes:
        name: What the row of the table is called.
        identity: Everything that changes the tokens, for the cache.
        shape: Tokens L of a clip and their width D.
        places: What is added to the tokens of every clip when they are read, (L, D), or None.
        batch_size: Clips at a time that fit into memory.
    """

    name: str
    identity: dict[str, Any]
    shape: tuple[int, int]
    places: Tensor | None
    batch_size: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map clips uint8 (B, T, H, W, C) to tokens float32 (B, L, D), on the CPU."""


def clip_mode(encoder: FrozenEncoder, wanted: str, *, num_frames: int) -> ClipMode:
    """Choose how clips are encoded: as `video` wherever tokens can see motion.

    Args:
        encoder: What with.
        wanted: `auto`, `video` or `frames`.
        num_frames: Frames of a clip.

    Raises:
        SettingError: There is no such mode, or the encoder cannot see such clips as video.
    """
    tubelet = encoder.vit.tubelet_size
    if wanted not in MODES:
        raise SettingError(f"clip: wanted one of {', '.join(MODES)}, got {wanted!r}")
    if num_frames < 1:
        raise SettingError(f"num_frames: wanted at least 1, got {num_frames}")
    if wanted == "frames" or (wanted == "auto" and (tubelet == 1 or num_frames == 1)):
        return "frames"
    if tubelet == 1:
        raise SettingError(
            f"encoder '{encoder.name}' sees single frames only: choose clip=frames or clip=auto"
        )
    if num_frames % tubelet:
        raise SettingError(
            f"num_frames: wanted a multiple of {tubelet}, the frames encoder '{encoder.name}' sees "
            f"at a time, got {num_frames}; or choose clip=frames"
        )
    return "video"


class EncoderFeatures:
    """Tokens of an encoder: of whole clips, or of frame after frame.

    Frames that are encoded one by one do not know when they were: a fixed table of time is added to
    their tokens. Tokens with rotary positions hardly know where they are, either: `has_places` adds
    a table of time, row and column.

    Args:
        encoder: On its device.
        name: What the row of the table is called.
        weights: Digest of its weights.
        mode: `video` or `frames`.
        num_frames: Frames of a clip.
        has_places: Whether tokens are told where they are.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        *,
        name: str,
        weights: str,
        mode: ClipMode,
        num_frames: int,
        has_places: bool = False,
    ) -> None:
        self.encoder = encoder
        self.name = name
        self.mode = mode
        per_frame, width = encoder.latent_shape
        steps = num_frames // encoder.vit.tubelet_size if mode == "video" else num_frames
        self.shape = (steps * per_frame, width)
        self.places = None
        if has_places:
            self.places = sincos_table((steps, *encoder.grid), dim=width)[0]
        elif mode == "frames" and num_frames > 1:
            times = sincos_table((num_frames, 1, 1), dim=width)[0]
            self.places = times.repeat_interleave(per_frame, dim=0)
        self.device = next(encoder.parameters()).device
        if mode == "video":
            self.batch_size = frames_per_batch(encoder.clip_bytes(num_frames), self.device)
        else:
            self.batch_size = frames_per_batch(num_frames * encoder.frame_bytes, self.device)
        self.identity = {
            "features": "encoder",
            "name": encoder.name,
            "weights": weights,
            "clip": mode if mode == "video" else "frames without times",
            "preprocessing": encoder.preprocessing,
        }

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Map clips uint8 (B, T, H, W, C) to tokens float32 (B, L, D), on the CPU."""
        encode = self.encoder.encode_clips if self.mode == "video" else self.encoder.encode
        return encode(pixels.to(self.device)).flatten(1, 2).cpu()


class PixelFeatures:
    """Raw pixels in as many tokens as an encoder's, of the same width: the floor without a network.

    A token holds the pixels of its tubelet and patch, averaged to a square so small that they fill
    at most half of the width; the rest is a fixed table of its place in time, row and column.

    Args:
        encoder: The encoder they stand beside; prepares the pixels, too.
        mode: How that is used: `video` or `frames`.
        num_frames: Frames of a clip.
    """

    name = "pixels"
    places = None

    def __init__(self, encoder: FrozenEncoder, *, mode: ClipMode, num_frames: int) -> None:
        self.encoder = encoder
        self.tubelet = encoder.vit.tubelet_size if mode == "video" else 1
        rows, columns = encoder.grid
        self.grid: Grid = (num_frames // self.tubelet, rows, columns)
        width = encoder.latent_shape[1]
        channels = 3 * self.tubelet
        self.side = max(1, min(int((width / 2 / channels) ** 0.5), encoder.image_size // rows))
        numbers = channels * self.side**2
        self.table = sincos_table(self.grid, dim=max(0, width - numbers))
        self.shape = (self.table.shape[1], max(width, numbers))
        self.batch_size = frames_per_batch(num_frames * 24 * encoder.image_size**2, "cpu")
        self.identity = {
            "features": "pixels",
            "grid": list(self.grid),
            "tubelet": self.tubelet,
            "side": self.side,
            "width": self.shape[1],
            "image_size": encoder.image_size,
            **encoder.transform.record(),
        }

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map clips uint8 (B, T, H, W, C) to tokens float32 (B, L, D)."""
        images = self.encoder.prepare(pixels)  # (B, T, C, S, S)
        steps, rows, columns = self.grid
        small = F.adaptive_avg_pool2d(
            images.flatten(0, 1), (rows * self.side, columns * self.side)
        )  # (B * T, C, rows * side, columns * side)
        cut = small.unflatten(0, (len(pixels), steps, self.tubelet))
        cut = cut.unflatten(5, (columns, self.side)).unflatten(4, (rows, self.side))
        # (B, steps, tubelet, C, rows, side, columns, side)
        tokens = cut.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4).flatten(1, 3)
        return torch.cat([tokens, self.table.expand(len(tokens), -1, -1)], dim=-1)


def all_features(
    encoder: FrozenEncoder,
    *,
    floors: Sequence[str],
    others: Mapping[str, FrozenEncoder],
    mode: ClipMode,
    num_frames: int,
    has_places: bool,
    seed: int,
) -> list[ClipFeatures]:
    """Return the features of an encoder and of what stands beside it.

    Args:
        encoder: What is probed.
        floors: Of `FLOORS`: `random`, the same network with random weights, and `pixels`.
        others: Further encoders, by the name of their row.
        mode: `video` or `frames`, for all of them.
        num_frames: Frames of a clip.
        has_places: Whether the tokens of encoders, too, are told where they are.
        seed: Of the random weights.

    Raises:
        SettingError: Another encoder cannot see clips in this mode, or two rows have one name.
    """
    how = {"mode": mode, "num_frames": num_frames}
    placed = {**how, "has_places": has_places}
    made: list[ClipFeatures] = [
        EncoderFeatures(encoder, name=encoder.name, weights=encoder.digest, **placed)
    ]
    for name, other in others.items():
        clip_mode(other, mode, num_frames=num_frames)
        made.append(EncoderFeatures(other, name=name, weights=other.digest, **placed))
    if "random" in floors:
        other = random_encoder(encoder, seed=seed)
        made.append(
            EncoderFeatures(other, name="random", weights=state_digest(other.vit), **placed)
        )
    if "pixels" in floors:
        made.append(PixelFeatures(encoder, **how))
    names = [make.name for make in made]
    if len(set(names)) < len(names):
        raise SettingError(
            f"beside: wanted rows of different names, got {', '.join(names)}: give pretrain a "
            "name=, by which its encoder is called, or put its folder into beside"
        )
    return made
