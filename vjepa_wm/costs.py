"""Costs of imagined futures: what the planner minimises, in pieces that add up.

A cost is any callable `(latents (B, N, T, P, D), goal (B, P, D)) -> (B, N)`; lower is better. One
that also names `actions` or `proprio` among its parameters is given those (`score` does). Pieces
add up and are weighted by numbers: `GoalCost(...) + 0.1 * Smoothness()`.

Shapes: B problems, N candidates, T imagined steps, P tokens, D latent width, A action width,
Q proprio width, G goals in sequence, C cameras.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.metric import TemporalMetric

CostCallable = Callable[..., Tensor]
OverSteps = Literal["last", "sum"]


@dataclass(frozen=True)
class Goal:
    """What to reach, where it is more than the latents of one frame.

    Attributes:
        latents: (B, P, D), or (B, G, P, D) of several frames in sequence.
        proprio: the robot's own sensing at the goal (B, Q).
    """

    latents: Tensor
    proprio: Tensor | None = None

    def __getitem__(self, problems: slice) -> "Goal":
        """The goals of some problems."""
        proprio = None if self.proprio is None else self.proprio[problems]
        return Goal(self.latents[problems], proprio)

    def __len__(self) -> int:
        """Of how many problems."""
        return len(self.latents)


def score(
    cost: CostCallable,
    latents: Tensor,
    goal: Tensor | Goal,
    *,
    actions: Tensor,
    proprio: Tensor | None,
) -> Tensor:
    """Apply a cost, giving it also what it names beyond latents and goal.

    Args:
        cost: any callable of latents and goal, and perhaps of actions and proprio by name.
        latents: imagined (B, N, T, P, D).
        goal: what to reach.
        actions: candidates (B, N, T, A).
        proprio: after each imagined step (B, N, T, Q), where it is known.

    Returns:
        Costs (B, N).

    Raises:
        SettingError: the cost returned something else.
    """
    known = {"actions": actions, "proprio": proprio}
    names = inspect.signature(_called(cost)).parameters
    costs = cost(latents, goal, **{name: known[name] for name in known if name in names})
    wanted, device = tuple(latents.shape[:2]), latents.device
    if not isinstance(costs, Tensor) or costs.shape != wanted or costs.device != device:
        is_tensor = isinstance(costs, Tensor)
        got = (
            f"{tuple(costs.shape)} on {costs.device}" if is_tensor else f"a {type(costs).__name__}"
        )
        name = getattr(cost, "__name__", type(cost).__name__)
        raise SettingError(f"cost {name}: wanted costs (B, N) = {wanted} on {device}, got {got}")
    return costs


def l1_distance(latents: Tensor, goal: Tensor) -> Tensor:
    """Mean absolute difference over tokens and channels (..., P, D) -> (...)."""
    return (latents - goal).abs().mean(dim=(-2, -1))


def l2_distance(latents: Tensor, goal: Tensor) -> Tensor:
    """Mean squared difference over tokens and channels (..., P, D) -> (...)."""
    return (latents - goal).square().mean(dim=(-2, -1))


def cosine_distance(latents: Tensor, goal: Tensor) -> Tensor:
    """One minus the cosine of each token, averaged over tokens (..., P, D) -> (...)."""
    return 1 - F.cosine_similarity(latents, goal, dim=-1).mean(dim=-1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1_distance,
    "l2": l2_distance,
    "cosine": cosine_distance,
}
METRIC = "metric"


class Cost:
    """What lets costs be added, `a + b`, and weighted, `0.1 * a`."""

    def __add__(self, other: CostCallable) -> "CostSum":
        return CostSum([*_terms(self), *_terms(other)])

    def __radd__(self, other: CostCallable | Literal[0]) -> "Cost":
        if other == 0:  # what `sum` begins with
            return self
        return CostSum([*_terms(other), *_terms(self)])

    def __mul__(self, weight: float) -> "CostSum":
        return CostSum([(weight * own, term) for own, term in _terms(self)])

    __rmul__ = __mul__


class CostSum(Cost):
    """A weighted sum of costs; usually made by adding them up.

    Args:
        terms: weights, and the costs or functions they belong to.
    """

    def __init__(self, terms: Sequence[tuple[float, CostCallable]]) -> None:
        self.terms = tuple(terms)

    def __call__(
        self,
        latents: Tensor,
        goal: Tensor | Goal,
        actions: Tensor | None = None,
        proprio: Tensor | None = None,
    ) -> Tensor:
        """Score imagined latents (B, N, T, P, D) and what belongs to them; returns (B, N)."""
        costs = [
            weight * score(term, latents, goal, actions=actions, proprio=proprio)
            for weight, term in self.terms
        ]
        return torch.stack(costs).sum(dim=0)


class GoalCost(Cost):
    """Distance from imagined frames to the goal, at the last step or summed over steps.

    Args:
        distance: `l1`, `l2`, `cosine`, or `metric` for the learned temporal metric.
        over_steps: `last` scores the last imagined frame; `sum` the mean over all of them, which
            also rewards being early and staying there.
        metric: the metric, needed for `metric`.
        discount: weight of each further step of `sum` relative to the one before; 1 weighs all
            alike, less trusts a far future less.
        l2_weight: weight of the squared latent distance that is added: the metric leads to the
            goal from afar, but tells the last centimetres apart less well. In units of what a
            model step changes it by (`TemporalMetric.squared_step`), so that a weight means the
            same whatever the encoder; without a metric as it is.

    Raises:
        UnknownNameError: another distance; the nearest is named.
        SettingError: `metric` was asked for and none given, `over_steps` is another word, or
            `discount` is out of (0, 1], or is less than 1 where only the last step counts.
    """

    def __init__(
        self,
        *,
        distance: str,
        over_steps: OverSteps,
        metric: TemporalMetric | None = None,
        discount: float = 1.0,
        l2_weight: float = 0.0,
    ) -> None:
        _check_steps(over_steps, discount)
        self.distance = _distance(distance, metric)
        self.over_steps = over_steps
        self.discount = discount
        self.l2_weight = l2_weight
        self.l2_unit = 1.0 if metric is None else metric.squared_step

    def __call__(self, latents: Tensor, goal: Tensor | Goal) -> Tensor:
        """Score imagined latents (B, N, T, P, D) against goals (B, P, D); returns (B, N).

        Raises:
            SettingError: the goals are of another shape.
        """
        goal = _goal_latents(goal, latents)
        if goal.ndim != 3:
            raise SettingError(
                f"goal: wanted latents (B, P, D), got {tuple(goal.shape)}; for several goals in "
                "sequence use SubgoalCost"
            )
        if self.over_steps == "last":
            latents = latents[:, :, -1:]
        goal = goal[:, None, None]
        distance = self.distance(latents, goal)  # (B, N, T)
        if self.l2_weight:
            distance = distance + self.l2_weight / self.l2_unit * l2_distance(latents, goal)
        return _over_steps(distance, self.over_steps, self.discount)

    def at_end(self) -> Self:
        """Return the same cost, of the last frame alone."""
        cost = copy.copy(self)
        cost.over_steps, cost.discount = "last", 1.0
        return cost


class SubgoalCost(Cost):
    """Distances to several goals that are passed in their order, the last one at the end.

    Of all ways to choose a step for each goal, none before that of the goal it follows, the
    cheapest counts: nothing says when a goal is due. Goals cost less the closer they are passed.

    Args:
        distance: see `GoalCost`.
        metric: see `GoalCost`.
    """

    def __init__(self, *, distance: str, metric: TemporalMetric | None = None) -> None:
        self.distance = _distance(distance, metric)

    def __call__(self, latents: Tensor, goal: Tensor | Goal) -> Tensor:
        """Score imagined latents (B, N, T, P, D) against goals (B, G, P, D); returns (B, N).

        Raises:
            SettingError: there is one goal per problem only, or they are of another shape.
        """
        goals = _goal_latents(goal, latents)
        if goals.ndim != 4:
            raise SettingError(
                f"subgoals: wanted goals (B, G, P, D), got {tuple(goals.shape)}; "
                "for one goal use GoalCost"
            )
        so_far = 0.0  # cost of the goals before, all passed at step t or earlier (B, N, T)
        for subgoal in goals[:, :-1].unbind(dim=1):
            passed = self.distance(latents, subgoal[:, None, None])
            so_far = (so_far + passed).cummin(dim=-1).values
        at_end = self.distance(latents[:, :, -1:], goals[:, -1, None, None])[..., 0]
        return at_end if goals.shape[1] == 1 else at_end + so_far[..., -1]


class CameraCost(Cost):
    """A cost on the latents of several cameras, whose tokens follow one another along P.

    Args:
        cost: of one camera's latents and goal.
        weights: one number for each of the C cameras; the costs are summed with these weights.

    Raises:
        SettingError: there are no weights.
    """

    def __init__(self, cost: CostCallable, *, weights: Sequence[float]) -> None:
        if not weights:
            raise SettingError("weights: wanted one number per camera, got none")
        self.cost = cost
        self.weights = tuple(weights)

    def __call__(
        self,
        latents: Tensor,
        goal: Tensor | Goal,
        actions: Tensor | None = None,
        proprio: Tensor | None = None,
    ) -> Tensor:
        """Score (B, N, T, C * P, D) against goals (B, C * P, D); returns (B, N).

        Raises:
            SettingError: the tokens are not those of as many cameras as there are weights, or the
                goals are of another shape.
        """
        if latents.shape[-2] % len(self.weights):
            raise SettingError(
                f"wanted tokens of {len(self.weights)} cameras, one weight each, "
                f"got {latents.shape[-2]} tokens"
            )
        views = latents.chunk(len(self.weights), dim=-2)
        goals = _goal_latents(goal, latents).chunk(len(self.weights), dim=-2)
        if isinstance(goal, Goal):
            goals = [Goal(aim, goal.proprio) for aim in goals]
        costs = [
            weight * score(self.cost, view, aim, actions=actions, proprio=proprio)
            for weight, view, aim in zip(self.weights, views, goals, strict=True)
        ]
        return torch.stack(costs).sum(dim=0)


class ProprioCost(Cost):
    """Mean squared difference between the robot's own sensing and that of the goal.

    Args:
        over_steps: see `GoalCost`.
        weights: one number per entry of the proprio, to bring its units together; None is 1 each.
        discount: see `GoalCost`.
    """

    def __init__(
        self,
        *,
        over_steps: OverSteps,
        weights: Sequence[float] | None = None,
        discount: float = 1.0,
    ) -> None:
        _check_steps(over_steps, discount)
        self.over_steps = over_steps
        self.weights = None if weights is None else tuple(weights)
        self.discount = discount

    def __call__(self, latents: Tensor, goal: Goal, proprio: Tensor | None) -> Tensor:
        """Score proprio (B, N, T, Q) against that of goals (B, Q); returns (B, N).

        Raises:
            SettingError: proprio is not known of the imagined steps, or not of the goal, or it has
                another width than the goal's or the weights.
        """
        if proprio is None:
            raise SettingError(
                "ProprioCost needs a world model that knows the proprio of imagined steps: "
                "this one takes none"
            )
        if not isinstance(goal, Goal) or goal.proprio is None:
            raise SettingError("ProprioCost: wanted a Goal with proprio (B, Q), got one without")
        wanted = (len(proprio), proprio.shape[-1])
        if goal.proprio.shape != wanted:
            raise SettingError(
                f"ProprioCost: wanted a goal's proprio (B, Q) = {wanted}, "
                f"got {tuple(goal.proprio.shape)}"
            )
        if self.weights is not None and len(self.weights) != wanted[1]:
            raise SettingError(
                f"ProprioCost weights: wanted {wanted[1]}, one per entry of the proprio, "
                f"got {len(self.weights)}"
            )
        squared = (proprio - goal.proprio[:, None, None]).square()
        if self.weights is not None:
            squared = squared * squared.new_tensor(self.weights)
        return _over_steps(squared.mean(dim=-1), self.over_steps, self.discount)


class Effort(Cost):
    """Mean squared action: prefers small ones. In squared action units, however many steps."""

    def __call__(self, latents: Tensor, goal: Tensor | Goal, actions: Tensor) -> Tensor:
        """Score candidates (B, N, T, A); returns (B, N)."""
        return actions.square().mean(dim=(-2, -1))


class Smoothness(Cost):
    """Mean squared change of the action from step to step; 0 for a single step."""

    def __call__(self, latents: Tensor, goal: Tensor | Goal, actions: Tensor) -> Tensor:
        """Score candidates (B, N, T, A); returns (B, N)."""
        changes = actions.diff(dim=-2).square().mean(dim=-1)  # (B, N, T - 1)
        return changes.sum(dim=-1) / max(1, changes.shape[-1])


def _goal_latents(goal: Tensor | Goal, latents: Tensor) -> Tensor:
    """Return the latents (B, P, D), or (B, G, P, D), of goals of the imagined (B, N, T, P, D)."""
    goal = goal.latents if isinstance(goal, Goal) else goal
    wanted = (len(latents), *latents.shape[-2:])
    if (len(goal), *goal.shape[-2:]) != wanted:
        raise SettingError(f"goal: wanted latents (B, P, D) = {wanted}, got {tuple(goal.shape)}")
    return goal


def _called(cost: CostCallable) -> CostCallable:
    """What a cost's parameters are named in: of a module `forward`, its call names none."""
    cost = getattr(cost, "_orig_mod", cost)  # what `torch.compile` made a module of
    is_module = isinstance(cost, nn.Module) and inspect.ismethod(cost.forward)
    return cost.forward if is_module else cost


