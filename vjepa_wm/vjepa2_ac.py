"""The published V-JEPA 2-AC predictors: their sizes and files as facts, and reading them strictly.

docs/vjepa2_ac.md says what is known to be wrong with the weights, and what to do about it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vjepa_wm.downloads import cached_file, recorded_digest
from vjepa_wm.encoders.families import BASE_URL, NetKey
from vjepa_wm.encoders.pixels import PixelTransform
from vjepa_wm.encoders.published import PublishedFile, fill, open_published
from vjepa_wm.errors import CheckpointError
from vjepa_wm.token_predictor import TokenPredictor

# JEPA-WMs' names for the same tensors -> ours, which are Meta's first ones
_RENAMED = {"proprio_encoder.": "state_encoder."}
_UNUSED = ("predictor_pos_embed",)  # a table that models with rotary positions do not use

_SIZES = {"latent_dim": 1408, "grid": (16, 16), "width": 1024, "depth": 24, "num_heads": 16}


@dataclass(frozen=True)
class WidePicture(PixelTransform):
    """Cut the sides off a picture and press the rest into a square, as V-JEPA 2-AC was trained.

    Its random crop never fits into a frame of DROID (1280 x 720) and always falls back to the
    middle 972 x 720, pressed to 256 x 256. Pictures that are less wide are pressed whole; square
    ones stay as they are.

    Attributes:
        max_aspect: width of what is kept, as a multiple of the height, at most.
    """

    max_aspect: float = 1.35

    def __call__(self, images: Tensor, image_size: int) -> Tensor:
        """Map uint8 (F, 3, H, W) to float32 (F, 3, S, S), S being `image_size`."""
        height, width = images.shape[-2:]
        kept = min(width, round(self.max_aspect * height))
        left = (width - kept) // 2
        return PixelTransform(squash=True)(images[..., left : left + kept], image_size)

    def record(self) -> dict[str, object]:
        """What makes it differ, for cache keys."""
        return {**PixelTransform(squash=True).record(), "max_aspect": self.max_aspect}


@dataclass(frozen=True)
class PublishedPredictor:
    """One action-conditioned predictor that Meta published.

    Attributes:
        encoder: published encoder whose latents it was trained on.
        encoder_net: which network of that encoder's own file it was trained on. A file with both
            predictor and encoder holds the right one, under `encoder`.
        predictor: keywords of `TokenPredictor`, less `has_extrinsics`, which the file decides.
        transform: how pictures were cut for it.
        url: where its file is.
        file: what that file is called in the cache folder.
        size_gb: of the file, counted as float32 copies of all it should hold.
    """

    encoder: str
    encoder_net: NetKey
    predictor: dict[str, Any]
    transform: PixelTransform
    url: str
    file: str
    size_gb: float


PREDICTORS: dict[str, PublishedPredictor] = {
    # Trained on clips of 8 frames by its released settings, of 16 by the paper
    "vjepa2_ac_vitg": PublishedPredictor(
        encoder="vjepa2_vitg_256",
        encoder_net="target_encoder",  # so say Meta's training settings
        predictor={**_SIZES, "action_dim": 7, "proprio_dim": 7, "max_frames": 16},
        transform=WidePicture(),
        url=f"{BASE_URL}vjepa2/vjepa2-ac-vitg.pt",
        file="vjepa2-ac-vitg.pt",
        size_gb=11.8,
    ),
    "vjepa2_ac_droid": PublishedPredictor(
        encoder="vjepa2_vitg_256",
        encoder_net="encoder",  # so say those of JEPA-WMs
        predictor={**_SIZES, "action_dim": 7, "proprio_dim": None, "max_frames": 8},
        transform=PixelTransform(),
        url=f"{BASE_URL}jepa-wms/droid_vj2ac_noprop.pth.tar",
        file="vjepa2_ac_droid.pth.tar",
        size_gb=3.7,
    ),
}


def published_path(name: str, checkpoint: str | Path | None) -> Path:
    """The file of a published predictor: the given one, the cached one, or a download.

    Raises:
        CheckpointError: it is nowhere and cannot be downloaded; the message says where to put it.
    """
    if checkpoint is not None:
        return Path(checkpoint)
    published = PREDICTORS[name]
    return cached_file(published.file, published.url, size_gb=published.size_gb)


def read_predictor(
    name: str, path: Path, *, device: str | torch.device, dtype: torch.dtype
) -> TokenPredictor:
    """Read a published predictor from a file of Meta's; see `load_predictor`.

    Raises:
        CheckpointError: the file is damaged or of something else, or a tensor is missing, surplus,
            of another shape or not finite; all are listed.
    """
    file = open_published(path)
    tensors = _tensors(file, name)
    recorded_digest(file.path)  # a damaged file is noticed here
    has_extrinsics = any(key.startswith("extrinsics_encoder.") for key in tensors)
    with torch.device("meta"):
        predictor = TokenPredictor(
            **PREDICTORS[name].predictor,
            has_extrinsics=has_extrinsics,
        )
    fill(predictor, tensors, source=f"'predictor' of {path}", device=device, dtype=dtype)
    return predictor.eval()


def _tensors(file: PublishedFile, name: str) -> dict[str, Tensor]:
    """Return the predictor's tensors under our names, not read yet."""
    source = f"'predictor' of {file.path}"
    if "predictor" not in file.nets:
        listed = ", ".join(file.nets) or "nothing of that kind"
        raise CheckpointError(
            f"{file.path} has no predictor, wanted the file of {name}: it holds {listed}"
        )
    tensors = _renamed(file.net("predictor"))
    if "action_encoder.weight" not in tensors:
        raise CheckpointError(
            f"{source} takes no actions: it is the mask predictor of V-JEPA's pretraining. Wanted "
            f"the file of {name}, from {PREDICTORS[name].url}"
        )
    has_state = "state_encoder.weight" in tensors
    if has_state != (PREDICTORS[name].predictor["proprio_dim"] is not None):
        others = [
            other
            for other, published in PREDICTORS.items()
            if has_state == (published.predictor["proprio_dim"] is not None)
        ]
        raise CheckpointError(
            f"{source} has {'a' if has_state else 'no'} state token, {name} has "
            f"{'none' if has_state else 'one'}: load it as {' or '.join(others)}"
        )
    return tensors


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for key, tensor in tensors.items():
        for theirs, ours in _RENAMED.items():
            if key.startswith(theirs):
                key = ours + key.removeprefix(theirs)
        if key not in _UNUSED:
            named[key] = tensor
    return named
