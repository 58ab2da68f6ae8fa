"""Whole episodes whose class is to be told, where their folder keeps labels of them.

Shapes: N episodes that are long enough, T frames.
"""

import logging

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.truth import Truth
from vjepa_wm.errors import DataError
from vjepa_wm.probing.labels import ClassLabels
from vjepa_wm.probing.splits import Splits
from vjepa_wm.probing.states import MIN_SPLIT, StateClips, stride_of

logger = logging.getLogger(__name__)


def labelled_clips(
    trajectories: Trajectories,
    label: str,
    *,
    num_frames: int,
    fps: float | None,
    validation_share: float,
    seed: int,
) -> tuple[StateClips, ClassLabels, Splits]:
    """Make one clip of each episode, from its middle, and split them.

    Tested are the episodes that pretraining holds out, all of them. Classes that no clip for
    training has are left out, with their clips, and named in a warning.

    Args:
        trajectories: With labels beside them.
        label: Which of the labels is to be told.
        num_frames: Frames of a clip, T.
        fps: Frames per second of a clip; None spreads it over the whole episode.
        validation_share: Share of the other episodes to choose heads by.
        seed: Of their draw.

    Raises:
        DataError: There are no labels, the rate does not divide the recorded one, or there are too
            few episodes or classes.
        UnknownNameError: There is no such label.
    """
    truth = Truth.read(trajectories.folder)
    if truth is None:
        raise DataError(
            f"{trajectories.folder} keeps no labels of its episodes (truth.json): collect a corpus "
            "such as corpus=play, or leave label out to probe states"
        )
    classes, every = truth.classes(label), truth.classes_of(trajectories, label)
    frames, episodes = _middles(trajectories, num_frames, fps)
    is_test = np.isin(episodes, trajectories.split()[1])
    splits = _split(is_test, validation_share, seed)
    own = every[episodes]
    trained = np.unique(own[splits.train])
    if len(untrained := np.setdiff1d(own, trained)):
        logger.warning(
            "%s: left out, no clip to train on has them: %s",
            label,
            ", ".join(f"{classes[index]} ({(own == index).sum()} clips)" for index in untrained),
        )
    splits = Splits(*(rows[np.isin(own[rows], trained)] for rows in splits))
    if len(trained) < 2 or min(map(len, splits)) < MIN_SPLIT:
        raise DataError(
            f"{label}: {len(episodes)} episodes of {num_frames} frames have {len(trained)} classes "
            f"to train on and {[len(rows) for rows in splits]} clips to train, choose and test, "
            f"wanted 2 classes and {MIN_SPLIT} clips of each: collect more"
        )
    names = tuple(classes[index] for index in trained)
    labels = ClassLabels(names, np.searchsorted(trained, own))
    return StateClips(trajectories, frames), labels, splits


def _split(is_test: NDArray[np.bool_], validation_share: float, seed: int) -> Splits:
    """Draw the rows of clips (N,) to choose heads by from those that are not for the test."""
    others = np.random.default_rng(seed).permutation(np.flatnonzero(~is_test))
    count = max(1, round(len(others) * validation_share))
    return Splits(np.sort(others[count:]), np.sort(others[:count]), np.flatnonzero(is_test))


def _middles(
    trajectories: Trajectories, num_frames: int, fps: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut the middle out of each episode: frame indices (N, T), and which episodes (N,)."""
    lengths = trajectories.lengths
    stride = 1 if fps is None else stride_of(trajectories.meta.fps, fps)
    span = (num_frames - 1) * stride + 1
    episodes = np.flatnonzero(lengths >= span)
    if not len(episodes):
        raise DataError(
            f"num_frames: no episode lasts for a clip of {num_frames} frames, the longest has "
            f"{int(lengths.max())} frames"
        )
    if fps is None and num_frames > 1:
        # One rate for all clips, at which the shortest is spread over its episode.
        stride = int(lengths[episodes].min() - 1) // (num_frames - 1)
        span = (num_frames - 1) * stride + 1
    starts = (np.cumsum(lengths) - lengths + (lengths - span) // 2)[episodes]
    return starts[:, None] + np.arange(num_frames) * stride, episodes
