"""Several heads trained at once: one pass over the features, a learning rate and decay for each.

Shapes: K heads, B clips, L tokens, D width, V outputs, M clips in all.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from vjepa_wm.errors import SettingError

Take = Callable[[NDArray[np.int64]], Tensor]  # rows (B,) -> tokens (B, L, D), float32
Loss = Callable[[Tensor, NDArray[np.int64]], Tensor]  # outputs (K, B, V), rows (B,) -> (K,)

BETAS = (0.9, 0.999)
EPS = 1e-8


@dataclass(frozen=True)
class Setting:
    """What one head is trained with.

    Attributes:
        learning_rate: AdamW's at the first step; it falls to 0 on half a cosine.
        weight_decay: AdamW's, on matrices only.
    """

    learning_rate: float
    weight_decay: float

    def __post_init__(self) -> None:
        """Refuse what cannot train.

        Raises:
            SettingError: a number is out of its range.
        """
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise SettingError(
                "learning_rates must be above 0 and weight_decays 0 or more, got "
                f"{self.learning_rate} and {self.weight_decay}"
            )


class HeadGrid:
    """Heads of one architecture and one start, stacked, each with a setting of its own.

    Every head gets what it would get alone: the same batches, no gradient of another's loss.

    Args:
        make_head: makes an untrained head.
        settings: one for each of the K heads.
        seed: of the start, which they share, so that they differ by their settings alone.
        device: where they are trained.

    Attributes:
        settings: one for each head.
        params: name of a parameter -> those of all heads, (K, ...).
    """

    def __init__(
        self,
        make_head: Callable[[], nn.Module],
        settings: Sequence[Setting],
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = tuple(settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = make_head().to(device)
        self.params, _ = stack_module_state([head] * len(self.settings))
        self._skeleton = copy.deepcopy(head).to("meta")
        self._optimizer = _StackedAdamW(self.params, self.settings)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, L, D) to the outputs of every head (K, B, V)."""

        def one(params: dict[str, Tensor]) -> Tensor:
            return functional_call(self._skeleton, params, (tokens,))

        with warnings.catch_warnings():
            # The fused kernel of attention takes the heads in turn: what is wanted here
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return torch.vmap(one)(self.params)

    def fit(
        self,
        take: Take,
        loss: Loss,
        rows: NDArray[np.int64],
        *,
        steps: int,
        batch_size: int,
        seed: int,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        """Train all heads on the same batches.

        Args:
            take: reads tokens.
            loss: the loss of each head.
            rows: clips to train on.
            steps: optimiser steps.
            batch_size: clips per step, fewer where there are fewer.
            seed: of the order of clips.
            after_step: called after every step.
        """
        rng = np.random.default_rng(seed)
        for step, batch in enumerate(_batches(rows, batch_size, steps, rng)):
            losses = loss(self(take(batch)), batch)  # (K,)
            gradients = torch.autograd.grad(losses.sum(), list(self.params.values()))
            self._optimizer.step(gradients, share=step / steps)
            after_step()

    @torch.no_grad()
    def outputs(self, take: Take, rows: NDArray[np.int64], *, batch_size: int) -> Tensor:
        """Apply the heads to clips, so many at a time: (K, M, V), on the CPU."""
        parts = np.array_split(rows, max(1, math.ceil(len(rows) / batch_size)))
        return torch.cat([self(take(part)).cpu() for part in parts], dim=1)


class _StackedAdamW:
    """AdamW on stacked parameters (K, ...), with the numbers of a setting for each entry of K.

    PyTorch's takes one learning rate per tensor.
    """

    def __init__(self, params: dict[str, Tensor], settings: Sequence[Setting]) -> None:
        self.params = list(params.values())
        device = self.params[0].device
        self.rates = torch.tensor([s.learning_rate for s in settings], device=device)
        self.decays = torch.tensor([s.weight_decay for s in settings], device=device)
        self.first = [torch.zeros_like(p) for p in self.params]
        self.second = [torch.zeros_like(p) for p in self.params]
        self.count = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], *, share: float) -> None:
        """Take a step, `share` of the schedule being over."""
        self.count += 1
        rates = self.rates * (0.5 * (1 + math.cos(math.pi * share)))
        unbias = math.sqrt(1 - BETAS[1] ** self.count)
        for p, gradient, first, second in zip(
            self.params, gradients, self.first, self.second, strict=True
        ):
            shape = (-1,) + (1,) * (p.ndim - 1)
            if p.ndim > 2:  # biases and norms are no matrices
                p.mul_((1 - rates * self.decays).view(shape))
            first.lerp_(gradient, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            change = first / (second.sqrt() / unbias).add_(EPS)
            p.sub_(change.mul_((rates / (1 - BETAS[0] ** self.count)).view(shape)))


def _batches(
    rows: NDArray[np.int64], batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Go through the rows in a new order each time, as often as the steps need."""
    size = min(batch_size, len(rows))
    left = np.empty(0, np.int64)
    for _ in range(steps):
        if len(left) < size:
            left = np.concatenate([left, rng.permutation(rows)])
        yield left[:size]
        left = left[size:]
