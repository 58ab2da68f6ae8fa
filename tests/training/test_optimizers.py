"""Muon does what PyTorch's does, to hidden matrices alone; the rest is AdamW's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vjepa_wm.errors import CheckpointError, SettingError, UnknownNameError
from vjepa_wm.precision import has_native_bf16, resolve_dtype
from vjepa_wm.training.optimizers import Muon, make_optimizer, orthogonal
from vjepa_wm.training.trainer import Trainer

RATES = {"learning_rate": 0.01, "weight_decay": 0.1}
# What bfloat16 leaves of a number; both computations round in it, in another order
TOLERANCE = 0.03 if has_native_bf16("cpu") else 0.05


class Stack(nn.Module):
    """First and last layer, with a few of one shape and one of another between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 16)])
        self.last = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.last(x)


def give_gradients(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 6, 20), (2, 20, 6)])
def test_singular_values_end_near_one(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = (
        torch.randn(shape, generator=generator) * torch.logspace(-3, 3, shape[0])[:, None, None]
    )
    made = orthogonal(matrices.to(resolve_dtype("auto", "cpu"))).float()
    assert made.shape == shape
    values = torch.linalg.svdvals(made)
    assert values.max() < 1.3
    assert values.quantile(0.2) > 0.6
    # the same left and right singular vectors: it turns nothing
    product = matrices / matrices.norm(dim=(1, 2), keepdim=True) @ made.mT
    torch.testing.assert_close(product, product.mT, rtol=0, atol=0.02)


def test_muon_is_pytorchs() -> None:
    ours, theirs = Stack(), Stack()
    mine = Muon([block.weight for block in ours.blocks], **RATES)
    reference = torch.optim.Muon(
        [block.weight for block in theirs.blocks],
        lr=0.01,
        weight_decay=0.1,
        adjust_lr_fn="match_rms_adamw",
    )
    for seed in range(4):
        for module, optimizer in ((ours, mine), (theirs, reference)):
            give_gradients(module, seed)
            optimizer.step()
    start = Stack()
    for block, other, before in zip(ours.blocks, theirs.blocks, start.blocks, strict=True):
        moved, expected = block.weight - before.weight, other.weight - before.weight
        assert (moved - expected).norm() < TOLERANCE * expected.norm()


def test_all_but_hidden_matrices_are_adamws() -> None:
    ours, theirs = Stack(), Stack()
    make_both = [
        (ours, make_optimizer("muon", ours, **RATES)),
        (theirs, make_optimizer("adamw", theirs, **RATES)),
    ]
    for seed in range(3):
        for module, optimizer in make_both:
            give_gradients(module, seed)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        is_hidden = name.startswith("blocks") and mine.ndim == 2
        assert torch.equal(mine, other) != is_hidden, name


def test_frozen_parameters_stay() -> None:
    module = Stack()
    module.blocks[0].requires_grad_(False)
    module.first.requires_grad_(False)
    optimizer = make_optimizer("muon", module, **RATES)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in module.parameters() if p.requires_grad}


def test_another_optimizer_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'muon'"):
        make_optimizer("mun", Stack(), **RATES)
    with pytest.raises(SettingError, match="Sequential has none: take adamw"):
        make_optimizer("muon", nn.Sequential(nn.Linear(2, 2)), **RATES)


def fit(folder: Path, *, steps: int, optimizer: str = "muon") -> Stack:
    """Train a stack for 8 steps; a run that gets fewer is killed."""
    module = Stack()

    def loss(rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal steps
        if steps == 0:
            raise KeyboardInterrupt
        steps -= 1
        x = torch.from_numpy(rng.normal(size=(8, 3))).float()
        return (module(x) - x.sum(1, keepdim=True)).square().mean(), {}

    trainer = Trainer(
        steps=8,
        minutes=None,
        batch_size=8,
        warmup=0.2,
        clip_grad=1.0,
        validate_every=2,
        precision="fp32",
        seed=0,
        optimizer=optimizer,
        **RATES,
    )
    trainer.fit(module, loss, folder=folder, validate=lambda: {}, select=None)
    return module


def test_a_killed_run_with_muon_goes_on_exactly(tmp_path: Path) -> None:
    straight = fit(tmp_path / "straight", steps=8)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", steps=5)
    resumed = fit(tmp_path / "killed", steps=8)
    for mine, other in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("begun, resumed", [("muon", "adamw"), ("adamw", "muon")])
def test_the_optimizer_stays_that_of_the_run(tmp_path: Path, begun: str, resumed: str) -> None:
    fit(tmp_path, steps=8, optimizer=begun)
    with pytest.raises(CheckpointError, match="made with other settings"):
        fit(tmp_path, steps=8, optimizer=resumed)
