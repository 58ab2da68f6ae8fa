"""FLOPs are counted as by hand, in linear layers and in attention of either kind."""

import pytest
import torch
from torch import nn

from vjepa_wm.benchmarks.products import peak_flops, products_of
from vjepa_wm.nn.blocks import attend


@torch.no_grad()
def test_linear_layers_are_counted_by_shape() -> None:
    layer, x = nn.Linear(5, 7), torch.zeros(2, 3, 5)
    products = products_of(lambda: [layer(x), layer(x), x[0] @ torch.zeros(5, 4)])
    assert products.linear == {(6, 5, 7): 2, (3, 5, 4): 1}
    assert products.attention_flops == 0
    assert products.flops == 2 * (2 * 6 * 5 * 7 + 3 * 5 * 4)
    rate = peak_flops(products, dtype=torch.float32, device="cpu", repeats=1)
    assert rate > 0


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_counts_as_its_two_products(dtype: torch.dtype) -> None:
    """By the fused kernel and by plain products, where queries are fewer than keys."""
    query = torch.zeros(2, 3, 4, 8, dtype=dtype)
    key = torch.zeros(2, 3, 6, 8, dtype=dtype)
    products = products_of(lambda: attend(query, key, key, None))
    assert products.attention_flops == 2 * 2 * (2 * 3) * 4 * 6 * 8
    assert not products.linear
