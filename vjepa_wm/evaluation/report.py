"""Turns episodes into figures: a table to read, a CSV of every episode, a JSON summary."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vjepa_wm.evaluation.episodes import Episode
from vjepa_wm.evaluation.statistics import wilson_interval
from vjepa_wm.evaluation.tables import aligned
from vjepa_wm.files import atomic_path, write_json
from vjepa_wm.provenance import provenance

EPISODES_FILE = "episodes.csv"
SUMMARY_FILE = "summary.json"
MAX_FLOOR = 0.15  # success of random actions above which goals say little


@dataclass(frozen=True)
class Row:
    """The figures of one agent.

    Attributes:
        agent: Its name.
        episodes: Number of episodes.
        successes: How many of them succeeded.
        success: The rate, in [0, 1].
        interval: Its Wilson 95 % interval.
        touched: Share of the episodes that were within all thresholds after some step.
        final_distance: Criterion name -> median distance at the end, in physical units.
        best_distance: Criterion name -> median of the smallest distances.
        path_length: Median path of the first criterion, in physical units; None where the
            environment does not tell.
        spl: Mean success weighted by path length, see `Episode`; None likewise.
        steps: Mean environment steps of the successful episodes; None without any.
        seconds_per_action: Mean over episodes, in seconds of wall-clock time.
        seconds: Wall-clock time of everything, environments included.
        frames_per_plan: Frames the agent imagined per plan; None for those that imagine nothing.
        faults: Episodes stopped before their time: an action that could not be used, an agent or an
            environment that raised. They count as failures.
        fault: Reason of the first of them; "" without any.
    """

    agent: str
    episodes: int
    successes: int
    success: float
    interval: tuple[float, float]
    touched: float
    final_distance: dict[str, float]
    best_distance: dict[str, float]
    path_length: float | None
    spl: float | None
    steps: float | None
    seconds_per_action: float
    seconds: float
    frames_per_plan: float | None
    faults: int
    fault: str


def summarise(
    agent: str,
    episodes: Sequence[Episode],
    *,
    seconds: float,
    frames_per_plan: float | None = None,
) -> Row:
    """Compute an agent's figures.

    Args:
        agent: Its name.
        episodes: At least one.
        seconds: Wall-clock time they took.
        frames_per_plan: What a plan cost, for agents that imagine.
    """
    successes = [episode for episode in episodes if episode.is_success]
    faults = [episode.fault for episode in episodes if episode.fault]
    paths = [episode.path_length for episode in episodes]
    spl = [episode.spl for episode in episodes]
    acted = [e.seconds_per_action for e in episodes if e.steps or e.seconds_per_action]
    return Row(
        agent=agent,
        episodes=len(episodes),
        successes=len(successes),
        success=len(successes) / len(episodes),
        interval=wilson_interval(len(successes), len(episodes)),
        touched=float(np.mean([episode.is_touched for episode in episodes])),
        final_distance=_medians([episode.final_distance for episode in episodes]),
        best_distance=_medians([episode.best_distance for episode in episodes]),
        path_length=None if None in paths else float(np.median(paths)),
        spl=None if None in spl else float(np.mean(spl)),
        steps=float(np.mean([e.steps for e in successes])) if successes else None,
        seconds_per_action=float(np.mean(acted)) if acted else 0.0,
        seconds=seconds,
        frames_per_plan=frames_per_plan,
        faults=len(faults),
        fault=faults[0] if faults else "",
    )


def _medians(distances: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each criterion."""
    return {name: float(np.median([d[name] for d in distances])) for name in distances[0]}


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as text, one line each below a line of headings."""
    criteria = list(rows[0].final_distance)
    distances = [f"{name} final / best" for name in criteria]
    ends = ["steps", "SPL", "s/action", "seconds"]
    lines = [["agent", "success % [95 %]", "touched %", "n", *distances, *ends]]
    for row in rows:
        rate, low, high = (100 * share for share in (row.success, *row.interval))
        lines.append(
            [
                row.agent,
                f"{rate:.0f} [{low:.0f}, {high:.0f}]",
                f"{100 * row.touched:.0f}",
                str(row.episodes),
                *(f"{row.final_distance[c]:.3f} / {row.best_distance[c]:.3f}" for c in criteria),
                "-" if row.steps is None else f"{row.steps:.1f}",
                "-" if row.spl is None else f"{row.spl:.2f}",
                f"{row.seconds_per_action:.4f}",
                f"{row.seconds:.0f}",
            ]
        )
    if any(row.faults for row in rows):
        for line, count in zip(lines, ["stopped", *(str(row.faults) for row in rows)], strict=True):
            line.append(count)
    return aligned(lines)


def warnings(rows: Sequence[Row]) -> list[str]:
    """Say what makes the figures doubtful."""
    found = []
    for row in rows:
        if row.agent == "random" and row.success > MAX_FLOOR:
            found.append(
                f"random actions reach {row.successes} of {row.episodes} goals, more than "
                f"{MAX_FLOOR:.0%}: these goals are too easy to tell much"
            )
        if row.faults:
            found.append(
                f"{row.faults} of {row.episodes} episodes of {row.agent} were stopped and count as "
                f"failures: {row.fault}; see the column fault of {EPISODES_FILE}"
            )
    return found


def write_report(
    folder: str | Path,
    episodes: Mapping[str, Sequence[Episode]],
    rows: Sequence[Row],
    *,
    about: Mapping[str, Any],
) -> None:
    """Write every episode to ``episodes.csv`` and the figures to ``summary.json``.

    Args:
        folder: Where to; files of an earlier report are replaced.
        episodes: Agent name -> its episodes.
        rows: The agents' figures.
        about: What the figures are of, added to the summary with versions and commit.
    """
    lines = [
        _line(agent, number, episode)
        for agent, found in episodes.items()
        for number, episode in enumerate(found)
    ]
    with (
        atomic_path(Path(folder) / EPISODES_FILE) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    summary = {
        **about,
        "rows": [asdict(row) for row in rows],
        "warnings": warnings(rows),
        **provenance(),
    }
    write_json(Path(folder) / SUMMARY_FILE, summary)


def _line(agent: str, number: int, episode: Episode) -> dict[str, object]:
    """Lay an episode out as a line of the CSV."""
    return {
        "agent": agent,
        "episode": number,
        "level": episode.level,
        "seed": episode.seed,
        "is_success": int(episode.is_success),
        "is_touched": int(episode.is_touched),
        "steps": episode.steps,
        **{f"start_{name}": value for name, value in episode.start_distance.items()},
        **{f"final_{name}": value for name, value in episode.final_distance.items()},
        **{f"best_{name}": value for name, value in episode.best_distance.items()},
        "path_length": episode.path_length,
        "spl": episode.spl,
        "seconds_per_action": episode.seconds_per_action,
        "fault": episode.fault,
    }
