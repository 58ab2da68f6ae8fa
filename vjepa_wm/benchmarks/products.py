"""Matrix products of a computation: how many FLOPs, and how fast the bare ones are.

A product of (M, K) and (K, N) is 2 M K N FLOPs; attention counts as its two products.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vjepa_wm.benchmarks.figures import Figure

GPU_IN_A_ROW = 20  # products between two waits for a GPU, which take as long as a small one
PEAK = "bare matrix products of the same shapes"
_ATEN = torch.ops.aten
_LINEAR = {_ATEN.mm: 0, _ATEN.addmm: 1}  # -> which argument is the left matrix
_BATCHED = {_ATEN.bmm: 0, _ATEN.baddbmm: 1}


class Products(TorchDispatchMode):
    """Counts the products of everything that is computed inside a `with` block.

    Attributes:
        linear: (M, K, N) of the products of two matrices -> how often.
        attention_flops: FLOPs of the batched ones, which are those of attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear: Counter[tuple[int, int, int]] = Counter()
        self.attention_flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Note a product and compute it."""
        packet = func.overloadpacket
        if packet in _LINEAR:
            left, right = args[_LINEAR[packet] :][:2]
            self.linear[left.shape[0], left.shape[1], right.shape[1]] += 1
        elif packet in _BATCHED:
            left, right = args[_BATCHED[packet] :][:2]
            self.attention_flops += 2 * left.numel() * right.shape[-1]
        elif "scaled_dot_product" in func.name() and "backward" not in func.name():
            self.attention_flops += _attention_flops(*args[:3])
        return func(*args, **(kwargs or {}))

    @property
    def flops(self) -> int:
        """All of them."""
        linear = sum(2 * math.prod(shape) * times for shape, times in self.linear.items())
        return linear + self.attention_flops


def _attention_flops(query: Tensor, key: Tensor, value: Tensor) -> int:
    scores = query.shape[:-1].numel() * key.shape[-2]
    return 2 * scores * (query.shape[-1] + value.shape[-1])


def products_of(call: Callable[[], object]) -> Products:
    """Run a computation once and return its products."""
    with Products() as products:
        call()
    return products


@torch.no_grad()
def peak_flops(products: Products, *, dtype: torch.dtype, device: str, repeats: int) -> float:
    """FLOP/s of the same linear layers alone, in the same mixture, each at its best."""
    flops, seconds = 0, 0.0
    for shape, times in products.linear.items():
        flops += 2 * math.prod(shape) * times
        seconds += times * _best_seconds(shape, dtype=dtype, device=device, repeats=repeats)
    return flops / seconds


def _best_seconds(
    shape: tuple[int, int, int], *, dtype: torch.dtype, device: str, repeats: int
) -> float:
    rows, width, out = shape
    x = torch.randn(rows, width, device=device, dtype=dtype)
    weight = torch.randn(out, width, device=device, dtype=dtype)
    bias = torch.zeros(out, device=device, dtype=dtype)
    best = math.inf
    on_gpu = device.startswith("cuda")
    in_a_row = GPU_IN_A_ROW if on_gpu else 1
    for repeat in range(1 + repeats):
        start = time.perf_counter()
        for _ in range(in_a_row):
            F.linear(x, weight, bias)
        if on_gpu:
            torch.cuda.synchronize()
        if repeat:
            best = min(best, (time.perf_counter() - start) / in_a_row)
    return best


def rate_figure(
    name: str,
    call: Callable[[], object],
    seconds: float,
    *,
    dtype: torch.dtype,
    device: str,
    repeats: int,
) -> Figure:
    """How many GFLOP/s a computation reaches, beside what its bare products reach."""
    products = products_of(call)
    peak = peak_flops(products, dtype=dtype, device=device, repeats=repeats)
    return Figure(name, products.flops / seconds / 1e9, "GFLOP/s", PEAK, peak / 1e9)
