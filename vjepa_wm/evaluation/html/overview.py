"""The head of a report of several runs: what they are, and who is better on the same tasks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.comparison import Entry, difference, entries
from vjepa_wm.evaluation.html import plots
from vjepa_wm.evaluation.html.elements import Markup, element, figure, join, table
from vjepa_wm.evaluation.html.plots import Axes, Bar, legend
from vjepa_wm.evaluation.html.runs import DiagnosisRun, EvaluationRun, Run, TrainingRun
from vjepa_wm.evaluation.html.success import bar, solved_within, styles
from vjepa_wm.evaluation.html.sweeps import over_budget
from vjepa_wm.evaluation.saved import EpisodeLine

_KINDS: dict[type, tuple[str, str]] = {
    EvaluationRun: ("evaluation", "evaluations"),
    DiagnosisRun: ("diagnosis", "diagnoses"),
    TrainingRun: ("training", "trainings"),
}
_FIGURES = {"diagnose": "Diagnosis", "surprise": "Surprise"}
# For further runs of an agent; the first has the agent's own style.
_FURTHER_STYLES = (3, 4, 5, 0, 2, 1)


def headline(runs: Sequence[Run]) -> str:
    """Say what the report is of."""
    if len(runs) == 1:
        return names_of(runs)[0]
    parts = []
    for kind, (one, more) in _KINDS.items():
        if count := sum(isinstance(run, kind) for run in runs):
            parts.append(f"{count} {one if count == 1 else more}")
    return "World models: " + ", ".join(parts)


def names_of(runs: Sequence[Run]) -> list[str]:
    """Name each run by what it is of, and by its folder where two would be named alike."""
    names = [_name_of(run) for run in runs]
    alike = {name: [run for run in runs if _name_of(run) == name] for name in names}
    return [
        name if len(alike[name]) == 1 else f"{name} ({_folder(run, alike[name])})"
        for name, run in zip(names, runs, strict=True)
    ]


def _name_of(run: Run) -> str:
    if isinstance(run, EvaluationRun):
        return f"{_goals(run)}: {', '.join(run.episodes)}"
    if isinstance(run, DiagnosisRun):
        return f"{_FIGURES[run.verb]} of {run.results['config']['model']}"
    if run.config is not None and "name" in run.config:
        return f"Training of {run.config['name']}"
    return f"Training in {run.folder.name}"


def _folder(run: Run, among: Sequence[Run]) -> str:
    """Name a run by its folder, with its whole path where another's has the same name."""
    is_clear = sum(other.folder.name == run.folder.name for other in among) == 1
    return run.folder.name if is_clear else str(run.folder)


def _goals(run: EvaluationRun) -> str:
    return f"{run.summary['env']}, {run.summary['level']} goals"


def tasks_of(run: EvaluationRun) -> str:
    """Say which tasks the episodes are of."""
    tasks = run.summary["config"]["tasks"]
    named = f"{tasks} tasks" if tasks in ("frozen", "tuning") else f"tasks of {tasks}"
    return f"{named}, at most {run.summary['config']['max_steps']} steps"


def overview(runs: Sequence[Run]) -> Markup:
    """List several runs with links, and set evaluations of the same goals side by side."""
    if len(runs) == 1:
        return join([])
    links = [
        element("li", element("a", name, attributes={"href": f"#run-{place}"}))
        for place, name in enumerate(names_of(runs), 1)
    ]
    parts = [element("nav", element("ul", *links))]
    evaluations = [run for run in runs if isinstance(run, EvaluationRun)]
    groups: dict[str, list[EvaluationRun]] = {}
    for run in evaluations:
        groups.setdefault(_goals(run), []).append(run)
    if len(evaluations) > 1:
        drawn = [_side_by_side(title, group) for title, group in groups.items()]
        drawn += filter(None, (over_budget(title, group) for title, group in groups.items()))
        parts += [element("h3", "Success of all runs"), element("div.plots", *drawn)]
        parts += _differences({title: group for title, group in groups.items() if len(group) > 1})
    return join(parts)


def _side_by_side(title: str, group: Sequence[EvaluationRun]) -> Markup:
    """Draw the success of all agents of an environment and level, at the end and step by step."""
    rows = list(_agents(group))
    drawn = [bar for bar, _ in rows]
    tasks = "; ".join(dict.fromkeys(map(tasks_of, group)))
    bars = plots.bars(drawn, f"success: {title}")
    if len(rows) == 1:
        return figure(title, tasks, bars)
    most = float(max(int(run.summary["config"]["max_steps"]) for run in group))
    # Bands of many runs would hide each other.
    lines = [
        replace(solved_within(bar.name, bar.style, found, most), low=(), high=())
        for bar, found in rows
    ]
    axes = Axes((0.0, most), (0.0, 1.0), "solved within so many environment steps", is_share=True)
    said = f"{title}: solved within so many steps"
    return figure(title, tasks, bars, legend(lines), plots.lines(lines, axes, said))


def _agents(group: Sequence[EvaluationRun]) -> Iterator[tuple[Bar, Sequence[EpisodeLine]]]:
    """Yield the bar and the episodes of each agent of each run, in styles that differ."""
    used: set[int] = set()
    for run in group:
        style = styles(list(run.episodes))
        for row in run.summary["rows"]:
            agent = row["agent"]
            free = (place for place in _FURTHER_STYLES if place not in used)
            place = style[agent] if style[agent] not in used else next(free, style[agent])
            used.add(place)
            name = agent if len(group) == 1 else f"{agent}, {_folder(run, group)}"
            yield bar(row, name, place), run.episodes[agent]


def _differences(groups: Mapping[str, Sequence[EvaluationRun]]) -> Iterator[Markup]:
    """Compare runs of the same goals, task by task, with the first of them."""
    rows: list[list[object]] = []
    for title, group in groups.items():
        try:
            (first, base), *others = [
                (f"{agent}, {_folder(run, group)}", entry)
                for run in group
                for agent, entry in zip(run.episodes, entries(run.folder, run), strict=True)
            ]
        except DataError as error:
            yield element("p.note", f"{title} cannot be compared task by task: {error}")
            continue
        rows += [[title, name, first, *_difference(base, other)] for name, other in others]
    if rows:
        yield element(
            "p.soft",
            "Task by task: difference in success in points, with Newcombe's 95 % interval of "
            "paired proportions; gained are the tasks only this run solves, lost those only the "
            "other does. Whether it could be chance says McNemar's exact test, at 5 %.",
        )
        yield table(["goals", "run", "against", "tasks", "points", "gained", "lost"], rows)


def _difference(base: Entry, entry: Entry) -> list[object]:
    found = difference(base, entry)
    if found.success is None:
        return [found.shared, "not comparable", "-", "-"]
    mean, low, high = (100 * value for value in found.success)
    chance = ", could be chance" if found.could_be_chance else ""
    points = f"{mean:+.0f} [{low:+.0f}, {high:+.0f}]{chance}".replace("-", "\u2212")
    return [found.shared, points, found.gained, found.lost]
