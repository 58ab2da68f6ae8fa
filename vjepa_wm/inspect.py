"""Say what a file of weights is and how to load it: python -m vjepa_wm.inspect FILE."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from vjepa_wm.checkpoint import CONFIG, WEIGHTS, load_checkpoint
from vjepa_wm.downloads import verified_digest
from vjepa_wm.encoders.families import ENCODERS
from vjepa_wm.encoders.layout import EncoderLayout, read_layout, read_predictor_layout
from vjepa_wm.encoders.published import (
    Layout,
    PublishedFile,
    choose_net,
    is_huggingface_config,
    open_published,
)
from vjepa_wm.errors import CheckpointError, VjepaWmError
from vjepa_wm.files import read_json
from vjepa_wm.pretraining.published import PREDICTOR
from vjepa_wm.vjepa2_ac import PREDICTORS

EXIT_USAGE = 2
LAYOUTS: dict[Layout, str] = {
    "meta": "as Meta's training writes it",
    "bare": "the tensors of one network",
    "huggingface": "V-JEPA 2 as on Hugging Face",
}


def describe(path: Path, *, with_keys: bool) -> Iterator[str]:
    """Yield lines about a checkpoint folder or a published file; no model is built.

    Of a published file only names, shapes and mask tokens are read.

    Args:
        path: the file, or a folder with `config.json`.
        with_keys: whether to list every tensor with its shape.

    Raises:
        CheckpointError: it cannot be read safely.
    """
    if _is_ours(path):
        yield from _describe_ours(path, read_json(path / CONFIG))
    else:
        yield from _describe_published(open_published(path), with_keys=with_keys)


def _whole(path: Path) -> Path:
    """Return the folder of a weights file that is one of two, or the path itself."""
    is_half = path.name == WEIGHTS and (path.parent / CONFIG).is_file()
    return path.parent if is_half else path


def _is_ours(path: Path) -> bool:
    """Whether it is a folder whose configuration is not Hugging Face's."""
    return (path / CONFIG).is_file() and not is_huggingface_config(read_json(path / CONFIG))


def _describe_ours(folder: Path, config: object) -> Iterator[str]:
    if not isinstance(config, dict) or "kind" not in config:
        raise CheckpointError(
            f"{folder / CONFIG} is neither of a checkpoint that this package wrote nor of V-JEPA 2 "
            "from Hugging Face"
        )
    kind = config["kind"]
    yield f"{folder}: checkpoint of {kind}, {_size(folder / WEIGHTS)}"
    yield from (
        f"  {key}: {value}" for key, value in config.items() if not isinstance(value, dict | list)
    )
    loaders = {
        "behaviour_cloning": f'load_behaviour_cloning("{folder}")',
        "decoder": f'load_decoder("{folder}", encoder)',
        "encoder": f'load_encoder("{folder}")',
        "mask_predictor": f'load_mask_predictor("{folder}")',
        "world_model": f'load_world_model("{folder}")',
    }
    if kind in loaders:
        yield f"load: {loaders[kind]}"


def _describe_published(file: PublishedFile, *, with_keys: bool) -> Iterator[str]:
    yield f"{file.path}: {_size(file.path)}, {LAYOUTS[file.layout]}"
    encoders: dict[str, EncoderLayout] = {}
    for name in file.nets:
        shapes = file.shapes(name)
        found = read_layout(shapes)
        if found is not None:
            encoders[name] = found
        yield f"  {name}: {_count(shapes)}: {found or read_predictor_layout(shapes) or 'unknown'}"
        yield from _notes(file, name, shapes)
        if with_keys:
            yield from (f"    {key} {tuple(value.shape)}" for key, value in shapes.items())
    if file.entries:
        yield "  also: " + ", ".join(f"{key} ({value})" for key, value in file.entries.items())
    yield from _advice(file, encoders)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e9:.3g} GB" if path.is_file() else "without weights"


