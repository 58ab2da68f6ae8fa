"""Predicts the features of masked tokens from those of visible tokens (V-JEPA's predictor)."""

import torch
from torch import Tensor, nn

from vjepa_wm.nn.blocks import NORM_EPS, Block, init_transformer
from vjepa_wm.nn.rope import RopeStyle, grid_positions, rope_3d


class MaskPredictor(nn.Module):
    """A narrow transformer over context tokens and mask tokens at their true positions.

    V-JEPA 2 (arXiv 2506.09985, section 2.1); parameter names of the published checkpoints.

    Args:
        embed_dim: width D of the encoder.
        predictor_embed_dim: width of the predictor.
        depth: number of blocks.
        num_heads: attention heads per block.
        num_mask_tokens: learned mask tokens; one is used at a time (`mask_index`).
        mlp_ratio: hidden width of the MLP as a multiple of the predictor's width.
        rope_style: see `vjepa_wm.nn.rope.rope_3d`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        predictor_embed_dim: int,
        depth: int,
        num_heads: int,
        num_mask_tokens: int,
        mlp_ratio: float = 4.0,
        rope_style: RopeStyle = "interleaved",
    ) -> None:
        super().__init__()
        width = predictor_embed_dim
        self.head_dim = width // num_heads
        self.rope_style: RopeStyle = rope_style
        self.predictor_embed = nn.Linear(embed_dim, width)
        self.mask_tokens = nn.ParameterList(
            nn.Parameter(torch.zeros(1, 1, width)) for _ in range(num_mask_tokens)
        )
        self.predictor_blocks = nn.ModuleList(
            Block(width, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.predictor_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(width, embed_dim)
        init_transformer(self, self.predictor_blocks)

    def forward(
        self,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        *,
        grid: tuple[int, int, int],
        mask_index: int,
    ) -> Tensor:
        """Predict the target tokens.

        Args:
            context: (B, Lc, D) encoded visible tokens.
            context_ids: (B, Lc) their places on the grid.
            target_ids: (B, Lt) the places to predict.
            grid: tokens along (time, rows, columns).
            mask_index: which mask token stands at the target places.

        Returns:
            Predictions (B, Lt, D).
        """
        queries = self.mask_tokens[mask_index].expand(*target_ids.shape, -1)  # (B, Lt, width)
        x = self.predictor_embed(context)
        x = torch.cat([x, queries.to(x.dtype)], dim=1)
        ids = torch.cat([context_ids, target_ids], dim=1)
        positions = grid_positions(ids, rows=grid[1], columns=grid[2])
        rope = rope_3d(positions, head_dim=self.head_dim, style=self.rope_style)
        for block in self.predictor_blocks:
            x = block(x, rope)
        x = self.predictor_norm(x[:, context.shape[1] :])
        return self.predictor_proj(x)
