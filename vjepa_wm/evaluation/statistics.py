"""Small-sample statistics for success rates and distances: numpy only."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vjepa_wm.errors import VjepaWmError


class PairedDifference(NamedTuple):
    """A mean difference with its confidence interval."""

    mean: float
    low: float
    high: float


def wilson_interval(
    successes: float, total: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return Wilson's score interval of a success rate.

    Unlike the usual mean plus or minus two standard errors it stays inside [0, 1] and is right
    for few episodes and for rates near 0 or 1 (Wilson, 1927).

    Args:
        successes: Number of successes, 0 to `total`; a mean over several runs of the same tasks is
            no whole number.
        total: Number of independent episodes, at least 1.
        confidence: Coverage, in (0, 1).

    Returns:
        Lower and upper end, as rates in [0, 1].

    Raises:
        VjepaWmError: A number is out of its range.
    """
    if total < 1 or not 0 <= successes <= total:
        raise VjepaWmError(
            f"wilson_interval: wanted 0 <= successes <= total and total >= 1, "
            f"got {successes} of {total}"
        )
    z2 = _two_sided_quantile(confidence) ** 2
    rate = successes / total
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    margin = math.sqrt(z2 * rate * (1 - rate) / total + (z2 / (2 * total)) ** 2) / (1 + z2 / total)
    # At 0 and at all successes the ends are exact; rounding must not move them.
    low = 0.0 if successes == 0 else centre - margin
    high = 1.0 if successes == total else centre + margin
    return low, high


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rank correlation; ties get the average of their ranks.

    Args:
        x: `(n,)` numbers, n >= 2.
        y: `(n,)` numbers.

    Returns:
        Correlation in [-1, 1]; 0 where x or y is constant, as it then orders nothing.

    Raises:
        VjepaWmError: The lengths differ, are below 2, or a number is NaN.
    """
    x, y = _paired("spearman", x, y)
    ranks_x, ranks_y = _ranks(x), _ranks(y)
    spread = ranks_x.std() * ranks_y.std()
    if spread == 0:
        return 0.0
    product = ((ranks_x - ranks_x.mean()) * (ranks_y - ranks_y.mean())).mean()
    return float(np.clip(product / spread, -1.0, 1.0))


def auroc(higher: ArrayLike, lower: ArrayLike) -> float:
    """Return the area under the ROC curve: how often one of `higher` is above one of `lower`.

    Over all pairs of one of each, ties counting half (Mann and Whitney, 1947): 0.5 is chance, 1
    tells the two apart without a mistake.

    Args:
        higher: `(n,)` numbers, n >= 1.
        lower: `(m,)` numbers, m >= 1.

    Raises:
        VjepaWmError: One of them is empty or has a NaN.
    """
    higher, lower = (np.asarray(values, dtype=np.float64) for values in (higher, lower))
    both = np.concatenate([higher, lower])
    if not len(higher) or not len(lower) or np.isnan(both).any():
        raise VjepaWmError(
            f"auroc: wanted numbers on both sides, got {len(higher)} and {len(lower)}, "
            f"{int(np.isnan(both).sum())} of them NaN"
        )
    won = _ranks(both)[: len(higher)].sum() - len(higher) * (len(higher) + 1) / 2
    return float(won / (len(higher) * len(lower)))


def paired_rates(a: Sequence[bool], b: Sequence[bool]) -> PairedDifference:
    """Return the difference a - b of two success rates on the same episodes, and its interval.

    For two agents on the same tasks, so that what makes a task hard for both does not blur the
    comparison. The interval is Newcombe's for paired proportions (Statistics in Medicine 17, 1998,
    method 10): Wilson's of both rates, put together under the correlation of the pairs. A bootstrap
    is too narrow where few episodes tell the two apart, and a single point where none does.

    Args:
        a: `(n,)` outcomes of the first agent; n >= 1.
        b: `(n,)` outcomes of the second, of the same episodes in the same order.

    Raises:
        VjepaWmError: The lengths differ, or there are no episodes.
    """
    if len(a) != len(b) or not len(a):
        raise VjepaWmError(
            f"paired_rates: wanted outcomes of the same episodes, got {len(a)} and {len(b)}"
        )
    pairs = Counter((bool(x), bool(y)) for x, y in zip(a, b, strict=True))
    solved = (sum(map(bool, a)), sum(map(bool, b)))
    rate_a, rate_b = (count / len(a) for count in solved)
    (low_a, high_a), (low_b, high_b) = (wilson_interval(count, len(a)) for count in solved)
    correlation = _pair_correlation(pairs)

    def margin(own: float, other: float) -> float:
        return math.sqrt(max(own**2 - 2 * correlation * own * other + other**2, 0.0))

    mean = rate_a - rate_b
    return PairedDifference(
        mean,
        mean - margin(rate_a - low_a, high_b - rate_b),
        mean + margin(high_a - rate_a, rate_b - low_b),
    )


def _pair_correlation(pairs: Counter[tuple[bool, bool]]) -> float:
    """Correlation of paired outcomes, with Newcombe's correction for continuity."""
    both, neither = pairs[True, True], pairs[False, False]
    only_a, only_b = pairs[True, False], pairs[False, True]
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if not product:
        return 0.0
    found = both * neither - only_a * only_b
    corrected = max(found - pairs.total() / 2, 0) if found > 0 else found
    return corrected / math.sqrt(product)


