"""Schedules at their ends and between: the published figures come out."""

import math
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from tests.tiny import CONFIGS
from vjepa_wm.errors import SettingError
from vjepa_wm.training.schedules import ConstantCooldown, HalfCosine, StretchedCosine
from vjepa_wm.training.trainer import Trainer


def trainer(name: str, **changed: object) -> Trainer:
    cfg = OmegaConf.load(CONFIGS / "trainer" / f"{name}.yaml")
    return instantiate(OmegaConf.merge(cfg, {"precision": "fp32", **changed}))


def rate(trainer: Trainer, share: float) -> float:
    return trainer.learning_rate * trainer.schedule.rate(share, trainer.warmup)


def decay(trainer: Trainer, share: float) -> float:
    return trainer.schedule.weight_decay(share, trainer.weight_decay)


close = partial(pytest.approx, rel=1e-4)


def test_v_jepa_1() -> None:
    """2e-4 to 6.25e-4, then a cosine to 1e-6 over 1.25 budgets; weight decay 0.04 to 0.4."""
    made = trainer("vjepa1")
    assert rate(made, 0.0) == close(2e-4)
    assert rate(made, made.warmup / 2) == close((2e-4 + 6.25e-4) / 2)
    assert rate(made, made.warmup) == close(6.25e-4)
    left = (1 + math.cos(math.pi * (1 - made.warmup) / (1.25 - made.warmup))) / 2
    assert rate(made, 1.0) == close(1e-6 + (6.25e-4 - 1e-6) * left)
    assert made.schedule.rate(1.25, made.warmup) == close(0.0016)
    assert decay(made, 0.0) == close(0.04)
    assert decay(made, 0.625) == close(0.22)
    assert decay(made, 1.0) == close(0.4 - 0.36 * (1 + math.cos(0.8 * math.pi)) / 2)
    assert not made.schedule.clips(0.1, made.warmup)
    assert made.schedule.clips(0.2, made.warmup) and made.clip_grad == 10


def test_v_jepa_2_and_its_cooldown() -> None:
    """1e-4 to 5.25e-4, constant; then from 5.25e-4 to 1e-6 in a line. Weight decay stays."""
    first = trainer("vjepa2")
    assert rate(first, 0.0) == close(1e-4)
    assert rate(first, 0.025) == close((1e-4 + 5.25e-4) / 2)
    assert [rate(first, share) for share in (0.05, 0.5, 1.0)] == [5.25e-4] * 3
    cooldown = trainer("vjepa2", warmup=0.0, schedule={"cooldown": 1.0})
    assert rate(cooldown, 0.0) == close(5.25e-4)
    assert rate(cooldown, 0.5) == close((5.25e-4 + 1e-6) / 2)
    assert rate(cooldown, 1.0) == close(1e-6)
    in_one = trainer("vjepa2", schedule={"cooldown": 0.2})
    assert rate(in_one, 0.8) == close(5.25e-4)
    assert rate(in_one, 0.9) == close((5.25e-4 + 1e-6) / 2)
    for made in (first, cooldown):
        assert made.clip_grad is None
        assert {decay(made, share) for share in (0.0, 0.5, 1.0)} == {0.04}


def test_the_default_climbs_then_falls_along_a_cosine() -> None:
    """To its peak when the warm-up ends, and down to a hundredth."""
    default = HalfCosine()
    assert trainer("pretrain").schedule == default
    assert default.rate(0.1, 0.2) == pytest.approx(0.5)
    assert default.rate(0.0, 0.2) == pytest.approx(0.01)
    assert default.rate(0.2, 0.2) == pytest.approx(1.0)
    assert default.rate(0.6, 0.2) == pytest.approx(0.505)
    assert default.rate(1.0, 0.2) == pytest.approx(0.01)
    assert default.rate(0.0, 0.0) == pytest.approx(1.0)
    falling = [default.rate(0.2 + step / 60, 0.2) for step in range(49)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StretchedCosine(0.1, 0.1, None, stretch=0.5, clip_in_warmup=True),
        lambda: ConstantCooldown(0.1, 0.1, cooldown=1.5),
    ],
)
def test_impossible_schedules_are_refused(make) -> None:
    with pytest.raises(SettingError, match="must be"):
        make()


class Watched(nn.Module):
    """A matrix and a bias with a gradient of 100 each."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(2, 2))
        self.bias = nn.Parameter(torch.zeros(2))

    def loss(self, rng: object, share: float) -> tuple[torch.Tensor, dict]:
        return 100 * (self.matrix.sum() + self.bias.sum()), {}


def optimizer_states(made: Trainer, tmp_path, monkeypatch) -> list[tuple[dict, float]]:
    """Train and note each step's settings per group, and the gradient after clipping."""
    seen, step, module = [], torch.optim.AdamW.step, Watched()

    def noted(self: torch.optim.AdamW) -> None:
        groups = [{k: g[k] for k in ("lr", "weight_decay", "betas")} for g in self.param_groups]
        seen.append((groups, float(module.matrix.grad.norm())))
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    made.fit(module, module.loss, folder=tmp_path, validate=dict, select=None)
    return seen


def test_the_trainer_follows_its_schedule(tmp_path, monkeypatch) -> None:
    """V-JEPA 1: rates and decay move, biases never decay, clipping begins after the warm-up."""
    made = trainer("vjepa1", steps=10, warmup=0.2)
    seen = optimizer_states(made, tmp_path, monkeypatch)
    assert len(seen) == 10
    for number, (groups, norm) in enumerate(seen):
        share = number / 10
        assert [group["lr"] for group in groups] == [close(rate(made, share))] * 2
        assert groups[0]["weight_decay"] == close(decay(made, share))
        assert groups[1]["weight_decay"] == 0
        assert groups[0]["betas"] == (0.9, 0.999)
        assert (norm > 150) == (share < 0.2)  # 200 where nothing is clipped, below 10 after


def test_no_limit_clips_nothing(tmp_path, monkeypatch) -> None:
    made = trainer("vjepa2", steps=3)
    norms = [norm for _, norm in optimizer_states(made, tmp_path, monkeypatch)]
    assert norms == pytest.approx([200.0] * 3)
