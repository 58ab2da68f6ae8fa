"""Heads that read a frozen encoder's tokens: an attentive pooler, their mean, or all of them.

Shapes: B clips, N clips it is solved on, L tokens, D width, V outputs, Q queries.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.errors import SettingError
from vjepa_wm.evaluation.probes import Probe, fit_probe
from vjepa_wm.nn.blocks import NORM_EPS, Block, Mlp, init_transformer

HEAD_DIM = 64  # channels of an attention head where their number is not given


class CrossAttention(nn.Module):
    """Queries attend to tokens; without a projection of the output, as in V-JEPA.

    The few queries are taken through the keys' weights once instead of all tokens, and values are
    made of what was attended to: the same numbers from far fewer products. For the same reason the
    norm of the tokens belongs here: its affine part goes into the weights.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, queries: Tensor, tokens: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Map queries (1, Q, D) and tokens (B, L, D), not normed yet, to (B, Q, D)."""
        width = tokens.shape[-1]
        normed = F.layer_norm(tokens, (width,), eps=norm.eps)
        by_head = (self.num_heads, -1, width)  # heads, channels of a head, D
        to_key, to_value = (part.unflatten(0, by_head[:2]) for part in self.kv.weight.chunk(2))
        query = self.q(queries[0]).unflatten(-1, (self.num_heads, -1))  # (Q, heads, head_dim)
        query = query * query.shape[-1] ** -0.5
        # A key's bias, and the norm's, shift all scores of a query alike: softmax drops them
        asked = torch.einsum("qhc,hcd->dhq", query, to_key) * norm.weight[:, None, None]
        weights = (normed @ asked.flatten(1)).softmax(dim=1)  # (B, L, heads * Q)
        seen = weights.transpose(1, 2) @ normed  # (B, heads * Q, D)
        seen = (seen * norm.weight + norm.bias).unflatten(1, (self.num_heads, -1))
        value = torch.einsum("bhqd,hcd->bqhc", seen, to_value).flatten(2)
        return value + self.kv.bias.chunk(2)[1]


class CrossAttentionBlock(nn.Module):
    """Cross-attention, then MLP, each added to the queries."""

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.xattn = CrossAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Map queries (1, Q, D) and tokens (B, L, D) to (B, Q, D)."""
        x = queries + self.xattn(queries, tokens, self.norm1)
        return x + self.mlp(self.norm2(x))


class AttentivePooler(nn.Module):
    """Learned queries that gather tokens, after blocks of self-attention among these.

    V-JEPA 1 uses one block, the cross-attention (arXiv 2404.08471, appendix); V-JEPA 2 four, three
    of self-attention before it (arXiv 2506.09985). Parameter names are those of Meta's probes.
    """

    def __init__(
        self, dim: int, *, num_blocks: int, num_heads: int, num_queries: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, num_queries, dim))
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio=mlp_ratio) for _ in range(num_blocks - 1)
        )
        self.cross_attention_block = CrossAttentionBlock(dim, num_heads, mlp_ratio=mlp_ratio)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, D) to (B, Q, D)."""
        for block in self.blocks:
            tokens = block(tokens, None)
        return self.cross_attention_block(self.query_tokens, tokens)


class AttentiveHead(nn.Module):
    """An attentive pooler and a linear map of what its queries gathered.

    Args:
        width: of the tokens, D.
        num_outputs: classes, or values to predict, V.
        num_blocks: 1 is cross-attention alone, as V-JEPA 1; 4 as V-JEPA 2.
        num_heads: attention heads; None has one per 64 channels.
        num_queries: learned queries; their outputs are laid end to end.
        mlp_ratio: hidden width of the MLPs as a multiple of D.

    Raises:
        SettingError: a number is below 1, or the width is no multiple of `num_heads`.
    """

    def __init__(
        self,
        *,
        width: int,
        num_outputs: int,
        num_blocks: int,
        num_heads: int | None,
        num_queries: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        heads = _default_heads(width) if num_heads is None else num_heads
        for name, count in (("num_blocks", num_blocks), ("num_queries", num_queries)):
            if count < 1:
                raise SettingError(f"head.{name}: wanted at least 1, got {count}")
        if heads < 1 or width % heads:
            raise SettingError(f"head.num_heads: {heads} does not divide the tokens' width {width}")
        self.pooler = AttentivePooler(
            width,
            num_blocks=num_blocks,
            num_heads=heads,
            num_queries=num_queries,
            mlp_ratio=mlp_ratio,
        )
        self.linear = nn.Linear(num_queries * width, num_outputs)
        init_transformer(self, self.pooler.blocks)
        nn.init.trunc_normal_(self.pooler.query_tokens, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, D) to outputs (B, V)."""
        return self.linear(self.pooler(tokens).flatten(1))


class LinearHead(nn.Module):
    """The mean of the tokens, normed, and a linear map of it.

    Args:
        width: of the tokens, D.
        num_outputs: classes, or values to predict, V.
    """

    def __init__(self, *, width: int, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, num_outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, D) to outputs (B, V)."""
        return self.linear(self.norm(tokens.mean(dim=1)))


class RidgeHead(nn.Module):
    """A linear map of all tokens laid end to end: ridge regression, solved instead of trained.

    Tokens keep their order, so that it knows where and when things are without being told, and it
    needs seconds where a head that is trained needs minutes. What may be anywhere in the picture it
    has to learn for each place anew. Classes are regressed as 0 and 1, the greatest output counts.

    Args:
        width: of the tokens, D.
        num_outputs: classes, or values to predict, V.
        max_gb: most memory that the solution may take.
    """

    def __init__(self, *, width: int, num_outputs: int, max_gb: float) -> None:
        super().__init__()
        del width  # it takes as many numbers as it is solved on
        self.num_outputs = num_outputs
        self.max_gb = max_gb
        self.probe: Probe | None = None

    def check_memory(self, clips: int, numbers: int) -> None:
        """Refuse so many clips of so many numbers each.

        Raises:
            SettingError: They need more than `max_gb`.
        """
        needed = 8e-9 * (2 * clips * numbers + 3 * min(clips, numbers) ** 2)
        if needed > self.max_gb:
            raise SettingError(
                f"head=ridge: {clips} clips of {numbers} numbers need {needed:.2g} GB, more than "
                f"head.max_gb={self.max_gb:g}: raise it, pool tokens (encoder.pool=2), take fewer "
                "frames (num_frames) or clips, or choose head=attentive"
            )

    def solve(self, tokens: Tensor, values: NDArray[np.float64]) -> None:
        """Fit tokens (N, L, D) to values (N, V), with the penalty of least leave-one-out error.

        Raises:
            DataError: There are fewer than two clips.
        """
        self.probe = fit_probe(tokens.cpu(), values, min_frames=2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, D) to outputs (B, V), on the CPU; zeros before it is solved."""
        if self.probe is None:
            return torch.zeros(len(tokens), self.num_outputs)
        return torch.from_numpy(self.probe.predict(tokens.cpu())).float()


def _default_heads(width: int) -> int:
    """Attention heads of about `HEAD_DIM` channels that divide a width."""
    most = max(1, width // HEAD_DIM)
    return next(heads for heads in range(most, 0, -1) if width % heads == 0)
