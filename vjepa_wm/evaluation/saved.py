"""Reads what `evaluate` saved: the summary, and the episodes of each agent."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.report import EPISODES_FILE, SUMMARY_FILE
from vjepa_wm.files import read_json

# What reading a value of another kind than expected raises.
DAMAGES = (AttributeError, KeyError, TypeError, ValueError, csv.Error)


@dataclass(frozen=True)
class EpisodeLine:
    """One line of ``episodes.csv``.

    Attributes:
        agent: Whose episode it is.
        number: Which of the agent's episodes, from 0.
        seed: Of its task.
        is_success: Whether the goal was reached.
        steps: Environment steps taken.
        fault: Why it was stopped, or "".
        start: Criterion name -> distance at the start; empty where that was not recorded.
        final: Criterion name -> distance at the end.
        best: Criterion name -> smallest distance.
        cells: All columns as they are written.
    """

    agent: str
    number: int
    seed: int
    is_success: bool
    steps: int
    fault: str
    start: Mapping[str, float]
    final: Mapping[str, float]
    best: Mapping[str, float]
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Saved:
    """What `evaluate` left in a folder.

    Attributes:
        summary: Contents of ``summary.json``.
        episodes: Agent -> its lines.
    """

    summary: Mapping[str, Any]
    episodes: Mapping[str, Sequence[EpisodeLine]]


def read_saved(folder: Path) -> Saved:
    """Read an evaluation.

    Raises:
        DataError: A file is missing, damaged or of something else; it says which.
    """
    missing = [name for name in (SUMMARY_FILE, EPISODES_FILE) if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} has no {' and no '.join(missing)}: wanted a folder that "
            "python -m vjepa_wm.evaluate has finished"
        )
    summary = read_json(folder / SUMMARY_FILE)
    try:
        return Saved(summary, _episodes(folder, summary))
    except DAMAGES as error:
        raise not_evaluate(folder, error) from error


def not_evaluate(folder: Path, error: Exception) -> DataError:
    """Return what to raise where a file of the folder is not what it should be."""
    return DataError(f"{folder} is not what evaluate writes: {error!r} in its files")


def _episodes(folder: Path, summary: Mapping[str, Any]) -> dict[str, list[EpisodeLine]]:
    """Read the episodes of each agent of the summary."""
    with (folder / EPISODES_FILE).open(newline="", encoding="utf-8") as file:
        lines = [_episode(cells) for cells in csv.DictReader(file, strict=True)]
    found = {row["agent"]: [e for e in lines if e.agent == row["agent"]] for row in summary["rows"]}
    for row in summary["rows"]:
        if not len(found[row["agent"]]) == row["episodes"] > 0:
            raise DataError(
                f"{folder}: {EPISODES_FILE} has {len(found[row['agent']])} episodes of "
                f"{row['agent']}, {SUMMARY_FILE} says {row['episodes']}: one of them is not of "
                "this run or cut off"
            )
    if not found:
        raise DataError(f"{folder}: {SUMMARY_FILE} names no agent")
    return found


def _episode(cells: Mapping[str, str]) -> EpisodeLine:
    if None in cells or None in cells.values():
        raise ValueError(f"a line with {len(cells)} columns is cut off or too long")

    def distances(kind: str) -> dict[str, float]:
        return {
            name.removeprefix(kind): float(cell)
            for name, cell in cells.items()
            if name.startswith(kind) and cell
        }

    return EpisodeLine(
        agent=cells["agent"],
        number=int(cells["episode"]),
        seed=int(cells["seed"]),
        is_success=cells["is_success"] == "1",
        steps=int(cells["steps"]),
        fault=cells["fault"],
        start=distances("start_"),
        final=distances("final_"),
        best=distances("best_"),
        cells=dict(cells),
    )
