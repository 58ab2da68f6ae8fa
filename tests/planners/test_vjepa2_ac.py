"""The preset of V-JEPA 2-AC's planner, beside its published loop written plainly."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from planners import Constrained
from planners.noise import NoiseSource

CONFIG = Path(__file__).parents[2] / "configs" / "planner" / "vjepa2_ac.yaml"
HIGH = torch.tensor([0.1, 0.1, 0.1, 0.25, 0.25, 0.25, 1.0])
STEPS, SEARCHED = 2, [0, 1, 2, 6]


def preset(*overrides: str) -> Constrained:
    cfg = OmegaConf.merge(OmegaConf.load(CONFIG), OmegaConf.from_dotlist(list(overrides)))
    return instantiate(cfg)


def wish(goal: Tensor, actions: Tensor) -> Tensor:
    """Distance of where the actions `(..., T, 7)` lead from the goal `(7,)`, each in its unit."""
    return ((actions.sum(-2) - goal) / HIGH).square().sum(-1)


def published(goal: Tensor, seeds: Tensor, *, momenta: Tensor, std_momenta: Tensor) -> Tensor:
    """Search `(T, 7)` as the published loop does; first candidate and spread are this project's."""
    noise = NoiseSource(seeds, device=torch.device("cpu"), dtype=torch.float32)
    limit = torch.tensor([0.05, 0.05, 0.05, 0.75])
    mean, std = torch.zeros(STEPS, 4), torch.tensor([0.05, 0.05, 0.05, 1.0]).expand(STEPS, 4)
    for _ in range(10):
        drawn = noise.normal(400, STEPS, 4)[0]
        samples = (mean + std * drawn).clamp(-limit, limit)
        samples[0] = mean
        whole = torch.zeros(400, STEPS, 7)
        whole[..., SEARCHED] = samples
        best = wish(goal, whole).topk(10, largest=False).indices
        chosen = samples[best]
        mean = (1 - momenta) * chosen.mean(0) + momenta * mean
        std = (1 - std_momenta) * chosen.std(0, correction=0) + std_momenta * std
    action = torch.zeros(STEPS, 7)
    action[:, SEARCHED] = mean
    action[:, 6] = torch.where(action[:, 6].abs() < 0.25, 0, action[:, 6])
    return action


@pytest.mark.parametrize(
    ("overrides", "momenta", "std_momenta"),
    [
        ((), [0.15] * 4, [0.15] * 4),
        (
            (
                "planner.momentum=[0.25,0.25,0.25,0.15]",
                "planner.momentum_std=[0.95,0.95,0.95,0.15]",
            ),
            [0.25, 0.25, 0.25, 0.15],
            [0.95, 0.95, 0.95, 0.15],
        ),
    ],
)
@pytest.mark.parametrize("gripper", [1.2, 0.1])
def test_it_is_the_published_loop(
    gripper: float, overrides: tuple[str, ...], momenta: list[float], std_momenta: list[float]
) -> None:
    goal = torch.tensor([0.03, -0.2, 0.0, 0.1, 0.0, 0.0, gripper])
    seeds = torch.tensor([3])
    plan = preset(*overrides).plan(
        lambda actions: wish(goal, actions), low=-HIGH, high=HIGH, seeds=seeds
    )
    wanted = published(
        goal, seeds, momenta=torch.tensor(momenta), std_momenta=torch.tensor(std_momenta)
    )
    torch.testing.assert_close(plan.actions[0], wanted, rtol=0, atol=1e-4)
    assert (plan.actions[0, :, 3:6] == 0).all()
    closing = plan.actions[0, :, 6].abs()
    assert ((closing == 0) | (closing >= 0.25)).all()


def test_the_other_protocols_are_overrides() -> None:
    paper = preset("planner.num_samples=800", "planner.horizon=1")
    assert (paper.horizon, paper.planner.num_samples, paper.planner.iterations) == (1, 800, 10)
    seen = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(tuple(actions.shape))
        return actions.square().sum((-1, -2))

    paper.plan(cost, low=-HIGH, high=HIGH)
    assert seen == [(1, 800, 1, 7)] * 10 + [(1, 1, 1, 7)]
