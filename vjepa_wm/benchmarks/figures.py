"""How everything is measured, and how figures are shown beside their baselines."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vjepa_wm.precision import has_native_bf16

CPU_INFO = Path("/proc/cpuinfo")
HEADER = ("", "figure", "unit", "baseline", "its figure", "times better")


@dataclass(frozen=True)
class Figure:
    """One measured number, and that of its baseline, measured in the same process.

    Attributes:
        name: what was measured.
        value: the number.
        unit: of both; units that end in /s are better when larger, all others when smaller.
        baseline: what it is compared with; empty for parts of a whole and for differences.
        baseline_value: the same of the baseline.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    baseline_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better than the baseline; for a rate beside its peak, the share of it."""
        if self.baseline_value is None:
            return None
        larger_is_better = self.unit.endswith("/s")
        ratio = self.value / self.baseline_value
        return ratio if larger_is_better else 1 / ratio

    def record(self) -> dict[str, object]:
        """All of it, for JSON."""
        return {**asdict(self), "ratio": self.ratio}


def table(figures: Sequence[Figure]) -> str:
    """Lay figures out in columns, one line each."""
    rows = [HEADER]
    for figure in figures:
        compared = ["", ""]
        if figure.baseline_value is not None:
            compared = [f"{figure.baseline_value:.4g}", f"{figure.ratio:.2f}"]
        rows.append((f"{figure.value:.4g}", figure.name, figure.unit, figure.baseline, *compared))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        # Numbers to the right, words to the left
        cells = [
            cell.rjust(width) if index in (0, 4, 5) else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def median_seconds(
    calls: Mapping[str, Callable[[], object]], *, repeats: int, device: str, warm_ups: int = 1
) -> dict[str, float]:
    """Median wall-clock seconds of each call.

    The calls take turns, so that whatever else the machine does in between meets all alike.

    Args:
        calls: what to time, by name.
        repeats: timed rounds.
        device: what they compute on; a GPU is waited for.
        warm_ups: rounds before, not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(warm_ups + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat >= warm_ups:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def device_line() -> str:
    """What the figures were measured on."""
    bf16 = "native" if has_native_bf16("cpu") else "emulated"
    parts = [
        f"{_cpu_name()}, {os.cpu_count()} cores",
        f"{torch.get_num_threads()} torch threads",
        f"torch {torch.__version__}",
        f"bfloat16 {bf16}",
    ]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _cpu_name() -> str:
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
