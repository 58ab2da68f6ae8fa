"""options: what number format, compilation and threads do to the time of imagining."""

from collections.abc import Callable

import torch
from torch import Tensor

from vjepa_wm.benchmarks.figures import Figure, median_seconds
from vjepa_wm.benchmarks.slopes import Load, imagining
from vjepa_wm.world_model import WorldModel

EAGER = "float32"


def benchmark_options(
    load: Callable[[str], WorldModel], size: Load, *, repeats: int, device: str
) -> list[Figure]:
    """Seconds of one iteration under each option, beside float32 that is not compiled.

    Args:
        load: loads the world model in `fp32` or `bf16`.
        size: what is imagined at once; its tokens are those of the model.
        repeats: timed repetitions.
        device: where.
    """
    compiled = load("fp32")
    compiled.predictor.compile_layers()
    calls = {
        EAGER: imagining(load("fp32"), size, device=device),
        "bfloat16": imagining(load("bf16"), size, device=device),
        "float32, compiled": imagining(compiled, size, device=device),
    }
    threads = torch.get_num_threads()
    if device == "cpu" and threads > 1:
        for name in (EAGER, "bfloat16"):
            calls[f"{name}, 1 thread instead of {threads}"] = on_one_thread(calls[name])
    wanted = calls[EAGER]()
    apart = {name: _apart(call(), wanted) for name, call in calls.items()}
    seconds = median_seconds(calls, repeats=repeats, device=device)
    figures = []
    for name in list(calls)[1:]:
        figures.append(Figure(name, seconds[name], "s", EAGER, seconds[EAGER]))
        figures.append(Figure("  largest difference of what it scores", apart[name], "of 1"))
    return figures


def on_one_thread(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return the same call, which takes one thread and gives the others back."""
    threads = torch.get_num_threads()

    def alone() -> Tensor:
        torch.set_num_threads(1)
        try:
            return call()
        finally:
            torch.set_num_threads(threads)

    return alone


def _apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max())
