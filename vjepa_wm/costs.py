"""Goal costs on latents: what the planner minimises.

A cost is any callable (latents (B, N, T, P, D), goal (B, P, D)) -> (B, N); lower is better.

Shapes: B problems, N candidates, T imagined steps, P tokens, D latent width.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.metric import TemporalMetric


def l1_distance(latents: Tensor, goal: Tensor) -> Tensor:
    """Mean absolute difference over tokens and channels (..., P, D) -> (...)."""
    return (latents - goal).abs().mean(dim=(-2, -1))


def l2_distance(latents: Tensor, goal: Tensor) -> Tensor:
    """Mean squared difference over tokens and channels (..., P, D) -> (...)."""
    return (latents - goal).square().mean(dim=(-2, -1))


def cosine_distance(latents: Tensor, goal: Tensor) -> Tensor:
    """One minus the cosine of each token, averaged over tokens (..., P, D) -> (...)."""
    return 1 - F.cosine_similarity(latents, goal, dim=-1).mean(dim=-1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1_distance,
    "l2": l2_distance,
    "cosine": cosine_distance,
}
METRIC = "metric"


class GoalCost:
    """Distance from imagined frames to the goal, at the last step or summed over steps.

    Args:
        distance: `l1`, `l2`, `cosine`, or `metric` for the learned temporal metric.
        over_steps: `last` scores the last imagined frame; `sum` the mean over all of them, which
            also rewards being early and staying there.
        metric: the metric, needed for `metric`.

    Raises:
        UnknownNameError: another distance; the nearest is named.
        SettingError: `metric` was asked for and none given, or `over_steps` is another word.
    """

    def __init__(
        self,
        *,
        distance: str,
        over_steps: Literal["last", "sum"],
        metric: TemporalMetric | None = None,
    ) -> None:
        if distance not in (*DISTANCES, METRIC):
            raise UnknownNameError("cost distance", distance, (*DISTANCES, METRIC))
        if distance == METRIC and metric is None:
            raise SettingError(
                "the cost `metric` needs a temporal metric: this world model has none"
            )
        if over_steps not in ("last", "sum"):
            raise SettingError(f"over_steps must be last or sum, got {over_steps!r}")
        self.distance = metric if distance == METRIC else DISTANCES[distance]
        self.over_steps = over_steps

    def __call__(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Score imagined latents (B, N, T, P, D) against goals (B, P, D); returns (B, N)."""
        if self.over_steps == "last":
            latents = latents[:, :, -1:]
        distance = self.distance(latents, goal[:, None, None])  # (B, N, T)
        return distance.mean(dim=-1)
