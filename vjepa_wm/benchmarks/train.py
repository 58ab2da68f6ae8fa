"""train: one step of training a predictor, on latents that were encoded once.

Shapes: B windows, T frames, P tokens, D latent width, A action width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vjepa_wm.benchmarks.figures import Figure, median_seconds
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.precision import resolve_dtype
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.training.dynamics import DynamicsLoss
from vjepa_wm.training.optimizers import make_optimizer

ENCODING = "encoding its frames in every step"


def benchmark_train(
    predictor: ActionPredictor,
    encoder: FrozenEncoder,
    *,
    batch_size: int,
    repeats: int,
    device: str,
) -> list[Figure]:
    """Windows per second: beside a step that encodes its own frames, and beside float32.

    Other world models on frozen encoders train in the first of these ways.

    Args:
        predictor: what is trained; its weights change.
        encoder: of its latents.
        batch_size: windows per step, B.
        repeats: timed repetitions.
        device: where.
    """
    predictor = predictor.float().train().requires_grad_(True)
    frames = predictor.max_frames + 1
    side = encoder.image_size
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, frames, side, side, 3)
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(device)
    latents = encoder.encode(pixels)
    actions = torch.randn(batch_size, frames - 1, predictor.action_dim, generator=generator)
    fast = resolve_dtype("auto", device)
    step = _stepper(predictor, actions.to(device), device)
    calls = {
        "auto": lambda: step(latents, fast),
        "float32": lambda: step(latents, torch.float32),
        ENCODING: lambda: step(encoder.encode(pixels), fast),
    }
    seconds = median_seconds(calls, repeats=repeats, device=device)
    rates = {name: batch_size / value for name, value in seconds.items()}
    kind = str(fast).removeprefix("torch.")
    name = f"steps of {batch_size} windows of {frames} frames, {kind}"
    return [
        Figure(name, rates["auto"], "windows/s", base, rates[base])
        for base in (ENCODING, "float32")
    ]


def _stepper(
    predictor: ActionPredictor, actions: Tensor, device: str
) -> Callable[[Tensor, torch.dtype], None]:
    """Return one training step: loss, gradients, Muon."""
    objective = DynamicsLoss(
        predictor, rollout_steps=2, rollout_weight=0.5, rollout_from=0.0, change_weight=2.0
    )
    optimiser = make_optimizer("muon", predictor, learning_rate=1e-4, weight_decay=0.01)
    kind = torch.device(device).type

    def step(latents: Tensor, dtype: torch.dtype) -> None:
        with torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32):
            loss, _ = objective(latents, actions, share=1.0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step
