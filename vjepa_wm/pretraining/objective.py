"""What an objective of pretraining is: JEPA and masked pixels have this in common.

Shapes: B clips, C H W image, T frames, L tokens.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from vjepa_wm.encoders.vit import VideoViT

Masks = Sequence[tuple[Tensor, Tensor]]  # per kind of mask: context ids (B, Lc), target ids (B, Lt)
Parts = dict[str, Tensor]  # the numbers a loss is made of


class Objective(Protocol):
    """An nn.Module that is trained, with the encoder in it.

    Attributes:
        encoder: the network that learns.
        which: what `kept_encoder` is called in the record of a checkpoint.
    """

    encoder: VideoViT
    which: str

    def loss(
        self, video: Tensor, masks: Masks, source: Tensor, share: float
    ) -> tuple[Tensor, Parts]:
        """Compute the loss of normalised clips (B, C, T, H, W), and its parts for the log.

        Args:
            video: clips, of `source` (B,), the ids of the data sets they come from.
            masks: context and target ids for each kind of mask.
            source: of each clip.
            share: of the budget that is spent.
        """

    def update_target(self) -> None:
        """Do what is due after an optimiser step."""

    def networks(self) -> list[nn.Module]:
        """Return the networks a loss is computed with."""

    def kept_encoder(self) -> VideoViT:
        """Return the network that is validated and saved; freezing it does not stop training."""


def add_part(parts: Parts, name: str, value: Tensor) -> None:
    """Add a value to the part of that name."""
    parts[name] = parts[name] + value if name in parts else value
