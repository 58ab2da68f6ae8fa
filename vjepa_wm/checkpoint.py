"""Model checkpoints: `model.safetensors` + `config.json` in a folder, nothing that can run code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vjepa_wm.errors import CheckpointError, DataError
from vjepa_wm.files import atomic_path, digest, read_json, write_json
from vjepa_wm.provenance import provenance

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # a whole dotted part of a name, as in blocks.3.norm


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds.

    Attributes:
        folder: where it was read from.
        config: everything needed to rebuild the models, and their provenance.
        tensors: float32 weights; the name of a part (`predictor.`, `metric.`) comes first.
        digest: of the weights file.
    """

    folder: Path
    config: dict
    tensors: dict[str, Tensor]
    digest: str

    @property
    def parts(self) -> set[str]:
        """Names of the parts it has tensors of."""
        return {name.partition(".")[0] for name in self.tensors}

    def part(self, part: str) -> dict[str, Tensor]:
        """The tensors of one part, under the names its module has for them."""
        prefix = f"{part}."
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def load_into(self, module: nn.Module, part: str) -> None:
        """Load the tensors of one part into a module, strictly.

        Raises:
            CheckpointError: a tensor is missing, surplus or of another shape; all are listed.
        """
        own = self.part(part)
        if faults := tensor_faults(module.state_dict(), own):
            raise CheckpointError(f"the weights in {self.folder} do not fit its {CONFIG}: {faults}")
        module.load_state_dict(own, strict=True)


def tensor_faults(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> str:
    """List the tensors that are missing, surplus or of another shape.

    Names that differ in one number only share an entry: `missing blocks.0-11.norm1.bias`.

    Returns:
        The faults, separated by semicolons; empty when every tensor fits.
    """
    faults = [("missing ", name, "") for name in wanted.keys() - got.keys()]
    faults += [("surplus ", name, "") for name in got.keys() - wanted.keys()]
    faults += [
        ("", name, f": wanted {tuple(wanted[name].shape)}, got {tuple(got[name].shape)}")
        for name in wanted.keys() & got.keys()
        if wanted[name].shape != got[name].shape
    ]
    numbers: dict[tuple[str, str, str, str], list[int]] = {}
    for kind, name, shapes in faults:
        number = _NUMBER.search(name)
        start, end = (number.start(), number.end()) if number else (len(name), len(name))
        entry = (kind, name[:start], name[end:], shapes)
        numbers.setdefault(entry, []).extend([int(number.group())] if number else [])
    listed = [
        f"{kind}{start}{_ranges(found)}{end}{shapes}"
        for (kind, start, end, shapes), found in numbers.items()
    ]
    return "; ".join(sorted(listed))


def _ranges(numbers: list[int]) -> str:
    """Write 0, 1, 2, 5 as `0-2,5`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def save_checkpoint(folder: Path, modules: dict[str, nn.Module], config: dict) -> str:
    """Write the weights of named parts (half precision) and their configuration, atomically.

    Weights come first and the configuration, which names their digest, last: a folder with a
    configuration is complete. Where these very weights are there already, what is said of how they
    were made stays: the options of a call that found nothing left to train do not say it.

    Returns:
        The digest of the weights file.

    Raises:
        CheckpointError: a weight is not finite, or too large for half precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{part}.{name}": tensor.detach().to("cpu", torch.float16).contiguous()
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    faults = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if faults:
        raise CheckpointError(
            f"not saved: {', '.join(faults)} hold values that are not finite in half precision; "
            "the training diverged"
        )
    with atomic_path(folder / WEIGHTS) as path:
        save_file(tensors, path)
    weights_digest = digest(folder / WEIGHTS)
    made = _how_made(folder / CONFIG, weights_digest)
    write_json(folder / CONFIG, {**config, **made, "weights_digest": weights_digest})
    return weights_digest


def _how_made(path: Path, weights_digest: str) -> dict[str, Any]:
    """What a configuration says of how weights with this digest were made; nothing of others."""
    try:
        known = read_json(path)
    except DataError:
        return {}
    if not isinstance(known, dict) or known.get("weights_digest") != weights_digest:
        return {}
    return {name: known[name] for name in ("config", "figures", *provenance()) if name in known}


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        CheckpointError: a file is missing, truncated, or not the one the configuration names.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"no {name} in {folder.absolute()}: a checkpoint is a folder with "
                f"{CONFIG} and {WEIGHTS}, as the training verbs write it"
            )
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not {"kind", "weights_digest"} <= config.keys():
        raise CheckpointError(
            f"{folder / CONFIG} lacks kind or weights_digest: it is not of a checkpoint "
            "that this package wrote"
        )
    found = digest(folder / WEIGHTS)
    if found != config["weights_digest"]:
        raise CheckpointError(
            f"{folder / WEIGHTS} is damaged or was replaced: {CONFIG} names digest "
            f"{config['weights_digest']}, the file has {found}. Copy or train it again"
        )
    try:
        tensors = {key: tensor.float() for key, tensor in load_file(folder / WEIGHTS).items()}
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS} is no safetensors file: {error}") from error
    return Checkpoint(folder, config, tensors, found)
