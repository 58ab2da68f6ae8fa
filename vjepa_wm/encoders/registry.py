"""Finds encoders by name: shipped, trained here, published by Meta, or of timm."""

import logging
from importlib.resources import files
from pathlib import Path

import torch

from vjepa_wm.checkpoint import CONFIG, load_checkpoint
from vjepa_wm.downloads import cached_file, recorded_digest
from vjepa_wm.encoders.collapse import collapse_faults
from vjepa_wm.encoders.families import ENCODERS
from vjepa_wm.encoders.frozen import FrameMode, FrozenEncoder, PoolBy
from vjepa_wm.encoders.published import (
    choose_net,
    encoder_tensors,
    fill,
    is_huggingface_config,
    open_published,
)
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import CheckpointError, SettingError, UnknownNameError
from vjepa_wm.files import digest, read_json
from vjepa_wm.precision import check_device, resolve_dtype

_log = logging.getLogger(__name__)

SHIPPED = ("compact",)
TIMM = "timm:"
NAMES = (*SHIPPED, *ENCODERS, f"{TIMM}<model>")  # what encoders are called that are no folders


def shipped_folder(name: str) -> Path:
    """Folder of weights inside the package."""
    return Path(str(files("vjepa_wm"))) / "weights" / name


def load_encoder(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    pool: int | None = None,
    pool_by: PoolBy = "mean",
    image_size: int | None = None,
    net: str | None = None,
    frame: FrameMode = "repeat",
) -> FrozenEncoder:
    """Load a frozen encoder.

    Args:
        name: `compact`, shipped with the package; a published V-JEPA encoder such as
            `vjepa2_vitl_256`; `timm:<model>`; or the path of a checkpoint folder.
        checkpoint: file or folder to take the weights from instead. Without one, a published
            encoder is looked for in the cache folder and downloaded if need be.
        device: where it runs.
        dtype: `auto` (bfloat16 where the machine has it), `bf16` or `fp32`.
        pool: side of the square of tokens that become one; None takes the checkpoint's own, 1 for
            a published encoder.
        pool_by: `mean` averages those tokens, `stack` puts them side by side in a wider one, which
            keeps where among them something is.
        image_size: side of the square the encoder sees, pixels; None is what it was trained at.
        net: which network of a published file: `encoder` (the student), `target_encoder` or
            `ema_encoder` (its moving average). None is the moving average that Meta evaluates.
        frame: how a single frame is seen: `repeat` fills one tubelet with it, as V-JEPA 2-AC does;
            `image` takes the image path, which V-JEPA 2.1 has.

    Raises:
        UnknownNameError: there is no such encoder; the nearest names are given.
        CheckpointError: the file is not to be had, incomplete, damaged or of something else.
        SettingError: an option does not go with this kind of encoder, or there is no such device.
    """
    check_device(device)
    options = {
        "device": device,
        "dtype": dtype,
        "pool": pool,
        "pool_by": pool_by,
        "image_size": image_size,
    }
    if name.startswith(TIMM):
        _refuse_net(name, net)
        if frame != "repeat":
            raise SettingError(
                f"frame={frame}: encoder '{name}' sees images in one way; leave it out"
            )
        from vjepa_wm.encoders.timm_vit import load_timm_encoder

        return load_timm_encoder(name.removeprefix(TIMM), checkpoint, **options)
    if name in ENCODERS and not (checkpoint and _is_ours(Path(checkpoint))):
        return _load_published(name, checkpoint, net=net, frame=frame, **options)
    _refuse_net(name, net)
    return _load_ours(_folder(name, checkpoint), frame=frame, **options)


def _refuse_net(name: str, net: str | None) -> None:
    if net is not None:
        raise SettingError(
            f"net={net} chooses a network of a published V-JEPA file; encoder '{name}' has one: "
            "leave it out"
        )


def _is_ours(path: Path) -> bool:
    """Whether a path is a folder that this package wrote."""
    if not (path / CONFIG).is_file():
        return False
    return not is_huggingface_config(read_json(path / CONFIG))


def _folder(name: str, checkpoint: str | Path | None) -> Path:
    if checkpoint is None:
        if name in SHIPPED:
            return shipped_folder(name)
        if Path(name).is_dir():
            return Path(name)
        raise UnknownNameError("encoder", name, NAMES)
    if Path(checkpoint).is_file():  # only published weights come as one file
        raise UnknownNameError("published encoder", name, ENCODERS)
    return Path(checkpoint)


def _load_ours(
    folder: Path,
    *,
    device: str | torch.device,
    dtype: str,
    pool: int | None,
    pool_by: PoolBy,
    image_size: int | None,
    frame: FrameMode,
) -> FrozenEncoder:
    loaded = load_checkpoint(folder)
    config = loaded.config
    if config["kind"] != "encoder":
        raise CheckpointError(f"{loaded.folder} holds a {config['kind']}, wanted an encoder")
    if "figures" in config and (faults := collapse_faults(config["figures"])):
        _log.warning(
            "the encoder in %s has collapsed, nearly all frames look alike to it: %s on held-out "
            "frames of its training. Do not plan with it; pretrain again with larger weights of "
            "objective.terms, or for fewer steps",
            folder,
            ", ".join(faults),
        )
    vit = VideoViT(**config["vit"])
    loaded.load_into(vit, "encoder")
    return FrozenEncoder(
        vit.to(device),
        name=config["name"],
        digest=loaded.digest,
        image_size=config["image_size"] if image_size is None else image_size,
        pool=config["pool"] if pool is None else pool,
        pool_by=pool_by,
        dtype=resolve_dtype(dtype, device),
        frame=frame,
    )


def _load_published(
    name: str,
    checkpoint: str | Path | None,
    *,
    device: str | torch.device,
    dtype: str,
    pool: int | None,
    pool_by: PoolBy,
    image_size: int | None,
    net: str | None,
    frame: FrameMode,
) -> FrozenEncoder:
    published, resolved = ENCODERS[name], resolve_dtype(dtype, device)
    if checkpoint is None:
        checkpoint = cached_file(published.file, published.url, size_gb=published.size_gb)
    file = open_published(checkpoint)
    net = choose_net(file, published, net)
    tensors = encoder_tensors(file, name, net=net)
    file_digest = recorded_digest(file.path)
    with torch.device("meta"):
        vit = VideoViT(**published.vit)
    encoder = FrozenEncoder(
        vit,
        # Student and average of one file have latents of their own
        name=f"{name}/{net}",
        digest=digest(f"{file_digest} {net}".encode()),
        image_size=published.image_size if image_size is None else image_size,
        pool=1 if pool is None else pool,
        pool_by=pool_by,
        dtype=resolved,
        frame=frame,
    )
    fill(vit, tensors, source=f"'{net}' of {file.path}", device=device, dtype=resolved)
    return encoder
