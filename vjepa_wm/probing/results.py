"""Outcomes of probes as a table, files and a chart."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vjepa_wm.evaluation.charts import below, beside, curves
from vjepa_wm.evaluation.statistics import mean_interval
from vjepa_wm.files import atomic_path
from vjepa_wm.probing.protocol import Outcome

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
                    interval=mean_interval(values) if len(values) > 1 else None,
                    draws=len(values),
                )
            )
    return found


def table(summaries: Sequence[Summary]) -> str:
    """Lay figures out as text: a block per figure, a line per encoder, a column per share."""
    percents = _distinct([summary.percent for summary in summaries])
    encoders = _distinct([summary.encoder for summary in summaries])
    cells = {(s.metric, s.encoder, s.percent): _cell(s) for s in summaries}
    width = max(len(name) for name in [*encoders, "labels"])
    column = max(len(cell) for cell in cells.values()) + 2
    head = "labels".ljust(width) + "".join(_percent(p).rjust(column) for p in percents)
    lines = []
    for metric in _shown(summaries):
        lines += [metric, f"  {head}"]
        for name in encoders:
            row = "".join(cells[metric, name, percent].rjust(column) for percent in percents)
            lines.append(f"  {name.ljust(width)}{row}")
    return "\n".join(lines)


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


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything about the outcomes, for a file."""
    return {
        "summaries": [asdict(summary) for summary in summarise(outcomes)],
        "outcomes": [asdict(outcome) for outcome in outcomes],
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


def _cell(summary: Summary) -> str:
    if summary.interval is None:
        return f"{summary.mean:.3f}"
    low, high = summary.interval
    return f"{summary.mean:.3f} [{low:.3f}, {high:.3f}]"


def _percent(percent: float) -> str:
    return f"{percent:g} %"


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Each value once, in the order of their first."""
    return list(dict.fromkeys(values))
