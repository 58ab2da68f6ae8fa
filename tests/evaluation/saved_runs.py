"""Writes small run folders as the verbs do, for tests of the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from vjepa_wm.evaluation.episodes import Episode
from vjepa_wm.evaluation.findings import Finding, as_json
from vjepa_wm.evaluation.reels import Reel, write_pictures
from vjepa_wm.evaluation.report import summarise, write_report
from vjepa_wm.files import digest, write_json
from vjepa_wm.provenance import provenance

CONFIG = {
    "env": {"name": "point", "id": "tests:Point-v0"},
    "planner": {"horizon": 6, "samples": None},
    "model": "point",
    "tasks": "frozen",
    "max_steps": 20,
    "seed": 3,
}
SEED = 4294967296


def episode(number: int, *, steps: int, distance: float, fault: str = "") -> Episode:
    """An episode that is a success where it ends within 0.05 m and before step 20."""
    return Episode(
        level="near",
        seed=SEED + number,
        is_success=distance < 0.05 and not fault,
        is_touched=distance < 0.05,
        steps=steps,
        final_distance={"position_m": distance},
        best_distance={"position_m": distance / 2},
        path_length=0.4,
        spl=None,
        seconds_per_action=0.012345678,
        fault=fault,
        start_distance={"position_m": 0.1 + 0.01 * number},
    )


def episodes(count: int, *, successes: int) -> list[Episode]:
    """Successes at steps 4, 5, ... before failures."""
    return [
        episode(index, steps=4 + index, distance=0.01)
        if index < successes
        else episode(index, steps=20, distance=0.3 + 0.01 * index)
        for index in range(count)
    ]


def save_evaluation(
    folder: Path,
    found: Mapping[str, Sequence[Episode]],
    *,
    pictures: int = 0,
    about: Mapping[str, object] | None = None,
) -> Path:
    """Write what `evaluate` does, its page left out."""
    rows = [summarise(agent, episodes, seconds=2.0) for agent, episodes in found.items()]
    digests = {"tasks": "0123456789abcdef", "model": "fedcba9876543210"}
    said = {"env": "point", "level": "near", "digests": digests, "config": CONFIG}
    said |= {"criteria": {"position_m": 0.05}, "machine": "a test", **(about or {})}
    write_report(folder, found, rows, about=said)
    reels = {agent: filmed(episodes, pictures) for agent, episodes in found.items()}
    write_pictures(folder, reels, episodes_digest=digest(folder / "episodes.csv"))
    return folder


def filmed(found: Sequence[Episode], count: int) -> Reel:
    """Pictures of episodes, of a brightness that says which step."""
    reel = Reel(count, lambda place: np.full((8, 8, 3), place, np.uint8))
    for place, one in enumerate(found):
        film = reel.film(np.full((16, 16, 3), 200, np.uint8), np.zeros((16, 16, 3), np.uint8))
        for step in range(1, one.steps + 1):
            if film is not None:
                film.add(np.full((16, 16, 3), step, np.uint8))
        reel.keep(film, place=place, seed=one.seed, is_success=one.is_success)
    return reel


@dataclass(frozen=True)
class Told:
    """A figure of a diagnosis with one finding."""

    title: ClassVar[str] = "probe: what <frames> know"
    advice: ClassVar[str] = "train longer & on more"
    value: float
    is_bad: bool

    def findings(self) -> list[Finding]:
        beside = {"random encoder": -0.25}
        return [Finding("R2 position", self.value, self.is_bad, (0.125, 0.5), beside)]


def save_diagnosis(folder: Path, *, is_bad: bool) -> Path:
    """Write what `diagnose` does, with one picture, which is wider than any page."""
    results = {
        "figures": as_json({"probe": Told(0.375, is_bad)}),
        "skipped": {"costs": "no sim_state was recorded"},
        "config": {"model": "point", "data": "data/point"},
        **provenance(),
    }
    write_json(folder / "diagnostics.json", results)
    Image.new("RGB", (1400, 20), "green").save(folder / "probe.png")
    return folder


def save_training(folder: Path) -> Path:
    """Write what `train_ac` does; the last line of one part is cut off."""
    for part in ("predictor", "metric"):
        (folder / part).mkdir(parents=True)
    lines = [
        {
            "step": step,
            "minutes": step / 100,
            **({"loss": 1.0 / step} if step else {}),
            **{f"h{k}_{kind}": k / 10 for k in (1, 2, 3) for kind in ("true", "copy")},
            "action_ratio": 1.5 if step else float("nan"),
        }
        for step in (0, 100, 200)
    ]
    text = "\n".join(map(json.dumps, lines))
    (folder / "predictor" / "metrics.jsonl").write_text(text + '\n{"step": 300, "lo')
    (folder / "metric" / "metrics.jsonl").write_text(
        '{"step": 0, "held_out_loss": 4.5, "loss": 5}\n'
    )
    write_json(folder / "config.json", {"name": "point", "data": {"data/point": "0123"}})
    return folder
