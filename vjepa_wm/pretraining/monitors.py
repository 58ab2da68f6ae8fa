"""Collapse monitors: is the encoder still telling frames apart, and in the order of time?

The training loss rewards collapse and layer norm hides it, so checkpoints are chosen by the rank
correlation of latent distance with time apart, never by the loss.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vjepa_wm.encoders.collapse import collapse_faults, latent_figures
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.errors import CheckpointError, UnknownNameError
from vjepa_wm.evaluation.statistics import spearman

logger = logging.getLogger(__name__)

TIME_ORDER = "time_rank_correlation"
FIGURES = ("frame_std", "effective_rank", TIME_ORDER)


def time_rank_correlation(latents: Tensor, *, max_steps: int) -> float:
    """Spearman correlation between latent distance and steps apart within episodes.

    Args:
        latents: (E, T, P, D), E episodes of T frames.
        max_steps: pairs further apart than this are left out.

    Returns:
        The mean over episodes; 1 if distance grows with time, near 0 after a collapse, 0 where
        there are fewer than two pairs to put in order.
    """
    length = latents.shape[1]
    first, second = np.triu_indices(length, k=1)
    near = second - first <= max_steps
    first, second = first[near], second[near]
    if len(first) < 2:
        return 0.0
    flat = latents.flatten(2)
    scores = []
    for episode in flat:
        distance = torch.cdist(episode, episode)[first, second]
        scores.append(spearman(distance.numpy(), second - first))
    return float(np.mean(scores))


def check_figure(name: str, *, num_sets: int) -> None:
    """Refuse what `collapse_figures` of so many sets does not tell.

    Raises:
        UnknownNameError: naming the nearest.
    """
    known = (*FIGURES, *(f"{TIME_ORDER}_{i}" for i in range(num_sets)))
    if name not in known:
        raise UnknownNameError("figure to select by", name, known)


def collapse_figures(
    encoder: FrozenEncoder, frames: Sequence[Tensor], *, device: str | torch.device
) -> dict[str, float]:
    """Collapse monitors on held-out frames (E, T, H, W, C), averaged over the sets."""
    rows = []
    for pixels in frames:
        latents = encoder.encode(pixels.to(device)).cpu()
        rows.append(
            {
                **latent_figures(latents.flatten(0, 1)),
                TIME_ORDER: time_rank_correlation(latents, max_steps=15),
            }
        )
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    each = {f"{TIME_ORDER}_{i}": row[TIME_ORDER] for i, row in enumerate(rows)}
    return {**means, **each}


def watch_collapse(
    figures: Mapping[str, float], floors: Mapping[str, float], *, stop: bool
) -> None:
    """Warn of a collapse, or stop.

    Raises:
        CheckpointError: The encoder has collapsed, and training is to stop.
    """
    faults = collapse_faults(figures, floors)
    if not faults:
        return
    message = (
        f"the encoder has collapsed, nearly all frames look alike to it: {', '.join(faults)}. Try "
        "larger weights of objective.terms, a smaller trainer.learning_rate or a larger "
        "objective.ema_decay"
    )
    if stop:
        raise CheckpointError(f"{message}. Stopped; the state of the validation before is kept")
    logger.warning("%s", message)


class RankWatch:
    """Warns, once, when frames vary in far fewer directions than random weights let them.

    An encoder can lose directions long before it has collapsed, with a loss and a deviation that
    go up; docs/pretraining_data.md says what that cost in goals.

    Args:
        untrained: effective rank before training.
        share: of it, under which a warning is due; 0 never warns.
    """

    def __init__(self, untrained: float, *, share: float) -> None:
        self.untrained = untrained
        self.share = share
        self._has_warned = False

    def __call__(self, rank: float) -> None:
        """Look at the rank now."""
        if self._has_warned or not rank < self.share * self.untrained:
            return
        self._has_warned = True
        logger.warning(
            "effective_rank is %.1f, under rank_share=%g of the %.1f of random weights: frames "
            "vary in ever fewer directions. PushT's plans reached fewer goals on such ones than "
            "on random ones (docs/pretraining_data.md); try fewer trainer.steps, or end it here",
            rank,
            self.share,
            self.untrained,
        )
