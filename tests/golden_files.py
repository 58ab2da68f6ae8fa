"""Reads the golden files: outputs of the published models for weights drawn from their names.

The recipe is stated in `tests/golden/README.md`.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw the tensor that belongs to a name."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))


def draw_parameter(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a parameter, scaled by what it is."""
    x = draw(name, shape)
    if name.endswith("pos_embed"):
        return 0.5 * x
    if len(shape) == 1:
        return 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    if "mod_embed" in name or "mask_token" in name:
        return 0.3 * x
    return x / float(np.prod(shape[1:])) ** 0.5


@dataclass(frozen=True)
class Golden:
    """One golden file: its configuration, drawn weights and inputs, stored outputs."""

    config: dict[str, object]
    state_dict: dict[str, Tensor]
    inputs: dict[str, object]
    outputs: dict[str, Tensor]


def load(name: str) -> Golden:
    """Read `tests/golden/<name>.npz`."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        meta = json.loads(file["meta"].tobytes())
        outputs = {
            key.removeprefix("output/"): torch.from_numpy(file[key])
            for key in file
            if key.startswith("output/")
        }
    inputs = {
        key: draw(*value) if isinstance(value[0], str) else torch.tensor(value)
        for key, value in meta["inputs"].items()
    }
    state_dict = {key: draw_parameter(key, shape) for key, shape in meta["params"].items()}
    return Golden(meta["config"], state_dict, inputs, outputs)
