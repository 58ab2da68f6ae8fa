"""Figures beside their baselines: which way is better, and how a table reads."""

import pytest

from vjepa_wm.benchmarks.figures import Figure, device_line, median_seconds, table


@pytest.mark.parametrize(
    ("unit", "ratio"), [("s", 4.0), ("cpu-ms", 4.0), ("frames/s", 0.25), ("GFLOP/s", 0.25)]
)
def test_a_ratio_says_how_many_times_better(unit: str, ratio: float) -> None:
    figure = Figure("a", 2.0, unit, "b", 8.0)
    assert figure.ratio == ratio
    assert figure.record()["ratio"] == ratio
    assert Figure("a", 2.0, unit).ratio is None


def test_the_table_has_a_line_each_in_columns() -> None:
    shown = table([Figure("plan", 0.5, "s", "plain", 2.0), Figure("difference", 1e-7, "m")])
    header, plan, difference = shown.splitlines()
    assert plan.split() == ["0.5", "plan", "s", "plain", "2", "4.00"]
    assert difference.split() == ["1e-07", "difference", "m"]
    assert header.index("figure") == plan.index("plan") == difference.index("difference")


def test_calls_take_turns_after_warming_up() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = median_seconds(calls, repeats=2, device="cpu", warm_ups=1)
    assert order == list("ababab")
    assert set(seconds) == {"a", "b"} and min(seconds.values()) >= 0


def test_the_device_line_names_what_figures_depend_on() -> None:
    line = device_line()
    for word in ("cores", "torch threads", "torch ", "bfloat16"):
        assert word in line
