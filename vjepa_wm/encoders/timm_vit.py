"""Any ViT of timm as a frozen encoder: each frame on its own, with the model's own preprocessing.

Shapes: B images, C H W image, P patch tokens, D width.
"""

import contextlib
import functools
import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn

from vjepa_wm.downloads import cached_file, recorded_digest
from vjepa_wm.encoders.frozen import FrozenEncoder, PoolBy
from vjepa_wm.encoders.pixels import PixelTransform
from vjepa_wm.encoders.published import open_published
from vjepa_wm.errors import CheckpointError, SettingError, UnknownNameError
from vjepa_wm.precision import resolve_dtype

PREFIX = "timm:"
EXAMPLE = "timm:vit_small_patch14_reg4_dinov2.lvd142m"


class TimmViT(nn.Module):
    """The patch tokens of a timm ViT, with the interface of `VideoViT`.

    Tokens before the patches (class, distillation, registers) are dropped.

    Args:
        model: as timm made it.
        image_size: side of the square it was made for.

    Raises:
        SettingError: it is no plain ViT, with one token per patch.
    """

    tubelet_size = 1
    image_path = False  # every frame is an image here

    def __init__(self, model: nn.Module, *, image_size: int) -> None:
        super().__init__()
        self.model = model
        self.patch_size = _patch_size(model)
        self.embed_dim: int = model.num_features
        self.num_prefix_tokens: int = getattr(model, "num_prefix_tokens", 0)
        patches = (image_size // self.patch_size) ** 2
        wanted = (1, self.num_prefix_tokens + patches, self.embed_dim)
        with torch.no_grad():
            got = tuple(
                model.eval().forward_features(torch.zeros(1, 3, image_size, image_size)).shape
            )
        if got != wanted:
            raise SettingError(
                f"{type(model).__name__} gives features {got} for a picture of {image_size} px, "
                f"wanted {wanted}, one token per patch of {self.patch_size} px: choose a plain "
                f"ViT, such as {EXAMPLE}"
            )

    def forward(self, video: Tensor) -> Tensor:
        """Encode normalised single frames (B, C, 1, H, W) to patch tokens (B, P, D)."""
        return self.model.forward_features(video.squeeze(2))[:, self.num_prefix_tokens :]


def load_timm_encoder(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    pool: int | None = None,
    pool_by: PoolBy = "mean",
    image_size: int | None = None,
    pretrained: bool = True,
    crop_pct: float | None = None,
) -> FrozenEncoder:
    """Load a ViT of timm as a frozen encoder that sees each frame on its own.

    Args:
        name: timm's name of the model, with or without `timm:` before it and the tag of its weights
            behind it: `timm:vit_small_patch14_dinov2.lvd142m`.
        checkpoint: weights file (.safetensors, or .pt / .bin of tensors alone) to take instead of
            the published weights.
        device: where it runs.
        dtype: `auto` (bfloat16 where the machine has it), `bf16` or `fp32`.
        pool: side of the square of tokens that become one; None keeps all.
        pool_by: `mean` averages those tokens, `stack` puts them side by side in a wider one.
        image_size: side of the square it sees; None is the size it was trained at. Its position
            table is interpolated to fit.
        pretrained: whether to load weights at all; random ones are the same every time.
        crop_pct: share of the picture's side it sees; None is timm's own for the model, which often
            cuts 10 % off, 1 keeps the border.

    Raises:
        UnknownNameError: timm has no such model; the nearest names are given.
        SettingError: the model is no plain ViT or cannot be made for this size; timm is missing.
        CheckpointError: the weights are not to be had, damaged or of another model.
    """
    timm = import_timm()
    short = name.removeprefix(PREFIX)
    published = _published(timm, short)
    side = image_size or published.input_size[-1]
    transform = _transform(published, crop_pct)
    path = _weights_file(short, checkpoint, published) if pretrained else None
    tensors = None if path is None else _read(path, short)
    model = _build(timm, short, published, tensors=tensors, image_size=side)
    model.reset_classifier(0)
    return FrozenEncoder(
        TimmViT(model, image_size=side).to(device),
        name=f"{PREFIX}{short}",
        digest=state_digest(model) if path is None else recorded_digest(path)[:32],
        image_size=side,
        pool=1 if pool is None else pool,
        pool_by=pool_by,
        dtype=resolve_dtype(dtype, device),
        transform=transform,
    )


def import_timm() -> ModuleType:
    """Import timm.

    timm imports torchvision, whose compiled operators do not load beside a torch of another build:
    that of PyPI beside a CPU torch, say. Its Python part then fails while it describes operators
    nobody defined. A ViT uses none of them, so they are declared, without a body, and the import
    goes through.
    """
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [n for n in sys.modules if n.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]
    _declare_operators()
    return importlib.import_module("timm")


@functools.cache  # the declarations last as long as the object that made them
def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def state_digest(module: nn.Module) -> str:
    """Return the digest of a module's tensors and their names, as 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return state.hexdigest()


def _patch_size(model: nn.Module) -> int:
    """Return the side of a model's square patches.

    Raises:
        SettingError: it does not cut pictures into square patches.
    """
    size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    sides = {size} if isinstance(size, int) else set(size or ())
    if len(sides) != 1:
        raise SettingError(
            f"{type(model).__name__} does not cut pictures into square patches of one size: choose "
            f"a plain ViT, such as {EXAMPLE}"
        )
    return sides.pop()


def _published(timm: ModuleType, name: str) -> Any:
    """Return what timm knows of a model's published weights and the pictures they want.

    Raises:
        UnknownNameError: there is no such model or tag.
    """
    tagged = timm.list_models("*", pretrained=True)
    if name not in tagged and not ("." not in name and timm.is_model(name)):
        raise UnknownNameError("timm model", name, {*tagged, *timm.list_models("*")})
    return timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def _build(
    timm: ModuleType,
    name: str,
    published: Any,
    *,
    tensors: dict[str, Tensor] | None,
    image_size: int,
) -> nn.Module:
    """Make a timm model for a size, with random weights or the given ones, loaded strictly.

    Raises:
        SettingError: it cannot be made for a size.
        CheckpointError: a tensor is missing, surplus or of another shape.
    """
    faults = []
    for num_classes in _head_sizes(published, tensors):
        overlay = {"state_dict": tensors, "num_classes": num_classes}
        # Told that the weights are for as many classes as the model has, timm loads strictly
        overlay |= {"custom_load": False, "label_offset": 0}
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return timm.create_model(
                    name,
                    pretrained=tensors is not None,
                    pretrained_cfg_overlay=overlay if tensors is not None else None,
                    num_classes=num_classes,
                    img_size=image_size,
                )
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            raise SettingError(
                f"timm's {name} cannot be made for a picture of {image_size} px: choose a plain "
                f"ViT, such as {EXAMPLE}"
            ) from error
        except RuntimeError as error:  # what load_state_dict raises
            faults.append(error)
    raise CheckpointError(f"the weights do not fit timm's {name}: {faults[0]}") from faults[0]


def _head_sizes(published: Any, tensors: dict[str, Tensor] | None) -> list[int]:
    """Numbers of classes to try: strict loading needs a head wherever the file has one."""
    if tensors is None:
        return [0]
    head = tensors.get(f"{published.classifier}.weight")
    return [published.num_classes, 0] if head is None else [head.shape[0]]


def _weights_file(name: str, checkpoint: str | Path | None, published: Any) -> Path:
    """Return the file of a model's weights: the given one, a cached one, or a download.

    Raises:
        CheckpointError: none are published, or they cannot be downloaded.
    """
    if checkpoint is not None:
        return Path(checkpoint)
    if published.hf_hub_id is None:
        raise CheckpointError(
            f"timm publishes no weights of {name} that can be loaded by name: pass "
            "encoder.checkpoint=FILE, or encoder.pretrained=false for random ones"
        )
    hub_file = published.hf_hub_filename or "model.safetensors"
    with contextlib.suppress(LocalEntryNotFoundError):  # timm itself may have fetched it before
        return Path(hf_hub_download(published.hf_hub_id, hub_file, local_files_only=True))
    return cached_file(
        f"timm/{published.hf_hub_id.replace('/', '_')}{Path(hub_file).suffix}",
        f"{constants.ENDPOINT}/{published.hf_hub_id}/resolve/main/{hub_file}",
        size_gb=_size_gb(name),
    )


def _size_gb(name: str) -> float:
    with torch.device("meta"):
        model = import_timm().create_model(name)
    return round(4e-9 * sum(p.numel() for p in model.parameters()), 2)


def _read(path: Path, name: str) -> dict[str, Tensor]:
    """Read the one network of a file.

    Raises:
        CheckpointError: the file is missing, damaged, wants to run code, or holds no such thing.
    """
    nets = open_published(path).nets
    for inner in ("model", "state_dict", *nets):
        if inner in nets and (len(nets) == 1 or inner in ("model", "state_dict")):
            return dict(nets[inner])
    raise CheckpointError(
        f"{path} holds {', '.join(nets) or 'no network'}, wanted the weights of timm's {name} alone"
    )


def _transform(published: Any, crop_pct: float | None) -> PixelTransform:
    """Return the model's own way of cutting, resizing and normalising pictures.

    Raises:
        SettingError: crop_pct is no share, or the model wants a filter that torch has not.
    """
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise SettingError(f"crop_pct must be in (0, 1], got {crop_pct}")
    if published.interpolation not in ("bilinear", "bicubic"):
        raise SettingError(
            f"the model wants pictures resized by {published.interpolation}; known: bilinear, "
            "bicubic"
        )
    return PixelTransform(
        mean=tuple(published.mean),
        std=tuple(published.std),
        interpolation=published.interpolation,
        crop_pct=published.crop_pct if crop_pct is None else crop_pct,
        squash=published.crop_mode == "squash",
    )
