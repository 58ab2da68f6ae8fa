"""Energy landscapes: costs around a state over two action axes, beside the truth.

Shapes: B windows, G side of a grid, T imagined steps, N = G * G candidates, P tokens, D latent
width, A action width, S sim_state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.charts import beside, heat_map, picture
from vjepa_wm.evaluation.diagnostics import Windows
from vjepa_wm.evaluation.findings import Finding
from vjepa_wm.evaluation.simulator import Simulator
from vjepa_wm.evaluation.statistics import spearman
from vjepa_wm.progress import Progress, no_progress
from vjepa_wm.world_model import LatentCost, WorldModel

GOOD_CORRELATION = 0.5
GOOD_SHARE = 0.5  # of what resting loses, that the cheapest action may lose


@dataclass(frozen=True)
class Landscape:
    """Costs around a state, over a grid of the first two action axes, each held to the end.

    Attributes:
        axes: Values of the two axes (2, G).
        imagined: Cost of imagined ends (G, G); rows are the second axis, upwards.
        encoded: Cost of the true ends (G, G), simulated and encoded.
        distance: True distances of those ends to the goal (G, G), in thresholds.
        start_distance: That of the state itself.
        pixels: uint8 of the state and of the goal (2, H, W, 3).
    """

    axes: NDArray
    imagined: NDArray
    encoded: NDArray
    distance: NDArray
    start_distance: float
    pixels: NDArray[np.uint8]

    def regret(self, cost: NDArray) -> float:
        """How much farther the cheapest action ends than the best, in thresholds."""
        return float(self.distance[lowest(cost)] - self.distance.min())

    def draw(self) -> Image.Image:
        """Draw state, goal and the three grids; cross: truly best, ring: the grid's own best."""
        best = lowest(self.distance)
        grids = {
            "cost of imagined ends": self.imagined,
            "cost of true ends": self.encoded,
            "true distance": self.distance,
        }
        return beside(
            [
                picture(self.pixels[0], "state"),
                picture(self.pixels[1], "goal"),
                *(
                    heat_map(grid, name, cross=best, ring=lowest(grid))
                    for name, grid in grids.items()
                ),
            ]
        )


def lowest(grid: NDArray) -> tuple[int, int]:
    """Row and column of the lowest value of a grid."""
    row, column = np.unravel_index(int(grid.argmin()), grid.shape)
    return int(row), int(column)


def grid_actions(
    low: NDArray, high: NDArray, *, side: int, horizon: int
) -> tuple[NDArray, NDArray]:
    """Make the actions of a grid: axes (2, G), actions (G * G, T, A); further axes rest.

    Args:
        low: Smallest action (A,), of at least two entries.
        high: Largest action (A,).
        side: G.
        horizon: T.

    Raises:
        DataError: An action has one entry only, or the grid fewer than two points a side.
    """
    if len(low) < 2 or side < 2:
        raise DataError(
            f"a landscape needs two action axes and a grid of 2 or more, got {len(low)} and {side}"
        )
    axes = np.stack([np.linspace(low[axis], high[axis], side) for axis in range(2)])
    second, first = np.meshgrid(axes[1], axes[0], indexing="ij")
    actions = np.tile((low + high) / 2, (side * side, horizon, 1))
    actions[:, :, 0], actions[:, :, 1] = first.reshape(-1, 1), second.reshape(-1, 1)
    return axes, actions.astype(np.float32)


@dataclass(frozen=True)
class LandscapeFigure:
    """Whether the cheapest action is a good one, around several states.

    Attributes:
        states: Number of landscapes.
        imagined_correlation: Per state: Spearman's, of imagined cost and true distance.
        encoded_correlation: The same for truly simulated frames: what no predictor can better.
        imagined_regret: Per state: how much farther the cheapest action ends, in thresholds.
        encoded_regret: The same for truly simulated frames.
        blind_regret: The same for resting.
    """

    title: ClassVar[str] = "landscape: is the cheapest action a good one?"
    advice: ClassVar[str] = (
        "where truly simulated frames are as bad it is the cost or the encoder (see costs, probe); "
        "where only imagined ones are, it is the predictor (see rollout, counterfactual)"
    )
    states: int
    imagined_correlation: list[float]
    encoded_correlation: list[float]
    imagined_regret: list[float]
    encoded_regret: list[float]
    blind_regret: list[float]

    def findings(self) -> list[Finding]:
        """Mean correlation and mean regret, of imagined and of truly simulated frames."""
        correlation = float(np.mean(self.imagined_correlation))
        regret = float(np.mean(self.imagined_regret))
        blind = float(np.mean(self.blind_regret))
        return [
            Finding(
                "rank correlation with true distance",
                correlation,
                correlation < GOOD_CORRELATION,
                beside={"truly simulated": float(np.mean(self.encoded_correlation))},
            ),
            Finding(
                "lost by taking the cheapest, in thresholds",
                regret,
                regret > max(0.5, GOOD_SHARE * blind),
                beside={
                    "truly simulated": float(np.mean(self.encoded_regret)),
                    "resting": blind,
                },
            ),
        ]


