"""Reads files of published weights: nothing in them is run, and only what is used is read."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vjepa_wm.checkpoint import tensor_faults
from vjepa_wm.encoders import adapters
from vjepa_wm.encoders.families import ENCODERS, PublishedEncoder
from vjepa_wm.encoders.layout import read_layout
from vjepa_wm.errors import CheckpointError
from vjepa_wm.files import read_json

HF_WEIGHTS = "model.safetensors"
HF_CONFIG = "config.json"
WRAPPERS = ("module.", "backbone.")  # of distributed training and of the multi-clip wrapper
NETS = ("encoder", "target_encoder", "ema_encoder", "predictor")
AGAIN = "download or copy it again"

Layout = Literal["meta", "bare", "huggingface"]


@dataclass(frozen=True)
class PublishedFile:
    """The networks of a file; their tensors are mapped, not read.

    Attributes:
        path: the file.
        layout: `meta` (several networks and the state of a training run), `bare` (the tensors of
            one network) or `huggingface` (V-JEPA 2 in the names of transformers).
        nets: name of a network -> its tensors, as named in the file less the wrappers of training.
        entries: what else is in the file, each with a short account of its value.
        config: of a Hugging Face folder; empty otherwise.
    """

    path: Path
    layout: Layout
    nets: dict[str, dict[str, Tensor]]
    entries: dict[str, str]
    config: dict[str, Any]

    def check_has(self, name: str) -> None:
        """Raise a `CheckpointError` that lists the networks when there is none of this name."""
        if name not in self.nets:
            listed = ", ".join(self.nets) or "none"
            raise CheckpointError(
                f"{self.path} has no network '{name}'. It has: {listed}; choose one with net="
            )

    def net(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a network, in the names of this package and of Meta.

        Of a Hugging Face file, queries, keys and values are read, to become one tensor.

        Raises:
            CheckpointError: the file has no such network; it says which it has.
        """
        self.check_has(name)
        return self._named(self.nets[name])

    def shapes(self, name: str) -> dict[str, Tensor]:
        """Return a network as `net` does, on the meta device: nothing is read."""
        return self._named({key: tensor.to("meta") for key, tensor in self.nets[name].items()})

    def _named(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return adapters.from_huggingface(tensors) if self.layout == "huggingface" else tensors


def open_published(path: str | Path) -> PublishedFile:
    """Open a file that Meta published, or a V-JEPA 2 folder or file from Hugging Face.

    Raises:
        CheckpointError: it is missing, damaged, something else, or wants to run code.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path.absolute()} does not exist")
    with open(path, "rb") as file:
        head = file.read(9)
    if head.startswith(b"PK\x03\x04"):
        content = _load_zip(path)
    elif head[8:] == b"{":
        content = _load_safetensors(path)
    elif head.startswith(b"\x80"):
        content = _load_pickle(path, mmap=False)
    else:
        raise CheckpointError(
            f"{path} is no PyTorch or safetensors file: it has {path.stat().st_size} bytes and "
            f"starts with {head[:4]!r}. If it should be one, {AGAIN}"
        )
    return _sort(path, content, config={})


def _open_folder(folder: Path) -> PublishedFile:
    for name in (HF_CONFIG, HF_WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"no {name} in {folder.absolute()}: a folder of V-JEPA 2 from Hugging Face has "
                f"{HF_CONFIG} and {HF_WEIGHTS} (in one piece)"
            )
    config = read_json(folder / HF_CONFIG)
    if not is_huggingface_config(config):
        raise CheckpointError(
            f"{folder / HF_CONFIG} is of something else, wanted Hugging Face's model_type vjepa2"
        )
    return _sort(folder / HF_WEIGHTS, _load_safetensors(folder / HF_WEIGHTS), config=config)


def is_huggingface_config(config: object) -> bool:
    """Whether a `config.json` is of a V-JEPA 2 model of transformers."""
    return isinstance(config, dict) and ("model_type", "vjepa2") in config.items()


def _load_zip(path: Path) -> object:
    """Load what torch.save wrote; its pickle is compared with its checksum first."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [entry for entry in archive.namelist() if entry.endswith("data.pkl")]
            for entry in pickles:
                archive.read(entry)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is cut off or damaged ({error}): {AGAIN}") from error
    if not pickles:
        raise CheckpointError(f"{path} is a zip archive, but not one that PyTorch wrote")
    return _load_pickle(path, mmap=True)


def _load_pickle(path: Path, *, mmap: bool) -> object:
    """Load with PyTorch's restricted unpickler, which makes tensors and plain containers only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged or hostile pickle can fail in any way
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(_refusal(path, str(error))) from error
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is cut off, damaged or no file of weights ({type(error).__name__}: {reason}): "
            f"{AGAIN}"
        ) from error


def _refusal(path: Path, reason: str) -> str:
    """Say why a pickle was refused; PyTorch's own message advises to load it all the same."""
    wanted = re.search(r"GLOBAL ([\w.]+)", reason)
    if wanted is None:
        return (
            f"{path} was not loaded: it is cut off or damaged, or holds more than tensors and may "
            "want to run code. Get it from its publisher"
        )
    return (
        f"{path} wants to run {wanted.group(1)} when it is loaded, so it was not loaded: weights "
        "need no code. Get the file from its publisher"
    )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is cut off or damaged ({error}): {AGAIN}") from error


def _sort(path: Path, content: object, *, config: dict[str, Any]) -> PublishedFile:
    """Find the networks in what a file holds."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, wanted named tensors")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if adapters.is_huggingface(tensors):
        return PublishedFile(path, "huggingface", adapters.split_huggingface(tensors), {}, config)
    nets = {name: _strip(value, path) for name, value in content.items() if _is_net(value)}
    entries = {
        name: _account(value)
        for name, value in content.items()
        if name not in nets and name not in tensors
    }
    if tensors and all(name.partition(".")[0] in NETS for name in tensors):
        for name in NETS:
            own = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
            if own:
                nets[name] = _strip(own, path)
    elif tensors:
        return PublishedFile(path, "bare", {"encoder": _strip(tensors, path)}, entries, config)
    return PublishedFile(path, "meta", nets, entries, config)


def _is_net(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _strip(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Take the wrappers of training off the names."""
    stripped: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        if name in stripped:
            raise CheckpointError(f"{path} holds two tensors for {name}: one of them is {key}")
        stripped[name] = tensor
    return stripped


def _account(value: object) -> str:
    """Say in a word or two what an entry is."""
    if isinstance(value, int | float | str | None):
        return str(value)
    size = f" of {len(value)}" if isinstance(value, Mapping | list | tuple) else ""
    return f"{type(value).__name__}{size}"


def choose_net(file: PublishedFile, published: PublishedEncoder, net: str | None) -> str:
    """Choose which encoder of a file to take: the asked one, or the one of the family's rule.

    A file with one encoder, as from Hugging Face, gives that one.
    """
    if net is not None:
        return net
    return published.net_key if file.layout == "meta" else "encoder"


def encoder_tensors(file: PublishedFile, name: str, *, net: str) -> dict[str, Tensor]:
    """Return an encoder's tensors, named as `VideoViT` wants them, not read yet.

    Args:
        file: where they are.
        name: of the published encoder they should be.
        net: which network of the file.

    Raises:
        CheckpointError: they are of another family or size; the message names what they are.
    """
    published, source = ENCODERS[name], f"'{net}' of {file.path}"
    file.check_has(net)
    layout = read_layout(file.shapes(net))
    if layout is None:
        raise CheckpointError(
            f"{source} is no V-JEPA encoder: python -m vjepa_wm.inspect says what it is"
        )
    if not layout.fits(published):
        advice = " or ".join(layout.fitting) or "no published encoder has its sizes"
        width, depth = published.vit["embed_dim"], published.vit["depth"]
        raise CheckpointError(
            f"{source} is a {layout}, not {name} (width {width}, depth {depth}). "
            f"Load it as: {advice}"
        )
    _check_config(file, published)
    return adapters.ENCODER[published.family](file.net(net))


def _check_config(file: PublishedFile, published: PublishedEncoder) -> None:
    """Compare what a Hugging Face configuration says beyond shapes."""
    wanted = {
        "num_attention_heads": published.vit["num_heads"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    }
    for key, value in wanted.items():
        if key in file.config and file.config[key] != value:
            raise CheckpointError(
                f"{file.path.parent / HF_CONFIG}: {key} is {file.config[key]}, wanted {value}"
            )


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    device: str | torch.device,
    dtype: torch.dtype,
) -> None:
    """Read tensors into a module made on the meta device, strictly; memory holds one copy.

    Args:
        module: takes the tensors as its own.
        tensors: mapped from a file.
        source: what they are, for messages.
        device: where they go.
        dtype: what they become.

    Raises:
        CheckpointError: a tensor is missing, surplus, of another shape or not finite.
    """
    if faults := tensor_faults(module.state_dict(), tensors):
        raise CheckpointError(f"{source} does not fit: {faults}")
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own[name] = tensor.to(device, dtype, copy=True)
        if not own[name].isfinite().all():
            raise CheckpointError(f"{source}: {name} holds values that are not finite: {AGAIN}")
    module.load_state_dict(own, strict=True, assign=True)
