"""Statistics against published and hand-computed values."""

import math

import numpy as np
import pytest

from vjepa_wm.errors import VjepaWmError
from vjepa_wm.evaluation.statistics import (
    bootstrap_interval,
    exact_sign_test,
    paired_rates,
    spearman,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_values(
    successes: int, total: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_holds_the_rate() -> None:
    for successes in range(21):
        low, high = wilson_interval(successes, 20)
        assert 0 <= low <= successes / 20 <= high <= 1
        other_low, other_high = wilson_interval(20 - successes, 20)
        assert (low, high) == pytest.approx((1 - other_high, 1 - other_low))


def test_wilson_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for rate in (0.1, 0.5, 0.9):
        intervals = [wilson_interval(int(k), 50) for k in rng.binomial(50, rate, size=2000)]
        covered = np.mean([low <= rate <= high for low, high in intervals])
        assert 0.92 < covered < 0.98


def test_wilson_widens_with_confidence() -> None:
    narrow, wide = wilson_interval(7, 10, confidence=0.5), wilson_interval(7, 10, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(("successes", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes: int, total: int) -> None:
    with pytest.raises(VjepaWmError, match=f"got {successes} of {total}"):
        wilson_interval(successes, total)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, math.nan])
def test_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(VjepaWmError, match="confidence"):
        wilson_interval(1, 2, confidence=confidence)


def test_spearman_of_known_data() -> None:
    # 1 - 6 * sum(d^2) / (n * (n^2 - 1)) with sum(d^2) = 194, n = 10.
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert spearman(iq, hours) == pytest.approx(-29 / 165)


def test_spearman_with_ties_averages_their_ranks() -> None:
    # Ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): covariance 4.5 over sqrt(4.5 * 5).
    assert spearman([1, 2, 2, 3], [10, 20, 30, 40]) == pytest.approx(4.5 / math.sqrt(22.5))


def test_spearman_sees_order_only() -> None:
    x = np.linspace(-2, 2, 30)
    assert spearman(x, np.exp(5 * x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    assert spearman(x, np.ones(30)) == 0.0


@pytest.mark.parametrize(
    ("x", "y"), [([1, 2], [1, 2, 3]), ([1], [1]), ([[1, 2]], [[1, 2]]), ([1, math.nan], [1, 2])]
)
def test_unpaired_or_missing_numbers_are_refused(x: list, y: list) -> None:
    with pytest.raises(VjepaWmError, match="spearman: wanted"):
        spearman(x, y)


def outcomes(*, both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    pairs = [(True, True)] * both + [(True, False)] * only_a
    pairs += [(False, True)] * only_b + [(False, False)] * neither
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def test_paired_rates_are_antisymmetric() -> None:
    a, b = outcomes(both=20, only_a=9, only_b=3, neither=18)
    found, turned = paired_rates(a, b), paired_rates(b, a)
    assert found.mean == pytest.approx(6 / 50)
    assert (-turned.mean, -turned.high, -turned.low) == pytest.approx(tuple(found))


def test_pairs_that_agree_tell_more_than_the_same_rates_without_pairs() -> None:
    paired = paired_rates(*outcomes(both=45, only_a=5, only_b=0, neither=50))
    unpaired = paired_rates(*outcomes(both=23, only_a=27, only_b=22, neither=28))
    assert paired.mean == pytest.approx(unpaired.mean)
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_without_a_pair_that_differs_the_interval_is_no_point() -> None:
    # Both solve all 30: the rates themselves may still be as far apart as Wilson's intervals are
    found = paired_rates([True] * 30, [True] * 30)
    low, _ = wilson_interval(30, 30)
    assert tuple(found) == pytest.approx((0.0, low - 1, 1 - low))


def test_paired_rates_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    shares = [0.80, 0.12, 0.04, 0.04]  # both, only a, only b, neither: a is 8 points better
    covered = 0
    for counts in rng.multinomial(50, shares, size=2000):
        names = ("both", "only_a", "only_b", "neither")
        found = paired_rates(*outcomes(**dict(zip(names, counts, strict=True))))
        covered += found.low <= 0.08 <= found.high
    assert 0.93 <= covered / 2000 <= 0.99


def test_paired_rates_want_the_same_episodes() -> None:
    for a, b in (([True], [True, False]), ([], [])):
        with pytest.raises(VjepaWmError, match="paired_rates: wanted outcomes of the same"):
            paired_rates(a, b)


@pytest.mark.parametrize(
    ("gained", "lost", "chance"), [(0, 0, 1.0), (4, 0, 1 / 8), (6, 0, 1 / 32), (7, 1, 9 / 128)]
)
def test_the_exact_sign_test_counts_coin_tosses(gained: int, lost: int, chance: float) -> None:
    assert exact_sign_test(gained, lost) == pytest.approx(chance)
    assert exact_sign_test(lost, gained) == pytest.approx(chance)


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(np.mean, values)
    assert (high - low) / 2 == pytest.approx(1.96 / 20, rel=0.1)
    assert low < values.mean() < high
    assert bootstrap_interval(np.mean, values) == (low, high)
    narrow = bootstrap_interval(np.mean, values, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_bootstrap_keeps_pairs_together() -> None:
    x = np.arange(30.0)
    assert bootstrap_interval(spearman, x, x**3) == pytest.approx((1.0, 1.0))
