"""Puts saved runs into one HTML file that opens offline, in any browser, on a phone as well."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.html.diagnosis import verdicts
from vjepa_wm.evaluation.html.elements import Markup, element, facts, folded, join
from vjepa_wm.evaluation.html.gallery import all_episodes, gallery
from vjepa_wm.evaluation.html.plots import bars
from vjepa_wm.evaluation.html.runs import (
    DAMAGES,
    DiagnosisRun,
    EvaluationRun,
    Run,
    TrainingRun,
    find_runs,
)
from vjepa_wm.evaluation.html.style import STYLE
from vjepa_wm.evaluation.html.success import bar, charts, figure, styles, success_table, tiles
from vjepa_wm.evaluation.html.training import curves
from vjepa_wm.evaluation.html.words import criterion, flat, length
from vjepa_wm.files import atomic_path

REPORT_FILE = "report.html"
# Nothing but what is in the file may be loaded or run.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(path: str | Path, folders: Sequence[Path]) -> list[str]:
    """Write the report of all runs in folders.

    Args:
        path: The HTML file.
        folders: Of `evaluate`, `diagnose`, `train_ac` or `pretrain`, or folders of such.

    Returns:
        A sentence for each run that could not be used; the page has them, too.

    Raises:
        DataError: If there is nothing to report at all.
    """
    markup, problems = page(folders)
    with atomic_path(path) as temporary:
        temporary.write_text(markup, encoding="utf-8")
    return problems


def page(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Return the report, and a sentence for each run that could not be used."""
    runs, problems = find_runs(folders)
    shown: list[tuple[Run, Markup]] = []
    for run in runs:
        try:
            shown.append((run, section(run, f"run-{len(shown) + 1}")))
        except DAMAGES as error:
            problems.append(f"{run.folder} is not what its verb writes: {error!r} in its files")
    if not shown:
        raise DataError("nothing to report: " + "; ".join(problems))
    found = [run for run, _ in shown]
    title = headline(found)
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element(
            "meta",
            attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"},
        ),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element(
        "body",
        element("main", element("h1", title), _problems(problems), overview(found)),
        *(markup for _, markup in shown),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, attributes={'lang': 'en'})}\n", problems


def headline(runs: Sequence[Run]) -> str:
    """Say what the report is of."""
    if len(runs) == 1:
        return name_of(runs[0])
    kinds = {EvaluationRun: "evaluation", DiagnosisRun: "diagnosis", TrainingRun: "training"}
    plural = {"evaluation": "evaluations", "diagnosis": "diagnoses", "training": "trainings"}
    parts = []
    for kind, word in kinds.items():
        if count := sum(isinstance(run, kind) for run in runs):
            parts.append(f"{count} {word if count == 1 else plural[word]}")
    return "World models: " + ", ".join(parts)


def name_of(run: Run) -> str:
    """Name a run by what it is of."""
    if isinstance(run, EvaluationRun):
        return f"{run.summary['env']}, {run.summary['level']} goals"
    if isinstance(run, DiagnosisRun):
        return f"Diagnosis of {run.results['config']['model']}"
    if run.config is not None and "name" in run.config:
        return f"Training of {run.config['name']}"
    return f"Training in {run.folder.name}"


def overview(runs: Sequence[Run]) -> Markup:
    """List several runs with links, and set the success of all evaluations side by side."""
    if len(runs) == 1:
        return join([])
    links = [
        element("li", element("a", name_of(run), attributes={"href": f"#run-{place}"}))
        for place, run in enumerate(runs, 1)
    ]
    parts = [element("nav", element("ul", *links))]
    evaluations = [run for run in runs if isinstance(run, EvaluationRun)]
    if len(evaluations) > 1:
        parts += [element("h3", "Success of all runs"), _side_by_side(evaluations)]
    return join(parts)


def _side_by_side(runs: Sequence[EvaluationRun]) -> Markup:
    """Draw the success of all agents, one plot per environment and level."""
    drawn = []
    for title, found in groupby(sorted(runs, key=name_of), name_of):
        group = list(found)
        rows = []
        for run in group:
            style = styles(list(run.episodes))
            for row in run.summary["rows"]:
                agent = row["agent"]
                name = agent if len(group) == 1 else f"{agent}, {run.folder.name}"
                rows.append(bar(row, name, style[agent]))
        drawn.append(figure(title, _tasks(group[0]), bars(rows, f"success: {title}")))
    return element("div.plots", *drawn)


