"""Encoders beside each other: the goals reached on them, and what else tells them apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa_wm.checkpoint import CONFIG
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.comparison import Entry, difference, read_run
from vjepa_wm.evaluation.cost_figures import PLANNED
from vjepa_wm.evaluation.statistics import wilson_interval
from vjepa_wm.evaluation.sweeps import AGENT
from vjepa_wm.evaluation.tables import aligned
from vjepa_wm.files import read_json


@dataclass(frozen=True)
class Measured:
    """One number.

    Attributes:
        value: The number.
        interval: 95 %, where there is one.
        is_share: Whether it is shown in percent.
    """

    value: float
    interval: tuple[float, float] | None = None
    is_share: bool = False

    def __str__(self) -> str:
        values = [self.value, *(self.interval or ())]
        shown = [f"{100 * v:.0f}" if self.is_share else f"{v:.2f}" for v in values]
        return shown[0] + (f" [{shown[1]}, {shown[2]}]" if self.interval else "")


Row = dict[str, Measured]  # what it is -> the number


def encoder_rows(folders: Mapping[str, Path], levels: Sequence[str], diagnosis: str) -> list[Row]:
    """Read what was measured with each encoder.

    Args:
        folders: Encoder -> folder with its world model in `model`, an evaluation per level, and a
            diagnosis. The first one is what others are held against.
        levels: Names of the evaluations' folders.
        diagnosis: File with the figures of the diagnosis, below each folder.

    Returns:
        A row per encoder, in the same order.

    Raises:
        DataError: Something is missing or damaged; it says which.
    """
    entries = [[agent_of(folder / level) for level in levels] for folder in folders.values()]
    rows = []
    for folder, own in zip(folders.values(), entries, strict=True):
        row: Row = {}
        for level, first, entry in zip(levels, entries[0], own, strict=True):
            row |= success(level, entry, first)
        row |= predictor_errors(read_json(folder / "model" / CONFIG)["figures"]["predictor"])
        row |= dict(diagnosed(read_json(folder / diagnosis)["figures"]))
        rows.append(row)
    return rows


def agent_of(folder: Path) -> Entry:
    """Read the row of the agent that plans."""
    for entry in read_run(folder):
        if entry.agent == AGENT:
            return entry
    raise DataError(f"{folder}: wanted an evaluation of {AGENT}, got none")


def success(level: str, entry: Entry, first: Entry) -> Row:
    """Share of the goals reached, and its difference to that with the first encoder."""
    count = len(entry.success)
    interval = wilson_interval(entry.successes, count)
    row = {f"{level} goals, %": Measured(entry.successes / count, interval, is_share=True)}
    if entry is not first and (found := difference(first, entry).success) is not None:
        mean, low, high = found
        row[f"{level} goals, % more than the first"] = Measured(mean, (low, high), is_share=True)
    return row


def predictor_errors(figures: Mapping[str, float]) -> Row:
    """Open-loop errors at the first and the last step, as shares of copy-last-frame's.

    Latents of two encoders differ in scale and in how much of them moves: their errors themselves
    cannot be compared.
    """
    horizon = sum(name.endswith("_true") for name in figures)
    return {
        f"error / copy's, step {k}": Measured(figures[f"h{k}_true"] / figures[f"h{k}_copy"])
        for k in sorted({1, horizon})
    }


def diagnosed(figures: Mapping[str, Any]) -> Iterator[tuple[str, Measured]]:
    """Yield what a diagnosis found, as far as it was asked for."""
    if "counterfactual" in figures:
        numbers = figures["counterfactual"]["numbers"]
        chance = 100 / numbers["num_actions"]
        for name, steps in (("first", 1), ("last", numbers["steps"])):
            rate, interval = numbers[name]["rate"], tuple(numbers[name]["interval"])
            label = f"own outcome nearest (chance {chance:.0f} %), step {steps}, %"
            yield label, Measured(rate, interval, is_share=True)
    if "costs" in figures:
        for cost in (PLANNED, "l2"):
            found = figures["costs"]["numbers"]["rows"][cost]
            for name, part in (("", "correlation"), (" near the goal", "near")):
                if found[part] is not None:
                    interval = tuple(found[f"{part}_interval"])
                    label = f"rank correlation of {cost} with true distance{name}"
                    yield label, Measured(found[part], interval)
    if "probe" in figures:
        for target, r2 in figures["probe"]["numbers"]["r2"].items():
            yield f"R2 of {target}", Measured(r2)


def table(names: Sequence[str], rows: Sequence[Row]) -> str:
    """Lay encoders out side by side, a line for each number."""
    # The first row has no differences to the first: the order of labels is that of the others
    labels = dict.fromkeys(label for row in reversed(rows) for label in row)
    lines = [[label, *(str(row.get(label, "-")) for row in rows)] for label in labels]
    return aligned([["", *names], *lines])