def exact_sign_test(gained: int, lost: int) -> float:
    """Return how likely chance alone splits so many changes at least so unevenly, either way.

    McNemar's test in its exact, two-sided form: of the `gained + lost` episodes that tell two
    agents apart, each is as likely to be either's.
    """
    changes = gained + lost
    tail = sum(math.comb(changes, k) for k in range(min(gained, lost) + 1)) / 2**changes
    return min(1.0, 2 * tail)


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of any statistic.

    Args:
        statistic: Of arrays `(n,)`, as many as there are samples.
        *samples: `(n,)` numbers each; resampled together, so that pairs stay pairs.
        groups: `(n,)` what each is of, such as an episode: what is of one is not independent, and
            drawn together. None draws each alone.
        confidence: Coverage, in (0, 1).
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    _two_sided_quantile(confidence)
    arrays = [np.asarray(sample) for sample in samples]
    labels = np.arange(len(arrays[0])) if groups is None else np.asarray(groups)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    count = len(members)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(count, size=count) for _ in range(resamples))
    rows = (np.concatenate([members[i] for i in draw]) for draw in draws)
    values = [statistic(*(array[chosen] for array in arrays)) for chosen in rows]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def rate_interval(shares: ArrayLike, *, groups: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """Return a 95 % interval of the mean of shares, those of one group not being independent.

    The wider of Wilson's, as if they were, and the bootstrap over groups, which alone has no width
    where all shares are 0 or 1.

    Args:
        shares: `(n,)` in [0, 1].
        groups: `(n,)` what each is of, such as an episode.
        seed: Seed of the bootstrap.
    """
    values = np.asarray(shares, dtype=np.float64)
    drawn = bootstrap_interval(np.mean, values, groups=groups, seed=seed)
    alone = wilson_interval(round(float(values.sum())), len(values))
    return min(drawn[0], alone[0]), max(drawn[1], alone[1])


# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_STUDENT += (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)


def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean of a few numbers, such as one per seed.

    Args:
        values: `(n,)` independent numbers, n >= 2.

    Raises:
        VjepaWmError: There are fewer than two.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise VjepaWmError(f"mean_interval: wanted at least two numbers, got shape {values.shape}")
    freedom = len(values) - 1
    quantile = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _STUDENT[-1]
    margin = quantile * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - margin), float(values.mean() + margin)


def _two_sided_quantile(confidence: float) -> float:
    """Return how many standard deviations around the mean hold this share of a normal."""
    if not 0 < confidence < 1:
        raise VjepaWmError(f"confidence: wanted a number in (0, 1), got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _paired(name: str, x: ArrayLike, y: ArrayLike) -> tuple[NDArray, NDArray]:
    """Return both as float64 arrays of the same length, at least 2, without NaN."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise VjepaWmError(
            f"{name}: wanted two lists of the same length n >= 2, "
            f"got shapes {x.shape} and {y.shape}"
        )
    bad = int(np.isnan(x).sum() + np.isnan(y).sum())
    if bad:
        raise VjepaWmError(f"{name}: wanted numbers, got {bad} NaN among {2 * len(x)}")
    return x, y


def _ranks(values: NDArray) -> NDArray:
    """Return ranks `(n,)` from 1, equal values sharing the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[group]
