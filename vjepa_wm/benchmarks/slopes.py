"""slopes: how time and memory of imagining grow with candidates, horizon, environments, tokens.

Weights are random: speed does not depend on them.

Shapes: B environments, N candidates, T imagined steps, P tokens per frame, A action width.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from vjepa_wm.benchmarks.figures import Figure, median_seconds
from vjepa_wm.benchmarks.memory import peak_bytes
from vjepa_wm.benchmarks.plan import free
from vjepa_wm.benchmarks.rollout import Problem, small_encoder
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.world_model import ActionSpec, WorldModel

DOUBLINGS = (1, 2, 4, 8)  # of candidates and environments, as multiples of the first
SIDES = (2, 4, 8)  # rows and columns of the tokens of a frame


@dataclass(frozen=True)
class Load:
    """What is imagined at once.

    Attributes:
        environments: problems B.
        candidates: of each, N.
        horizon: imagined steps T.
        tokens: per frame, P; a square number.
    """

    environments: int
    candidates: int
    horizon: int
    tokens: int


def benchmark_slopes(
    config: Mapping[str, object],
    *,
    candidates: int,
    memory_mb: float,
    dtype: torch.dtype,
    repeats: int,
    device: str,
) -> list[Figure]:
    """Seconds and peak memory of one iteration, at several sizes along each axis.

    Args:
        config: keywords of the `ActionPredictor`; its grid of tokens is one of the axes.
        candidates: the fewest along their axis, and the number along the others.
        memory_mb: working memory of the rollouts.
        dtype: of the predictor.
        repeats: timed repetitions.
        device: where.
    """
    horizons = sorted({2**k for k in range(8) if 2**k <= config["max_frames"]})
    base = Load(1, candidates, config["max_frames"], math.prod(config["grid"]))
    axes = {
        "candidates": [candidates * k for k in DOUBLINGS],
        "horizon": horizons,
        "environments": list(DOUBLINGS),
        "tokens": [side**2 for side in SIDES],
    }

    def world_model(tokens: int) -> WorldModel:
        side = math.isqrt(tokens)
        grid = config["grid"] if tokens == base.tokens else (side, side)
        return random_world_model(
            {**config, "grid": grid}, memory_mb=memory_mb, dtype=dtype, device=device
        )

    figures: list[Figure] = []
    for axis, values in axes.items():
        loads = [replace(base, **{axis: value}) for value in values]
        calls = {
            value: imagining(world_model(load.tokens), load, device=device)
            for value, load in zip(values, loads, strict=True)
        }
        figures += _figures(axis, base, calls, repeats=repeats, device=device)
    return figures


def _figures(
    axis: str,
    base: Load,
    calls: Mapping[int, Callable[[], Tensor]],
    *,
    repeats: int,
    device: str,
) -> Iterator[Figure]:
    seconds = median_seconds(calls, repeats=repeats, device=device)
    others = ", ".join(f"{value} {name}" for name, value in asdict(base).items() if name != axis)
    yield Figure(f"time grows with {axis} ({others})", slope(seconds), "as its power")
    for value, call in calls.items():
        yield Figure(f"  {axis} {value}", seconds[value], "s")
        yield Figure("    peak memory", peak_bytes(call) / 2**20, "MB")


def slope(seconds: Mapping[int, float]) -> float:
    """Return the power of its sizes that a time grows with: the slope between logarithms."""
    sizes = torch.tensor([float(size) for size in seconds]).log()
    times = torch.tensor(list(seconds.values())).log()
    away = sizes - sizes.mean()
    return float((away * times).sum() / away.square().sum())


def random_world_model(
    config: Mapping[str, object], *, memory_mb: float, dtype: torch.dtype, device: str
) -> WorldModel:
    """Return a world model with random weights and no proprio, in bounds of -1 and 1."""
    config = {**config, "proprio_mean": None, "proprio_std": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = ActionPredictor(**config)
        encoder = small_encoder()
    width = predictor.action_dim
    return WorldModel(
        encoder,
        predictor.to(device, dtype).eval().requires_grad_(False),
        action_spec=ActionSpec(low=(-1.0,) * width, high=(1.0,) * width, frame_skip=1),
        memory_mb=memory_mb,
    )


def imagining(world_model: WorldModel, load: Load, *, device: str) -> Callable[[], Tensor]:
    """Return a call that imagines drawn candidates from one observed frame, and scores nothing."""
    problem = Problem.drawn(world_model, context=1, device=device)
    batch = load.environments
    observed = world_model.observe(
        *(_repeated(part, batch) for part in (problem.context, problem.past_actions)),
        None if problem.proprio is None else _repeated(problem.proprio, batch),
    )
    shape = (batch, load.candidates, load.horizon, world_model.predictor.action_dim)
    actions = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    goal = _repeated(problem.goal, batch)
    return lambda: observed.costs(actions, goal=goal, cost=free)


def _repeated(x: Tensor, batch: int) -> Tensor:
    return x.expand(batch, *x.shape[1:])
