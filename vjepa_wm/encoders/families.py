"""The published V-JEPA encoders: their sizes, switches and files, as facts to build and load by."""

from dataclasses import dataclass
from typing import Any, Literal

from vjepa_wm.errors import SettingError

Family = Literal["vjepa1", "vjepa2", "vjepa2_1"]
NetKey = Literal["encoder", "target_encoder", "ema_encoder"]

BASE_URL = "https://dl.fbaipublicfiles.com/"

# The blocks whose outputs V-JEPA 2.1 norms one by one, counted from 0, by depth
TAPS = {
    12: (2, 5, 8, 11),
    24: (5, 11, 17, 23),
    40: (9, 19, 29, 39),
    48: (11, 23, 37, 47),
}

_VIT_B = {"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0}
_VIT_L = {"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4.0}
_VIT_H = {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4.0}
_VIT_g = {"embed_dim": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11}
_VIT_G = {"embed_dim": 1664, "depth": 48, "num_heads": 26, "mlp_ratio": 64 / 13}
_PATCHES = {"patch_size": 16, "tubelet_size": 2}


@dataclass(frozen=True)
class PublishedEncoder:
    """One encoder that Meta published.

    Attributes:
        family: decides the layout of the file and the switches of the network.
        vit: keywords of `vjepa_wm.encoders.vit.VideoViT`.
        image_size: side of the square it was trained at, pixels.
        num_frames: frames of the longest clips it was trained on.
        params_m: parameters in millions, as published: without a position table, the image path,
            the modality embeddings, and all but one of the norms after the blocks.
        url: where its file is.
        file: what that file is called in the cache folder. Meta's own names can differ by case
            alone, which some disks do not see.
        net_key: which network of the file a frozen encoder takes: the moving average.
        size_gb: of the file, roughly: reported by users, or counted as four float32 copies
            (student, average, two moments of the optimiser) and the mask predictor.
    """

    family: Family
    vit: dict[str, Any]
    image_size: int
    num_frames: int
    params_m: float
    url: str
    file: str
    net_key: NetKey
    size_gb: float


def _vjepa1(
    sizes: dict[str, Any], tail: str, *, image_size: int, params_m: float, size_gb: float
) -> PublishedEncoder:
    side = image_size // 16
    return PublishedEncoder(
        family="vjepa1",
        vit={**_PATCHES, **sizes, "sincos_grid": (8, side, side)},
        image_size=image_size,
        num_frames=16,
        params_m=params_m,
        url=f"{BASE_URL}jepa/{tail}",
        file=f"vjepa1-{tail.split('/')[-1]}",
        net_key="target_encoder",
        size_gb=size_gb,
    )


def _vjepa2(
    sizes: dict[str, Any], tail: str, *, image_size: int, params_m: float, size_gb: float
) -> PublishedEncoder:
    return PublishedEncoder(
        family="vjepa2",
        vit={**_PATCHES, **sizes, "rope_style": "tiled"},
        image_size=image_size,
        num_frames=64,
        params_m=params_m,
        url=f"{BASE_URL}vjepa2/{tail}",
        file=f"vjepa2-{tail}",
        net_key="target_encoder",
        size_gb=size_gb,
    )


def _vjepa2_1(
    sizes: dict[str, Any], tail: str, *, file: str, params_m: float, size_gb: float
) -> PublishedEncoder:
    switches = {"rope_style": "interpolated", "image_path": True, "taps": TAPS[sizes["depth"]]}
    return PublishedEncoder(
        family="vjepa2_1",
        vit={**_PATCHES, **sizes, **switches},
        image_size=384,
        num_frames=64,
        params_m=params_m,
        url=f"{BASE_URL}vjepa2/{tail}",
        file=file,
        net_key="ema_encoder" if "_dist_" in tail else "target_encoder",
        size_gb=size_gb,
    )


ENCODERS: dict[str, PublishedEncoder] = {
    "vjepa_vitl_224": _vjepa1(
        _VIT_L, "vitl16/vitl16.pth.tar", image_size=224, params_m=303.9, size_gb=5.1
    ),
    "vjepa_vith_224": _vjepa1(
        _VIT_H, "vith16/vith16.pth.tar", image_size=224, params_m=631.6, size_gb=10.4
    ),
    "vjepa_vith_384": _vjepa1(
        _VIT_H, "vith16-384/vith16-384.pth.tar", image_size=384, params_m=631.6, size_gb=10.4
    ),
    "vjepa2_vitl_256": _vjepa2(_VIT_L, "vitl.pt", image_size=256, params_m=303.9, size_gb=5.1),
    "vjepa2_vith_256": _vjepa2(_VIT_H, "vith.pt", image_size=256, params_m=631.6, size_gb=10.4),
    "vjepa2_vitg_256": _vjepa2(_VIT_g, "vitg.pt", image_size=256, params_m=1012.2, size_gb=16.5),
    "vjepa2_vitg_384": _vjepa2(
        _VIT_g, "vitg-384.pt", image_size=384, params_m=1012.2, size_gb=16.5
    ),
    "vjepa2_1_vitb_384": _vjepa2_1(
        _VIT_B,
        "vjepa2_1_vitb_dist_vitG_384.pt",
        file="vjepa2_1_vitb_384.pt",
        params_m=86.2,
        size_gb=1.6,
    ),
    "vjepa2_1_vitl_384": _vjepa2_1(
        _VIT_L,
        "vjepa2_1_vitl_dist_vitG_384.pt",
        file="vjepa2_1_vitl_384.pt",
        params_m=303.9,
        size_gb=4.8,
    ),
    "vjepa2_1_vitg_384": _vjepa2_1(
        _VIT_g,
        "vjepa2_1_vitg_384.pt",
        file="vjepa2_1_vitg_384.pt",
        params_m=1012.2,
        size_gb=16.9,
    ),
    "vjepa2_1_vitgiant2_384": _vjepa2_1(
        _VIT_G,
        "vjepa2_1_vitG_384.pt",
        file="vjepa2_1_vitgiant2_384.pt",
        params_m=1844.0,
        size_gb=28.0,
    ),
}


def mask_predictor_config(published: PublishedEncoder) -> dict[str, Any]:
    """Keywords of the `MaskPredictor` that was trained with an encoder of V-JEPA 2 or 2.1.

    The positions of V-JEPA 2.1 are interpolated, as its training code does; the published hub entry
    leaves that out for the predictor.

    Raises:
        SettingError: it is a V-JEPA 1 encoder, whose predictor adds a position table.
    """
    if published.family == "vjepa1":
        raise SettingError("the mask predictors of V-JEPA 1 are not supported: 2 and 2.1 are")
    config = {"embed_dim": published.vit["embed_dim"], "predictor_embed_dim": 384, "num_heads": 12}
    config["rope_style"] = published.vit["rope_style"]
    if published.family == "vjepa2":
        return {**config, "depth": 12, "num_mask_tokens": 10}
    config = {**config, "num_mask_tokens": 8, "dense": True}
    if published.net_key == "ema_encoder":  # distilled: the last level of the widest encoder
        return {**config, "depth": 12, "output_dim": _VIT_G["embed_dim"]}
    return {**config, "depth": 24, "levels": len(published.vit["taps"])}
