"""The baseline: predict the pixels of masked patches, with the same encoder, data and trainer.

Shapes: B clips, C H W image, T frames, L tokens, K pixels of one channel in a token.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vjepa_wm.encoders.vit import VideoViT, gather_tokens
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.objective import Masks, Parts, add_part

CHANNELS = 3
NORM_EPS = 1e-6  # added to the variance of a patch


class PixelPrediction(nn.Module):
    """Encoder of the visible tokens, and a light decoder that paints the masked ones.

    VideoMAE (arXiv 2203.12602, section 3): the loss is the mean squared error of the masked
    patches' pixels, where `patch_norm` each channel of a patch normalised by its own mean and
    deviation. The decoder is the network that predicts features in JEPA, with pixels for output,
    so that both objectives cost nearly the same.

    Args:
        encoder: the network that learns.
        mask_predictor: makes the decoder, called with its `output_dim`.
        patch_norm: normalise the pixels of each patch; else those of the whole clip are taken.

    Attributes:
        predictor_switches: what `mask_predictor` was called with.
    """

    which = "encoder"

    def __init__(
        self,
        encoder: VideoViT,
        mask_predictor: Callable[..., MaskPredictor],
        *,
        patch_norm: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        pixels = encoder.tubelet_size * encoder.patch_size**2
        self.predictor_switches = {
            "levels": len(encoder.taps) or 1,
            "output_dim": CHANNELS * pixels,
        }
        self.mask_predictor = mask_predictor(**self.predictor_switches)
        self.patch_norm = patch_norm

    def loss(
        self, video: Tensor, masks: Masks, source: Tensor, share: float
    ) -> tuple[Tensor, Parts]:
        """Compute the training loss of a batch.

        Args:
            video: normalised clips (B, C, T, H, W); of one frame where the encoder has an image
                path.
            masks: context and target ids for each kind of mask.
            source: not needed.
            share: not needed.

        Returns:
            The scalar loss and its parts for the log.
        """
        del source, share  # the same for all data, all along
        grid = self.encoder.grid(video.shape)
        targets = self.targets(video)
        parts: Parts = {}
        for context_ids, target_ids in masks:
            context = self.encoder(video, context_ids, hierarchical=bool(self.encoder.taps))
            painted = self.mask_predictor(context, context_ids, target_ids, grid=grid, mask_index=0)
            error = painted.float() - gather_tokens(targets, target_ids)
            add_part(parts, "pixel_loss", error.square().mean() / len(masks))
        return parts["pixel_loss"], {"pixel_loss": parts["pixel_loss"].detach()}

    @torch.no_grad()
    def targets(self, video: Tensor) -> Tensor:
        """Pixels of every token, (B, L, C * K) float32; a still is taken for a tubelet."""
        if self.encoder.image_path and video.shape[2] == 1:
            video = video.expand(-1, -1, self.encoder.tubelet_size, -1, -1)
        side = self.encoder.patch_size
        x = patches(video.float(), (self.encoder.tubelet_size, side, side))  # (B, L, C, K)
        if self.patch_norm:
            variance, mean = torch.var_mean(x, dim=-1, keepdim=True)
            x = (x - mean) / (variance + NORM_EPS).sqrt()
        return x.flatten(-2)

    def update_target(self) -> None:
        """Do nothing: there is no teacher."""

    def networks(self) -> list[nn.Module]:
        """Return the encoder and the decoder."""
        return [self.encoder, self.mask_predictor]

    def kept_encoder(self) -> VideoViT:
        """Return a copy of the encoder, so that freezing it does not stop training."""
        return copy.deepcopy(self.encoder)


def patches(video: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Cut a video (B, C, T, H, W) into tokens (B, L, C, K) of `size` (frames, rows, columns)."""
    t, h, w = size
    x = video.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(5).flatten(1, 3)