def _count(tensors: Mapping[str, Tensor]) -> str:
    """Say how many parameters there are and in what number formats."""
    parameters = sum(tensor.numel() for tensor in tensors.values())
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return f"{len(tensors)} tensors, {parameters / 1e6:.4g} M parameters, {'/'.join(dtypes)}"


def _notes(file: PublishedFile, name: str, shapes: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what is worth knowing before using a network."""
    found = read_layout(shapes)
    if found is not None and found.family != "vjepa1" and found.positions:
        yield f"    its position table ({found.positions} rows) is not used, and dropped"
    if found is not None and file.layout == "huggingface":
        yield "    the file does not say whether this is the student or the moving average"
    tokens = {key: shape for key, shape in shapes.items() if key.startswith("mask_tokens.")}
    if tokens:
        values = file.net(name)
        used = [key.partition(".")[2] for key in tokens if bool(values[key].any())]
        yield f"    mask tokens that are not zero: {', '.join(used) or 'none'}"


def _advice(file: PublishedFile, encoders: Mapping[str, EncoderLayout]) -> Iterator[str]:
    """Yield the calls that would load the file."""
    calls: dict[str, None] = {}
    for net, layout in encoders.items():
        for name in layout.fitting:
            option = "" if choose_net(file, ENCODERS[name], None) == net else f', net="{net}"'
            calls[f'load_encoder("{name}", checkpoint="{_path(file)}"{option})'] = None
    calls |= dict.fromkeys(_predictor_calls(file, encoders))
    if not calls:
        yield "load: nothing; no published encoder or predictor has these sizes"
    yield from (f"load: {call}" for call in calls)
    if len({name for layout in encoders.values() for name in layout.fitting}) > 1:
        yield "these names differ in image size alone, which the weights do not show: go by the "
        yield "name under which the file was published"


def _predictor_calls(file: PublishedFile, encoders: Mapping[str, EncoderLayout]) -> Iterator[str]:
    """Yield the calls that would load the predictor of a file."""
    shapes = file.shapes(PREDICTOR) if PREDICTOR in file.nets else {}
    layout = read_predictor_layout(shapes)
    if layout is None:
        return
    if layout.kind == "mask":
        names = sorted({name for encoder in encoders.values() for name in encoder.fitting})
        yield from (f'load_mask_predictor("{name}", checkpoint="{_path(file)}")' for name in names)
        return
    has_state = any(name.startswith(("state_encoder.", "proprio_encoder.")) for name in shapes)
    found = (layout.latent_dim, layout.width, layout.depth, layout.inputs, has_state)
    for name, published in PREDICTORS.items():
        sizes = published.predictor
        wanted = tuple(sizes[key] for key in ("latent_dim", "width", "depth", "action_dim"))
        if found == (*wanted, sizes["proprio_dim"] is not None):
            yield f'load_world_model("{name}", checkpoint="{_path(file)}")'


def _path(file: PublishedFile) -> Path:
    """What the loaders take: a Hugging Face model is a folder."""
    return file.path.parent if file.config else file.path


def check(path: Path) -> str:
    """Read a file whole, compare it with its checksums and its recorded digest; return that."""
    if _is_ours(path):
        return load_checkpoint(path).digest
    return verified_digest(path / WEIGHTS if path.is_dir() else path)


def main() -> None:
    """Run the verb."""
    parser = argparse.ArgumentParser(prog="python -m vjepa_wm.inspect", description=__doc__)
    parser.add_argument("file", type=Path, help="a file of weights, or a folder with config.json")
    parser.add_argument("--keys", action="store_true", help="list every tensor with its shape")
    parser.add_argument(
        "--check", action="store_true", help="also read it whole and verify its checksums"
    )
    options = parser.parse_args()
    path = _whole(options.file)
    try:
        for line in describe(path, with_keys=options.keys):
            print(line)
        if options.check:
            print(f"whole: its contents agree with their checksums, digest {check(path)}")
    except VjepaWmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
