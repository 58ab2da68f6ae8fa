"""Findings: the numbers of a diagnosis, whether they are bad, and what to do then."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Finding:
    """One number.

    Attributes:
        name: What it is.
        value: The number.
        is_bad: Whether something is to be done about it.
        interval: 95 % interval, where there is one.
        beside: What to read it beside, such as its floor.
    """

    name: str
    value: float
    is_bad: bool
    interval: tuple[float, float] | None = None
    beside: Mapping[str, float] = field(default_factory=dict)


class Figure(Protocol):
    """A dataclass of numbers that says what they mean.

    Attributes:
        title: Heading.
        advice: What to do when a finding is bad.
    """

    title: ClassVar[str]
    advice: ClassVar[str]

    def findings(self) -> list[Finding]:
        """Return the numbers to look at first."""


def as_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return everything about figures, for a file."""
    return {
        name: {
            "title": figure.title,
            "advice": figure.advice,
            "findings": [asdict(finding) for finding in figure.findings()],
            "numbers": asdict(figure),
        }
        for name, figure in figures.items()
    }


def table(figures: Sequence[Figure]) -> str:
    """Lay figures out as text; `!` marks what is bad, with what to do below it."""
    lines = []
    for figure in figures:
        found = figure.findings()
        width = max(len(finding.name) for finding in found)
        lines.append(figure.title)
        lines += [_line(finding, width) for finding in found]
        verdict = "BAD" if any(finding.is_bad for finding in found) else "fine; if it were bad"
        lines += [f"  {verdict}: {figure.advice}", ""]
    return "\n".join(lines)


def _line(finding: Finding, width: int) -> str:
    mark = "!" if finding.is_bad else " "
    interval = ""
    if finding.interval is not None:
        interval = f" [{finding.interval[0]:.3g}, {finding.interval[1]:.3g}]"
    beside = ", ".join(f"{name} {value:.3g}" for name, value in finding.beside.items())
    return f"{mark} {finding.name.ljust(width)}  {finding.value:.3g}{interval}   ({beside})"
