"""Reads saved runs for a report: evaluations, diagnoses and training curves.

Only what lies in the folders is used. What is missing or damaged is named, with its reason.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vjepa_wm.errors import DataError, VjepaWmError
from vjepa_wm.evaluation.findings import Finding
from vjepa_wm.evaluation.reels import Strip, find_sheets, read_sheet
from vjepa_wm.evaluation.report import EPISODES_FILE, SUMMARY_FILE
from vjepa_wm.evaluation.saved import DAMAGES, EpisodeLine, Saved, read_saved
from vjepa_wm.files import digest, read_json

DIAGNOSTICS_FILE = "diagnostics.json"
METRICS_FILE = "metrics.jsonl"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class EvaluationRun(Saved):
    """What `evaluate` left in a folder, with its pictures.

    Attributes:
        folder: As it was named.
        strips: Agent -> pictures of some of its episodes.
        complaints: What of it could not be used.
    """

    folder: Path
    strips: Mapping[str, Sequence[Strip]]
    complaints: Sequence[str]


@dataclass(frozen=True)
class Diagnosis:
    """One figure of a diagnosis: its numbers, what to do, and its picture with size, if any."""

    name: str
    title: str
    advice: str
    findings: Sequence[Finding]
    picture: tuple[bytes, tuple[int, int]] | None


@dataclass(frozen=True)
class DiagnosisRun:
    """What `diagnose` left in a folder: figures, those left out with their reason, settings."""

    folder: Path
    figures: Sequence[Diagnosis]
    skipped: Mapping[str, str]
    results: Mapping[str, Any]
    complaints: Sequence[str]


@dataclass(frozen=True)
class TrainingRun:
    """What a training left in a folder: part ("" for the whole) -> one line per validation."""

    folder: Path
    curves: Mapping[str, Sequence[Mapping[str, float]]]
    config: Mapping[str, Any] | None
    complaints: Sequence[str]


Run = EvaluationRun | DiagnosisRun | TrainingRun


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read all runs in folders and in the folders right below them.

    Returns:
        The runs, and a sentence for each that could not be read.
    """
    runs: list[Run] = []
    problems: list[str] = []
    for folder in dict.fromkeys(folders):
        found = len(runs) + len(problems)
        for place, reader in _readable(folder):
            try:
                runs.append(reader(place))
            except VjepaWmError as error:
                problems.append(str(error))
        if len(runs) + len(problems) == found:
            problems.append(_nothing_in(folder))
    return runs, problems


def _readable(folder: Path) -> Iterator[tuple[Path, Callable[[Path], Run]]]:
    """Yield what seems to lie in a folder and right below it, with who can read it."""
    below = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for place in (folder, *below):
        for reader, is_here in READERS.items():
            # The parts of a training lie in folders of their own, and are read with the whole.
            is_part = place != folder and (place / METRICS_FILE).is_file()
            if is_here(place) and not (is_part and reader is read_training):
                yield place, reader


