"""Start training from a world model instead of from random weights."""

from torch import nn

from vjepa_wm.checkpoint import Checkpoint, tensor_faults
from vjepa_wm.errors import CheckpointError
from vjepa_wm.world_model import WorldModel

# What a predictor may have that the one it starts from has not: it begins by changing nothing.
_MAY_BE_NEW = ("proprio_embed.",)


def start_from(world_model: WorldModel, loaded: Checkpoint) -> None:
    """Give predictor, metric and integrator the weights of a checkpoint.

    A predictor that takes proprio may start from one that does not: its new part is untouched. The
    integrator is only taken over where the checkpoint has one.

    Args:
        world_model: as it was built for this training.
        loaded: the checkpoint of a world model.

    Raises:
        CheckpointError: another encoder made its latents, or a tensor does not fit.
    """
    wanted, found = world_model.encoder.digest, loaded.config["encoder"]["digest"]
    if wanted != found:
        raise CheckpointError(
            f"{loaded.folder} was trained on latents of encoder {found}, this run uses {wanted}: "
            "name the same encoder, or start from nothing"
        )
    _take(world_model.predictor, loaded, "predictor")
    _take(world_model.metric, loaded, "metric")
    if world_model.integrate is not None and loaded.config.get("integrator") is not None:
        _take(world_model.integrate, loaded, "integrator")


def _take(module: nn.Module, loaded: Checkpoint, part: str) -> None:
    given, state = loaded.part(part), module.state_dict()
    for name, tensor in state.items():
        if name.startswith(_MAY_BE_NEW) and name not in given:
            given[name] = tensor
    if faults := tensor_faults(state, given):
        raise CheckpointError(f"cannot start the {part} from {loaded.folder}: {faults}")
    module.load_state_dict(given)
