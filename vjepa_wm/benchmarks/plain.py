"""The baseline of planning: imagine as V-JEPA 2-AC's published planner does.

Nothing is wrong with its results; it computes most of them more than once. Written from the
description of that planner, on our networks and their weights.

Shapes: as in `vjepa_wm.world_model` and `vjepa_wm.token_predictor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from vjepa_wm.costs import Goal, score
from vjepa_wm.encoders.frozen import layer_norm
from vjepa_wm.frame_predictor import Cache, frame_mask
from vjepa_wm.nn.rope import Rope
from vjepa_wm.poses import PoseIntegrator
from vjepa_wm.token_predictor import TokenPredictor
from vjepa_wm.world_model import LatentCost, WorldModel

NAME = "plain planner: history recomputed"


class DensePredictor(TokenPredictor):
    """V-JEPA 2-AC's predictor with one dense mask over all frames, all tokens to the end."""

    def _through_blocks(
        self, x: Tensor, condition: Tensor, rope: Rope, caches: Sequence[Cache]
    ) -> Tensor:
        frames = x.shape[1:3]
        mask = frame_mask(*frames, x.device)
        x = x.flatten(1, 2)
        for block in self.predictor_blocks:
            query, key, value = block.attn.project(block.norm1(x), rope)
            h = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            x = x + block.attn.proj(h.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.norm2(x))
        return x.unflatten(1, frames)

    def _output(self, latents: Tensor, x: Tensor) -> Tensor:
        tokens = self.predictor_proj(self.predictor_norm(x))
        return layer_norm(tokens[:, :, -self.num_patches :].float())


class PlainWorldModel(WorldModel):
    """Imagines by running the predictor on the whole history in every step.

    Every candidate has a copy of the observed frames; all candidates are one batch; poses are
    moved one candidate after another; each problem is planned alone.
    """

    @classmethod
    def of(cls, world_model: WorldModel) -> Self:
        """Return the baseline of a world model, on the same networks."""
        return cls(
            world_model.encoder,
            world_model.predictor,
            action_spec=world_model.action_spec,
            metric=world_model.metric,
            integrate=world_model.integrate,
        )

    def observe(
        self, context: Tensor, past_actions: Tensor, proprio: Tensor | None = None
    ) -> "PlainImagination":
        """Compute nothing: the history is recomputed in every step."""
        return PlainImagination(self, context, past_actions, proprio)


@dataclass(frozen=True)
class PlainImagination:
    """What was observed, to be recomputed; the arguments are those of `WorldModel.observe`."""

    world_model: PlainWorldModel
    context: Tensor
    past_actions: Tensor
    proprio: Tensor | None

    @torch.no_grad()
    def costs(self, actions: Tensor, *, goal: Tensor | Goal, cost: LatentCost) -> Tensor:
        """Score candidates (B, N, T, A) as `Imagination.costs` does; returns (B, N)."""
        rows = []
        for b in range(len(actions)):
            one = slice(b, b + 1)
            latents, moved = self._imagine(b, actions[b])
            rows.append(score(cost, latents, goal[one], actions=actions[one], proprio=moved))
        return torch.cat(rows)

    def _imagine(self, problem: int, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Imagine the candidates (N, T, A) of a problem; (1, N, T, P, D) and (1, N, T, Q)."""
        candidates, observed = len(actions), self.context.shape[1]
        frames = self.context[problem].repeat(candidates, 1, 1, 1)
        taken = self.past_actions[problem].repeat(candidates, 1, 1)
        poses = None if self.proprio is None else self.proprio[problem].repeat(candidates, 1, 1)
        for t in range(actions.shape[1]):
            taken = torch.cat([taken, actions[:, t : t + 1]], dim=1)
            predicted = self.world_model.predictor(frames, taken, poses)[:, -1:]
            frames = torch.cat([frames, predicted], dim=1)
            if poses is not None:
                moved = self._moved(poses[:, -1], actions[:, t])
                poses = torch.cat([poses, moved.unsqueeze(1)], dim=1)
        moved = None if poses is None else poses[:, observed:].unsqueeze(0)
        return frames[:, observed:].unsqueeze(0), moved

    def _moved(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """Move proprio (N, Q): poses one after another as published, all else at once."""
        move = self.world_model.move
        if not isinstance(self.world_model.integrate, PoseIntegrator):
            return move(proprio, actions)
        pairs = zip(proprio, actions, strict=True)
        return torch.stack([move(pose, action) for pose, action in pairs])
