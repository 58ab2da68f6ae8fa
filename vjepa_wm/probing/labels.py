"""What heads are to tell of clips: their class, or the simulator's state at their end.

Shapes: N clips, K heads, B clips of a batch, M clips scored, V outputs, S sim_state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vjepa_wm.evaluation.probes import Targets, score

Rows = NDArray[np.int64]
Scores = dict[str, float]

TOP = 5  # classes among which the true one may be, beside the first
ACCURACY = "accuracy"
AMONG_FIRST = f"top {TOP}"
SHARES = (ACCURACY, AMONG_FIRST)  # figures that are shares of the clips
MEAN_R2 = "R2 mean"


class Coding(Protocol):
    """Labels as numbers that a loss compares with outputs."""

    def loss(self, outputs: Tensor, rows: Rows) -> Tensor:
        """Loss of each head (K,) on outputs (K, B, V) for clips (B,)."""

    def values(self, rows: Rows) -> NDArray[np.float64]:
        """Outputs (B, V) that a head with squared error is to give for clips (B,)."""

    def scores(self, outputs: Tensor, rows: Rows) -> Scores:
        """Figures of one head's outputs (M, V) on clips (M,), higher is better but for rmse."""


class Labels(Protocol):
    """Labels of N clips.

    Attributes:
        num_outputs: Outputs V of a head.
        metric: The figure that heads are chosen by; higher is better.
    """

    num_outputs: int
    metric: str

    def coded(self, rows: Rows) -> Coding:
        """Return them with the scale of the clips `rows`, the only labels a head is shown."""

    def draw(self, rows: Rows, share: float, rng: np.random.Generator) -> Rows:
        """Choose a share of some clips; a smaller share of the same draw is part of a larger."""

    def shuffled(self, splits: Sequence[Rows], rng: np.random.Generator) -> Self:
        """Return a control: within each split, clips get the labels of others."""

    def chance(self, rows: Rows) -> float:
        """The metric on some clips of always answering the same."""

    def told(self, outputs: Tensor, rows: Rows) -> NDArray[np.bool_] | None:
        """Which clips (M,) outputs (M, V) are right about; None where there is no right answer."""


