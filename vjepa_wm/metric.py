"""The learned temporal metric: how many recorded steps two frames are apart.

A model step is one of them, or `actions_per_step`.

Raw latent distance goes flat once an object has moved by about a patch: from there on it no longer
says which of two frames is nearer to the goal. Time apart keeps growing, and trajectories give it
for nothing.

Shapes: E trajectory pieces, T frames, P tokens, D latent width, K width of the embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.errors import SettingError

# Recorded steps per unit of the head's output, so that it starts at a sensible size
EMBED_SCALE = 15.0
UNMEASURED_STEP = 0.1  # squared_step of models from before it was recorded


class TemporalMetric(nn.Module):
    """Embeds a frame's latents so that Euclidean distance counts recorded steps.

    Args:
        latent_dim: width D of latents.
        num_patches: tokens per frame P.
        hidden_dim: width of the hidden layer.
        embed_dim: width K of the embedding.
        max_steps: unrelated frames are pushed apart up to here.
        squared_step: mean squared difference of latents one recorded step apart, over the
            trajectories: what squared latent distance is measured in beside this metric.

    Raises:
        SettingError: `squared_step` is not positive.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        num_patches: int,
        hidden_dim: int,
        embed_dim: int,
        max_steps: int,
        squared_step: float = UNMEASURED_STEP,
    ) -> None:
        super().__init__()
        if not squared_step > 0:
            raise SettingError(f"squared_step: wanted a positive number, got {squared_step}")
        self.max_steps = max_steps
        self.squared_step = squared_step
        self.hidden = nn.Linear(num_patches * latent_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, embed_dim)

    def embed(self, latents: Tensor) -> Tensor:
        """Embed latents (..., P, D) to (..., K); distances are in recorded steps."""
        x = latents.flatten(-2).to(self.hidden.weight.dtype)
        return self.out(F.gelu(self.hidden(x))).float() * EMBED_SCALE

    def forward(self, latents: Tensor, other: Tensor) -> Tensor:
        """Distance in recorded steps between frames (..., P, D), broadcast; returns (...)."""
        return (self.embed(latents) - self.embed(other)).norm(dim=-1)

    @torch.no_grad()
    def absorb(self, mean: Tensor, scale: float) -> None:
        """Take latents as they are from now on, where it was trained on `(latents - mean) / scale`.

        Args:
            mean: (P, D).
            scale: a positive number.
        """
        self.hidden.weight /= scale
        self.hidden.bias -= self.hidden.weight @ mean.flatten()

    def loss(self, latents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Fit distance to time apart, on all pairs of a batch of trajectory pieces.

        Frames of one piece that are k steps apart should be k apart, give or take sqrt(k): the
        longer the way, the more of it is detours, which time apart does not tell from need. Frames
        of different pieces are pushed apart to `max_steps`, as far as the others let them.

        Args:
            latents: (E, T, P, D).

        Returns:
            The scalar loss, and its parts.

        Raises:
            SettingError: there is one piece, and nothing to push it apart from.
        """
        pieces, length = latents.shape[:2]
        if pieces < 2:
            raise SettingError(
                f"the metric learns from at least 2 pieces at a time, got {pieces}: "
                "metric_trainer.batch_size must be 2 or more"
            )
        distance = pairwise_distance(self.embed(latents).flatten(0, 1))  # (E * T, E * T), steps
        frame = torch.arange(length, device=latents.device).repeat(pieces)
        piece = torch.arange(pieces, device=latents.device).repeat_interleave(length)
        apart = (frame.unsqueeze(0) - frame.unsqueeze(1)).abs()
        is_same_piece = piece.unsqueeze(0) == piece.unsqueeze(1)
        error = ((distance - apart) / apart.clamp_min(1).sqrt())[is_same_piece]
        near_loss = error.square().mean()
        far_loss = F.relu(1 - distance[~is_same_piece] / self.max_steps).square().mean()
        return near_loss + far_loss, {"near_loss": near_loss, "far_loss": far_loss}


def pairwise_distance(x: Tensor) -> Tensor:
    """Euclidean distances (L, L) between rows (L, K), with a finite gradient at zero."""
    with torch.autocast(x.device.type, enabled=False):  # bf16 cannot hold these differences
        x = x.float()
        square = x.square().sum(-1)
        squared = square.unsqueeze(0) + square.unsqueeze(1) - 2 * x @ x.T
    return squared.clamp_min(1e-6).sqrt()
