"""How far planned futures lie from anything the world model was trained on.

Shapes: B windows, F frames, T imagined steps, P tokens, D latent width, A action width.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planners import Planner
from vjepa_wm.evaluation.diagnostics import Windows
from vjepa_wm.evaluation.findings import Finding
from vjepa_wm.evaluation.statistics import bootstrap_interval
from vjepa_wm.world_model import LatentCost, WorldModel

MAX_NOVELTY = 1.25  # times as far from the data as imagined frames under recorded actions


def plan_to_ends(
    world_model: WorldModel,
    windows: Windows,
    planner: Planner,
    cost: LatentCost,
    *,
    count: int,
    seed: int,
) -> Tensor:
    """Plan from the last observed frame of the first windows to their last frame.

    Args:
        world_model: Imagines.
        windows: At least `count`.
        planner: Searches; its horizon is at most the imagined frames of a window.
        cost: Of imagined frames.
        count: Number of plans B.
        seed: Of the planner's noise.

    Returns:
        Planned actions (B, T, A).
    """
    device = next(world_model.parameters()).device
    rows = slice(0, min(count, len(windows)))
    observed = windows.observe(world_model, rows)
    goal = windows.latents[rows, windows.context_len - 1 + planner.horizon].to(device)
    low, high = world_model.action_spec.limits(device)
    return planner.plan(
        lambda actions: observed.costs(actions, goal=goal, cost=cost),
        low=low,
        high=high,
        batch_size=len(goal),
        seeds=seed * 1_000_003 + torch.arange(len(goal)),
    ).actions.cpu()


def imagined_ends(world_model: WorldModel, windows: Windows, actions: Tensor) -> Tensor:
    """Imagine the ends (B, P, D) of actions (B, T, A) from the first B windows."""
    device = next(world_model.parameters()).device
    rows = slice(0, len(actions))
    imagined = windows.observe(world_model, rows).rollout(actions.unsqueeze(1).to(device))
    return imagined[:, 0, -1].cpu()


def nearest_distances(latents: Tensor, others: Tensor) -> NDArray:
    """Return the distance (B,) of latents (B, P, D) to the nearest of others (F, P, D)."""
    return torch.cdist(latents.flatten(1), others.flatten(1)).min(dim=1).values.double().numpy()


@dataclass(frozen=True)
class NoveltyFigure:
    """Distance to the nearest training frame, relative to that of true held-out frames (median).

    Attributes:
        plans: Number of windows.
        planned: Of imagined ends under planned actions.
        planned_interval: Bootstrapped over episodes.
        recorded: Of imagined ends under the actions that were taken.
        recorded_interval: Likewise.
    """

    title: ClassVar[str] = "novelty: how far from the data do plans end?"
    advice: ClassVar[str] = (
        "the planner finds futures the model makes up: fewer iterations or candidates, a smaller "
        "planner.init_std, a shorter horizon, or collect data that goes where plans go"
    )
    plans: int
    planned: float
    planned_interval: tuple[float, float]
    recorded: float
    recorded_interval: tuple[float, float]

    def findings(self) -> list[Finding]:
        """One line: planned beside recorded actions."""
        return [
            Finding(
                "distance to data, planned / true frames",
                self.planned,
                self.planned > MAX_NOVELTY * max(1.0, self.recorded),
                self.planned_interval,
                {"imagined under recorded actions": self.recorded},
            )
        ]


def novelty_figure(
    planned: Tensor,
    recorded: Tensor,
    held_out: Tensor,
    training: Tensor,
    *,
    episodes: NDArray,
    seed: int,
) -> NoveltyFigure:
    """Compare distances to the nearest training frame.

    Args:
        planned: Imagined ends under planned actions (B, P, D).
        recorded: Imagined ends under recorded actions (B, P, D).
        held_out: True held-out frames (F, P, D).
        training: Training frames (F, P, D).
        episodes: Which one each plan (B,) begins in.
        seed: Of the bootstrap.
    """
    usual = float(np.median(nearest_distances(held_out, training)))
    values = []
    for latents in (planned, recorded):
        ratios = nearest_distances(latents, training) / max(usual, 1e-12)
        interval = bootstrap_interval(
            lambda x: float(np.median(x)), ratios, groups=episodes, seed=seed
        )
        values += [float(np.median(ratios)), interval]
    return NoveltyFigure(len(planned), *values)
