"""The power a time grows with."""

import pytest

from vjepa_wm.benchmarks.slopes import slope


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_slope_of_a_power_is_its_exponent(power: float) -> None:
    assert slope({size: 0.01 * size**power for size in (1, 2, 4, 16)}) == pytest.approx(
        power, abs=1e-5
    )
