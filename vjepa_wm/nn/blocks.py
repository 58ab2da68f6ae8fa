"""Attention, MLP and the pre-norm block, with the parameter names of the published V-JEPA code.

Shapes: B batch, L tokens, D width.
"""

from collections.abc import Callable, Sequence
from itertools import repeat

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.nn.kv_cache import KeysValues, KVCache, cached
from vjepa_wm.nn.rope import Rope, apply_rope

NORM_EPS = 1e-6
# Most keys that plain products take where there are gradients; more take the fused kernel
MAX_PLAIN_TOKENS = 256
# Most scores that plain products make at once where there are none: more leave the caches, and the
# system takes as long to hand out their memory as the products take
SCORES_AT_ONCE = 2**21
HAS_AMX = torch.cpu._is_amx_tile_supported()


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions on queries and keys."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        rope: Rope | Tensor | None,
        *,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Attend within `x` (B, L, D); with a cache, also to the tokens it holds.

        `mask` is boolean (L, L), True where a query may attend.
        """
        query, key, value = self.project(x, rope)
        key, value, past = cached(key, value, cache)
        x = (
            attend(query, key, value, mask)
            if past is None
            else attend_past(query, key, value, past)
        )
        return self.proj(x.transpose(1, 2).flatten(2))

    def project(self, x: Tensor, rope: Rope | Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of `x`, each (B, heads, L, head_dim), turned by position."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, L, 3, heads, head_dim)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, B, heads, L, head_dim)
        query, key = apply_rope(qkv[:2], rope).unbind(0)
        return query, key, qkv[2]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention of (B, heads, L, head_dim); `mask` is boolean, True where allowed.

    On a CPU two plain products are faster than PyTorch's fused kernel in two cases: backwards where
    sequences are short, several times, and in bfloat16 without AMX, which makes that kernel fast.
    """
    if _takes_parts(query):
        return _in_parts(_attend_plainly, query, (key, value), keys=key.shape[2], mask=mask)
    if _is_short(query, key.shape[2]):
        return _attend_plainly(query, key, value, mask)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1).to(value.dtype) @ value


def attend_past(query: Tensor, key: Tensor, value: Tensor, past: KeysValues) -> Tensor:
    """Attend to own tokens and to a past that the candidates of a problem share, all allowed.

    Where it is worth it the past is not repeated per candidate: all of them ask it in one product.

    Args:
        query: (B * N, heads, S, head_dim), candidates of a problem together.
        key: own keys (B * N, heads, L, head_dim).
        value: own values, likewise.
        past: keys and values (B, heads, L, head_dim).

    Returns:
        What `attend` gives with the past in front of each candidate's own.
    """
    total = past[0].shape[2] + key.shape[2]
    has_long_rows = query.shape[1:3].numel() * total > SCORES_AT_ONCE
    if _is_short(query, total):
        return _attend_past_plainly(query, key, value, *past)
    # The logarithms of the fused kernel have no gradient; to join the keys of a row of so many
    # scores costs less than to join the scores
    if query.requires_grad or (_takes_parts(query) and has_long_rows):
        return attend(query, _joined(past[0], key), _joined(past[1], value), None)
    if _takes_parts(query):
        return _in_parts(_attend_past_plainly, query, (key, value, *past), keys=total)
    batch = len(past[0])
    to_past, past_size = _FUSED(_by_problem(query, batch), *past)
    to_own, own_size = _FUSED(query, key, value)
    # Both are softmaxes over their part; the logarithms of their sums say what each part weighs
    past_size = _by_candidate(past_size.unsqueeze(-1), len(query))
    share = torch.sigmoid(own_size.unsqueeze(-1) - past_size).to(query.dtype)
    return torch.lerp(_by_candidate(to_past, len(query)), to_own, share)


# The kernel behind F.scaled_dot_product_attention, which keeps the logarithms to itself
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attend_past_plainly(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    rows, batch, length = len(query), len(past_key), past_key.shape[2]
    query = query * query.shape[-1] ** -0.5
    to_past = _by_problem(query, batch) @ past_key.transpose(-1, -2)
    scores = torch.cat([_by_candidate(to_past, rows), query @ key.transpose(-1, -2)], dim=-1)
    weights = scores.softmax(dim=-1).to(value.dtype)
    of_past = _by_problem(weights[..., :length], batch) @ past_value
    return _by_candidate(of_past, rows) + weights[..., length:] @ value


def _joined(past: Tensor, own: Tensor) -> Tensor:
    """Put a problem's past before the own tokens of each candidate: (B * N, heads, L, head_dim)."""
    own = own.unflatten(0, (len(past), -1))
    shared = past.unsqueeze(1).expand(-1, own.shape[1], -1, -1, -1)
    return torch.cat([shared, own], dim=3).flatten(0, 1)


def _by_problem(x: Tensor, batch: int) -> Tensor:
    """Line up the rows (B * N, heads, S, ...) of a problem's candidates: (B, heads, N * S, ...)."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)


def _by_candidate(x: Tensor, rows: int) -> Tensor:
    """The way back from `_by_problem`: (B * N, heads, S, ...)."""
    return x.unflatten(2, (rows // len(x), -1)).transpose(1, 2).flatten(0, 1)


def _takes_parts(query: Tensor) -> bool:
    is_bf16_on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return is_bf16_on_cpu and not HAS_AMX and not query.requires_grad


def _is_short(query: Tensor, keys: int) -> bool:
    return query.device.type == "cpu" and query.requires_grad and keys <= MAX_PLAIN_TOKENS


def _in_parts(
    attention: Callable[..., Tensor],
    query: Tensor,
    keys_values: Sequence[Tensor],
    *,
    keys: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Attend in parts of so few scores: of rows that share nothing, then heads, then queries."""
    rows, heads, queries, _ = query.shape
    scores = rows * heads * queries * keys
    are_rows_apart = all(len(x) == rows for x in keys_values)
    dim = 0 if rows > 1 and are_rows_apart else 1 if heads > 1 else 2
    if scores <= SCORES_AT_ONCE or query.shape[dim] == 1:
        return attention(query, *keys_values, *(() if mask is None else (mask,)))
    some = max(1, query.shape[dim] * SCORES_AT_ONCE // scores)
    cut = [x.split(some, dim) if dim < 2 else repeat(x) for x in keys_values]
    masks = repeat(mask) if mask is None or dim < 2 else mask.split(some)
    parts = zip(query.split(some, dim), masks, *cut, strict=False)
    done = [_in_parts(attention, q, others, keys=keys, mask=m) for q, m, *others in parts]
    return torch.cat(done, dim)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to its input."""

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, rope: Rope | None) -> Tensor:
        """Map tokens (B, L, D) to (B, L, D)."""
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


def init_transformer(module: nn.Module, blocks: nn.ModuleList) -> None:
    """Initialise as V-JEPA does: truncated normals, residual outputs shrunk with depth."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for depth, block in enumerate(blocks, start=1):
            block.attn.proj.weight.div_((2.0 * depth) ** 0.5)
            block.mlp.fc2.weight.div_((2.0 * depth) ** 0.5)
