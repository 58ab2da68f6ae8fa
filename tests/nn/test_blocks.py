"""Attention: the plain products for CPUs are softmax attention, and caches do not change it."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import tiny
from vjepa_wm.nn.blocks import (
    MAX_PLAIN_TOKENS,
    SCORES_AT_ONCE,
    Attention,
    Block,
    _takes_parts,
    attend,
    attend_past,
    init_transformer,
)
from vjepa_wm.nn.kv_cache import KVCache
from vjepa_wm.nn.rope import grid_positions, rope_3d


def heads(length: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, length, 8, generator=generator).requires_grad_()


def random_mask(rows: int, columns: int) -> Tensor:
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[:, 0] = True  # a query that may attend to nothing has no answer
    return mask


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("keys", [7, 5])
def test_plain_attention_is_the_fused_one(is_masked: bool, keys: int) -> None:
    """Values and gradients, also with more queries than keys."""
    query, key, value = heads(7, seed=0), heads(keys, seed=1), heads(keys, seed=2)
    mask = random_mask(7, keys) if is_masked else None
    weights = torch.randn(2, 3, 7, 8)
    results = []
    for function in (attend, F.scaled_dot_product_attention):
        out = function(query, key, value, mask)
        results.append([out, *torch.autograd.grad((out * weights).sum(), [query, key, value])])
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)


def test_long_sequences_agree_with_short_ones() -> None:
    """Both sides of the switch between the two kernels attend alike."""
    query = heads(4, seed=0)
    key, value = heads(MAX_PLAIN_TOKENS + 4, seed=1), heads(MAX_PLAIN_TOKENS + 4, seed=2)
    mask = torch.zeros(4, MAX_PLAIN_TOKENS + 4, dtype=torch.bool)
    mask[:, :MAX_PLAIN_TOKENS] = True
    short = attend(query, key[:, :, :MAX_PLAIN_TOKENS], value[:, :, :MAX_PLAIN_TOKENS], None)
    torch.testing.assert_close(attend(query, key, value, mask), short, atol=1e-5, rtol=1e-5)


@pytest.fixture(params=[False, True], ids=["no AMX", "AMX"])
def has_amx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Take the kernel of either kind of CPU, whichever this one is."""
    monkeypatch.setattr("vjepa_wm.nn.blocks.HAS_AMX", request.param)
    return request.param


def test_bfloat16_takes_plain_products_only_without_amx(has_amx: bool) -> None:
    query = torch.zeros(1, 1, 5, 8, dtype=torch.bfloat16)
    assert _takes_parts(query) == (not has_amx)
    assert not _takes_parts(query.float())
    assert not _takes_parts(query.requires_grad_())


@pytest.fixture(params=[1, 17, 80, 150, SCORES_AT_ONCE])
def scores_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of 2 x 3 x 7 queries and 5 keys: one query, some queries, some heads, one row, all."""
    monkeypatch.setattr("vjepa_wm.nn.blocks.SCORES_AT_ONCE", request.param)
    return request.param


@pytest.mark.usefixtures("has_amx", "scores_at_once")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys", [5, 1025])
@pytest.mark.parametrize("is_masked", [False, True])
def test_without_gradients_attention_is_that_of_exact_numbers(
    dtype: torch.dtype, keys: int, is_masked: bool
) -> None:
    """Whichever of the two kernels is taken, in however many parts."""
    parts = [heads(n, seed=i).detach().to(dtype) for i, n in enumerate((7, keys, keys))]
    mask = random_mask(7, keys) if is_masked else None
    found = attend(*parts, mask)
    query, key, value = (part.double() for part in parts)
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), scores.softmax(-1) @ value, atol=tolerance, rtol=tolerance
    )


def test_attention_with_a_cache_is_attention_over_all() -> None:
    """The last tokens get the same answer when the first come out of a cache."""
    attention = tiny.randomise(Attention(24, 2))
    x = torch.randn(2, 6, 24)
    rope = rope_3d(
        grid_positions(torch.arange(6), rows=1, columns=2), head_dim=12, style="interleaved"
    )
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    whole = attention(x, rope, mask=causal)
    cos, sin = rope
    first = (cos[:, :, :5], sin[:, :, :5])
    _, key, value = attention.project(x[:, :5], first)
    cache = KVCache((key, value), max_tokens=6)
    last = attention(x[:, 5:], (cos[:, :, 5:], sin[:, :, 5:]), cache=cache)
    torch.testing.assert_close(last, whole[:, 5:], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("has_amx", "scores_at_once")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("past", [3, 1024])
@pytest.mark.parametrize("copies", [1, 4])
def test_a_shared_past_is_as_if_each_candidate_had_its_own(
    dtype: torch.dtype, past: int, copies: int
) -> None:
    """Of two problems, whichever kernel is taken, in however many parts."""
    rows = [heads(5, seed=i).detach().to(dtype).repeat(copies, 1, 1, 1) for i in range(3)]
    rows = [row + torch.randn_like(row) for row in rows]
    shared = tuple(heads(past, seed=i).detach().to(dtype) for i in (3, 4))
    found = attend_past(*rows, shared)
    key, value = (
        torch.cat([part.repeat_interleave(copies, 0), own], dim=2)
        for part, own in zip(shared, rows[1:], strict=True)
    )
    wanted = attend(rows[0].double(), key.double(), value.double(), None)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("past", [3, MAX_PLAIN_TOKENS])
def test_gradients_through_a_shared_past(past: int) -> None:
    rows = [heads(4, seed=i) for i in range(3)]
    shared = tuple(heads(past, seed=i).detach()[:1] for i in (3, 4))
    whole = [torch.cat([part.expand(2, -1, -1, -1), own], 2) for part, own in
             zip(shared, rows[1:], strict=True)]  # fmt: skip
    outs = attend_past(*rows, shared), attend(rows[0], *whole, None)
    found, wanted = (torch.autograd.grad(out.square().sum(), rows) for out in outs)
    for gradient, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-5)


def test_initial_residual_outputs_shrink_with_depth() -> None:
    """Block l writes with 1 / sqrt(2 l) of the usual size, attention and MLP alike."""
    blocks = torch.nn.ModuleList(Block(96, 2, mlp_ratio=4.0) for _ in range(4))
    torch.manual_seed(0)
    init_transformer(blocks, blocks)
    for depth, block in enumerate(blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            assert float(layer.weight.detach().std()) == pytest.approx(
                0.02 / (2 * depth) ** 0.5, rel=0.05
            )
        assert float(block.attn.qkv.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert float(block.attn.qkv.bias.detach().abs().max()) == 0


def test_width_must_divide_into_heads() -> None:
    with pytest.raises(ValueError, match="width 25 .* num_heads 2"):
        Attention(25, 2)
