"""Many heads at once are what each would be alone."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.errors import SettingError
from vjepa_wm.probing.grid import HeadGrid, Setting
from vjepa_wm.probing.heads import AttentiveHead, LinearHead

SETTINGS = [Setting(3e-3, 0.4), Setting(1e-3, 0.0), Setting(1e-4, 0.1)]
STEPS = 12
TOKENS = torch.randn(20, 5, 8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(20) % 3


def attentive() -> nn.Module:
    options = {"num_blocks": 2, "num_heads": 2, "num_queries": 1, "mlp_ratio": 2.0}
    return AttentiveHead(width=8, num_outputs=3, **options)


def linear() -> nn.Module:
    return LinearHead(width=8, num_outputs=3)


def take(rows: np.ndarray) -> Tensor:
    return TOKENS[rows]


def loss(outputs: Tensor, rows: np.ndarray) -> Tensor:
    each = [F.cross_entropy(own, CLASSES[rows]) for own in outputs]
    return torch.stack(each)


def fit(grid: HeadGrid, **changed: object) -> HeadGrid:
    options = {"steps": STEPS, "batch_size": 8, "seed": 4, **changed}
    grid.fit(take, loss, np.arange(20), **options)
    return grid


def trained_alone(make_head, setting: Setting, *, seed: int) -> nn.Module:
    """Train one head as one would by hand, on the batches the grid takes."""
    torch.manual_seed(seed)
    head = make_head()
    matrices = [p for p in head.parameters() if p.ndim > 1]
    others = [p for p in head.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": setting.weight_decay}]
    groups.append({"params": others, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=setting.learning_rate)
    rng, left = np.random.default_rng(4), np.empty(0, int)
    for step in range(STEPS):
        if len(left) < 8:
            left = np.concatenate([left, rng.permutation(20)])
        rows, left = left[:8], left[8:]
        for group in optimizer.param_groups:
            group["lr"] = setting.learning_rate * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        optimizer.zero_grad()
        F.cross_entropy(head(TOKENS[rows]), CLASSES[rows]).backward()
        optimizer.step()
    return head


@pytest.mark.parametrize("make_head", [attentive, linear])
def test_each_head_is_what_it_would_be_alone(make_head) -> None:
    grid = fit(HeadGrid(make_head, SETTINGS, seed=7))
    together = grid.outputs(take, np.arange(20), batch_size=6)
    assert together.shape == (3, 20, 3)
    for own, setting in zip(together, SETTINGS, strict=True):
        alone = trained_alone(make_head, setting, seed=7)(TOKENS)
        torch.testing.assert_close(own, alone.detach(), atol=2e-4, rtol=2e-3)
        assert not torch.allclose(own, make_head()(TOKENS), atol=1e-3)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_a_head_that_diverges_leaves_the_others_alone() -> None:
    wild = Setting(1e30, 0.0)
    with_it = fit(HeadGrid(attentive, [*SETTINGS, wild], seed=7)).outputs(
        take, np.arange(20), batch_size=20
    )
    without = fit(HeadGrid(attentive, SETTINGS, seed=7)).outputs(take, np.arange(20), batch_size=20)
    assert not with_it[3].isfinite().all()
    torch.testing.assert_close(with_it[:3], without, atol=1e-4, rtol=1e-3)


def test_the_seed_decides_start_and_order() -> None:
    rows = np.arange(20)
    first, again, other = (
        fit(HeadGrid(linear, SETTINGS, seed=s), seed=s).outputs(take, rows, batch_size=20)
        for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_clip_is_seen_in_turn_also_where_there_are_few() -> None:
    seen: list[int] = []

    def counted(rows: np.ndarray) -> Tensor:
        seen.extend(rows.tolist())
        return take(rows)

    grid = HeadGrid(linear, SETTINGS[:1], seed=0)
    grid.fit(counted, loss, np.array([2, 5, 11]), steps=4, batch_size=8, seed=0)
    assert sorted(seen) == sorted([2, 5, 11] * 4)


@pytest.mark.parametrize(("rate", "decay"), [(0.0, 0.1), (-1.0, 0.1), (1e-3, -0.1)])
def test_settings_that_cannot_train_are_refused(rate: float, decay: float) -> None:
    with pytest.raises(SettingError, match="learning_rates must be above 0"):
        Setting(rate, decay)
