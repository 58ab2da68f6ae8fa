"""V-JEPA 2.1's dense loss: context tokens are predicted too, those near a masked one the most.

Shapes: B clips, Lc context tokens, Lt masked tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vjepa_wm.errors import SettingError
from vjepa_wm.nn.rope import grid_positions


class DenseLoss:
    """How much the prediction of context tokens weighs (arXiv 2603.14482).

    Args:
        weight: of a context token beside a masked one, in clips; divided by the square root of its
            distance to the nearest masked token.
        image_weight: the same in stills that take the encoder's image path.
        warmup: shares of the budget between which the weight grows from 0, in a straight line.

    Raises:
        SettingError: the shares do not ascend within [0, 1].
    """

    def __init__(self, *, weight: float, image_weight: float, warmup: Sequence[float]) -> None:
        start, full = warmup
        if not 0 <= start <= full <= 1:
            raise SettingError(f"warmup: wanted two ascending shares of 1, got {list(warmup)}")
        self.weight = weight
        self.image_weight = image_weight
        self.start, self.full = start, full

    def weight_at(self, share: float, *, is_image: bool) -> float:
        """Weight at a share of the budget."""
        weight = self.image_weight if is_image else self.weight
        if share >= self.full:
            return weight
        return weight * max(share - self.start, 0.0) / (self.full - self.start)


def nearness(context_ids: Tensor, target_ids: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """One over the square root of each context token's distance to the nearest masked token.

    Distances are straight lines on the token grid, in patches, a tubelet in time counting as one.

    Args:
        context_ids: (B, Lc) places of the context tokens.
        target_ids: (B, Lt) places of the masked ones.
        grid: tokens along (time, rows, columns).

    Returns:
        float32 (B, Lc), at most 1.
    """
    context, target = (
        grid_positions(ids, rows=grid[1], columns=grid[2]).float()
        for ids in (context_ids, target_ids)
    )
    # Without matrix products: those round, under autocast to bfloat16
    distances = torch.cdist(context, target, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.amin(dim=-1).rsqrt()
