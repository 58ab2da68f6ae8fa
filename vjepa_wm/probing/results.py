"""Outcomes of probes as a table, files and a chart.

Shapes: M test clips.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vjepa_wm.evaluation.charts import below, beside, curves
from vjepa_wm.evaluation.statistics import mean_interval
from vjepa_wm.files import atomic_path
from vjepa_wm.probing.labels import ACCURACY, SHARES
from vjepa_wm.probing.protocol import Outcome

RESAMPLES = 1000  # of the interval of a difference
HIDDEN = "rmse"  # figures in units of their own are in the files alone
CSV_COLUMNS = ("encoder", "percent", "draw", "clips", "metric", "value")
CSV_COLUMNS += ("learning_rate", "weight_decay", "validation")


@dataclass(frozen=True)
class Summary:
    """A figure over all draws.

    Attributes:
        encoder: Whose features were read.
        percent: Share of the labels.
        clips: Clips that was, on average over draws.
        metric: The figure.
        mean: Over draws.
        interval: Student's 95 % interval of that mean; None with one draw. It holds what draws,
            starts and orders change, not what other test clips would.
        draws: How many.
    """

    encoder: str
    percent: float
    clips: float
    metric: str
    mean: float
    interval: tuple[float, float] | None
    draws: int


def summarise(outcomes: Sequence[Outcome]) -> list[Summary]:
    """Average over draws, in the order of the outcomes."""
    groups: dict[tuple[str, float], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.encoder, outcome.percent), []).append(outcome)
    found = []
    for (encoder, percent), own in groups.items():
        for metric in own[0].scores:
            values = [outcome.scores[metric] for outcome in own]
            found.append(
                Summary(
                    encoder=encoder,
                    percent=percent,
                    clips=float(np.mean([outcome.clips for outcome in own])),
                    metric=metric,
                    mean=float(np.mean(values)),
                    interval=_mean_interval(values, metric) if len(values) > 1 else None,
                    draws=len(values),
                )
            )
    return found


def _mean_interval(values: Sequence[float], metric: str) -> tuple[float, float]:
    """Student's interval; that of a share ends where shares do."""
    low, high = mean_interval(values)
    return (max(low, 0.0), min(high, 1.0)) if metric in SHARES else (low, high)


@dataclass(frozen=True)
class Difference:
    """How much more often the first encoder's heads are right than another's, clip by clip.

    Attributes:
        encoder: The first.
        beside: The other.
        percent: Share of the labels.
        mean: Of the difference of both accuracies, over test clips and draws.
        interval: Bootstrapped 95 % interval: other test clips and other draws both change it.
    """

    encoder: str
    beside: str
    percent: float
    mean: float
    interval: tuple[float, float]


def differences(outcomes: Sequence[Outcome], *, seed: int = 0) -> list[Difference]:
    """Hold the first encoder beside each other one, where heads are right or wrong about clips."""
    encoder = outcomes[0].encoder
    told: dict[tuple[str, float], list[NDArray]] = {}
    for outcome in outcomes:
        if outcome.told is not None:
            told.setdefault((outcome.encoder, outcome.percent), []).append(outcome.told)
    found = []
    for (other, percent), right in told.items():
        if other != encoder:
            gained = np.stack(told[encoder, percent]).astype(float) - np.stack(right)  # (draws, M)
            interval = _two_way_interval(gained, seed=seed)
            found.append(Difference(encoder, other, percent, float(gained.mean()), interval))
    return found


def _two_way_interval(values: NDArray, *, seed: int) -> tuple[float, float]:
    """95 % interval of the mean of values (draws, clips), both of which are drawn anew."""
    rng = np.random.default_rng(seed)
    rows, columns = values.shape
    means = [
        values[rng.integers(rows, size=rows)][:, rng.integers(columns, size=columns)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def paired_table(found: Sequence[Difference]) -> str:
    """Lay differences out as text: a line per other encoder, a column per share."""
    percents = _distinct([difference.percent for difference in found])
    others = _distinct([difference.beside for difference in found])
    cells = {(d.beside, d.percent): _interval(d.mean, d.interval, sign="+") for d in found}
    title = f"{ACCURACY} of {found[0].encoder} less that of each, clip by clip"
    return "\n".join([title, *_block(cells, others, percents)])


def table(summaries: Sequence[Summary]) -> str:
    """Lay figures out as text: a block per figure, a line per encoder, a column per share."""
    percents = _distinct([summary.percent for summary in summaries])
    encoders = _distinct([summary.encoder for summary in summaries])
    lines = []
    for metric in _shown(summaries):
        own = [summary for summary in summaries if summary.metric == metric]
        cells = {(s.encoder, s.percent): _interval(s.mean, s.interval) for s in own}
        lines += [metric, *_block(cells, encoders, percents)]
    return "\n".join(lines)


def _block(
    cells: Mapping[tuple[str, float], str], names: Sequence[str], percents: Sequence[float]
) -> list[str]:
    """Lines of a table: a head, and a line per name."""
    width = max(len(name) for name in [*names, "labels"])
    column = max(len(cell) for cell in cells.values()) + 2
    lines = ["  " + "labels".ljust(width) + "".join(_percent(p).rjust(column) for p in percents)]
    for name in names:
        row = "".join(cells[name, percent].rjust(column) for percent in percents)
        lines.append(f"  {name.ljust(width)}{row}")
    return lines


def draw(summaries: Sequence[Summary]) -> Image.Image:
    """Draw each figure over the share of labels, one curve per encoder, two charts in a row."""
    percents = sorted(_distinct([summary.percent for summary in summaries]))
    encoders = _distinct([summary.encoder for summary in summaries])
    means = {(s.metric, s.encoder, s.percent): s.mean for s in summaries}
    charts = [
        curves(
            {name: [means[metric, name, percent] for percent in percents] for name in encoders},
            f"{metric} over the share of labels, 0 and up",
            ticks=[_percent(percent) for percent in percents],
        )
        for metric in _shown(summaries)
    ]
    return below([beside(charts[i : i + 2]) for i in range(0, len(charts), 2)])


def as_json(outcomes: Sequence[Outcome], paired: Sequence[Difference]) -> dict[str, Any]:
    """Return the outcomes and their differences for a file, but for who was right about which."""
    rows = [asdict(outcome) for outcome in outcomes]
    return {
        "summaries": [asdict(summary) for summary in summarise(outcomes)],
        "differences": [asdict(difference) for difference in paired],
        "outcomes": [{name: row[name] for name in row if name != "told"} for row in rows],
    }


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write one line per outcome and figure, atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for outcome in outcomes:
            where = (outcome.encoder, outcome.percent, outcome.draw, outcome.clips)
            setting = ("", "") if outcome.setting is None else astuple(outcome.setting)
            how = (*setting, outcome.validation)
            writer.writerows((*where, name, value, *how) for name, value in outcome.scores.items())


def _shown(summaries: Sequence[Summary]) -> list[str]:
    """Figures of the table and the chart."""
    return [m for m in _distinct([s.metric for s in summaries]) if not m.startswith(HIDDEN)]


def _interval(mean: float, interval: tuple[float, float] | None, *, sign: str = "") -> str:
    if interval is None:
        return f"{mean:{sign}.3f}"
    low, high = interval
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _percent(percent: float) -> str:
    return f"{percent:g} %"


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Each value once, in the order of their first."""
    return list(dict.fromkeys(values))
