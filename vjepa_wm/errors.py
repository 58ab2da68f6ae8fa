"""The exceptions this package raises for mistakes a user can put right."""

import difflib
from collections.abc import Iterable

_MAX_LISTED = 40
_NEAREST_LISTED = 10


class VjepaWmError(Exception):
    """Root of the package's errors; the verbs print it without a traceback."""


class UnknownNameError(VjepaWmError):
    """A name that is in no list, with the nearest one that is.

    Args:
        kind: What is named, such as ``"encoder"``.
        name: What was asked for.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Build the message: the nearest name first, then the whole list."""
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        close = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        shown = self.known
        if len(shown) > _MAX_LISTED:
            shown = difflib.get_close_matches(name, shown, n=_NEAREST_LISTED, cutoff=0.0)
        listed = ", ".join(shown) if shown else "none"
        if len(shown) < len(self.known):
            listed += f" and {len(self.known) - len(shown)} others"
        super().__init__(f"unknown {kind} '{name}'.{hint} Known: {listed}")


class DataError(VjepaWmError):
    """Trajectories or cached latents that are missing, damaged or contradictory."""


class IncompleteDataError(DataError):
    """Trajectories whose collection was stopped before its end."""


class CheckpointError(VjepaWmError):
    """Weights or a config that are missing, damaged or do not fit together."""


class SettingError(VjepaWmError, ValueError):
    """A setting or an input out of its range, or of another shape or type than wanted."""