def _nothing_in(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is no folder"
    wanted = ", ".join((SUMMARY_FILE, DIAGNOSTICS_FILE, METRICS_FILE))
    return f"{folder} holds nothing to report: wanted one of {wanted}, there or one folder below"


def read_evaluation(folder: Path) -> EvaluationRun:
    """Read what `evaluate` wrote.

    Raises:
        DataError: See `read_saved`.
    """
    saved = read_saved(folder)
    strips, complaints = _strips(folder, saved.episodes)
    return EvaluationRun(saved.summary, saved.episodes, folder, strips, complaints)


def _strips(
    folder: Path, episodes: Mapping[str, Sequence[EpisodeLine]]
) -> tuple[dict[str, Sequence[Strip]], list[str]]:
    """Read the pictures of the episodes, and say which cannot be shown."""
    strips, complaints = {}, []
    written = digest(folder / EPISODES_FILE)
    for path in find_sheets(folder):
        try:
            sheet = read_sheet(path)
        except DataError as error:
            complaints.append(str(error))
            continue
        if sheet.episodes_digest == written and sheet.agent in episodes:
            strips[sheet.agent] = sheet.strips
        else:
            complaints.append(f"{path} shows other episodes than {EPISODES_FILE} lists")
    return strips, complaints


def read_diagnosis(folder: Path) -> DiagnosisRun:
    """Read what `diagnose` wrote.

    Raises:
        DataError: A file is damaged or of something else.
    """
    results = read_json(folder / DIAGNOSTICS_FILE)
    complaints: list[str] = []
    try:
        figures = []
        for name, figure in results["figures"].items():
            findings = [_finding(finding) for finding in figure["findings"]]
            picture = None
            try:
                picture = _picture(folder / f"{name}.png")
            except DataError as error:
                complaints.append(str(error))
            figures.append(Diagnosis(name, figure["title"], figure["advice"], findings, picture))
        dict(results["config"])
        return DiagnosisRun(folder, figures, dict(results["skipped"]), results, complaints)
    except DAMAGES as error:
        raise DataError(f"{folder} is not what diagnose writes: {error!r} in its files") from error


def _finding(line: Mapping[str, Any]) -> Finding:
    interval = line["interval"]
    return Finding(
        name=str(line["name"]),
        value=float(line["value"]),
        is_bad=bool(line["is_bad"]),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        beside={name: float(value) for name, value in line["beside"].items()},
    )


def _picture(path: Path) -> tuple[bytes, tuple[int, int]] | None:
    """Read a picture's file and size; None without one."""
    if not path.is_file():
        return None
    contents = path.read_bytes()
    try:
        with Image.open(io.BytesIO(contents), formats=["PNG"]) as image:
            image.load()
            return contents, image.size
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is a damaged picture ({error})") from error


def read_training(folder: Path) -> TrainingRun:
    """Read the curves of a training and of its parts.

    Raises:
        DataError: None of its lines can be read.
    """
    curves, complaints = {}, []
    for path in _metrics_files(folder):
        lines, bad = _metrics(path)
        if bad:
            complaints.append(f"{path}: {bad} of its lines cannot be read and are left out")
        if lines:
            curves["" if path.parent == folder else path.parent.name] = lines
    if not curves:
        raise DataError(f"{folder}: no line of its {METRICS_FILE} can be read")
    config = None
    if (folder / CONFIG_FILE).is_file():
        try:
            config = dict(read_json(folder / CONFIG_FILE))
        except (DataError, TypeError, ValueError) as error:
            complaints.append(f"{folder / CONFIG_FILE} cannot be read: {error}")
    return TrainingRun(folder, curves, config, complaints)


def _metrics_files(folder: Path) -> list[Path]:
    return [path for path in (folder / METRICS_FILE,) if path.is_file()] + sorted(
        folder.glob(f"*/{METRICS_FILE}")
    )


def _metrics(path: Path) -> tuple[list[dict[str, float]], int]:
    """Read numbers by line; the last line of a training that runs may be cut off."""
    lines, bad = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
            lines.append({str(n): float(v) for n, v in found.items() if v is not None})
            lines[-1]["step"]
        except (AttributeError, KeyError, TypeError, ValueError):
            bad += 1
    return [line for line in lines if "step" in line], bad


def _is_evaluation(folder: Path) -> bool:
    return (folder / SUMMARY_FILE).is_file() or (folder / EPISODES_FILE).is_file()


def _is_diagnosis(folder: Path) -> bool:
    return (folder / DIAGNOSTICS_FILE).is_file()


def _is_training(folder: Path) -> bool:
    return bool(_metrics_files(folder))


READERS: dict[Callable[[Path], Run], Callable[[Path], bool]] = {
    read_evaluation: _is_evaluation,
    read_diagnosis: _is_diagnosis,
    read_training: _is_training,
}
