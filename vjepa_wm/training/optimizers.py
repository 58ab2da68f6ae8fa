"""The optimisers the trainer knows: AdamW, and Muon for the matrices inside repeated blocks."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.precision import resolve_dtype

OPTIMIZERS = ("adamw", "muon")

MOMENTUM = 0.95
# Coefficients of the quintic that takes singular values from (0, 1] to around 1, and how often it
# is applied, both from Muon's author (https://kellerjordan.github.io/posts/muon/).
QUINTIC = (3.4445, -4.775, 2.0315)
ITERATIONS = 5
ADAMW_RMS = 0.2  # of AdamW's updates at a learning rate of 1 (arXiv 2502.16982, section 2.2)


class Optimizer(Protocol):
    """What the trainer asks of an optimiser: the part of `torch.optim.Optimizer` it uses."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters, each with its `lr` and `weight_decay`."""

    def step(self) -> None:
        """Move the parameters by their gradients."""

    def zero_grad(self, *, set_to_none: bool) -> None:
        """Forget the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


def make_optimizer(
    name: str, module: nn.Module, *, learning_rate: float, weight_decay: float
) -> Optimizer:
    """Make the optimiser of what is trainable in a module.

    Args:
        name: `adamw` or `muon`.
        module: whose parameters are trained.
        learning_rate: of both, in AdamW's terms.
        weight_decay: decoupled, on matrices only.

    Raises:
        UnknownNameError: there is no such optimiser.
        SettingError: Muon is asked for and there is no matrix in a repeated block.
    """
    if name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", name, OPTIMIZERS)
    if name == "adamw":
        parameters = (p for p in module.parameters() if p.requires_grad)
        return _adamw(parameters, learning_rate=learning_rate, weight_decay=weight_decay)
    return MuonAdamW(module, learning_rate=learning_rate, weight_decay=weight_decay)


def _adamw(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    parameters = list(parameters)
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
        lr=learning_rate,
        weight_decay=weight_decay,
        fused=True,
    )


class MuonAdamW:
    """Muon for the hidden matrices, AdamW for all else, as one optimiser.

    Hidden are matrices in a `ModuleList`, the blocks of a transformer; first and last layers,
    vectors and tables of embeddings are AdamW's, as Muon's author advises.

    Args:
        module: whose parameters are trained.
        learning_rate: of both; Muon's updates are as large as AdamW's would be.
        weight_decay: decoupled, on matrices only.

    Raises:
        SettingError: there are no hidden matrices.
    """

    def __init__(self, module: nn.Module, *, learning_rate: float, weight_decay: float) -> None:
        stacks = (part for part in module.modules() if isinstance(part, nn.ModuleList))
        inside = {p for stack in stacks for p in stack.parameters() if p.ndim == 2}
        trainable = [p for p in module.parameters() if p.requires_grad]
        hidden = [p for p in trainable if p in inside]
        if not hidden:
            raise SettingError(
                f"optimizer muon wants matrices in repeated blocks, {type(module).__name__} has "
                "none: take adamw"
            )
        rest = [p for p in trainable if p not in inside]
        rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        self._parts = {"muon": Muon(hidden, **rates), "adamw": _adamw(rest, **rates)}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of both."""
        return [group for part in self._parts.values() for group in part.param_groups]

    def step(self) -> None:
        """Move the parameters by their gradients."""
        for part in self._parts.values():
            part.step()

    def zero_grad(self, *, set_to_none: bool) -> None:
        """Forget the gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """State of both, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state; a KeyError where it is that of another optimiser."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


class Muon(torch.optim.Optimizer):
    """Momentum whose every update is made orthogonal, so that no direction of a matrix starves.

    Computes what `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")` does, for matrices of one shape
    together, and in bfloat16 only where the machine multiplies it natively: on a CPU that does not,
    PyTorch's takes seconds per step.

    Args:
        matrices: what is trained.
        learning_rate: in AdamW's terms.
        weight_decay: decoupled.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__(matrices, {"lr": learning_rate, "weight_decay": weight_decay})
        self._dtype = resolve_dtype("auto", self.param_groups[0]["params"][0].device)

    @torch.no_grad()
    def step(self) -> None:
        """Move the matrices by their gradients."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                momenta = torch.stack([self._momentum(matrix) for matrix in matrices])
                updates = orthogonal(momenta.to(self._dtype))  # (K, M, N)
                size = group["lr"] * ADAMW_RMS * max(shape) ** 0.5
                for matrix, update in zip(matrices, updates.to(matrices[0].dtype), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-size)

    def _momentum(self, matrix: nn.Parameter) -> Tensor:
        """Nesterov's momentum of a matrix, with its gradient taken in."""
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(state["momentum"], MOMENTUM)


def orthogonal(matrices: Tensor) -> Tensor:
    """Take all singular values of matrices (K, M, N) to around 1, from 0.7 to 1.2.

    Newton-Schulz iterations: products alone, no decomposition.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    first, third, fifth = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (K, M, M)
        gram = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
        x = torch.baddbmm(x, gram, x, beta=first)
    return x.mT if is_tall else x
