"""Names and forms of weights: Meta's to ours, and those of Hugging Face's VJEPA2Model both ways.

Our names are Meta's, so its adapters only drop what the family does not use.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vjepa_wm.encoders.families import Family
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import SettingError
from vjepa_wm.files import atomic_path, write_json

_HF_MARK = "encoder.embeddings.patch_embeddings.proj.weight"
_HF_HEAD = "vjepa2."  # in front of all but the probe, in a model with a probe
_PARTS = ("query", "key", "value")
# How names begin: ours -> Hugging Face's, with the name of the network in front
_ENCODER_STARTS = {
    "patch_embed.proj.": "encoder.embeddings.patch_embeddings.proj.",
    "blocks.": "encoder.layer.",
    "norm.": "encoder.layernorm.",
}
_PREDICTOR_STARTS = {
    "predictor_embed.": "predictor.embeddings.predictor_embeddings.",
    "predictor_blocks.": "predictor.layer.",
    "predictor_norm.": "predictor.layernorm.",
    "predictor_proj.": "predictor.proj.",
}
_HF_MASK_TOKENS = "predictor.embeddings.mask_tokens"


def _without(*names: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Make an adapter that drops tensors which are in some files and used by no model."""

    def adapt(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if name not in names}

    return adapt


# Models with rotary positions were saved with the table that they do not use
ENCODER: dict[Family, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "vjepa1": _without(),
    "vjepa2": _without("pos_embed"),
    "vjepa2_1": _without("pos_embed"),
}
MASK_PREDICTOR: dict[Family, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "vjepa2": _without("predictor_pos_embed"),
    "vjepa2_1": _without("predictor_pos_embed"),
}


def is_huggingface(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of VJEPA2Model, or of a model with a probe around it."""
    return _HF_MARK in tensors or f"{_HF_HEAD}{_HF_MARK}" in tensors


def split_huggingface(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sort the tensors of a Hugging Face model by network: encoder, predictor, pooler and so on."""
    nets: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_HF_HEAD)
        nets.setdefault(name.partition(".")[0], {})[name] = tensor
    return nets


def from_huggingface(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of VJEPA2Model our names.

    Queries, keys and values become one tensor. Names that are not known stay as they are, for the
    strict comparison to find.
    """
    own = dict(tensors)
    for name in tensors:
        trio = [name.replace(".attention.query.", f".attention.{part}.") for part in _PARTS]
        if ".attention.query." in name and all(part in own for part in trio):
            whole = torch.cat([own.pop(part) for part in trio])
            own[name.replace(".attention.query.", ".attn.qkv.")] = whole
    ours: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if name == _HF_MASK_TOKENS:
            ours |= {f"mask_tokens.{i}": token for i, token in enumerate(tensor)}
        else:
            ours[_our_name(name)] = tensor
    return ours


def _our_name(name: str) -> str:
    for start, hf_start in (*_ENCODER_STARTS.items(), *_PREDICTOR_STARTS.items()):
        if name.startswith(hf_start):
            inner = name.removeprefix(hf_start)
            return start + inner.replace(".attention.proj.", ".attn.proj.")
    return name


def to_huggingface(
    encoder: Mapping[str, Tensor], predictor: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Name the tensors of a V-JEPA 2 encoder and its mask predictor as VJEPA2Model does.

    Args:
        encoder: state dict of a `VideoViT`.
        predictor: state dict of a `MaskPredictor`; may be empty.
    """
    named: dict[str, Tensor] = {}
    for tensors, starts in ((encoder, _ENCODER_STARTS), (predictor, _PREDICTOR_STARTS)):
        for name, tensor in tensors.items():
            for start, hf_start in starts.items():
                if name.startswith(start):
                    named |= _hf_entries(hf_start + name.removeprefix(start), tensor)
                    break
    tokens = [name for name in predictor if name.startswith("mask_tokens.")]
    if tokens:
        tokens.sort(key=lambda name: int(name.partition(".")[2]))
        named[_HF_MASK_TOKENS] = torch.stack([predictor[name] for name in tokens])
    return named


def _hf_entries(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Split the one projection of queries, keys and values in three."""
    if ".attn.qkv." not in name:
        return {name.replace(".attn.proj.", ".attention.proj."): tensor}
    names = [name.replace(".attn.qkv.", f".attention.{part}.") for part in _PARTS]
    return dict(zip(names, tensor.chunk(3), strict=True))


def export_huggingface(
    folder: Path,
    vit: VideoViT,
    *,
    image_size: int,
    num_frames: int,
    mask_predictor: nn.Module | None = None,
) -> None:
    """Write a V-JEPA 2 encoder as a folder that transformers' `VJEPA2Model` loads.

    Without a mask predictor, transformers makes a random one: call the model with
    `skip_predictor=True`.

    Args:
        folder: gets `config.json` and `model.safetensors`.
        vit: with `rope_style` tiled; other families have no class in transformers.
        image_size: side of the square that positions are counted for. VJEPA2Model takes positions
            from here and not from its input, so other sizes and rectangles go wrong there.
        num_frames: of a clip.
        mask_predictor: its weights go with it.

    Raises:
        SettingError: the encoder is not of V-JEPA 2.
    """
    encoder = vit.state_dict()
    predictor = {} if mask_predictor is None else mask_predictor.state_dict()
    known = (*_ENCODER_STARTS, *_PREDICTOR_STARTS, "mask_tokens.")
    foreign = [name for name in (*encoder, *predictor) if not name.startswith(known)]
    if vit.rope_style != "tiled" or foreign:
        raise SettingError(
            "transformers has a class for V-JEPA 2 only (rope_style tiled, one final norm), got "
            f"rope_style {vit.rope_style}{', '.join(['', *foreign])}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in to_huggingface(encoder, predictor).items()
    }
    with atomic_path(folder / "model.safetensors") as path:
        save_file(tensors, path, metadata={"format": "pt"})
    config = huggingface_config(vit, image_size=image_size, num_frames=num_frames)
    if mask_predictor is not None:
        config |= _hf_predictor_config(predictor, mask_predictor.predictor_blocks[0])
    write_json(folder / "config.json", config)


def huggingface_config(vit: VideoViT, *, image_size: int, num_frames: int) -> dict[str, object]:
    """What `VJEPA2Config` wants to know of an encoder; see `export_huggingface`."""
    block = vit.blocks[0]
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "patch_size": vit.patch_size,
        "crop_size": image_size,
        "frames_per_clip": num_frames,
        "tubelet_size": vit.tubelet_size,
        "hidden_size": vit.embed_dim,
        "num_attention_heads": block.attn.num_heads,
        "num_hidden_layers": len(vit.blocks),
        "mlp_ratio": block.mlp.fc1.out_features / vit.embed_dim,
        "layer_norm_eps": block.norm1.eps,
        "hidden_act": "gelu",
        "qkv_bias": True,
    }


def _hf_predictor_config(tensors: Mapping[str, Tensor], block: nn.Module) -> dict[str, object]:
    width = tensors["predictor_norm.weight"].shape[0]
    depths = {match[1] for name in tensors if (match := re.match(r"predictor_blocks\.(\d+)", name))}
    return {
        "pred_hidden_size": width,
        "pred_num_attention_heads": block.attn.num_heads,
        "pred_num_hidden_layers": len(depths),
        "pred_num_mask_tokens": sum(name.startswith("mask_tokens.") for name in tensors),
        "pred_mlp_ratio": block.mlp.fc1.out_features / width,
    }
