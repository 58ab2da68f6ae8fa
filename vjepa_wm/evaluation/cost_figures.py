"""Whether costs order frames by their true distance to a goal.

Shapes: F samples, H W image, S sim_state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.findings import Finding
from vjepa_wm.evaluation.simulator import Simulator
from vjepa_wm.evaluation.statistics import bootstrap_interval, rate_interval, spearman
from vjepa_wm.progress import Progress, no_progress

PLANNED = "planning cost"  # what plans are made with; the other costs stand beside it
NEAR = 3.0  # thresholds from the goal, within which the last part of a way is decided
MIN_GAP = 0.25  # thresholds; which of two frames is nearer is asked where they differ by more
MIN_PAIRS = 10
GOOD_CORRELATION = 0.5
GOOD_ORDER = 0.75

Interval = tuple[float, float]


@dataclass(frozen=True)
class Triples:
    """Two frames of an episode some steps apart, and a third that is the goal.

    Attributes:
        pixels: uint8 (F, 3, H, W, 3): the earlier, the later, the goal.
        distance: True distances of the first two to the goal (F, 2), in thresholds.
        episodes: Which episode each is of (F,).
    """

    pixels: NDArray[np.uint8]
    distance: NDArray[np.float64]
    episodes: NDArray[np.int64]


def draw_triples(
    trajectories: Trajectories,
    simulator: Simulator,
    *,
    count: int,
    apart: int,
    seed: int,
    progress: Progress = no_progress,
) -> Triples:
    """Draw triples from held-out episodes, every frame of an episode alike.

    Args:
        trajectories: What to draw from.
        simulator: Measures distances.
        count: Number of triples F.
        apart: Steps between the first two frames.
        seed: Of the draw.
        progress: Makes the progress bar.

    Raises:
        DataError: No held-out episode is long enough.
    """
    rng = np.random.default_rng(seed)
    _, held_out = trajectories.split()
    long = [int(e) for e in held_out if trajectories.lengths[e] > apart]
    if not long:
        raise DataError(f"no held-out episode has more than {apart} frames")
    pixels, distance, episodes = [], [], []
    with progress(total=count, desc="measure distances", unit="triples") as bar:
        for _ in range(count):
            episodes.append(int(rng.choice(long)))
            episode = trajectories.episode(episodes[-1])
            first = int(rng.integers(len(episode.pixels) - apart))
            rows = [first, first + apart, int(rng.integers(len(episode.pixels)))]
            states = episode.sim_state[rows]
            pixels.append(episode.pixels[rows])
            distance.append(simulator.distances(states[:2], states[[2, 2]]))
            bar.update(1)
    return Triples(np.stack(pixels), np.stack(distance), np.array(episodes))


@dataclass(frozen=True)
class CostRow:
    """How well one cost orders frames.

    Attributes:
        correlation: Spearman's, with true distance, over all pairs.
        correlation_interval: Bootstrapped over episodes.
        near: The same among pairs near each other; None where there are too few.
        near_interval: Likewise.
        order: How often the nearer of two frames costs less.
        order_interval: The wider of Wilson's and the one bootstrapped over episodes.
    """

    correlation: float
    correlation_interval: Interval
    near: float | None
    near_interval: Interval | None
    order: float | None
    order_interval: Interval | None


@dataclass(frozen=True)
class CostFigure:
    """How well costs order frames by their true distance to a goal frame.

    Attributes:
        pairs: Pairs of frame and goal, of one episode each.
        near_pairs: Those less than `NEAR` thresholds apart.
        ordered_pairs: Pairs of frames `apart` steps apart, one of which is clearly nearer.
        apart: Those steps.
        rows: Cost -> its figures; `pixels` is the mean squared difference of the pictures. Only
            `PLANNED` can be bad.
    """

    title: ClassVar[str] = "costs: do they order frames by true distance?"
    advice: ClassVar[str] = (
        "plan with a cost that orders better (cost=...); if even the metric is bad, train it "
        "longer (metric_trainer.minutes) or on longer pieces (metric_frames); if the probe is bad "
        "as well, it is the encoder"
    )
    pairs: int
    near_pairs: int
    ordered_pairs: int
    apart: int
    rows: dict[str, CostRow]

    def findings(self) -> list[Finding]:
        """One line per cost: how often the nearer frame costs less."""
        found = []
        for name, row in self.rows.items():
            beside = {"rank correlation": row.correlation}
            if row.near is not None:
                beside["near the goal"] = row.near
            is_bad = name == PLANNED and (
                row.correlation < GOOD_CORRELATION
                or (row.order is not None and row.order < GOOD_ORDER)
            )
            if row.order is None:
                found.append(
                    Finding(
                        f"{name}: rank correlation",
                        row.correlation,
                        is_bad,
                        row.correlation_interval,
                        beside,
                    )
                )
            else:
                label = f"{name}: nearer frame costs less"
                found.append(Finding(label, row.order, is_bad, row.order_interval, beside))
        return found


def cost_figure(
    costs: Mapping[str, NDArray],
    distance: NDArray,
    *,
    episodes: NDArray,
    apart: int,
    seed: int,
) -> CostFigure:
    """Compare costs with true distances.

    Args:
        costs: Name -> cost of both frames of each triple (F, 2).
        distance: Their true distances to the goal (F, 2), in thresholds.
        episodes: Which episode each triple is of (F,): those of one are not independent.
        apart: Steps between the two frames.
        seed: Of the bootstrap.
    """
    is_near = distance[:, 0] < NEAR
    is_clear = np.abs(distance[:, 0] - distance[:, 1]) > MIN_GAP
    rows = {}
    for name, cost in costs.items():
        near, near_interval, order, order_interval = None, None, None, None
        if is_near.sum() >= MIN_PAIRS:
            near, near_interval = _correlation(
                cost[is_near, 0], distance[is_near, 0], episodes[is_near], seed=seed
            )
        if is_clear.sum() >= MIN_PAIRS:
            is_later_nearer = distance[is_clear, 1] < distance[is_clear, 0]
            is_right = (cost[is_clear, 1] < cost[is_clear, 0]) == is_later_nearer
            order = float(is_right.mean())
            order_interval = rate_interval(is_right, groups=episodes[is_clear], seed=seed)
        correlation = _correlation(cost[:, 0], distance[:, 0], episodes, seed=seed)
        rows[name] = CostRow(*correlation, near, near_interval, order, order_interval)
    return CostFigure(len(distance), int(is_near.sum()), int(is_clear.sum()), apart, rows)


def _correlation(
    cost: NDArray, distance: NDArray, episodes: NDArray, *, seed: int
) -> tuple[float, Interval]:
    """Spearman's of costs and distances (F,), and its bootstrap interval over episodes."""
    interval = bootstrap_interval(spearman, cost, distance, groups=episodes, seed=seed)
    return spearman(cost, distance), interval
