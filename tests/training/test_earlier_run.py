"""Starting from another run: its last networks, or an error that names the file."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vjepa_wm.errors import CheckpointError
from vjepa_wm.training.earlier_run import take_state


def save(folder: Path, module: nn.Module) -> None:
    torch.save({"module": module.state_dict(), "step": 7}, folder / "state.pt")


def test_the_last_networks_are_taken(tmp_path: Path) -> None:
    earlier, later = nn.Linear(3, 2), nn.Linear(3, 2)
    save(tmp_path, earlier)
    take_state(later, tmp_path)
    assert torch.equal(later.weight, earlier.weight) and torch.equal(later.bias, earlier.bias)


def test_what_cannot_be_started_from_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no state.pt in"):
        take_state(nn.Linear(3, 2), tmp_path)
    save(tmp_path, nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match=r"other networks.*weight: wanted \(2, 3\), got"):
        take_state(nn.Linear(3, 2), tmp_path)
    for content in (b"", b"no torch file"):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            take_state(nn.Linear(3, 2), tmp_path)
    torch.save([1, 2], tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        take_state(nn.Linear(3, 2), tmp_path)
