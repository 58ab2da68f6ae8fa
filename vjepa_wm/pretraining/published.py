"""Loads mask predictors: those published with V-JEPA 2 and 2.1 encoders, and those made here."""

from pathlib import Path

import torch

from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.downloads import cached_file, recorded_digest
from vjepa_wm.encoders import adapters
from vjepa_wm.encoders.families import ENCODERS, mask_predictor_config
from vjepa_wm.encoders.published import fill, open_published
from vjepa_wm.errors import CheckpointError, UnknownNameError
from vjepa_wm.precision import resolve_dtype
from vjepa_wm.pretraining.mask_predictor import MaskPredictor

PREDICTOR = "predictor"  # in published files
KIND = "mask_predictor"  # in what `python -m vjepa_wm.pretrain` writes, and its folder there


def load_mask_predictor(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
) -> MaskPredictor:
    """Load the mask predictor trained with an encoder.

    Look at its mask tokens before choosing `mask_index`: training may have used one of them alone,
    and the others are then zero as they began (`python -m vjepa_wm.inspect` tells).

    Args:
        name: of a published encoder, such as `vjepa2_vitl_256`, or the folder of a pretraining run.
        checkpoint: Meta's file, or a folder from Hugging Face. Without one, the file is looked for
            in the cache folder and downloaded if need be.
        device: where it runs.
        dtype: `auto` (bfloat16 where the machine has it), `bf16` or `fp32`.

    Raises:
        UnknownNameError: there is no such encoder or folder; the nearest names are given.
        SettingError: it is a V-JEPA 1 encoder.
        CheckpointError: the file is not to be had, damaged, or of something else.
    """
    if name not in ENCODERS and checkpoint is None and Path(name).is_dir():
        return _load_ours(Path(name), device=device, dtype=resolve_dtype(dtype, device))
    if name not in ENCODERS:
        raise UnknownNameError("published encoder", name, ENCODERS)
    published, resolved = ENCODERS[name], resolve_dtype(dtype, device)
    config = mask_predictor_config(published)
    if checkpoint is None:
        checkpoint = cached_file(published.file, published.url, size_gb=published.size_gb)
    file = open_published(checkpoint)
    tensors = adapters.MASK_PREDICTOR[published.family](file.net(PREDICTOR))
    recorded_digest(file.path)  # a damaged file is noticed here
    with torch.device("meta"):
        predictor = MaskPredictor(**config)
    source = f"'{PREDICTOR}' of {file.path}, as that of {name},"
    fill(predictor, tensors, source=source, device=device, dtype=resolved)
    return predictor.eval().requires_grad_(False)


def _load_ours(folder: Path, *, device: str | torch.device, dtype: torch.dtype) -> MaskPredictor:
    """Load what lies beside the encoder of a pretraining run, or is that folder itself."""
    loaded = load_checkpoint(folder / KIND if (folder / KIND).is_dir() else folder)
    if loaded.config["kind"] != KIND:
        raise CheckpointError(
            f"{loaded.folder} holds a {loaded.config['kind']}, wanted a {KIND}: runs of JEPA keep "
            "theirs, those of objective=pixels have none"
        )
    predictor = MaskPredictor(**loaded.config[KIND])
    loaded.load_into(predictor, KIND)
    return predictor.to(device, dtype).eval().requires_grad_(False)
