"""The V-JEPA objective: predict the features of masked tokens, as an EMA teacher sees them.

Shapes: B clips, C H W image, T frames, L tokens, D width.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm import distributed
from vjepa_wm.encoders.vit import VideoViT, gather_tokens
from vjepa_wm.pretraining.anti_collapse import Term
from vjepa_wm.pretraining.dense import DenseLoss, nearness
from vjepa_wm.pretraining.mask_predictor import MaskPredictor
from vjepa_wm.pretraining.objective import Masks, Parts, add_part


class JEPA(nn.Module):
    """Encoder, its slowly moving copy, and the predictor between them.

    V-JEPA (arXiv 2404.08471, section 3). The context encoder sees the visible tokens only, the
    target encoder the whole clip; the loss is the L1 distance to the layer-normed targets, averaged
    over the kinds of masks. No labels, no pixels, no negatives.

    An encoder with taps is supervised at each of them (V-JEPA 2.1): the predictor takes and
    predicts all levels, each level of the targets layer-normed on its own.

    Args:
        encoder: the student; the teacher starts as its copy.
        mask_predictor: makes the network from visible to masked tokens, called with the switches
            `MaskPredictor` has for levels and dense predictions.
        ema_decay: weight of the old teacher in each update, at the beginning.
        ema_decay_end: the same at the end, reached in a straight line; None keeps it.
        stretch: that line is laid out over so many budgets and cut off (V-JEPA 1).
        loss_exponent: p of the loss |error|^p / p.
        dense: how context tokens are predicted too (V-JEPA 2.1); None leaves it out.
        terms: against collapse on small data, by name; published V-JEPA has none.

    Attributes:
        predictor_switches: what `mask_predictor` was called with.
    """

    which = "target_encoder"

    def __init__(
        self,
        encoder: VideoViT,
        mask_predictor: Callable[..., MaskPredictor],
        *,
        ema_decay: float,
        ema_decay_end: float | None,
        stretch: float,
        loss_exponent: float,
        dense: DenseLoss | None,
        terms: Mapping[str, Term],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor_switches = {"levels": len(encoder.taps) or 1, "dense": dense is not None}
        self.mask_predictor = mask_predictor(**self.predictor_switches)
        self.ema_decay = ema_decay
        self.ema_decay_end = ema_decay if ema_decay_end is None else ema_decay_end
        self.stretch = stretch
        self.loss_exponent = loss_exponent
        self.dense = dense
        self.terms = [term for term in terms.values() if any(term.weights.values())]
        self.share = 0.0  # of the budget, when the loss was last computed

    def loss(
        self, video: Tensor, masks: Masks, source: Tensor, share: float
    ) -> tuple[Tensor, Parts]:
        """Compute the training loss of a batch.

        Args:
            video: normalised clips (B, C, T, H, W); of one frame where the encoder has an image
                path.
            masks: context and target ids for each kind of mask.
            source: (B,) integer id of the data set each clip comes from.
            share: of the budget that is spent; `update_target` goes by it.

        Returns:
            The scalar loss and its parts for the log.
        """
        self.share = share
        targets = self.targets(video)
        parts: Parts = {}
        for kind, (context_ids, target_ids) in enumerate(masks):
            context = self._encode(self.encoder, video, context_ids)
            for name, value in self._errors(
                video, targets, context, context_ids, target_ids, kind
            ).items():
                add_part(parts, name, value / len(masks))
            for name, value in self._term_values(video, context, context_ids, source).items():
                add_part(parts, name, value / len(masks))
        loss = parts["prediction_loss"]
        for name, weight in self._weights(video).items():
            loss = loss + weight * parts[name]
        return loss, {name: value.detach() for name, value in parts.items()}

    def _errors(
        self,
        video: Tensor,
        targets: Tensor,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        kind: int,
    ) -> Parts:
        """Errors at the masked places and, where the loss is dense, at the visible ones."""
        grid = self.encoder.grid(video.shape)
        # V-JEPA 1 has a mask token for each kind of mask, V-JEPA 2 one for all
        where = {
            "grid": grid,
            "mask_index": min(kind, len(self.mask_predictor.mask_tokens) - 1),
            "is_image": self._is_image(video),
        }
        if self.dense is None:
            prediction = self.mask_predictor(context, context_ids, target_ids, **where)
            return {"prediction_loss": self._error(prediction, targets, target_ids).mean()}
        prediction, seen = self.mask_predictor.forward_dense(
            context, context_ids, target_ids, **where
        )
        near = nearness(context_ids, target_ids, grid).unsqueeze(-1)  # (B, Lc, 1)
        return {
            "prediction_loss": self._error(prediction, targets, target_ids).mean(),
            "context_loss": (self._error(seen, targets, context_ids) * near).mean(),
        }

    def _error(self, prediction: Tensor, targets: Tensor, ids: Tensor) -> Tensor:
        """Distances of predictions (B, K, D) from the targets (B, L, D) at `ids` (B, K)."""
        error = (prediction.float() - gather_tokens(targets, ids)).abs()
        return error if self.loss_exponent == 1 else error**self.loss_exponent / self.loss_exponent

    def _term_values(
        self, video: Tensor, context: Tensor, context_ids: Tensor, source: Tensor
    ) -> Parts:
        """What the terms against collapse say of the last level of the context tokens."""
        if not self.terms:
            return {}
        frames, rows, columns = self.encoder.grid(video.shape)
        groups = source.unsqueeze(1) * (frames * rows * columns) + context_ids
        tokens = context[..., -self.encoder.embed_dim :]
        # They compare clips: with several processes, those of all
        tokens, groups = distributed.gathered(tokens.float()), distributed.gathered(groups)
        values: Parts = {}
        for term in self.terms:
            values |= term(tokens, groups)
        return values

    def _weights(self, video: Tensor) -> dict[str, float]:
        """Weight of each part beside the prediction loss."""
        weights: dict[str, float] = {}
        if self.dense is not None:
            is_image = self._is_image(video)
            weights["context_loss"] = self.dense.weight_at(self.share, is_image=is_image)
        for term in self.terms:
            weights |= term.weights
        return weights

    @torch.no_grad()
    def targets(self, video: Tensor) -> Tensor:
        """Layer-normed features of the whole clip, (B, L, D) float32; levels side by side."""
        tokens = self._encode(self.target_encoder, video, None).float()
        levels = tokens.unflatten(-1, (-1, self.encoder.embed_dim))
        return F.layer_norm(levels, levels.shape[-1:]).flatten(-2)

    def _encode(self, encoder: VideoViT, video: Tensor, ids: Tensor | None) -> Tensor:
        return encoder(video, ids, hierarchical=bool(encoder.taps))

    def _is_image(self, video: Tensor) -> bool:
        return self.encoder.image_path and video.shape[2] == 1

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the teacher a little towards the student."""
        change = (self.ema_decay_end - self.ema_decay) * self.share / self.stretch
        pairs = zip(self.target_encoder.parameters(), self.encoder.parameters(), strict=True)
        teacher, student = map(list, zip(*pairs, strict=True))
        torch._foreach_lerp_(teacher, student, 1 - (self.ema_decay + change))

    def networks(self) -> list[nn.Module]:
        """Return student, teacher and mask predictor."""
        return [self.encoder, self.target_encoder, self.mask_predictor]

    def kept_encoder(self) -> VideoViT:
        """Return the network that is validated and saved: the teacher."""
        return self.target_encoder
