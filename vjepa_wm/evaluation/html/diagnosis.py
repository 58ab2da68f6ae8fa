"""The part of a report on a diagnosis: each figure's numbers, verdict and picture."""

from vjepa_wm.evaluation.findings import Finding
from vjepa_wm.evaluation.html.elements import SCROLLS, Markup, element, png, table
from vjepa_wm.evaluation.html.runs import Diagnosis, DiagnosisRun
from vjepa_wm.evaluation.html.words import number


def verdicts(run: DiagnosisRun) -> Markup:
    """Show all figures, and say why others are missing."""
    parts = [_figure(figure) for figure in run.figures]
    parts += [element("p.note", f"no {name}: {reason}") for name, reason in run.skipped.items()]
    return element("div", *parts)


def _figure(figure: Diagnosis) -> Markup:
    is_bad = any(finding.is_bad for finding in figure.findings)
    said = (
        element("strong.bad", "\u2715 Bad: ") if is_bad else element("strong.fine", "\u2713 Fine")
    )
    advice = figure.advice if is_bad else f"; if it were bad: {figure.advice}"
    parts = [element("h3", figure.title), element("p", said, advice)]
    parts.append(table(["", "value", "95 % interval", "beside"], map(_line, figure.findings)))
    if figure.picture is not None:
        contents, size = figure.picture
        drawn = png(contents, size, f"picture of {figure.title}")
        parts.append(element("div.chart", drawn, attributes=SCROLLS))
    return element("div", *parts)


def _line(finding: Finding) -> list[object]:
    """Lay a finding out; what is bad is marked by a sign as well as by colour."""
    name = element("span.bad", f"\u2715 {finding.name}") if finding.is_bad else finding.name
    interval = "-"
    if finding.interval is not None:
        interval = f"[{number(finding.interval[0])}, {number(finding.interval[1])}]"
    beside = ", ".join(f"{what} {number(value)}" for what, value in finding.beside.items())
    return [name, number(finding.value), interval, beside]
