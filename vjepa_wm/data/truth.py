"""What the columns of ``sim_state`` mean, kept beside trajectories whose environment says so.

The file ``truth.json`` has the fields of `Truth`.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.errors import DataError, UnknownNameError
from vjepa_wm.files import read_json, write_json

FILE = "truth.json"


@dataclass(frozen=True)
class Truth:
    """What is known of each frame, and of each episode as a whole.

    Attributes:
        columns: Name, which ends in a unit where there is one -> columns of sim_state.
        targets: What of the state is to be told of frames -> columns of sim_state.
        labels: Name -> ``column``, ``classes`` (their names in order) and ``meaning``; the class is
            the same in all frames of an episode.
        settings: What the episodes were made with.
    """

    columns: dict[str, list[int]]
    targets: dict[str, list[int]]
    labels: dict[str, dict[str, Any]]
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> Self | None:
        """Read the file of a folder of trajectories; None where there is none.

        Raises:
            DataError: If it is damaged or has other fields.
        """
        path = Path(folder) / FILE
        if not path.exists():
            return None
        found = read_json(path)
        names = {field.name for field in fields(cls)}
        if not isinstance(found, dict) or set(found) != names:
            raise DataError(f"{path}: wanted the fields {sorted(names)}, got {_names(found)}")
        return cls(**found)

    def write(self, folder: str | Path) -> None:
        """Write it beside the trajectories, atomically."""
        write_json(Path(folder) / FILE, asdict(self))

    def classes(self, label: str) -> tuple[str, ...]:
        """Return the names of a label's classes.

        Raises:
            UnknownNameError: If there is no such label.
        """
        if label not in self.labels:
            raise UnknownNameError("label", label, self.labels)
        return tuple(self.labels[label]["classes"])

    def classes_of(self, trajectories: Trajectories, label: str) -> NDArray[np.int64]:
        """Return the class of each episode (E,).

        Raises:
            UnknownNameError: If there is no such label.
        """
        self.classes(label)
        first = np.cumsum(trajectories.lengths) - trajectories.lengths
        states = trajectories.sim_state.gather(first[:, None])[:, 0]
        return states[:, self.labels[label]["column"]].astype(np.int64)

    def counts(self, trajectories: Trajectories) -> dict[str, dict[str, int]]:
        """Count episodes: label -> class -> how many have it."""
        found = {}
        for label in self.labels:
            classes = self.classes(label)
            counted = np.bincount(self.classes_of(trajectories, label), minlength=len(classes))
            found[label] = dict(zip(classes, counted.tolist(), strict=True))
        return found


def check_same(there: Truth | None, wanted: Truth | None, *, folder: Path) -> None:
    """Refuse to mix trajectories whose truth is another.

    Raises:
        DataError: Naming what differs.
    """
    if there == wanted:
        return
    had, asked = _flat(there), _flat(wanted)
    differing = [
        f"{name}: wanted {_shown(asked, name)}, it has {_shown(had, name)}"
        for name in sorted(had.keys() | asked.keys())
        if _shown(asked, name) != _shown(had, name)
    ]
    raise DataError(
        f"{folder} holds trajectories of other settings ({'; '.join(differing)}): "
        "delete it, or name another folder with out="
    )


def _flat(truth: Truth | None) -> dict[str, Any]:
    if truth is None:
        return {}
    return {
        **truth.settings,
        "columns": truth.columns,
        "targets": truth.targets,
        "labels": truth.labels,
    }


def _shown(values: dict[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "none"


def _names(found: Any) -> list[str]:
    return sorted(found) if isinstance(found, dict) else [type(found).__name__]
