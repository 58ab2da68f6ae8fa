"""Puts saved runs into one HTML file that opens offline, in any browser, on a phone as well."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.html.diagnosis import verdicts
from vjepa_wm.evaluation.html.elements import Markup, element, facts, folded, join
from vjepa_wm.evaluation.html.gallery import all_episodes, gallery
from vjepa_wm.evaluation.html.overview import headline, names_of, overview, tasks_of
from vjepa_wm.evaluation.html.runs import (
    DiagnosisRun,
    EvaluationRun,
    Run,
    TrainingRun,
    find_runs,
)
from vjepa_wm.evaluation.html.style import STYLE
from vjepa_wm.evaluation.html.success import budget_table, charts, success_table, tiles
from vjepa_wm.evaluation.html.training import curves
from vjepa_wm.evaluation.html.words import criterion, flat
from vjepa_wm.evaluation.saved import DAMAGES
from vjepa_wm.files import write_text

REPORT_FILE = "report.html"
# Nothing but what is in the file may be loaded or run.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(path: str | Path, folders: Sequence[Path]) -> list[str]:
    """Write the report of all runs in folders.

    Args:
        path: The HTML file.
        folders: Of `evaluate`, `diagnose`, `surprise`, a training, or folders of such.

    Returns:
        A sentence for each run that could not be used; the page has them, too.

    Raises:
        DataError: If there is nothing to report at all.
    """
    markup, problems = page(folders)
    write_text(path, markup)
    return problems


def page(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Return the report, and a sentence for each run that could not be used."""
    runs, problems = find_runs(folders)
    shown: list[tuple[Run, Markup]] = []
    for run in runs:
        try:
            shown.append((run, section(run)))
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
        *_sections(shown),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, attributes={'lang': 'en'})}\n", problems


def section(run: Run) -> Markup:
    """Return the part of the report on one run, without its heading."""
    names_of([run])  # a run that cannot be named is left out like any other damaged one
    parts = (element("p.where", str(run.folder)), _problems(run.complaints))
    return join([*parts, *SECTIONS[type(run)](run)])


def _sections(shown: Sequence[tuple[Run, Markup]]) -> Iterator[Markup]:
    """Yield the part on each run below its name; a single one has it at the top already."""
    names = names_of([run for run, _ in shown])
    for place, (name, (_, markup)) in enumerate(zip(names, shown, strict=True), 1):
        heading = [element("h2", name)] if len(shown) > 1 else []
        yield element("section", *heading, markup, attributes={"id": f"run-{place}"})


def _evaluation(run: EvaluationRun) -> Iterator[Markup]:
    yield tiles(run)
    yield _problems(run.summary["warnings"])
    yield charts(run)
    yield success_table(run.summary["rows"])
    if "error_budget" in run.summary:
        yield budget_table(run.summary["error_budget"])
    yield element("h3", "What was measured")
    yield facts(_measured(run))
    yield element("h3", "Episodes")
    yield gallery(run)
    yield all_episodes(run)
    yield _configuration(run.summary["config"])


def _measured(run: EvaluationRun) -> Iterator[tuple[str, object]]:
    """Say what the figures are of, as far as it was recorded."""
    summary, config = run.summary, run.summary["config"]
    lines = next(iter(run.episodes.values()))
    seeds = [line.seed for line in lines]
    yield "environment", f"{summary['env']}, {config['env']['id']}"
    yield "goals", summary["level"]
    yield "tasks", f"{len(lines)} {tasks_of(run)}"
    yield "task seeds", f"{min(seeds)} to {max(seeds)}"
    if "criteria" in summary:
        wanted = [
            f"{criterion(n)[0]} < {v:g} {criterion(n)[1]}" for n, v in summary["criteria"].items()
        ]
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


def _origin(results: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Say which software a result comes from."""
    versions = {**results["versions"], "python": results["python"]}
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "commit", element("span.code", results["git_commit"] or "not recorded")


def _diagnosis(run: DiagnosisRun) -> Iterator[Markup]:
    config = run.results["config"]
    data = config["data"] or "drawn for this run"
    yield facts([("model", config["model"]), ("data", data), *_origin(run.results)])
    yield verdicts(run)
    yield _configuration(config)


def _training(run: TrainingRun) -> Iterator[Markup]:
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


SECTIONS: dict[type, Callable[..., Iterator[Markup]]] = {
    EvaluationRun: _evaluation,
    DiagnosisRun: _diagnosis,
    TrainingRun: _training,
}