def _terms(cost: CostCallable) -> tuple[tuple[float, CostCallable], ...]:
    return cost.terms if isinstance(cost, CostSum) else ((1.0, cost),)


def _distance(name: str, metric: TemporalMetric | None) -> Callable[[Tensor, Tensor], Tensor]:
    if name not in (*DISTANCES, METRIC):
        raise UnknownNameError("cost distance", name, (*DISTANCES, METRIC))
    if name == METRIC and metric is None:
        raise SettingError("the cost `metric` needs a temporal metric: this world model has none")
    return metric if name == METRIC else DISTANCES[name]


def _check_steps(over_steps: str, discount: float) -> None:
    if over_steps not in ("last", "sum"):
        raise SettingError(f"over_steps must be last or sum, got {over_steps!r}")
    if not 0 < discount <= 1 or (over_steps == "last" and discount != 1):
        raise SettingError(
            f"discount must be in (0, 1], and 1 where over_steps is last, got {discount}"
        )


def _over_steps(distance: Tensor, over_steps: OverSteps, discount: float) -> Tensor:
    """Reduce distances (B, N, T) over steps."""
    if over_steps == "last":
        return distance[..., -1]
    if discount == 1:
        return distance.mean(dim=-1)
    steps = torch.arange(distance.shape[-1], device=distance.device, dtype=distance.dtype)
    weights = discount**steps
    return (distance * weights).sum(dim=-1) / weights.sum()
