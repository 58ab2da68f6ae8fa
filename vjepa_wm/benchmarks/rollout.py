"""rollout: cached imagining beside the plain planner, on V-JEPA 2-AC's architecture.

Weights are random: speed does not depend on them.

Shapes: N candidates, C history frames, T planned steps, P tokens, D width.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from planners import Plan, RandomShooting
from vjepa_wm.benchmarks.figures import Figure, median_seconds
from vjepa_wm.benchmarks.plain import NAME, DensePredictor, PlainWorldModel
from vjepa_wm.benchmarks.products import rate_figure
from vjepa_wm.costs import GoalCost
from vjepa_wm.encoders.frozen import FrozenEncoder, layer_norm
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.loading import DROID_ACTIONS
from vjepa_wm.poses import PoseIntegrator
from vjepa_wm.token_predictor import TokenPredictor
from vjepa_wm.vjepa2_ac import PREDICTORS
from vjepa_wm.world_model import WorldModel

TINY = {"latent_dim": 12, "grid": (2, 2), "width": 24, "depth": 2, "num_heads": 2}
SIZES: dict[str, dict[str, object]] = {
    "vjepa2_ac_vitg": PREDICTORS["vjepa2_ac_vitg"].predictor,
    "vjepa2_ac_droid": PREDICTORS["vjepa2_ac_droid"].predictor,
    "tiny": {**TINY, "action_dim": 7, "proprio_dim": 7, "max_frames": 16},
}


@dataclass(frozen=True)
class RolloutSettings:
    """What to imagine, and how often.

    Attributes:
        size: a key of `SIZES`.
        contexts: numbers of history frames C.
        candidates: horizon T -> candidates N.
        dtype: of both.
        memory_mb: of ours; the baseline takes what it takes.
        repeats: timed repetitions.
        device: where.
    """

    size: str
    contexts: tuple[int, ...]
    candidates: Mapping[int, int]
    dtype: torch.dtype
    memory_mb: float
    repeats: int
    device: str


def benchmark_rollout(settings: RolloutSettings) -> list[Figure]:
    """One iteration of a planner: imagine N candidates, score their ends, take the cheapest."""
    ours, plain = world_models(settings)
    figures = []
    for context, horizon in product(settings.contexts, settings.candidates):
        figures += _figures(ours, plain, settings, context=context, horizon=horizon)
    return figures


def _figures(
    ours: WorldModel,
    plain: PlainWorldModel,
    settings: RolloutSettings,
    *,
    context: int,
    horizon: int,
) -> Iterator[Figure]:
    candidates = settings.candidates[horizon]
    problem = Problem.drawn(ours, context=context, device=settings.device)
    planner = RandomShooting(horizon=horizon, num_samples=candidates)
    calls = {"ours": problem.planning(planner, ours), NAME: problem.planning(planner, plain)}
    # The largest take minutes; the first call of each is compared instead of thrown away
    plans = {name: call() for name, call in calls.items()}
    seconds = median_seconds(calls, repeats=settings.repeats, device=settings.device, warm_ups=0)
    name = f"{_count(context, 'history frame')}, {_count(horizon, 'step')}, {candidates} candidates"
    yield Figure(name, seconds["ours"], "s", NAME, seconds[NAME])
    yield rate_figure(
        "  rate",
        calls["ours"],
        seconds["ours"],
        dtype=settings.dtype,
        device=settings.device,
        repeats=settings.repeats,
    )
    yield from differences(plans["ours"], plans[NAME])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def differences(found: Plan, wanted: Plan) -> list[Figure]:
    """How far two plans, of the same problem and noise, are from being one."""
    actions = float((found.actions - wanted.actions).abs().max())
    cost = float(((found.cost - wanted.cost) / wanted.cost).abs().max())
    return [
        Figure("  largest difference of the plan", actions, "action units"),
        Figure("  difference of its cost", cost, "of the cost"),
    ]


def world_models(settings: RolloutSettings) -> tuple[WorldModel, PlainWorldModel]:
    """Return a world model with random weights, and the baseline on the same tensors."""
    config = SIZES[settings.size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = TokenPredictor(**config)
        # As loud as the patches: candidates should differ by more than rounding does
        for layer in filter(None, (predictor.action_encoder, predictor.state_encoder)):
            layer.weight.data.normal_(std=10.0)
        encoder = small_encoder()
    predictor = predictor.to(settings.device, settings.dtype).eval().requires_grad_(False)
    integrate = None if predictor.proprio_dim is None else PoseIntegrator()
    ours = WorldModel(
        encoder,
        predictor,
        action_spec=DROID_ACTIONS,
        integrate=integrate,
        memory_mb=settings.memory_mb,
    )
    with torch.device("meta"):
        dense = DensePredictor(**config)
    dense.load_state_dict(predictor.state_dict(), assign=True)
    plain = PlainWorldModel.of(ours)
    plain.predictor = dense.eval().requires_grad_(False)
    return ours, plain


def small_encoder() -> FrozenEncoder:
    """A world model has an encoder; here the latents are drawn and it has nothing to do."""
    vit = VideoViT(patch_size=16, tubelet_size=2, embed_dim=12, depth=1, num_heads=1)
    return FrozenEncoder(vit, name="none", digest="", image_size=16, pool=1)


@dataclass(frozen=True)
class Problem:
    """A drawn past and goal to plan from and to.

    Attributes:
        context: latents (1, C, P, D).
        past_actions: (1, C - 1, A).
        proprio: poses (1, C, Q), where the predictor takes them.
        goal: latents (1, P, D).
    """

    context: Tensor
    past_actions: Tensor
    proprio: Tensor | None
    goal: Tensor

    @classmethod
    def drawn(cls, world_model: WorldModel, *, context: int, device: str) -> "Problem":
        """Draw latents as a layer norm leaves them, small actions, and poses in their units."""
        net = world_model.predictor
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        poses = None
        if net.proprio_dim is not None:
            poses = 0.3 * draw(1, context, net.proprio_dim).clamp(0, 1)
        return cls(
            context=layer_norm(draw(1, context, net.num_patches, net.latent_dim)),
            past_actions=0.02 * draw(1, context - 1, net.action_dim),
            proprio=poses,
            goal=layer_norm(draw(1, net.num_patches, net.latent_dim)),
        )

    def planning(self, planner: RandomShooting, world_model: WorldModel) -> Callable[[], Plan]:
        """Return a call that plans, from the same noise every time."""
        low, high = world_model.action_spec.limits(self.context.device)
        cost = GoalCost(distance="l1", over_steps="last")

        def plan() -> Plan:
            past = world_model.observe(self.context, self.past_actions, self.proprio)
            return planner.plan(
                lambda actions: past.costs(actions, goal=self.goal, cost=cost),
                low=low,
                high=high,
                seeds=torch.tensor([0]),
            )

        return plan
