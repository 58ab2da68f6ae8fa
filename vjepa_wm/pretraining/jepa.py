"""The V-JEPA objective: predict the features of masked tokens, as an EMA teacher sees them.

Shapes: B clips, C H W image, T frames, L tokens, D width.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.encoders.vit import VideoViT, gather_tokens
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

Masks = Sequence[tuple[Tensor, Tensor]]  # per kind of mask: context ids (B, Lc), target ids (B, Lt)


class JEPA(nn.Module):
    """Encoder, its slowly moving copy, and the predictor between them.

    V-JEPA (arXiv 2404.08471, section 3). The context encoder sees the visible tokens only, the
    target encoder the whole clip; the loss is the L1 distance to the layer-normed targets, averaged
    over the kinds of masks. No labels, no pixels, no negatives.

    Published V-JEPA has nothing else. On few, simple videos and short schedules that objective
    alone collapses (all frames get nearly the same features), so two optional terms in the manner
    of VICReg (arXiv 2105.04906) hold the context tokens apart: each channel keeps a standard
    deviation of at least one over the batch, and channels stay uncorrelated. Both are taken after
    the mean of each token position, within each source of data, is removed: telling positions or
    environments apart must not count as variety.

    Args:
        encoder: the student; the teacher starts as its copy.
        mask_predictor: from visible to masked tokens.
        ema_decay: weight of the old teacher in each update.
        variance_weight: weight of the variance term; 0 is published V-JEPA.
        covariance_weight: weight of the covariance term; 0 is published V-JEPA.
    """

    def __init__(
        self,
        encoder: VideoViT,
        mask_predictor: MaskPredictor,
        *,
        ema_decay: float,
        variance_weight: float,
        covariance_weight: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.mask_predictor = mask_predictor
        self.ema_decay = ema_decay
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight

    def loss(self, video: Tensor, masks: Masks, source: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the training loss of a batch.

        Args:
            video: normalised clips (B, C, T, H, W).
            masks: context and target ids for each kind of mask.
            source: (B,) integer id of the data set each clip comes from.

        Returns:
            The scalar loss and its parts for the log.
        """
        grid = self.encoder.grid(video.shape)
        targets = self.targets(video)
        prediction_loss = video.new_zeros(())
        variance_loss = video.new_zeros(())
        covariance_loss = video.new_zeros(())
        for context_ids, target_ids in masks:
            context = self.encoder(video, context_ids)
            prediction = self.mask_predictor(
                context, context_ids, target_ids, grid=grid, mask_index=0
            )
            error = prediction.float() - gather_tokens(targets, target_ids)
            prediction_loss = prediction_loss + error.abs().mean() / len(masks)
            if self.variance_weight or self.covariance_weight:
                groups = source.unsqueeze(1) * (grid[0] * grid[1] * grid[2]) + context_ids
                variance, covariance = variance_covariance(context, groups)
                variance_loss = variance_loss + variance / len(masks)
                covariance_loss = covariance_loss + covariance / len(masks)
        loss = (
            prediction_loss
            + self.variance_weight * variance_loss
            + self.covariance_weight * covariance_loss
        )
        parts = {
            "prediction_loss": prediction_loss,
            "variance_loss": variance_loss,
            "covariance_loss": covariance_loss,
        }
        return loss, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def targets(self, video: Tensor) -> Tensor:
        """Layer-normed features of the whole clip, (B, L, D) float32."""
        tokens = self.target_encoder(video).float()
        return F.layer_norm(tokens, tokens.shape[-1:])

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the teacher a little towards the student."""
        pairs = zip(self.target_encoder.parameters(), self.encoder.parameters(), strict=True)
        teacher, student = map(list, zip(*pairs, strict=True))
        torch._foreach_lerp_(teacher, student, 1 - self.ema_decay)


def variance_covariance(tokens: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and covariance terms of tokens whose group means are removed.

    Args:
        tokens: (B, L, D).
        groups: (B, L) integer group of each token.

    Returns:
        The mean hinge `max(0, 1 - std)` over channels, and the mean squared off-diagonal
        covariance per channel.
    """
    x = tokens.float().flatten(0, 1)  # (B * L, D)
    _, index, count = groups.flatten().unique(return_inverse=True, return_counts=True)
    mean = x.new_zeros(len(count), x.shape[1]).index_add_(0, index, x) / count.unsqueeze(1)
    x = x - mean[index]
    freedom = max(len(x) - len(count), 1)
    with torch.autocast(x.device.type, enabled=False):
        covariance = x.T @ x / freedom  # (D, D)
    std = (covariance.diagonal() + 1e-4).sqrt()
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    return F.relu(1 - std).mean(), off_diagonal.square().sum() / x.shape[1]
