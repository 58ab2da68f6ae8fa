"""Which clips heads are trained on, chosen by and scored on."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.errors import DataError, SettingError

MIN_VIDEOS = 3  # of a class: one to train, one to choose, one to score


class Splits(NamedTuple):
    """Rows of clips, apart from each other.

    Attributes:
        train: Heads are trained on these, or a share of them.
        validation: The best learning rate and decay are chosen on these.
        test: What is reported is measured on these.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def check_shares(validation_share: float, test_share: float) -> None:
    """Refuse shares that leave nothing for one of the three.

    Raises:
        SettingError: A share is not above 0, or both together are 1 or more.
    """
    if min(validation_share, test_share) <= 0 or validation_share + test_share >= 1:
        raise SettingError(
            "validation_share and test_share: wanted numbers above 0 that leave something to "
            f"train on, got {validation_share} and {test_share}"
        )


def split_classes(
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    *,
    usable: NDArray[np.int64],
    validation_share: float,
    test_share: float,
    seed: int,
) -> Splits:
    """Split videos, class by class, at least one of each class on every side.

    Args:
        labels: Class of each video (N,).
        classes: Their names.
        usable: Rows of the videos that could be read.
        validation_share: Share of each class to choose heads by.
        test_share: Share of each class to score them on.
        seed: Of the split.

    Raises:
        DataError: A class has fewer than three videos.
    """
    check_shares(validation_share, test_share)
    _check_classes(labels[usable], classes)
    rng = np.random.default_rng(seed)
    parts: tuple[list[NDArray], ...] = ([], [], [])
    for label in range(len(classes)):
        rows = rng.permutation(usable[labels[usable] == label])
        test = min(max(1, round(test_share * len(rows))), len(rows) - 2)
        validation = min(max(1, round(validation_share * len(rows))), len(rows) - test - 1)
        cuts = (len(rows) - test - validation, len(rows) - test)
        for part, own in zip(parts, np.split(rows, cuts), strict=True):
            part.append(own)
    return Splits(*(np.sort(np.concatenate(part)) for part in parts))


def _check_classes(labels: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    """Refuse classes with too few videos, naming them."""
    counts = np.bincount(labels, minlength=len(classes))
    short = [f"'{name}' {n}" for name, n in zip(classes, counts, strict=True) if n < MIN_VIDEOS]
    if short:
        raise DataError(
            f"classes with too few videos that can be used: {', '.join(short)}; wanted at least "
            f"{MIN_VIDEOS} each, one to train, one to choose and one to score: add some, or take "
            "the folder away"
        )
