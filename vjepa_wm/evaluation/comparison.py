"""Puts evaluation runs side by side: who is better on the same tasks, and by how much."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.report import EPISODES_FILE, SUMMARY_FILE
from vjepa_wm.evaluation.statistics import PairedDifference, paired_bootstrap, wilson_interval
from vjepa_wm.files import read_json

_NOT_SETTINGS = {"agent", "episodes", "pictures"}  # said elsewhere in the table


@dataclass(frozen=True)
class Entry:
    """One agent of one run.

    Attributes:
        name: Folder of the run, and the agent.
        env: Environment.
        level: Difficulty.
        tasks: Digest of the list of tasks; "" for tasks that were drawn.
        success: Seed of each task -> whether its goal was reached.
        touched: How many goals were within all thresholds at some step; None in runs of versions
            that did not note it.
        faults: Episodes stopped before their time.
        settings: Options of the run, flat: ``planner.horizon`` -> 6.
    """

    name: str
    env: str
    level: str
    tasks: str
    success: Mapping[int, bool]
    touched: int | None
    faults: int
    settings: Mapping[str, object]

    @property
    def successes(self) -> int:
        """How many goals were reached."""
        return sum(self.success.values())


@dataclass(frozen=True)
class Difference:
    """What an entry has over the first of its group, on the tasks of both.

    Attributes:
        shared: Number of those tasks.
        gained: Tasks that only this entry solves.
        lost: Tasks that only the first solves.
        success: Difference of the success rates; None with fewer than two tasks.
        settings: Options that differ: name -> (value of the first, value of this).
    """

    shared: int
    gained: int
    lost: int
    success: PairedDifference | None
    settings: dict[str, tuple[object, object]]


def read_run(folder: Path) -> list[Entry]:
    """Read what `evaluate` wrote.

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
        with (folder / EPISODES_FILE).open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        return [_entry(folder, summary, row, lines) for row in summary["rows"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder} is not what evaluate writes: {error!r} in its files") from error


def _entry(
    folder: Path,
    summary: Mapping[str, Any],
    row: Mapping[str, Any],
    lines: Sequence[Mapping[str, str]],
) -> Entry:
    """Build the entry of one row of the summary from the lines of all episodes."""
    own = [line for line in lines if line["agent"] == row["agent"]]
    if len(own) != row["episodes"]:
        raise DataError(
            f"{folder}: {EPISODES_FILE} has {len(own)} episodes of {row['agent']}, {SUMMARY_FILE} "
            f"says {row['episodes']}: one of them is not of this run"
        )
    digests = dict(summary["digests"])
    has_touched = all("is_touched" in line for line in own)
    return Entry(
        name=f"{folder}:{row['agent']}",
        env=summary["env"],
        level=summary["level"],
        tasks=digests.pop("tasks"),
        success={int(line["seed"]): line["is_success"] == "1" for line in own},
        touched=sum(line["is_touched"] == "1" for line in own) if has_touched else None,
        faults=row["faults"],
        settings=dict(_flat({**summary["config"], "digest": digests})),
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if not prefix and key in _NOT_SETTINGS:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def difference(first: Entry, other: Entry, *, seed: int = 0) -> Difference:
    """Compare two entries task by task; the interval is a paired bootstrap over tasks."""
    shared = (
        sorted(first.success.keys() & other.success.keys()) if first.tasks == other.tasks else []
    )
    pairs = [(first.success[task], other.success[task]) for task in shared]
    options = sorted(first.settings.keys() | other.settings.keys())
    values = {name: tuple(e.settings.get(name) for e in (first, other)) for name in options}
    success = None
    if len(pairs) > 1:
        ours, theirs = ([float(pair[side]) for pair in pairs] for side in (1, 0))
        success = paired_bootstrap(ours, theirs, seed=seed)
    return Difference(
        shared=len(shared),
        gained=sum(theirs and not ours for ours, theirs in pairs),
        lost=sum(ours and not theirs for ours, theirs in pairs),
        success=success,
        settings={name: pair for name, pair in values.items() if pair[0] != pair[1]},
    )


def comparison(entries: Sequence[Entry]) -> list[str]:
    """Lay entries out as lines, those of the same environment and level together.

    The first of each is what the others are compared with.
    """

    def task(entry: Entry) -> tuple[str, str]:
        return entry.env, entry.level

    lines = []
    order = list(dict.fromkeys(map(task, entries)))
    for (env, level), found in groupby(sorted(entries, key=lambda e: order.index(task(e))), task):
        first, *others = found
        lines += [f"{env}, {level} goals", f"  {_line(first)}"]
        for other in others:
            lines += [f"  {_line(other)}", *_difference_lines(difference(first, other))]
    return lines


def _line(entry: Entry) -> str:
    count = len(entry.success)
    low, high = wilson_interval(entry.successes, count)
    faults = f", {entry.faults} stopped" if entry.faults else ""
    touched = "" if entry.touched is None else f", {100 * entry.touched / count:.0f} % touched"
    rate = f"{100 * entry.successes / count:.0f} [{100 * low:.0f}, {100 * high:.0f}] %"
    return f"{entry.name}: {rate} of {count}{touched}{faults}"


def _difference_lines(found: Difference) -> Iterator[str]:
    if found.success is None:
        yield f"      not comparable: {found.shared} tasks in common with the first"
        return
    mean, low, high = (100 * value for value in found.success)
    verdict = "" if low > 0 or high < 0 else "; could be chance"
    yield (
        f"      {mean:+.0f} [{low:+.0f}, {high:+.0f}] points on {found.shared} shared tasks: "
        f"{found.gained} gained, {found.lost} lost{verdict}"
    )
    for name, (before, after) in found.settings.items():
        yield f"      {name}: {before} -> {after}"
