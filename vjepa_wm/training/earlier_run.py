"""Start a run from the state another one ended in: a cooldown after a long constant phase."""

import textwrap
from pathlib import Path

import torch
from torch import nn

from vjepa_wm.checkpoint import tensor_faults
from vjepa_wm.errors import CheckpointError
from vjepa_wm.training.trainer import STATE, UNREADABLE


def take_state(module: nn.Module, folder: str | Path) -> None:
    """Give a module the last state of a run; the optimiser starts anew.

    Args:
        module: built as in that run.
        folder: of the run, with its `state.pt`.

    Raises:
        CheckpointError: there is no such file, it is damaged, or of other networks.
    """
    path = Path(folder) / STATE
    if not path.is_file():
        raise CheckpointError(f"no {STATE} in {path.parent.absolute()}: wanted a run's folder")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")["module"]
        faults = tensor_faults(module.state_dict(), state)
    except UNREADABLE as error:
        reason = textwrap.shorten(str(error), 150) or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read ({reason}): copy or train it again"
        ) from error
    if faults:
        raise CheckpointError(
            f"cannot start from {path}, it is of other networks than these options make: {faults}"
        )
    module.load_state_dict(state)
