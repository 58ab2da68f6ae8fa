"""Puts evaluation runs side by side: who is better on the same tasks, and by how much."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.saved import DAMAGES, Saved, not_evaluate, read_saved
from vjepa_wm.evaluation.statistics import (
    PairedDifference,
    exact_sign_test,
    mean_interval,
    paired_rates,
    wilson_interval,
)

SIGNIFICANCE = 0.05
_NOT_SETTINGS = {"agent", "episodes", "pictures"}  # said elsewhere in the table


@dataclass(frozen=True)
class Entry:
    """One agent of one run.

    Attributes:
        name: Folder of the run, and the agent.
        agent: Whose success it is.
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
    agent: str
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

    @property
    def p_value(self) -> float:
        """How likely chance alone splits gained and lost at least so unevenly (McNemar, exact)."""
        return exact_sign_test(self.gained, self.lost)

    @property
    def could_be_chance(self) -> bool:
        """Whether that is too likely for the difference to count as one."""
        return self.p_value >= SIGNIFICANCE


def read_run(folder: Path) -> list[Entry]:
    """Read what `evaluate` wrote.

    Raises:
        DataError: A file is missing, damaged or of something else; it says which.
    """
    return entries(folder, read_saved(folder))


def entries(folder: Path, saved: Saved) -> list[Entry]:
    """Return the agents of an evaluation that was read from a folder.

    Raises:
        DataError: Its summary is of something else.
    """
    try:
        return [_entry(folder, saved, row) for row in saved.summary["rows"]]
    except DAMAGES as error:
        raise not_evaluate(folder, error) from error


def _entry(folder: Path, saved: Saved, row: Mapping[str, Any]) -> Entry:
    """Build the entry of one row of the summary."""
    summary, lines = saved.summary, saved.episodes[row["agent"]]
    digests = dict(summary["digests"])
    touched = [line.cells["is_touched"] == "1" for line in lines if "is_touched" in line.cells]
    return Entry(
        name=f"{folder}:{row['agent']}",
        agent=row["agent"],
        env=summary["env"],
        level=summary["level"],
        tasks=digests.pop("tasks"),
        success={line.seed: line.is_success for line in lines},
        touched=sum(touched) if len(touched) == len(lines) else None,
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


def difference(first: Entry, other: Entry) -> Difference:
    """Compare two entries task by task; the interval is that of paired proportions."""
    shared = (
        sorted(first.success.keys() & other.success.keys()) if first.tasks == other.tasks else []
    )
    pairs = [(first.success[task], other.success[task]) for task in shared]
    options = sorted(first.settings.keys() | other.settings.keys())
    values = {name: tuple(e.settings.get(name) for e in (first, other)) for name in options}
    success = None
    if len(pairs) > 1:
        success = paired_rates(*([pair[side] for pair in pairs] for side in (1, 0)))
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


def over_seeds(entries: Sequence[Entry]) -> list[str]:
    """Lay out the mean success of each agent over runs that differ in the seed of their training.

    There are two intervals of that mean: Student's over seeds, on these tasks, is too short where
    few seeds happen to agree; Wilson's is over tasks, which are no more for being tried often.

    Raises:
        DataError: An agent was measured once only, twice with the same weights, on other tasks, or
            with other options.
    """

    def method(entry: Entry) -> tuple[str, str, str]:
        return entry.env, entry.level, entry.agent

    order = list(dict.fromkeys(map(method, entries)))
    lines = []
    for (env, level, agent), found in groupby(
        sorted(entries, key=lambda e: order.index(method(e))), method
    ):
        runs = list(found)
        if agent not in _TRAINED:
            continue
        _check_seeds(runs)
        rates = [100 * run.successes / len(run.success) for run in runs]
        low, high = mean_interval(rates)
        solved, tasks = sum(run.successes for run in runs) / len(runs), len(runs[0].success)
        least, most = wilson_interval(solved, tasks)
        lines += [
            f"{env}, {level} goals, {agent}: {100 * solved / tasks:.1f} % over {len(rates)} seeds, "
            f"{min(rates):.0f} to {max(rates):.0f}; "
            f"[{max(0.0, low):.1f}, {min(100.0, high):.1f}] over seeds on these {tasks} tasks, "
            f"[{100 * least:.1f}, {100 * most:.1f}] over tasks"
        ]
    if not lines:
        raise DataError(f"wanted runs of agents that are trained ({', '.join(_TRAINED)}), got none")
    return lines


# Where runs of several seeds may differ.
_OF_SEEDS = {"model", "policy", "seed", "digest.model", "digest.policy"}
# What is trained of each agent.
_TRAINED = {"mpc": "digest.model", "true_dynamics": "digest.model", "bc": "digest.policy"}


def _check_seeds(runs: Sequence[Entry]) -> None:
    """Refuse runs that are not of one method trained several times."""
    first, *others = runs
    if not others:
        raise DataError(f"{first.name}: wanted runs of two or more seeds, got this one alone")
    key = _TRAINED[first.agent]
    seen: dict[object, str] = {}
    for run in runs:
        weights = run.settings[key]
        if weights in seen:
            raise DataError(f"{run.name} and {seen[weights]} are of the same weights, no two seeds")
        seen[weights] = run.name
        if (run.tasks, run.success.keys()) != (first.tasks, first.success.keys()):
            raise DataError(f"{run.name} and {first.name}: wanted the same tasks, got others")
        options = difference(first, run).settings.keys() - _OF_SEEDS
        if options:
            raise DataError(
                f"{run.name} and {first.name} differ in {', '.join(sorted(options))}: wanted runs "
                "that differ in their weights alone"
            )


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
    verdict = "; could be chance" if found.could_be_chance else ""
    yield (
        f"      {mean:+.0f} [{low:+.0f}, {high:+.0f}] points on {found.shared} shared tasks: "
        f"{found.gained} gained, {found.lost} lost, p = {found.p_value:.2g}{verdict}"
    )
    for name, (before, after) in found.settings.items():
        yield f"      {name}: {before} -> {after}"
