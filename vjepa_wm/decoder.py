"""A light decoder from frozen latents to pixels, for looking only.

It is trained apart: nothing that plans or is measured depends on it. What it draws is its best
guess of what the latents hold; what they do not hold is blurred or missing.

Shapes: P tokens, D latent width, W decoder width, S side of the picture, C side of a token's patch
of it.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.recorded import portable
from vjepa_wm.errors import CheckpointError, SettingError
from vjepa_wm.nn.blocks import NORM_EPS, Block, init_transformer

KIND = "decoder"


class Decoder(nn.Module):
    """Draws each frame on its own: a few transformer blocks, then every token draws its patch.

    A picture is the mean picture of the training frames plus a learned difference, which starts at
    zero. Pixels that differ from the mean picture count more in the loss (`rare_weight`), because
    what moves covers few of them: without it the mean picture alone is nearly right.

    Args:
        latent_dim: width D of latents.
        num_patches: tokens per frame P, a square grid.
        image_size: side S of the pictures it draws, pixels; a multiple of the grid's side.
        width: width W of the blocks.
        depth: number of blocks.
        num_heads: attention heads per block.
        mlp_ratio: hidden width of the MLPs, as a multiple of W.
        rare_weight: how much all that differs from the mean picture counts beside everything.

    Raises:
        SettingError: the grid is no square, or does not divide the picture.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        num_patches: int,
        image_size: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        rare_weight: float,
    ) -> None:
        super().__init__()
        side = math.isqrt(num_patches)
        if side * side != num_patches:
            raise SettingError(f"num_patches: wanted a square such as 16, got {num_patches}")
        if image_size < side or image_size % side:
            raise SettingError(f"image_size: wanted a multiple of {side}, got {image_size}")
        if width % num_heads:
            raise SettingError(f"width {width} must be a multiple of num_heads {num_heads}")
        self.latent_shape = (num_patches, latent_dim)
        self.image_size = image_size
        self.grid_side = side
        self.rare_weight = rare_weight
        self.latent_embed = nn.Linear(latent_dim, width)
        self.position_embed = nn.Parameter(torch.zeros(num_patches, width))
        self.blocks = nn.ModuleList(
            Block(width, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        hidden_dim = int(width * mlp_ratio)
        self.head = nn.Sequential(
            nn.Linear(width, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, (image_size // side) ** 2 * 3),
        )
        self.register_buffer("mean_picture", torch.full((image_size, image_size, 3), 0.5))
        self.register_buffer("variance", torch.ones(()))
        init_transformer(self, self.blocks)
        nn.init.normal_(self.position_embed, std=0.02)
        nn.init.zeros_(self.head[-1].weight)  # starts at the mean picture, the floor it has to beat

    def start_from(self, pixels: Tensor) -> None:
        """Take the mean of pictures uint8 (F, S, S, 3) as what is drawn before any training."""
        pictures = pixels.to(self.mean_picture.device).float() / 255
        self.mean_picture.copy_(pictures.mean(dim=0))
        self.variance.copy_(self._squared(pictures).mean().clamp_min(1e-6))

    def forward(self, latents: Tensor) -> Tensor:
        """Draw latents (..., P, D); returns float pixels (..., S, S, 3), about 0 to 1.

        Raises:
            SettingError: the latents have another number of tokens or another width.
        """
        if tuple(latents.shape[-2:]) != self.latent_shape:
            raise SettingError(
                f"latents: wanted (..., {self.latent_shape[0]}, {self.latent_shape[1]}), "
                f"got {tuple(latents.shape)}"
            )
        x = latents.reshape(-1, *self.latent_shape).to(self.latent_embed.weight.dtype)
        x = self.latent_embed(x) + self.position_embed
        for block in self.blocks:
            x = block(x, None)
        patches = self.head(self.norm(x)).float()  # (F, P, C * C * 3)
        pictures = self.mean_picture + self._joined(patches)
        return pictures.reshape(*latents.shape[:-2], *self.mean_picture.shape)

    def _joined(self, patches: Tensor) -> Tensor:
        """Lay patches (F, P, C * C * 3) out as pictures (F, S, S, 3)."""
        side, cell = self.grid_side, self.image_size // self.grid_side
        cells = patches.unflatten(-1, (cell, cell, 3)).unflatten(1, (side, side))
        return cells.transpose(2, 3).reshape(-1, self.image_size, self.image_size, 3)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Draw latents (..., P, D) as uint8 pixels (..., S, S, 3)."""
        return (self(latents).clamp(0, 1) * 255).round().to(torch.uint8)

    def rarity(self, pictures: Tensor) -> Tensor:
        """How unusual pixels (..., S, S, 3) in 0 to 1 are: (..., S, S), 1 on average.

        Squared distance from the mean picture, so that hardly any of it falls on a background that
        is sometimes covered.
        """
        return self._squared(pictures) / self.variance

    def _squared(self, pictures: Tensor) -> Tensor:
        return (pictures - self.mean_picture).square().mean(dim=-1)

    def loss(self, latents: Tensor, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 on pixels, those that differ from the mean picture weighted up.

        Args:
            latents: (F, P, D).
            pixels: what they were made of, uint8 (F, S, S, 3).

        Returns:
            The scalar loss, and its parts.
        """
        errors = picture_errors(self, self(latents), pixels)
        loss = (errors["error"] + self.rare_weight * errors["rare_error"]) / (1 + self.rare_weight)
        return loss, errors


def picture_errors(decoder: Decoder, drawn: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    """How wrong pictures are, as shares of the brightest: L1 over all pixels, and over rare ones.

    Args:
        decoder: knows the mean picture.
        drawn: float (..., S, S, 3), about 0 to 1.
        pixels: the truth, uint8 (..., S, S, 3).

    Returns:
        `error`, every pixel counting alike, and `rare_error`, each counting by its `rarity`.
    """
    truth = pixels.to(drawn.device).float() / 255
    wrong = (drawn - truth).abs().mean(dim=-1)  # (..., S, S)
    return {"error": wrong.mean(), "rare_error": (decoder.rarity(truth) * wrong).mean()}


def seen(encoder: FrozenEncoder, pixels: Tensor, image_size: int) -> Tensor:
    """What an encoder sees of frames uint8 (..., H, W, 3): squares uint8 (..., S, S, 3)."""
    images = pixels.flatten(0, -4).movedim(-1, -3)  # (F, 3, H, W)
    squares = encoder.transform.cut(images, image_size).to(torch.uint8).movedim(-3, -1)
    return squares.unflatten(0, pixels.shape[:-3])


def load_decoder(
    folder: str | Path, encoder: FrozenEncoder, *, device: str | torch.device = "cpu"
) -> Decoder:
    """Load a decoder that `python -m vjepa_wm.train_decoder` wrote, in evaluation mode.

    Args:
        folder: its run.
        encoder: whose latents it is to draw.
        device: where it runs.

    Raises:
        CheckpointError: the folder is incomplete, damaged or of something else, or the decoder was
            trained on the latents of another encoder.
    """
    loaded = load_checkpoint(folder)
    if loaded.config["kind"] != KIND:
        raise CheckpointError(f"{folder} holds a {loaded.config['kind']}, wanted a {KIND}")
    record = loaded.config["encoder"]
    found = {"digest": encoder.digest, "preprocessing": portable(encoder.preprocessing)}
    faults = [f"{k}: wanted {record[k]}, got {found[k]}" for k in found if record[k] != found[k]]
    if faults:
        raise CheckpointError(
            f"the decoder in {folder} draws the latents of encoder {record['name']}, not of "
            f"{encoder.name}: {'; '.join(faults)}. Train one for this encoder with "
            "python -m vjepa_wm.train_decoder"
        )
    decoder = Decoder(**loaded.config[KIND])
    loaded.load_into(decoder, KIND)
    return decoder.to(device).eval().requires_grad_(False)
