"""Counterfactual accuracy: is an imagined frame nearest to what its own actions really lead to?

Shapes: B states, K actions tried from each, T imagined steps, P tokens, D latent width, A action
width, F transitions.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.diagnostics import Windows
from vjepa_wm.evaluation.findings import Finding
from vjepa_wm.evaluation.probes import Probe, fit_probe
from vjepa_wm.evaluation.simulator import Simulator
from vjepa_wm.evaluation.statistics import rate_interval
from vjepa_wm.progress import Progress, no_progress
from vjepa_wm.world_model import WorldModel

GOOD_RATE = 0.8
COMPONENTS = 32  # of the latents, that the bilinear floor predicts


class Trials(NamedTuple):
    """What several actions from the same states really lead to.

    Attributes:
        actions: (B, K, T, A), each held to the end; as often side by side as a step has actions.
        pixels: uint8 (B, K, 2, H, W, 3) after the first and after the last step.
    """

    actions: Tensor
    pixels: NDArray[np.uint8]


def try_actions(
    windows: Windows,
    simulator: Simulator,
    *,
    low: NDArray,
    high: NDArray,
    num_actions: int,
    seed: int,
    progress: Progress = no_progress,
) -> Trials:
    """Simulate random actions from the last observed frame of every window.

    Args:
        windows: Where to start from.
        simulator: Knows what happens.
        low: Smallest action (A,).
        high: Largest action (A,).
        num_actions: K, drawn uniformly and held for as many steps as the windows go on.
        seed: Of the actions.
        progress: Makes the progress bar.

    Raises:
        DataError: Fewer than two actions are to be tried.
    """
    if num_actions < 2:
        raise DataError(f"actions to choose from: wanted at least 2, got {num_actions}")
    rng = np.random.default_rng(seed)
    horizon = windows.latents.shape[1] - windows.context_len
    drawn = rng.uniform(low, high, (len(windows), num_actions, 1, len(low))).astype(np.float32)
    per_step = windows.actions.shape[-1] // len(low)
    actions = np.tile(drawn, (1, 1, horizon, per_step))
    pixels = []
    states = windows.sim_state[:, windows.context_len - 1]
    with progress(total=len(windows), desc="try actions", unit="states") as bar:
        for state, tried in zip(states, actions, strict=True):
            pixels.append(simulator.outcomes(state, tried)[0][:, [0, -1]])
            bar.update(1)
    return Trials(torch.from_numpy(actions), np.stack(pixels))


def nearest_is_own(imagined: Tensor, outcomes: Tensor) -> Tensor:
    """Say whether imagined frames are nearest to their own outcome, ties included.

    Args:
        imagined: (B, K, ...).
        outcomes: (B, K, ...), of the same actions in the same order.

    Returns:
        (B, K) bool.
    """
    distance = torch.cdist(imagined.flatten(2), outcomes.flatten(2))  # (B, K, K)
    own = distance.diagonal(dim1=1, dim2=2)
    return own <= distance.min(dim=2).values


@dataclass(frozen=True)
class Rate:
    """How often imagined frames are nearest to their own outcome.

    Attributes:
        rate: In [0, 1].
        interval: The wider of Wilson's, as if each state were one trial (its actions are not
            independent), and the one bootstrapped over episodes (states of one are not either).
    """

    rate: float
    interval: tuple[float, float]


def rate_of(is_own: Tensor, episodes: NDArray, *, seed: int) -> Rate:
    """Average over states and actions (B, K); episodes (B,) say which one each state is of."""
    shares = is_own.double().mean(dim=1).numpy()  # (B,)
    return Rate(float(shares.mean()), rate_interval(shares, groups=episodes, seed=seed))


@dataclass(frozen=True)
class CounterfactualFigure:
    """Same state, K actions: whose outcome is each imagined frame nearest to?

    Attributes:
        states: Number of states.
        num_actions: K.
        steps: How long actions are held in `last`.
        first: The model after one step.
        last: The model after all steps.
        copy: The last observed frame instead of an imagined one, after one step.
        bilinear: A bilinear map of the same latents' main components, after one step.
        random_bilinear: The same for an encoder with random weights.
    """

    title: ClassVar[str] = "counterfactual: is the imagined frame nearest to its own outcome?"
    advice: ClassVar[str] = (
        "near chance, actions are ignored (see actions); no better than bilinear, the predictor "
        "has not learned more than the simplest map: train it longer; good at step 1 only, it "
        "drifts: raise rollout_steps"
    )
    states: int
    num_actions: int
    steps: int
    first: Rate
    last: Rate
    copy: Rate
    bilinear: Rate
    random_bilinear: Rate

    def findings(self) -> list[Finding]:
        """After one step beside the floors, and after all of them."""
        floor = max(self.bilinear.rate, self.random_bilinear.rate)
        return [
            Finding(
                f"nearest of {self.num_actions}, step 1",
                self.first.rate,
                self.first.rate < max(GOOD_RATE, floor),
                self.first.interval,
                {
                    "copy": self.copy.rate,
                    "bilinear": self.bilinear.rate,
                    "bilinear on random encoder": self.random_bilinear.rate,
                },
            ),
            Finding(
                f"nearest of {self.num_actions}, step {self.steps}",
                self.last.rate,
                self.last.rate < GOOD_RATE,
                self.last.interval,
                {"chance": 1 / self.num_actions},
            ),
        ]


@torch.no_grad()
def imagine_trials(world_model: WorldModel, windows: Windows, actions: Tensor) -> Tensor:
    """Imagine actions (B, K, T, A): frames after the first and the last step (B, K, 2, P, D)."""
    device = next(world_model.parameters()).device
    parts = []
    for rows in torch.arange(len(windows)).split(16):
        imagined = windows.observe(world_model, rows).rollout(actions[rows].to(device))
        parts.append(imagined[:, :, [0, -1]].cpu())
    return torch.cat(parts)


class Bilinear:
    """The simplest dynamics that depend on state and action: a floor for predictors.

    Main components of the latents change by a linear map of themselves, of the action, and of the
    products of both.

    Args:
        latents: Frame before and after (F, 2, P, D).
        actions: Taken between them (F, A).
    """

    def __init__(self, latents: Tensor, actions: Tensor) -> None:
        flat = latents.flatten(2)
        self._mean = flat.mean(dim=(0, 1))
        gram_vectors = torch.linalg.svd(flat[:, 0] - self._mean, full_matrices=False).Vh
        self._basis = gram_vectors[:COMPONENTS].T
        before, after = self.components(latents[:, 0]), self.components(latents[:, 1])
        change = (after - before).double().numpy()
        self._map: Probe = fit_probe(_products(before, actions).unsqueeze(1), change)

    def components(self, latents: Tensor) -> Tensor:
        """Return the main components (..., C) of latents (..., P, D)."""
        return (latents.flatten(-2) - self._mean) @ self._basis

    def next(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Predict components (B, K, C) after actions (B, K, A) from latents (B, P, D)."""
        before = self.components(latents).unsqueeze(1).expand(-1, actions.shape[1], -1)
        change = self._map.predict(_products(before, actions).unsqueeze(-2))
        return before + torch.from_numpy(change).float()


def _products(components: Tensor, actions: Tensor) -> Tensor:
    """Return (..., C + A + C * A) components, actions and their products."""
    products = (components.unsqueeze(-1) * actions.unsqueeze(-2)).flatten(-2)
    return torch.cat([components, actions, products], dim=-1)


def bilinear_is_own(
    transitions: tuple[Tensor, Tensor], latents: Tensor, actions: Tensor, outcomes: Tensor
) -> Tensor:
    """Say whether what the bilinear floor predicts is nearest to its own outcome (B, K).

    Args:
        transitions: Latents (F, 2, P, D) and actions (F, A) it is fitted on.
        latents: Of the states (B, P, D).
        actions: Tried from them for one step (B, K, A).
        outcomes: Latents of what came of it (B, K, P, D).
    """
    floor = Bilinear(*transitions)
    return nearest_is_own(floor.next(latents, actions), floor.components(outcomes))
