"""Heads: what is folded together gives what plain attention gives."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests import tiny
from vjepa_wm.errors import SettingError
from vjepa_wm.probing.heads import AttentiveHead, CrossAttention, LinearHead

ATTENTIVE = {"num_blocks": 1, "num_heads": 2, "num_queries": 1, "mlp_ratio": 2.0}


def attentive(**changed: object) -> AttentiveHead:
    return AttentiveHead(width=8, num_outputs=3, **{**ATTENTIVE, **changed})


@pytest.mark.parametrize("num_queries", [1, 3])
def test_cross_attention_is_plain_attention(num_queries: int) -> None:
    """Keys and values of every token, biases and the norm's affine part included."""
    attention, norm = CrossAttention(16, 4), nn.LayerNorm(16)
    tiny.randomise(attention), tiny.randomise(norm)
    torch.manual_seed(1)
    tokens, queries = 2 + 3 * torch.randn(3, 7, 16), torch.randn(1, num_queries, 16)
    key, value = attention.kv(norm(tokens)).unflatten(-1, (2, 4, 4)).permute(2, 0, 3, 1, 4)
    query = attention.q(queries).unflatten(-1, (4, 4)).transpose(1, 2).expand(3, -1, -1, -1)
    wanted = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(queries, tokens, norm), wanted)


def test_the_attentive_head_finds_one_token_among_many_and_the_mean_does_not_weigh_them() -> None:
    """Only the order of tokens never matters."""
    torch.manual_seed(0)
    tokens = torch.randn(2, 6, 8)
    turned = tokens[:, torch.randperm(6)]
    for head in (attentive(), attentive(num_blocks=4), LinearHead(width=8, num_outputs=3)):
        tiny.randomise(head)
        torch.testing.assert_close(head(tokens), head(turned))
    mean = tokens.mean(dim=1, keepdim=True).expand(-1, 6, -1)
    linear, pooled = (tiny.randomise(h) for h in (LinearHead(width=8, num_outputs=3), attentive()))
    torch.testing.assert_close(linear(tokens), linear(mean))
    assert not torch.allclose(pooled(tokens), pooled(mean))


def test_four_blocks_are_three_of_self_attention_with_the_published_names() -> None:
    names = {name.rsplit(".", 1)[0] for name in attentive(num_blocks=4).state_dict()}
    assert {"pooler.blocks.2.attn.qkv", "pooler.cross_attention_block.xattn.kv", "linear"} <= names
    assert len(attentive(num_blocks=4).pooler.blocks) == 3
    assert attentive(num_queries=3).linear.in_features == 24


@pytest.mark.parametrize(
    ("width", "heads"), [(192, 3), (64, 1), (24, 1), (100, 1), (1408, 22), (130, 2)]
)
def test_heads_have_about_64_channels_unless_told(width: int, heads: int) -> None:
    options = {**ATTENTIVE, "num_heads": None}
    head = AttentiveHead(width=width, num_outputs=2, **options)
    assert head.pooler.cross_attention_block.xattn.num_heads == heads


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"num_heads": 3}, "num_heads: 3 does not divide the tokens' width 8"),
        ({"num_blocks": 0}, "num_blocks: wanted at least 1"),
        ({"num_queries": 0}, "num_queries: wanted at least 1"),
    ],
)
def test_impossible_heads_are_refused(option: dict, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        attentive(**option)
