"""encode: frames to latents, beside transformers' VJEPA2Model on the same weights.

Weights are random: speed does not depend on them.
"""

import copy
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vjepa_wm.benchmarks.figures import Figure, median_seconds
from vjepa_wm.encoders.adapters import huggingface_config, to_huggingface
from vjepa_wm.encoders.families import ENCODERS
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.registry import load_encoder
from vjepa_wm.encoders.timm_vit import import_timm
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.errors import UnknownNameError
from vjepa_wm.precision import has_native_bf16

TRANSFORMERS = "transformers VJEPA2Model"
FP32, BF16 = "float32", "bfloat16"
COMPACT_SIDE = 64  # pixels of the frames of our environments


def benchmark_encode(name: str, *, frames: int, repeats: int, device: str) -> list[Figure]:
    """A published size beside transformers, bfloat16 beside float32, and the compact encoder.

    Args:
        name: a published encoder.
        frames: encoded at once, each repeated to one tubelet.
        repeats: timed repetitions.
        device: where.

    Raises:
        UnknownNameError: there is no such encoder; the nearest names are given.
    """
    if name not in ENCODERS:
        raise UnknownNameError("published encoder", name, ENCODERS)
    encoder = random_encoder(name, device=device)
    side = encoder.image_size
    video = torch.randn(frames, 3, encoder.vit.tubelet_size, side, side, device=device)
    calls: dict[str, Callable[[], Tensor]] = {FP32: lambda: encoder(video)}
    if (theirs := transformers_model(encoder)) is not None:
        their_video = video.transpose(1, 2)
        calls[TRANSFORMERS] = lambda: theirs(their_video, skip_predictor=True).last_hidden_state
    if has_native_bf16(device):
        half = copy.deepcopy(encoder.vit).bfloat16()
        half_video = video.bfloat16()
        calls[BF16] = lambda: half(half_video)
    return [
        *_compared(f"{name}, {side} px, {frames} at once", calls, frames, repeats, device=device),
        *_compact(repeats=repeats, device=device),
    ]


@torch.no_grad()
def _compared(
    what: str, calls: dict[str, Callable[[], Tensor]], frames: int, repeats: int, *, device: str
) -> list[Figure]:
    """Frames per second in float32 beside the others, and how far their outputs are apart."""
    outputs = {name: call().float() for name, call in calls.items()}
    seconds = median_seconds(calls, repeats=repeats, device=device, warm_ups=0)
    rates = {name: frames / value for name, value in seconds.items()}
    figures = []
    for name in calls:
        if name == FP32:
            continue
        fast, base = (FP32, name) if name == TRANSFORMERS else (name, FP32)
        figures.append(Figure(f"{what}, {fast}", rates[fast], "frames/s", base, rates[base]))
        apart = float((outputs[name] - outputs[FP32]).abs().max())
        figures.append(Figure("  largest difference of outputs", apart, "layer-normed latents"))
    return figures or [Figure(f"{what}, {FP32}", rates[FP32], "frames/s")]


def _compact(*, repeats: int, device: str, frames: int = 64) -> list[Figure]:
    """Frames of our environments, from pixels to latents, many and one at once."""
    generator = torch.Generator().manual_seed(0)
    shape = (frames, 1, COMPACT_SIDE, COMPACT_SIDE, 3)
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(device)
    single, half = (load_encoder("compact", dtype=d, device=device) for d in ("fp32", "auto"))
    one_by_one = "one frame at a time"
    calls = {
        "auto": lambda: half.encode(pixels),
        FP32: lambda: single.encode(pixels),
        one_by_one: lambda: [half.encode(row) for row in pixels.unsqueeze(1)],
    }
    seconds = median_seconds(calls, repeats=repeats, device=device)
    rates = {name: frames / value for name, value in seconds.items()}
    kind = str(half.dtype).removeprefix("torch.")
    name = f"compact, {COMPACT_SIDE} px, {frames} at once, {kind}"
    return [
        Figure(name, rates["auto"], "frames/s", base, rates[base]) for base in (FP32, one_by_one)
    ]


def random_encoder(name: str, *, device: str) -> FrozenEncoder:
    """Return a published encoder with random weights in float32."""
    published = ENCODERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = VideoViT(**published.vit).to(device)
    return FrozenEncoder(vit, name=name, digest="", image_size=published.image_size, pool=1)


def transformers_model(encoder: FrozenEncoder) -> nn.Module | None:
    """Return transformers' model on the same tensors; None where it has no such or is missing."""
    vit = encoder.vit
    if vit.rope_style != "tiled" or vit.sincos_grid is not None:
        return None  # V-JEPA 2 is the only family it has
    if importlib.util.find_spec("transformers") is None:
        return None
    import_timm()  # makes torchvision loadable, which transformers imports too
    import transformers

    config = huggingface_config(vit, image_size=encoder.image_size, num_frames=vit.tubelet_size)
    sizes = {key: value for key, value in config.items() if key not in ("architectures",)}
    with torch.device("meta"):  # its mask predictor stays there: it is never run
        model = transformers.VJEPA2Model(transformers.VJEPA2Config(**sizes))
    tensors = to_huggingface(vit.state_dict(), {})
    own = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}
    model.encoder.load_state_dict(own, assign=True)
    return model.eval()
