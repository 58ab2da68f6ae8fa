"""plan: one control step of an agent and its parts, beside the plain planner.

Shapes: B problems, N candidates, C context frames, T planned steps, A action width.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from planners import Planner
from vjepa_wm.agent import MPCAgent
from vjepa_wm.benchmarks.figures import Figure, median_seconds
from vjepa_wm.benchmarks.plain import NAME, PlainWorldModel
from vjepa_wm.benchmarks.products import rate_figure
from vjepa_wm.cuda_graphs import COMES_OFTEN
from vjepa_wm.world_model import ActionSpec, WorldModel

UNRECORDED = "the same without CUDA graphs"

Observation = Mapping[str, np.ndarray]


def benchmark_plan(
    agent: MPCAgent, obs: Observation, goal: np.ndarray, *, plans: int, device: str
) -> list[Figure]:
    """Seconds of a control step, what it consists of, and how near the machine's peak it is.

    A control step is a model step: the agent sees a frame and chooses an action. Only every
    `replan_every`-th of them plans; the figures are means over those between two plans.

    Args:
        agent: with a planner that samples candidates.
        obs: what the agent is shown again and again.
        goal: the goal's pixels.
        plans: plans timed.
        device: where the agent computes.
    """
    agents = {"ours": agent, NAME: _beside(agent, PlainWorldModel.of(agent.world_model))}
    on_gpu = device.startswith("cuda")
    if on_gpu:
        agents[UNRECORDED] = _beside(agent, agent.world_model)
    cycles = {}
    for name, one in agents.items():
        one.reset(goal=goal)
        cycles[name] = _cycle(one, obs)
    warm_ups = -(-agent.context_len // agent.replan_every)  # until the context is full
    warm_ups += COMES_OFTEN if on_gpu else 0  # and all is recorded
    done = [{name: cycle() for name, cycle in cycles.items()} for _ in range(warm_ups)]
    seconds = median_seconds(cycles, repeats=plans, device=device)
    step = seconds["ours"] / agent.replan_every
    beside = []
    for name in list(agents)[1:]:
        apart = max(float(np.abs(all_of["ours"] - all_of[name]).max()) for all_of in done)
        beside += [
            Figure("control step", step, "s", name, seconds[name] / agent.replan_every),
            Figure("  largest difference of actions", apart, "action units"),
        ]
    return [
        *beside,
        *_parts(agent, obs, goal, step=step, plans=plans, device=device),
    ]


def _beside(agent: MPCAgent, world_model: WorldModel) -> MPCAgent:
    """Make the same agent with another world model, and without CUDA graphs."""
    return MPCAgent(
        world_model,
        agent.planner,
        agent.cost,
        context_len=agent.context_len,
        replan_every=agent.replan_every,
        seed=agent.seed,
        cuda_graphs=False,
    )


def _cycle(agent: MPCAgent, obs: Observation) -> Callable[[], np.ndarray]:
    """Return a call that acts from one plan to the next, and returns the actions."""
    count = agent.replan_every * agent.world_model.action_spec.frame_skip
    return lambda: np.stack([agent.act(obs) for _ in range(count)])


def _parts(
    agent: MPCAgent,
    obs: Observation,
    goal: np.ndarray,
    *,
    step: float,
    plans: int,
    device: str,
) -> list[Figure]:
    """Each part of a control step alone, in seconds and as share of the step."""
    world_model = agent.world_model
    pixels = torch.from_numpy(obs["pixels"])[None, None].to(device)
    goal_latents = world_model.encode(torch.from_numpy(goal)[None, None].to(device))[:, 0]
    context = world_model.encode(pixels).expand(-1, agent.context_len, -1, -1)
    past, batches = _candidates(agent.planner, world_model.action_spec, agent.context_len, device)
    sensed = None
    if world_model.takes_proprio:
        sensed = torch.from_numpy(obs["proprio"]).expand(1, agent.context_len, -1).to(device)
    imagined = [world_model.rollout(context, past, actions, sensed) for actions in batches]

    def imagine() -> None:
        observed = world_model.observe(context, past, sensed)
        for actions in batches:
            observed.costs(actions, goal=goal_latents, cost=free)

    calls = {
        "encode": lambda: world_model.encode(pixels),
        "imagine": imagine,
        "cost": lambda: [agent.cost(latents, goal_latents) for latents in imagined],
        "planner": lambda: _plan(agent.planner, world_model.action_spec, _cheap, device),
    }
    seconds = median_seconds(calls, repeats=plans, device=device)
    imagining = seconds["imagine"]
    for name in ("imagine", "cost", "planner"):
        seconds[name] /= agent.replan_every
    seconds["all else"] = max(0.0, step - sum(seconds.values()))
    dtype = next(world_model.predictor.parameters()).dtype
    rate = rate_figure(
        "  rate of imagining", imagine, imagining, dtype=dtype, device=device, repeats=plans
    )
    return [
        *(Figure(f"  {name}", value, "s") for name, value in seconds.items()),
        *(Figure(f"  {name}", value / step, "of the step") for name, value in seconds.items()),
        rate,
    ]


def _candidates(
    planner: Planner, spec: ActionSpec, context_len: int, device: str
) -> tuple[Tensor, list[Tensor]]:
    """Past actions (1, C - 1, A), and all candidates (1, N, T, A) a plan evaluates."""
    batches: list[Tensor] = []

    def note(actions: Tensor) -> Tensor:
        batches.append(actions.detach())
        return _cheap(actions)

    _plan(planner, spec, note, device)
    return batches[0][:, 0, :1].expand(-1, context_len - 1, -1), batches


def _plan(
    planner: Planner, spec: ActionSpec, cost_fn: Callable[[Tensor], Tensor], device: str
) -> None:
    low, high = spec.limits(device)
    planner.plan(cost_fn, low=low, high=high, seeds=torch.tensor([0]))


def _cheap(actions: Tensor) -> Tensor:
    """A cost that takes next to no time: what is left is the planner."""
    return actions.square().sum(dim=(-2, -1))


def free(latents: Tensor, goal: Tensor) -> Tensor:
    """No cost at all: what is left is imagining."""
    return latents[:, :, -1, 0, 0].clone()  # a view would keep all of them