def section(run: Run, place: str) -> Markup:
    """Return the part of the report on one run, reached by a link to its place."""
    parts: list[object] = [
        element("h2", name_of(run)),
        element("p.where", str(run.folder)),
        _problems(run.complaints),
        *SECTIONS[type(run)](run),
    ]
    return element("section", *parts, attributes={"id": place})


def _evaluation(run: EvaluationRun) -> Iterable[Markup]:
    style = styles(list(run.episodes))
    rows = run.summary["rows"]
    shown = [bar(row, row["agent"], style[row["agent"]]) for row in rows]
    note = "Dot: share of goals reached; bar: its 95 % interval (Wilson)."
    yield tiles(run)
    yield _problems(run.summary["warnings"])
    yield facts(_measured(run))
    yield element("h3", "Success")
    yield element("div.plots", figure("Goals reached", note, bars(shown, "success of each agent")))
    yield success_table(rows)
    yield element("h3", "How soon and how near")
    yield charts(run)
    yield element("h3", "Episodes")
    yield gallery(run)
    yield all_episodes(run)
    yield _configuration(run.summary["config"])


def _tasks(run: EvaluationRun) -> str:
    """Say which tasks the episodes are of."""
    tasks = run.summary["config"]["tasks"]
    named = f"{tasks} tasks" if tasks in ("frozen", "tuning") else f"tasks of {tasks}"
    return f"{named}, at most {run.summary['config']['max_steps']} steps"


def _measured(run: EvaluationRun) -> Iterable[tuple[str, object]]:
    """Say what the figures are of, as far as it was recorded."""
    summary, config = run.summary, run.summary["config"]
    lines = next(iter(run.episodes.values()))
    seeds = [line.seed for line in lines]
    yield "environment", f"{summary['env']}, {config['env']['id']}"
    yield "goals", summary["level"]
    yield "tasks", f"{len(lines)} {_tasks(run)}"
    yield "task seeds", f"{min(seeds)} to {max(seeds)}"
    if "criteria" in summary:
        wanted = [f"{criterion(n)[0]} < {length(n, v)}" for n, v in summary["criteria"].items()]
        yield "success", ", ".join(wanted) + "; judged from the true state"
    yield "agents' seed", config["seed"]
    for name, digest in summary["digests"].items():
        yield f"{name} digest", element("span.code", digest or "drawn for this run")
    if "mpc" in run.episodes:
        yield "model", config["model"]
    yield "run time", f"{sum(row['seconds'] for row in summary['rows']):.0f} s"
    if "machine" in summary:
        yield "machine", summary["machine"]
    yield from _origin(summary)


def _origin(results: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    """Say which software a result comes from."""
    versions = {**results["versions"], "python": results["python"]}
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "commit", element("span.code", results["git_commit"] or "not recorded")


def _diagnosis(run: DiagnosisRun) -> Iterable[Markup]:
    config = run.results["config"]
    yield facts([("model", config["model"]), ("data", config["data"]), *_origin(run.results)])
    yield verdicts(run)
    yield _configuration(config)


def _training(run: TrainingRun) -> Iterable[Markup]:
    if run.config is not None and "data" in run.config:
        data = [(name, element("span.code", mark)) for name, mark in run.config["data"].items()]
        yield facts(data)
    yield curves(run)
    if run.config is not None:
        yield _configuration(run.config)


def _configuration(config: Mapping[str, Any]) -> Markup:
    return folded("Full configuration", element("pre", "\n".join(flat(config))))


def _problems(sentences: Sequence[str]) -> Markup:
    """Say what is wrong or doubtful."""
    if not sentences:
        return join([])
    return element("div.note", element("ul", *(element("li", said) for said in sentences)))


SECTIONS: dict[type, Callable[..., Iterable[Markup]]] = {
    EvaluationRun: _evaluation,
    DiagnosisRun: _diagnosis,
    TrainingRun: _training,
}
