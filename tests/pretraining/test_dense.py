"""V-JEPA 2.1's dense loss: weights of context tokens, counted by hand."""

import pytest
import torch

from vjepa_wm.errors import SettingError
from vjepa_wm.pretraining.dense import DenseLoss, nearness


def test_nearness_on_a_grid_counted_by_hand() -> None:
    """A frame of 3 x 4 whose upper left corner is masked."""
    masked = torch.tensor([[0, 1]])  # (0, 0) and (0, 1)
    context = torch.arange(2, 12).unsqueeze(0)
    squared = [
        *(1, 4),  # the rest of row 0: columns 2 and 3, from column 1
        *(1, 1, 2, 5),  # row 1
        *(4, 4, 5, 8),  # row 2
    ]
    wanted = torch.tensor([squared]).float() ** -0.25
    torch.testing.assert_close(nearness(context, masked, (1, 3, 4)), wanted)


def test_time_counts_as_space_and_rows_differ() -> None:
    """Two clips of 2 x 2 x 2 with one masked token each, at either end."""
    masked = torch.tensor([[0], [7]])
    context = torch.tensor([[1, 2, 3, 4, 7], [0, 3, 4, 5, 6]])
    squared = torch.tensor([[1, 1, 2, 1, 3], [3, 1, 2, 1, 1]]).float()
    torch.testing.assert_close(nearness(context, masked, (2, 2, 2)), squared**-0.25)


def test_the_weight_grows_in_a_line() -> None:
    dense = DenseLoss(weight=0.5, image_weight=0.7, warmup=(0.2, 0.4))
    weights = [dense.weight_at(share, is_image=False) for share in (0.0, 0.2, 0.3, 0.4, 1.0)]
    assert weights == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.5])
    assert dense.weight_at(0.3, is_image=True) == pytest.approx(0.35)
    at_once = DenseLoss(weight=0.5, image_weight=0.7, warmup=(0.0, 0.0))
    assert at_once.weight_at(0.0, is_image=True) == 0.7


def test_an_impossible_warmup_is_refused() -> None:
    with pytest.raises(SettingError, match="two ascending shares"):
        DenseLoss(weight=0.5, image_weight=0.7, warmup=(0.4, 0.2))
