"""Numbers and names as a reader wants them."""

import math
from collections.abc import Iterator, Mapping

UNITS = {"m": "m", "rad": "rad"}


def number(value: float, digits: int = 3) -> str:
    """Write a number with so many digits that mean something, without an exponent if possible."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        places = 0 if value == 0 else digits - 1 - math.floor(math.log10(abs(value)))
        written = f"{value:,.{max(0, min(places, 6))}f}"
        return written.replace("-", "\u2212")
    return f"{value:.{digits}g}".replace("-", "\u2212")


def percent(share: float) -> str:
    """Write a share in [0, 1] in %."""
    return f"{100 * share:.0f} %"


def interval(low: float, high: float) -> str:
    """Write an interval of shares in %."""
    return f"[{100 * low:.0f}, {100 * high:.0f}]"


def criterion(name: str) -> tuple[str, str]:
    """Split a criterion's name into words and unit: ``block_position_m``."""
    stem, _, unit = name.rpartition("_")
    if stem and unit in UNITS:
        return stem.replace("_", " "), UNITS[unit]
    return name.replace("_", " "), ""


def length(name: str, value: float) -> str:
    """Write a criterion's value with its unit."""
    return f"{number(value)} {criterion(name)[1]}".rstrip()


def flat(config: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Write settings as they are given to a verb: ``planner.horizon=6``."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={'null' if value is None else value}"