def draw_landscapes(
    world_model: WorldModel,
    windows: Windows,
    simulator: Simulator,
    cost: LatentCost,
    *,
    encode: Callable[[NDArray[np.uint8]], Tensor],
    count: int,
    side: int,
    progress: Progress = no_progress,
) -> list[Landscape]:
    """Measure the landscape around the last observed frames of windows whose goal is away.

    The goal is the last frame of the window itself, so that it can be reached in time.

    Args:
        world_model: Imagines.
        windows: To choose from, the first ones that start more than a threshold from their goal.
        simulator: Knows the truth.
        cost: Of imagined ends, such as a `GoalCost` at the last step.
        encode: Pixels (F, H, W, 3) to latents (F, P, D).
        count: Number of landscapes.
        side: Grid points per axis, G.
        progress: Makes the progress bar.

    Raises:
        DataError: No window starts more than a threshold from its goal.
    """
    now, end = windows.context_len - 1, windows.latents.shape[1] - 1
    starts = simulator.distances(windows.sim_state[:, now], windows.sim_state[:, end])
    chosen = np.flatnonzero(starts > 1.0)[:count]
    if not len(chosen):
        raise DataError("nothing moves by more than a threshold in any window: raise windows=")
    spec = world_model.action_spec
    low, high = np.array(spec.low), np.array(spec.high)
    axes, actions = grid_actions(low, high, side=side, horizon=end - now)
    actions = np.tile(actions, spec.actions_per_step)
    device = next(world_model.parameters()).device
    landscapes = []
    with progress(total=len(chosen), desc="landscapes", unit="states") as bar:
        for index in chosen:
            rows = slice(index, index + 1)
            start, goal = windows.sim_state[index, now], windows.sim_state[index, end]
            imagined = _imagined_costs(world_model, windows, rows, actions, cost)
            pixels, _ = simulator.outcomes(start, actions)
            true_ends = encode(pixels[:, -1]).unsqueeze(0).unsqueeze(2)  # (1, G * G, 1, P, D)
            encoded = cost(true_ends.to(device), windows.latents[rows, end].to(device))
            landscapes.append(
                Landscape(
                    axes,
                    imagined.reshape(side, side),
                    encoded.cpu().numpy().reshape(side, side),
                    simulator.distances_after(start, goal, actions).reshape(side, side),
                    float(starts[index]),
                    windows.pixels[index, [now, end]],
                )
            )
            bar.update(1)
    return landscapes


def _imagined_costs(
    world_model: WorldModel, windows: Windows, rows: slice, actions: NDArray, cost: LatentCost
) -> NDArray:
    """Score actions (N, T, A) from one window: (N,)."""
    device = next(world_model.parameters()).device
    candidates = torch.from_numpy(actions).unsqueeze(0).to(device)
    goal = windows.latents[rows, -1].to(device)
    costs = windows.observe(world_model, rows).costs(candidates, goal=goal, cost=cost)
    return costs.squeeze(0).cpu().numpy()


def landscape_figure(landscapes: list[Landscape]) -> LandscapeFigure:
    """Summarise landscapes."""

    def correlation(field: NDArray, scape: Landscape) -> float:
        return spearman(field.ravel(), scape.distance.ravel())

    return LandscapeFigure(
        len(landscapes),
        [correlation(scape.imagined, scape) for scape in landscapes],
        [correlation(scape.encoded, scape) for scape in landscapes],
        [scape.regret(scape.imagined) for scape in landscapes],
        [scape.regret(scape.encoded) for scape in landscapes],
        [max(0.0, scape.start_distance - float(scape.distance.min())) for scape in landscapes],
    )
