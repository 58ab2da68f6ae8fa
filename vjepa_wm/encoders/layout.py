"""Tells from names and shapes which network the tensors of a file are of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from vjepa_wm.encoders.families import ENCODERS, Family, PublishedEncoder

_DEEP_EMBED = ("predictor_embed.0.weight", "predictor_embed.2.weight")  # V-JEPA 2.1, g and G


@dataclass(frozen=True)
class EncoderLayout:
    """What the names and shapes of an encoder's tensors tell about it.

    Attributes:
        family: V-JEPA 1 is told from V-JEPA 2 by the size of its position table alone.
        embed_dim: width D.
        depth: number of blocks.
        hidden_dim: width of the MLP.
        patch_size: side of a patch, pixels.
        tubelet_size: frames per token.
        positions: rows of the position table; 0 where there is none.
    """

    family: Family
    embed_dim: int
    depth: int
    hidden_dim: int
    patch_size: int
    tubelet_size: int
    positions: int

    def __str__(self) -> str:
        """Say what it is in half a line."""
        family = {"vjepa1": "V-JEPA 1", "vjepa2": "V-JEPA 2", "vjepa2_1": "V-JEPA 2.1"}
        return f"{family[self.family]} encoder of width {self.embed_dim} and depth {self.depth}"

    @property
    def fitting(self) -> list[str]:
        """Names in the registry whose networks have these shapes."""
        return [name for name, published in ENCODERS.items() if self.fits(published)]

    def fits(self, published: PublishedEncoder) -> bool:
        """Whether a published encoder has these shapes."""
        vit = published.vit
        return (
            self.family == published.family
            and self._sizes == _sizes(vit)
            and (self.family != "vjepa1" or self.positions == _positions(vit))
        )

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (
            self.embed_dim,
            self.depth,
            self.hidden_dim,
            self.patch_size,
            self.tubelet_size,
        )


def _sizes(vit: Mapping[str, Any]) -> tuple[int, ...]:
    width = vit["embed_dim"]
    hidden = int(width * vit["mlp_ratio"])
    return width, vit["depth"], hidden, vit["patch_size"], vit["tubelet_size"]


def _positions(vit: Mapping[str, Any]) -> int:
    time, rows, columns = vit["sincos_grid"]
    return time * rows * columns


def read_layout(tensors: Mapping[str, Tensor]) -> EncoderLayout | None:
    """Tell what encoder the tensors are of; None when they are of no V-JEPA encoder."""
    try:
        width, _, tubelet_size, patch_size, _ = tensors["patch_embed.proj.weight"].shape
        hidden_dim = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        positions = tensors["pos_embed"].shape[1] if "pos_embed" in tensors else 0
    except (KeyError, ValueError, IndexError):
        return None
    sizes = (width, _depth(tensors, "blocks."), hidden_dim, patch_size, tubelet_size)
    family: Family = "vjepa2"
    if any(name.startswith("norms_block.") for name in tensors):
        family = "vjepa2_1"
    elif any(
        published.family == "vjepa1"
        and sizes == _sizes(published.vit)
        and positions == _positions(published.vit)
        for published in ENCODERS.values()
    ):
        family = "vjepa1"
    return EncoderLayout(family, *sizes, positions)


def _depth(tensors: Mapping[str, Tensor], start: str) -> int:
    return len({name.split(".")[1] for name in tensors if name.startswith(start)})


@dataclass(frozen=True)
class PredictorLayout:
    """What the names and shapes of a predictor's tensors tell about it.

    Attributes:
        kind: `mask` (of pretraining) or `action` (of V-JEPA 2-AC).
        latent_dim: width of what it reads; four taps of V-JEPA 2.1 side by side count as one.
        width: its own.
        depth: number of blocks.
        inputs: mask tokens of a mask predictor, action width of an action predictor.
    """

    kind: Literal["mask", "action"]
    latent_dim: int
    width: int
    depth: int
    inputs: int

    def __str__(self) -> str:
        """Say what it is in half a line."""
        what = "mask tokens" if self.kind == "mask" else "action dimensions"
        return (
            f"{self.kind} predictor of width {self.width} and depth {self.depth} on latents of "
            f"width {self.latent_dim}, {self.inputs} {what}"
        )


def read_predictor_layout(tensors: Mapping[str, Tensor]) -> PredictorLayout | None:
    """Tell what predictor the tensors are of; None when they are of none."""
    embed = [name for name in tensors if name in ("predictor_embed.weight", *_DEEP_EMBED)]
    if not embed or "predictor_norm.weight" not in tensors:
        return None
    latent_dim = tensors[min(embed)].shape[-1]
    width = tensors["predictor_norm.weight"].shape[0]
    depth = _depth(tensors, "predictor_blocks.")
    if "action_encoder.weight" in tensors:
        actions = tensors["action_encoder.weight"].shape[-1]
        return PredictorLayout("action", latent_dim, width, depth, actions)
    tokens = sum(name.startswith("mask_tokens.") for name in tensors)
    return PredictorLayout("mask", latent_dim, width, depth, tokens)
