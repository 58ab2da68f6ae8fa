"""The protocol: heads on a share of the labels, chosen on validation, scored on test clips.

Shapes: K heads, M clips, V outputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from vjepa_wm.errors import SettingError
from vjepa_wm.probing.cache import Features
from vjepa_wm.probing.grid import HeadGrid, Setting
from vjepa_wm.probing.heads import RidgeHead
from vjepa_wm.probing.labels import Coding, Labels, Rows, Scores
from vjepa_wm.probing.splits import Splits
from vjepa_wm.progress import Progress, no_progress

MakeHead = Callable[[int, int], nn.Module]  # width D, outputs V


@dataclass(frozen=True)
class Schedule:
    """How long heads are trained.

    Attributes:
        epochs: Passes over the clips.
        min_steps: Optimiser steps at least, where there are few clips.
        batch_size: Clips per step.
    """

    epochs: int
    min_steps: int
    batch_size: int

    def __post_init__(self) -> None:
        """Refuse what trains nothing.

        Raises:
            SettingError: A number is too small.
        """
        if self.batch_size < 1 or self.epochs < 0 or self.min_steps < 0:
            raise SettingError(
                "batch_size must be at least 1, epochs and min_steps 0 or more, got "
                f"{self.batch_size}, {self.epochs} and {self.min_steps}"
            )
        if not (self.epochs or self.min_steps):
            raise SettingError("epochs and min_steps are both 0: heads would not be trained")

    def steps(self, clips: int) -> int:
        """Optimiser steps on so many clips."""
        return max(self.min_steps, self.epochs * math.ceil(clips / self.batch_size))


@dataclass(frozen=True)
class Outcome:
    """The best head of one grid.

    Attributes:
        encoder: Whose features it reads.
        percent: Share of the labels it was shown.
        draw: Which draw of them.
        clips: How many clips that was.
        setting: What it was trained with; None of a head that was solved.
        validation: The figure it was chosen by, on validation clips.
        scores: Its figures on test clips.
        told: Which test clips it got right (M,); None where that is no question of right or wrong.
    """

    encoder: str
    percent: float
    draw: int
    clips: int
    setting: Setting | None
    validation: float
    scores: Scores
    told: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class ProbeProtocol:
    """How heads are trained, chosen and scored.

    Attributes:
        make_head: Makes an untrained head.
        settings: Learning rates and decays, tried at once.
        schedule: How long.
        percents: Shares of the training labels.
        draws: Times each share is drawn; with all labels only start and order differ, and what is
            solved has neither: it is drawn once.
        seed: Of draws, starts and orders.
    """

    make_head: MakeHead
    settings: Sequence[Setting]
    schedule: Schedule
    percents: Sequence[float]
    draws: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse amounts that are none.

        Raises:
            SettingError: A share is not in (0, 100], or there is none of something.
        """
        if not self.percents or not all(0 < percent <= 100 for percent in self.percents):
            raise SettingError(
                f"percents: wanted numbers above 0, up to 100, got {list(self.percents)}"
            )
        if self.draws < 1:
            raise SettingError(f"draws: wanted at least 1, got {self.draws}")
        if not self.settings:
            raise SettingError("learning_rates and weight_decays: wanted at least one each")

    def run(
        self,
        features: Mapping[str, Features],
        labels: Labels,
        splits: Splits,
        *,
        progress: Progress = no_progress,
    ) -> list[Outcome]:
        """Train and score heads on every encoder, every share of the labels, every draw of them.

        All encoders get the same draws, the same starts where their widths agree, and the same
        batches. A smaller share of a draw is part of its larger ones.

        Args:
            features: Of each encoder, by name.
            labels: Of the clips.
            splits: Of the clips.
            progress: Makes the progress bar.

        Raises:
            SettingError: Every head of a grid diverged, or one that is solved would take more
                memory than it may.
        """
        heads = [self.make_head(own.width, labels.num_outputs) for own in features.values()]
        is_solved = any(isinstance(head, RidgeHead) for head in heads)
        shown = {
            (percent, draw): self._shown(labels, splits.train, percent, draw)
            for percent in self.percents
            # Of what is solved on all labels, no draw differs
            for draw in range(1 if is_solved and percent == 100 else self.draws)
        }
        if is_solved:
            most = max(len(rows) for rows in shown.values())
            for head, own in zip(heads, features.values(), strict=True):
                head.check_memory(most, own.numbers)
        # Of few clips small shares are the same ones: those of a draw are part of one another
        different = {(draw, len(rows)): rows for (_, draw), rows in shown.items()}
        steps = [1 if is_solved else self.schedule.steps(len(rows)) for rows in different.values()]
        total = len(features) * sum(steps)
        outcomes = []
        with progress(total=total, desc="train heads", unit="steps") as bar:
            for name, own in features.items():
                told = {
                    (draw, count): self._told(own, labels, splits._replace(train=rows), draw, bar)
                    for (draw, count), rows in different.items()
                }
                outcomes += [
                    Outcome(name, percent, draw, len(rows), *told[draw, len(rows)])
                    for (percent, draw), rows in shown.items()
                ]
        return outcomes

    def _told(
        self, own: Features, labels: Labels, splits: Splits, draw: int, bar: tqdm
    ) -> tuple[Setting | None, float, Scores, NDArray[np.bool_] | None]:
        """What the best head of these labels tells of the test clips: the end of an `Outcome`."""
        setting, validation, tested = self._best_head(own, labels, splits, self._start(draw), bar)
        scores = labels.coded(splits.train).scores(tested, splits.test)
        return setting, validation, scores, labels.told(tested, splits.test)

    def _shown(self, labels: Labels, rows: Rows, percent: float, draw: int) -> Rows:
        return labels.draw(rows, percent / 100, np.random.default_rng(self._start(draw)))

    def _start(self, draw: int) -> int:
        return 1000 * self.seed + draw

    def _best_head(
        self, features: Features, labels: Labels, splits: Splits, start: int, bar: tqdm
    ) -> tuple[Setting | None, float, Tensor]:
        """Find a head on a share of the labels; its setting, validation figure and test outputs."""
        head = self.make_head(features.width, labels.num_outputs)
        if isinstance(head, RidgeHead):
            return None, *self._solved(head, features, labels, splits, bar)
        return self._trained(features, labels, splits, start, bar)

    def _solved(
        self, head: RidgeHead, features: Features, labels: Labels, splits: Splits, bar: tqdm
    ) -> tuple[float, Tensor]:
        """Solve a head; validation figure and test outputs (M, V). Nothing is left to choose."""
        coding = labels.coded(splits.train)
        head.solve(features.take(splits.train), coding.values(splits.train))
        bar.update(1)

        def outputs(rows: Rows) -> Tensor:
            parts = np.array_split(rows, math.ceil(len(rows) / self.schedule.batch_size))
            return torch.cat([head(features.take(part)) for part in parts])

        validated = coding.scores(outputs(splits.validation), splits.validation)
        return validated[labels.metric], outputs(splits.test)

    def _trained(
        self, features: Features, labels: Labels, splits: Splits, start: int, bar: tqdm
    ) -> tuple[Setting, float, Tensor]:
        """Train a grid of heads; setting, validation figure and test outputs of the best."""
        grid = HeadGrid(
            lambda: self.make_head(features.width, labels.num_outputs),
            self.settings,
            seed=start,
            device=features.device,
        )
        coding, size = labels.coded(splits.train), self.schedule.batch_size
        grid.fit(
            features.take,
            coding.loss,
            splits.train,
            steps=self.schedule.steps(len(splits.train)),
            batch_size=size,
            seed=start,
            after_step=lambda: bar.update(1),
        )
        outputs = grid.outputs(features.take, splits.validation, batch_size=size)
        figures = [_figure(each, coding, splits.validation, labels.metric) for each in outputs]
        best = int(np.argmax(figures))
        if figures[best] == -math.inf:
            raise SettingError("every head diverged: try smaller learning_rates")
        tested = grid.outputs(features.take, splits.test, batch_size=size)[best]
        return grid.settings[best], figures[best], tested


def _figure(outputs: Tensor, coding: Coding, rows: Rows, metric: str) -> float:
    """What a head is chosen by; the least possible where it diverged."""
    return coding.scores(outputs, rows)[metric] if outputs.isfinite().all() else -math.inf
