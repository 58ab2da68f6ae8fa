"""Predicts the features of masked tokens from those of visible tokens (V-JEPA's predictor)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vjepa_wm.encoders.vit import gather_tokens
from vjepa_wm.errors import SettingError
from vjepa_wm.nn.blocks import NORM_EPS, Block, init_transformer
from vjepa_wm.nn.positions import Grid, resize_table, sincos_table
from vjepa_wm.nn.rope import Rope, RopeStyle, token_rope


class MaskPredictor(nn.Module):
    """A narrow transformer over context tokens and mask tokens at their true positions.

    V-JEPA 2 (arXiv 2506.09985, section 2.1) and V-JEPA 2.1 (arXiv 2603.14482); parameter names of
    the published checkpoints.

    Args:
        embed_dim: width D of the encoder.
        predictor_embed_dim: width of the predictor.
        depth: number of blocks.
        num_heads: attention heads per block.
        num_mask_tokens: learned mask tokens; one is used at a time (`mask_index`).
        mlp_ratio: hidden width of the MLP as a multiple of the predictor's width.
        rope_style: see `vjepa_wm.nn.rope`; without effect where `sincos_grid` is given.
        sincos_grid: tokens along (time, rows, columns) of a fixed table that is added to the tokens
            instead of rotary positions (V-JEPA 1); other grids get it resized.
        levels: taps of the encoder that come in and are predicted, side by side on channels.
        output_dim: width of the predictions; None is `levels` * D. A student taught by a wider
            encoder predicts that encoder's width.
        dense: also predict the context tokens, and mark images and videos by a learned vector
            (V-JEPA 2.1).
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
        sincos_grid: Sequence[int] | None = None,
        levels: int = 1,
        output_dim: int | None = None,
        dense: bool = False,
    ) -> None:
        super().__init__()
        width = predictor_embed_dim
        output_dim = levels * embed_dim if output_dim is None else output_dim
        self.head_dim = width // num_heads
        self.rope_style: RopeStyle = rope_style
        self.sincos_grid: Grid | None = None if sincos_grid is None else tuple(sincos_grid)
        self.dense = dense
        self.predictor_embed = _input_layers(embed_dim, width=width, levels=levels)
        self.mask_tokens = nn.ParameterList(
            nn.Parameter(torch.zeros(1, 1, width)) for _ in range(num_mask_tokens)
        )
        if self.sincos_grid is not None:
            self.register_buffer("predictor_pos_embed", sincos_table(self.sincos_grid, dim=width))
        self.predictor_blocks = nn.ModuleList(
            Block(width, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.predictor_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(width, output_dim)
        if dense:
            self.predictor_proj_context = nn.Linear(width, output_dim)
            self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
            self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
        init_transformer(self, self.predictor_blocks)

    def forward(
        self,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        *,
        grid: tuple[int, int, int],
        mask_index: int,
        is_image: bool = False,
    ) -> Tensor:
        """Predict the target tokens.

        Args:
            context: (B, Lc, levels * D) encoded visible tokens.
            context_ids: (B, Lc) their places on the grid.
            target_ids: (B, Lt) the places to predict.
            grid: tokens along (time, rows, columns).
            mask_index: which mask token stands at the target places.
            is_image: whether the tokens came through the encoder's image path; only a `dense`
                predictor tells images from videos.

        Returns:
            Predictions (B, Lt, output_dim).
        """
        ids = torch.cat([context_ids, target_ids], dim=1)
        x = self._transform(context, ids, grid=grid, mask_index=mask_index, is_image=is_image)
        return self.predictor_proj(self.predictor_norm(x[:, context.shape[1] :]))

    def forward_dense(
        self,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        *,
        grid: tuple[int, int, int],
        mask_index: int,
        is_image: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Predict the target tokens and, by a projection of their own, the context tokens.

        Args are those of `forward`.

        Returns:
            Predictions (B, Lt, output_dim) at the target places, (B, Lc, output_dim) at the others.

        Raises:
            SettingError: the predictor is not `dense`.
        """
        if not self.dense:
            raise SettingError("this mask predictor has no projection of context tokens: dense")
        ids = torch.cat([context_ids, target_ids], dim=1)
        x = self._transform(context, ids, grid=grid, mask_index=mask_index, is_image=is_image)
        x = self.predictor_norm(x)
        seen, predicted = x.split([context.shape[1], target_ids.shape[1]], dim=1)
        return self.predictor_proj(predicted), self.predictor_proj_context(seen)

    def _transform(
        self,
        context: Tensor,
        ids: Tensor,
        *,
        grid: tuple[int, int, int],
        mask_index: int,
        is_image: bool,
    ) -> Tensor:
        """Run the blocks over context and mask tokens at the places `ids` (B, Lc + Lt)."""
        x = self.predictor_embed(context)
        batch, hidden = ids.shape[0], ids.shape[1] - context.shape[1]
        queries = self.mask_tokens[mask_index].expand(batch, hidden, -1)
        x = torch.cat([x, queries.to(x.dtype)], dim=1)
        if self.dense:
            x = x + (self.img_mod_embed if is_image else self.video_mod_embed)
        if self.sincos_grid is not None:
            table = resize_table(self.predictor_pos_embed, grid=self.sincos_grid, to=grid)
            x = x + gather_tokens(table.expand(batch, -1, -1), ids)
        rope = self._rope(ids, grid)
        for block in self.predictor_blocks:
            x = block(x, rope)
        return x

    def _rope(self, ids: Tensor, grid: Grid) -> Rope | None:
        if self.sincos_grid is not None:
            return None
        return token_rope(
            ids, rows=grid[1], columns=grid[2], head_dim=self.head_dim, style=self.rope_style
        )


def _input_layers(embed_dim: int, *, width: int, levels: int) -> nn.Module:
    """One linear layer for one level; for several, a layer that first brings them back to D."""
    if levels == 1:
        return nn.Linear(embed_dim, width)
    return nn.Sequential(
        nn.Linear(levels * embed_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, width)
    )
