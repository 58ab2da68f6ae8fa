"""Start training from a world model instead of from random weights."""

from dataclasses import asdict

from torch import nn

from vjepa_wm.checkpoint import Checkpoint, tensor_faults
from vjepa_wm.errors import CheckpointError
from vjepa_wm.predictor import SHIPPED, open_world_model
from vjepa_wm.vjepa2_ac import PREDICTORS
from vjepa_wm.world_model import ActionSpec, WorldModel

# What a predictor may have that the one it starts from has not: it begins by changing nothing.
_MAY_BE_NEW = ("proprio_embed.",)


def open_start(name_or_path: str) -> Checkpoint:
    """Read what to start from: a world model shipped, or the folder of one trained here.

    Raises:
        UnknownNameError: there is no such model; the nearest names are given.
        CheckpointError: the folder is incomplete, damaged or holds something else.
    """
    if name_or_path in PREDICTORS:
        raise CheckpointError(
            f"{name_or_path} has another kind of predictor than train_ac trains: start from "
            f"{', '.join(SHIPPED)}, or from a folder train_ac wrote"
        )
    return open_world_model(name_or_path, None)


def start_from(world_model: WorldModel, loaded: Checkpoint) -> None:
    """Give predictor, metric and integrator the weights of a checkpoint.

    A predictor that takes proprio may start from one that does not: its new part is untouched. What
    read proprio keeps reading it in standard deviations, of the new trajectories from now on.

    Args:
        world_model: as it was built for this training.
        loaded: the checkpoint of a world model.

    Raises:
        CheckpointError: it was made with another encoder or other actions, or a tensor does not
            fit.
    """
    wanted = _made_for(world_model.encoder.digest, world_model.action_spec, is_scaled=True)
    found = _made_for(
        loaded.config["encoder"]["digest"],
        ActionSpec(**loaded.config["action_spec"]),
        is_scaled="action_low" in loaded.config["predictor"],
    )
    faults = [f"{k}: wanted {wanted[k]}, got {found[k]}" for k in wanted if wanted[k] != found[k]]
    if faults:
        raise CheckpointError(
            f"cannot start from {loaded.folder}, it was trained with others: {'; '.join(faults)}"
        )
    _take(world_model.predictor, loaded, "predictor")
    if world_model.metric is not None:
        _take(world_model.metric, loaded, "metric")
    if world_model.integrate is not None and "integrator" in loaded.parts:
        _take(world_model.integrate, loaded, "integrator")


def _made_for(encoder: str, spec: ActionSpec, *, is_scaled: bool) -> dict[str, object]:
    """What two world models must share: their encoder's digest, their actions, how they read them.

    Shares of half the range are the actions themselves where the range is -1 to 1.
    """
    is_unit = {*spec.low} <= {-1.0} and {*spec.high} <= {1.0}
    reads = "shares of half their range" if is_scaled or is_unit else "as they are"
    return {"encoder": encoder, **asdict(spec), "actions": reads}


def _take(module: nn.Module, loaded: Checkpoint, part: str) -> None:
    given, state = loaded.part(part), module.state_dict()
    for name, tensor in state.items():
        if name.startswith(_MAY_BE_NEW) and name not in given:
            given[name] = tensor
    if faults := tensor_faults(state, given):
        raise CheckpointError(f"cannot start the {part} from {loaded.folder}: {faults}")
    module.load_state_dict(given)
