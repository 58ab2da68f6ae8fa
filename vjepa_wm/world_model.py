"""The world model: pixels to latents, latents and actions to imagined latents.

Shapes: B problems, N candidates, C context frames, T imagined steps, P tokens, D width, A actions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.predictor import ActionPredictor

LatentCost = Callable[[Tensor, Tensor], Tensor]  # latents (B,N,T,P,D), goal (B,P,D) -> (B,N)


@dataclass(frozen=True)
class ActionSpec:
    """The actions a world model was trained on.

    Attributes:
        low: lowest value of each entry, A numbers.
        high: highest value of each entry.
        frame_skip: environment steps per model step; the action is repeated for each of them.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    frame_skip: int


class WorldModel(nn.Module):
    """A frozen encoder, an action-conditioned predictor, and what they were trained on.

    Args:
        encoder: pixels to latents.
        predictor: latents and actions to the next latents.
        action_spec: the actions it understands.
        metric: counts model steps between latents, if one was trained.
        memory_mb: working memory of a rollout in megabytes; candidates are imagined in chunks that
            fit. Results do not depend on it.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        predictor: ActionPredictor,
        *,
        action_spec: ActionSpec,
        metric: TemporalMetric | None = None,
        memory_mb: float = 64.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor
        self.action_spec = action_spec
        self.metric = metric
        self.memory_mb = memory_mb

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode uint8 frames (B, T, H, W, C) to latents (B, T, P, D)."""
        return self.encoder.encode(pixels)

    def next(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Predict the frame after each of (B, T, P, D) under actions (B, T, A)."""
        return self.predictor(latents, actions)

    @torch.no_grad()
    def rollout(self, context: Tensor, past_actions: Tensor, actions: Tensor) -> Tensor:
        """Imagine candidates.

        The observed past is computed once per problem and shared by its candidates; each imagined
        step computes its own tokens only.

        Args:
            context: latents of the last observed frames (B, C, P, D).
            past_actions: the actions between them (B, C - 1, A).
            actions: candidates (B, N, T, A).

        Returns:
            Imagined latents (B, N, T, P, D).

        Raises:
            ValueError: C - 1 + T frames are more than the predictor was trained on.
        """
        batch, candidates, horizon = actions.shape[:3]
        caches = self.predictor.prefill(
            context[:, :-1],
            past_actions,
            max_frames=context.shape[1] - 1 + horizon,
            copies=candidates,
        )
        latents = context[:, -1].repeat_interleave(candidates, dim=0)  # (B * N, P, D)
        flat_actions = actions.flatten(0, 1)
        imagined = []
        for t in range(horizon):
            latents = self.predictor.step(latents, flat_actions[:, t], caches)
            imagined.append(latents)
        return torch.stack(imagined, dim=1).unflatten(0, (batch, candidates))

    @torch.no_grad()
    def costs(
        self,
        context: Tensor,
        past_actions: Tensor,
        actions: Tensor,
        *,
        goal: Tensor,
        cost: LatentCost,
    ) -> Tensor:
        """Score candidates (B, N, T, A) against goals (B, P, D), in chunks; returns (B, N)."""
        batch, candidates, horizon = actions.shape[:3]
        rows = max(1, int(self.memory_mb * 2**20 / (horizon * self._bytes_per_frame())))
        problems = max(1, rows // candidates)
        rows_of = []
        for b in range(0, batch, problems):
            part = slice(b, b + problems)
            columns = [
                cost(self.rollout(context[part], past_actions[part], chunk), goal[part])
                for chunk in actions[part].split(min(candidates, rows), dim=1)
            ]
            rows_of.append(torch.cat(columns, dim=1))
        return torch.cat(rows_of, dim=0)

    def _bytes_per_frame(self) -> int:
        """Rough memory of one imagined frame: latents, keys and values, and one block's MLP."""
        predictor = self.predictor
        width = predictor.head.in_features
        numbers = 4 * predictor.head.out_features + (2 * len(predictor.blocks) + 12) * width
        return 4 * predictor.num_patches * numbers
