"""ViT-L at 256 pixels on a CPU, beside transformers' implementation of the same network."""

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from vjepa_wm.encoders.families import ENCODERS
from vjepa_wm.encoders.vit import VideoViT

ROUNDS = 3
NOISE = 1.05  # both spend their time in the same matrix products


@pytest.fixture
def single_thread() -> Iterator[None]:
    """On one thread, CPU time is not inflated by what else runs on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seconds(*calls: Callable[[], object]) -> list[float]:
    """CPU seconds of each call, the best of a few rounds in which they take turns."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            start = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - start)
    return best


def filled(module: nn.Module) -> nn.Module:
    """Bring a module from the meta device; drawing 600 million weights would take longest."""
    module.to_empty(device="cpu")
    for parameter in module.parameters():
        parameter.fill_(0.01)
    return module.eval()


@pytest.mark.slow
@pytest.mark.usefixtures("single_thread")
@torch.no_grad()
def test_vitl_is_not_slower_than_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    """One frame, repeated to a tubelet; in float32, and ours in bfloat16 for comparison."""
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        config = transformers.VJEPA2Config(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            crop_size=256,
            frames_per_clip=2,
            pred_num_hidden_layers=1,
        )
        theirs, ours = transformers.VJEPA2Model(config), VideoViT(**ENCODERS["vjepa2_vitl_256"].vit)
    theirs, ours = filled(theirs), filled(ours)
    clip = torch.randn(1, 3, 2, 256, 256)
    their_clip = clip.transpose(1, 2)
    own, other = seconds(lambda: ours(clip), lambda: theirs(their_clip, skip_predictor=True))
    ours.bfloat16()
    (half,) = seconds(lambda: ours(clip.bfloat16()))
    with capsys.disabled():
        print(
            f"\nViT-L, 256 px, one frame, CPU seconds on one thread: {own:.2f}, transformers "
            f"{other:.2f}, bfloat16 {half:.2f}"
        )
    assert own <= NOISE * other
