"""Progress bars with rate and time left, which become plain lines where nobody watches."""

import sys
from collections.abc import Callable, Iterable

from tqdm import tqdm

_LINE_SECONDS = 10.0

Progress = Callable[..., tqdm]
"""What library functions take: called with ``total``, ``desc`` and ``unit``, like `progress`."""


class _Lines:
    """A stream that turns a progress bar's redrawn line into lines of a log."""

    def write(self, text: str) -> None:
        """Write a line, without the control characters that redraw it."""
        if line := text.replace("\r", "").strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        """Flush the stream below."""
        sys.stderr.flush()


def progress(
    iterable: Iterable | None = None, *, total: int | None = None, desc: str = "", unit: str = "it"
) -> tqdm:
    """Return a progress bar, shown when the work takes more than two seconds.

    Where nobody watches (no terminal) it prints a line every ten seconds.

    Args:
        iterable: What to go through; None to call ``update(n)`` oneself.
        total: Number of units, where the iterable does not know.
        desc: What is done.
        unit: What is counted.
    """
    watched = sys.stderr.isatty()
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=f" {unit}",
        delay=2.0,
        mininterval=0.2 if watched else _LINE_SECONDS,
        maxinterval=_LINE_SECONDS,
        dynamic_ncols=watched,
        ncols=None if watched else 100,
        file=None if watched else _Lines(),
        unit_scale=True,
    )


def no_progress(
    iterable: Iterable | None = None, *, total: int | None = None, desc: str = "", unit: str = "it"
) -> tqdm:
    """Return a progress bar that shows nothing."""
    return tqdm(iterable, total=total, desc=desc, unit=unit, disable=True)