@dataclass(frozen=True)
class ClassLabels:
    """Classes of clips.

    Attributes:
        classes: Their names.
        labels: Of each clip (N,).
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    metric = ACCURACY

    @property
    def num_outputs(self) -> int:
        """One output per class."""
        return len(self.classes)

    def coded(self, rows: Rows) -> Self:
        """Classes need no scale."""
        return self

    def draw(self, rows: Rows, share: float, rng: np.random.Generator) -> Rows:
        """Choose the same share of every class, at least one clip of each."""
        order = rng.permutation(rows)
        chosen = []
        for label in np.unique(self.labels[rows]):
            own = order[self.labels[order] == label]
            chosen.append(own[: max(1, round(share * len(own)))])
        return np.sort(np.concatenate(chosen))

    def shuffled(self, splits: Sequence[Rows], rng: np.random.Generator) -> Self:
        """Return a control: within each split, clips get the classes of others."""
        return replace(self, labels=_shuffle(self.labels, splits, rng))

    def chance(self, rows: Rows) -> float:
        """Share of the commonest class among some clips."""
        return float(np.bincount(self.labels[rows]).max() / len(rows))

    def told(self, outputs: Tensor, rows: Rows) -> NDArray[np.bool_]:
        """Which clips (M,) have their class first in outputs (M, V)."""
        return outputs.argmax(dim=1).numpy() == self.labels[rows]

    def loss(self, outputs: Tensor, rows: Rows) -> Tensor:
        """Cross-entropy of each head (K,) on outputs (K, B, V) for clips (B,)."""
        wanted = torch.from_numpy(self.labels[rows]).to(outputs.device)
        each = F.cross_entropy(
            outputs.transpose(1, 2), wanted.expand(len(outputs), -1), reduction="none"
        )
        return each.mean(dim=1)

    def values(self, rows: Rows) -> NDArray[np.float64]:
        """1 for the class of each clip, 0 for the others (B, V)."""
        return np.eye(self.num_outputs)[self.labels[rows]]

    def scores(self, outputs: Tensor, rows: Rows) -> Scores:
        """Share of clips (M,) whose class is first; among the first five where there are more."""
        wanted = torch.from_numpy(self.labels[rows]).unsqueeze(1)
        found = {ACCURACY: float(self.told(outputs, rows).mean())}
        if self.num_outputs > TOP:
            among = (outputs.topk(TOP, dim=1).indices == wanted).any(dim=1)
            found[AMONG_FIRST] = float(among.float().mean())
        return found


@dataclass(frozen=True)
class StateLabels:
    """The simulator's state at the end of each clip.

    Attributes:
        targets: What of it is to be told.
        sim_state: (N, S).
        episodes: Which episode each clip is from (N,).
    """

    targets: Targets
    sim_state: NDArray[np.float64]
    episodes: NDArray[np.int64]
    metric = MEAN_R2

    @property
    def num_outputs(self) -> int:
        """One output per value; an angle has two, cosine and sine."""
        return self.targets.values(self.sim_state[:1]).shape[1]

    def coded(self, rows: Rows) -> "_ScaledStates":
        """Standardise all values by mean and deviation over the clips `rows`."""
        values = self.targets.values(self.sim_state)
        spread = values[rows].std(axis=0)
        # What never changes among these clips stays in its own unit
        spread = np.where(spread > 1e-9, spread, 1.0)
        return _ScaledStates(self, values[rows].mean(axis=0), spread)

    def draw(self, rows: Rows, share: float, rng: np.random.Generator) -> Rows:
        """Choose the clips of a share of the episodes, at least two episodes."""
        order = rng.permutation(np.unique(self.episodes[rows]))
        chosen = order[: max(2, round(share * len(order)))]
        return rows[np.isin(self.episodes[rows], chosen)]

    def shuffled(self, splits: Sequence[Rows], rng: np.random.Generator) -> Self:
        """Return a control: within each split, clips get the states of others."""
        return replace(self, sim_state=_shuffle(self.sim_state, splits, rng))

    def chance(self, rows: Rows) -> float:
        """0: R2 of always answering the mean."""
        return 0.0

    def told(self, outputs: Tensor, rows: Rows) -> None:
        """A state is told more or less well."""


@dataclass(frozen=True)
class _ScaledStates:
    """States whose values have mean 0 and deviation 1 over the clips a head is shown."""

    labels: StateLabels
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    def loss(self, outputs: Tensor, rows: Rows) -> Tensor:
        """Mean squared error of each head (K,) on outputs (K, B, V) for clips (B,)."""
        wanted = torch.from_numpy(self.values(rows))
        wanted = wanted.to(device=outputs.device, dtype=outputs.dtype)
        return (outputs - wanted).square().mean(dim=(1, 2))

    def values(self, rows: Rows) -> NDArray[np.float64]:
        """Scaled values of clips (B, V)."""
        return (self.labels.targets.values(self.labels.sim_state[rows]) - self.mean) / self.spread

    def scores(self, outputs: Tensor, rows: Rows) -> Scores:
        """R2 of each target and their mean; root mean squared error in the target's unit."""
        predicted = outputs.double().numpy() * self.spread + self.mean
        r2, rmse = score(self.labels.targets, predicted, self.labels.sim_state[rows])
        found = {MEAN_R2: float(np.mean(list(r2.values())))}
        found |= {f"R2 {name}": value for name, value in r2.items()}
        return found | {f"rmse {name}": value for name, value in rmse.items()}


def _shuffle(labels: NDArray, splits: Sequence[Rows], rng: np.random.Generator) -> NDArray:
    """Permute labels (N, ...) within each split."""
    shuffled = labels.copy()
    for rows in splits:
        shuffled[rows] = labels[rng.permutation(rows)]
    return shuffled
