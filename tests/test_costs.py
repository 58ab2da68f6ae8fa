"""Goal costs: closed forms, and which steps of a rollout count."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from vjepa_wm.costs import (
    DISTANCES,
    CameraCost,
    Effort,
    Goal,
    GoalCost,
    ProprioCost,
    Smoothness,
    SubgoalCost,
    score,
)
from vjepa_wm.errors import SettingError, UnknownNameError
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.world_model import ActionSpec, WorldModel


@pytest.fixture
def goal() -> Tensor:
    """Goals (2, 3, 4)."""
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def approaching(goal: Tensor) -> Tensor:
    """Return rollouts (2, 5, 3, 3, 4) whose offsets from the goal are n * (3, 2, 1)."""
    offset = torch.arange(5.0).view(5, 1) * torch.tensor([3.0, 2.0, 1.0])
    return goal[:, None, None] + offset.view(1, 5, 3, 1, 1)


@pytest.mark.parametrize(
    ("distance", "over_steps", "wanted"),
    [
        ("l1", "last", [0.0, 1.0, 2.0, 3.0, 4.0]),
        ("l1", "sum", [0.0, 2.0, 4.0, 6.0, 8.0]),
        ("l2", "last", [0.0, 1.0, 4.0, 9.0, 16.0]),
        ("l2", "sum", [0.0, 14 / 3, 56 / 3, 42.0, 224 / 3]),
    ],
)
def test_closed_forms(goal: Tensor, distance: str, over_steps: str, wanted: list[float]) -> None:
    costs = GoalCost(distance=distance, over_steps=over_steps)(approaching(goal), goal)
    torch.testing.assert_close(costs, torch.tensor([wanted, wanted]), atol=1e-4, rtol=1e-4)


def test_cosine_knows_directions_only(goal: Tensor) -> None:
    """0 for the same direction, 1 for a right angle, 2 for the opposite; scale is nothing."""
    across = torch.stack([-goal[..., 1], goal[..., 0], -goal[..., 3], goal[..., 2]], dim=-1)
    latents = torch.stack([7 * goal, across, -0.1 * goal], dim=1).unsqueeze(2)
    costs = GoalCost(distance="cosine", over_steps="last")(latents, goal)
    torch.testing.assert_close(costs, torch.tensor([[0.0, 1.0, 2.0]] * 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("distance", [*DISTANCES, "metric"])
def test_last_forgets_the_way_and_sum_rewards_being_early(goal: Tensor, distance: str) -> None:
    torch.manual_seed(0)
    metric = TemporalMetric(
        latent_dim=4,
        num_patches=3,
        hidden_dim=8,
        embed_dim=4,
        max_steps=5,
    ).requires_grad_(False)
    start = goal + torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    early = torch.stack([start, goal, goal], dim=1)
    late = torch.stack([start, start, goal], dim=1)
    astray = torch.stack([goal, goal, start], dim=1)
    latents = torch.stack([early, late, astray], dim=1)
    last = GoalCost(distance=distance, over_steps="last", metric=metric)(latents, goal)
    assert last[:, 0].tolist() == pytest.approx(last[:, 1].tolist(), abs=1e-6)
    assert (last[:, 2] > last[:, 0] + 0.01).all()
    early_cost, late_cost, _ = GoalCost(distance=distance, over_steps="sum", metric=metric)(
        latents, goal
    ).T
    assert (early_cost < late_cost - 0.001).all()


def test_each_problem_has_its_own_goal(goal: Tensor) -> None:
    latents = goal[:, None, None].expand(2, 3, 4, 3, 4)
    cost = GoalCost(distance="l1", over_steps="sum")
    assert float(cost(latents, goal).max()) == 0
    assert float(cost(latents, goal.flip(0)).min()) > 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda goal: goal[:1],
        lambda goal: goal[:, :2],
        lambda goal: goal[..., :3],
        lambda goal: goal[:, None],
        lambda goal: Goal(goal[:1]),
    ],
)
def test_goals_of_another_shape_are_refused(goal: Tensor, wrong: Callable) -> None:
    with pytest.raises(SettingError, match=r"goal: wanted latents \(B, P, D\)"):
        GoalCost(distance="l2", over_steps="sum")(approaching(goal), wrong(goal))


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda costs: costs[0], r"\(5,\) on cpu"),
        (lambda costs: costs.mean(), r"\(\) on cpu"),
        (lambda costs: costs[..., None].expand(2, 5, 3), r"\(2, 5, 3\) on cpu"),
        (lambda costs: costs.to("meta"), r"\(2, 5\) on meta"),
        (lambda costs: costs.tolist(), "a list"),
    ],
)
def test_what_a_cost_returns_is_checked(goal: Tensor, wrong: Callable, got: str) -> None:
    def mine(latents: Tensor, goal: Tensor) -> Tensor:
        return wrong((latents - goal[:, None, None]).square().mean(dim=(-3, -2, -1)))

    with pytest.raises(
        SettingError, match=rf"cost mine: wanted costs .* = \(2, 5\) on cpu, got {got}"
    ):
        score(mine, approaching(goal), goal, actions=torch.zeros(2, 5, 3, 1), proprio=None)


def test_an_unknown_distance_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'cosin'. Did you mean 'cosine'"):
        GoalCost(distance="cosin", over_steps="last")


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a temporal metric"):
        GoalCost(distance="metric", over_steps="last")
    with pytest.raises(ValueError, match="over_steps must be last or sum, got 'first'"):
        GoalCost(distance="l1", over_steps="first")


def far_and_near(steps: int) -> Tensor:
    """Return rollouts (1, 2, steps, 1, 1): one whose steps are all 1 away from 0, one all 2."""
    return torch.tensor([1.0, 2.0]).view(1, 2, 1, 1, 1).expand(1, 2, steps, 1, 1)


def test_discounted_steps_weigh_less_and_sum_to_one() -> None:
    goal = torch.zeros(1, 1, 1)
    cost = GoalCost(distance="l1", over_steps="sum", discount=0.5)
    torch.testing.assert_close(cost(far_and_near(4), goal), torch.tensor([[1.0, 2.0]]))
    latents = torch.zeros(1, 3, 3, 1, 1)
    for step in range(3):
        latents[0, step, step] = 7.0
    torch.testing.assert_close(cost(latents, goal), torch.tensor([[4.0, 2.0, 1.0]]))


def test_at_the_end_the_way_there_does_not_count() -> None:
    goal = torch.zeros(1, 1, 1)
    latents = torch.tensor([[[9.0, 1.0], [0.0, 2.0]]]).view(1, 2, 2, 1, 1)
    cost = GoalCost(distance="l1", over_steps="sum", discount=0.5, l2_weight=3.0)
    torch.testing.assert_close(cost.at_end()(latents, goal), torch.tensor([[4.0, 14.0]]))
    assert cost(latents, goal)[0, 0] > cost(latents, goal)[0, 1]  # itself it is as before


def test_a_squared_distance_is_added_to_the_metric() -> None:
    """In units of what a model step changes it by."""
    torch.manual_seed(0)
    sizes = {"latent_dim": 4, "num_patches": 2, "hidden_dim": 8, "embed_dim": 4, "max_steps": 5}
    options = {"over_steps": "sum", "metric": TemporalMetric(**sizes, squared_step=0.25)}
    apart = GoalCost(distance="metric", **options) + 12 * GoalCost(distance="l2", **options)
    latents, goal = torch.randn(2, 3, 5, 2, 4), torch.randn(2, 2, 4)
    together = GoalCost(distance="metric", l2_weight=3.0, **options)
    torch.testing.assert_close(together(latents, goal), apart(latents, goal))


def line(*positions: float) -> Tensor:
    """Return frames (T, 1, 1) of a point on a line."""
    return torch.tensor(positions).view(-1, 1, 1)


def test_subgoals_are_passed_in_their_order_and_the_last_at_the_end() -> None:
    cost = SubgoalCost(distance="l1")
    goals = line(1.0, 2.0, 5.0)[None]  # (B, G, P, D) = (1, 3, 1, 1)
    ways = {
        line(1, 2, 3, 5): 0.0,
        line(0, 1, 2, 5): 0.0,  # nothing says when
        line(2, 1, 1, 5): 1.0,  # 1 is passed, and from there on 2 is 1 away at best
        line(1, 2, 5, 4): 1.0,  # does not stay
        line(5, 5, 5, 5): 4.0 + 3.0,
        line(1.5, 1.5, 1.5, 5): 0.5 + 0.5,
    }
    latents = torch.stack(list(ways))[None]
    torch.testing.assert_close(cost(latents, goals), torch.tensor([list(ways.values())]))


def test_subgoals_are_the_cheapest_of_all_ways_to_choose_their_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 3, 5, 2, 4, generator=generator)
    goals = torch.randn(2, 3, 2, 4, generator=generator)
    costs = SubgoalCost(distance="l2")(latents, goals)
    apart = DISTANCES["l2"](latents[:, :, :, None], goals[:, None, None])  # (B, N, T, G)
    ways = [(i, j, 4) for i in range(5) for j in range(i, 5)]
    sums = [sum(apart[..., step, g] for g, step in enumerate(way)) for way in ways]
    torch.testing.assert_close(costs, torch.stack(sums).amin(0))


def test_one_subgoal_is_a_goal() -> None:
    latents = torch.randn(2, 3, 5, 2, 4)
    goal = torch.randn(2, 2, 4)
    one = SubgoalCost(distance="l1")(latents, goal[:, None])
    last = GoalCost(distance="l1", over_steps="last")
    torch.testing.assert_close(one, last(latents, goal))
    with pytest.raises(ValueError, match=r"wanted goals \(B, G, P, D\), got \(2, 2, 4\)"):
        SubgoalCost(distance="l1")(latents, goal)


def test_cameras_are_weighed() -> None:
    first, second = torch.randn(2, 3, 5, 2, 4), torch.randn(2, 3, 5, 2, 4)
    goals = torch.randn(2, 2, 4), torch.randn(2, 2, 4)
    one = GoalCost(distance="l1", over_steps="sum")
    both = CameraCost(one, weights=[1.0, 0.5])
    together = both(torch.cat([first, second], dim=-2), torch.cat(goals, dim=-2))
    torch.testing.assert_close(together, one(first, goals[0]) + 0.5 * one(second, goals[1]))
    with pytest.raises(ValueError, match="tokens of 2 cameras, one weight each, got 3"):
        both(first[..., :1, :].repeat(1, 1, 1, 3, 1), goals[0])


def test_cameras_hand_over_actions() -> None:
    """To a cost of each camera that names them, alone or in a sum."""
    latents, goal, actions = (
        torch.randn(2, 3, 5, 4, 4),
        torch.randn(2, 4, 4),
        torch.rand(2, 3, 5, 2),
    )
    one = GoalCost(distance="l1", over_steps="sum")
    known = {"actions": actions, "proprio": None}
    with_effort = score(CameraCost(one + Effort(), weights=[1.0, 0.5]), latents, goal, **known)
    without = score(CameraCost(one, weights=[1.0, 0.5]), latents, goal, **known)
    effort = actions.square().mean(dim=(-2, -1))
    torch.testing.assert_close(with_effort - without, 1.5 * effort, rtol=1e-4, atol=1e-5)


def test_cameras_hand_over_the_goals_proprio() -> None:
    latents, proprio = torch.randn(2, 3, 5, 4, 4), torch.randn(2, 3, 5, 3)
    goal = Goal(torch.randn(2, 4, 4), proprio=torch.randn(2, 3))
    known = {"actions": torch.rand(2, 3, 5, 2), "proprio": proprio}
    reach = ProprioCost(over_steps="last")
    got = score(CameraCost(reach, weights=[1.0, 0.5]), latents, goal, **known)
    torch.testing.assert_close(got, 1.5 * reach(latents, goal, proprio))


def test_proprio_of_another_width_is_refused() -> None:
    latents, proprio = torch.randn(2, 3, 5, 4, 4), torch.randn(2, 3, 5, 3)
    goal = Goal(torch.randn(2, 4, 4), proprio=torch.randn(2, 1))
    with pytest.raises(
        SettingError, match=r"wanted a goal's proprio \(B, Q\) = \(2, 3\), got \(2, 1"
    ):
        ProprioCost(over_steps="last")(latents, goal, proprio)
    goal = Goal(goal.latents, proprio=torch.randn(2, 3))
    with pytest.raises(SettingError, match="wanted 3, one per entry of the proprio, got 1"):
        ProprioCost(over_steps="last", weights=[1.0])(latents, goal, proprio)


def test_action_costs_have_closed_forms() -> None:
    still = torch.full((1, 4, 2), 0.5)
    jump = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])[None]
    actions = torch.stack([still, jump], dim=1)
    nothing = torch.zeros(1, 2, 4, 1, 1)
    effort = Effort()(nothing, nothing[:, 0, 0], actions)
    torch.testing.assert_close(effort, torch.tensor([[0.25, 3 / 8]]))
    smoothness = Smoothness()(nothing, nothing[:, 0, 0], actions)
    torch.testing.assert_close(smoothness, torch.tensor([[0.0, 1 / 6]]))
    assert Smoothness()(nothing, nothing, actions[:, :, :1]).tolist() == [[0.0, 0.0]]


def test_proprio_is_compared_with_the_goals() -> None:
    proprio = torch.tensor([[[[0.0, 0.0], [1.0, 2.0]]]])  # (B, N, T, Q)
    nothing = torch.zeros(1, 1, 2, 1, 1)
    goal = Goal(torch.zeros(1, 1, 1), torch.zeros(1, 2))
    last = ProprioCost(over_steps="last")(nothing, goal, proprio)
    torch.testing.assert_close(last, torch.tensor([[2.5]]))
    weighted = ProprioCost(over_steps="sum", weights=[1.0, 0.0])(nothing, goal, proprio)
    torch.testing.assert_close(weighted, torch.tensor([[0.25]]))
    with pytest.raises(ValueError, match="knows the proprio"):
        ProprioCost(over_steps="last")(nothing, goal, None)
    with pytest.raises(ValueError, match="wanted a Goal with proprio"):
        ProprioCost(over_steps="last")(nothing, goal.latents, proprio)


def test_costs_add_up_with_their_weights_and_functions_among_them() -> None:
    def far_right(latents: Tensor, goal: Tensor) -> Tensor:
        return latents[:, :, -1, 0, 0]

    def late(latents: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        return actions[:, :, 0].sum(-1)

    generator = torch.Generator().manual_seed(0)
    latents, goal = torch.randn(2, 3, 4, 2, 4, generator=generator), torch.randn(2, 2, 4)
    actions = torch.randn(2, 3, 4, 2, generator=generator)
    near = GoalCost(distance="l1", over_steps="last")
    cost = far_right + 2 * (near + 0.5 * Effort()) + late
    wanted = far_right(latents, goal) + 2 * near(latents, goal)
    wanted += Effort()(latents, goal, actions) + actions[:, :, 0].sum(-1)
    given = score(cost, latents, goal, actions=actions, proprio=None)
    torch.testing.assert_close(given, wanted)
    assert len(cost.terms) == 4


def test_costs_are_summed_as_numbers_are() -> None:
    latents, goal, actions = (
        torch.randn(2, 3, 4, 2, 4),
        torch.randn(2, 2, 4),
        torch.ones(2, 3, 4, 2),
    )
    near = GoalCost(distance="l1", over_steps="last")
    given = score(sum([near, 0.5 * Effort()]), latents, goal, actions=actions, proprio=None)
    torch.testing.assert_close(given, near(latents, goal) + 0.5)


def test_a_module_is_given_what_its_forward_names() -> None:
    class Far(nn.Module):
        def forward(
            self, latents: Tensor, goal: Tensor, actions: Tensor, proprio: Tensor
        ) -> Tensor:
            return actions.sum((-1, -2)) + proprio.sum((-1, -2))

    latents, goal = torch.zeros(2, 3, 4, 2, 4), torch.zeros(2, 2, 4)
    known = {"actions": torch.ones(2, 3, 4, 2), "proprio": torch.ones(2, 3, 4, 5)}
    compiled = torch.compile(Far(), backend="eager")
    for cost, wanted in ((Far(), 28.0), (Far() + 2 * Effort(), 30.0), (compiled, 28.0)):
        given = score(cost, latents, goal, **known)
        torch.testing.assert_close(given, torch.full((2, 3), wanted))
    plain = nn.Module()
    plain.forward = lambda latents, goal: torch.zeros(2, 3)  # no method, but nothing else is wanted
    assert not score(plain, latents, goal, **known).any()


@pytest.mark.parametrize("name", [*DISTANCES, "metric"])
def test_gradients_flow_through_costs_to_latents_and_actions(name: str) -> None:
    torch.manual_seed(0)
    metric = TemporalMetric(
        latent_dim=4, num_patches=2, hidden_dim=8, embed_dim=4, max_steps=5
    ).requires_grad_(False)
    goals = torch.randn(2, 3, 2, 4)
    path = torch.randn(2, 3, 4, 2, requires_grad=True)
    single = GoalCost(distance=name, over_steps="sum", metric=metric, discount=0.9)
    sequence = SubgoalCost(distance=name, metric=metric)

    def total(actions: Tensor) -> Tensor:
        latents = actions.cumsum(2)[..., None].expand(-1, -1, -1, -1, 4)  # (B, N, T, P, D)
        on_way = score(sequence + 0.1 * Smoothness(), latents, goals, actions=actions, proprio=None)
        return on_way + single(latents, goals[:, 0])

    total(path).sum().backward()
    assert torch.isfinite(path.grad).all() and (path.grad.abs().sum((-1, -2)) > 0).all()


def test_a_discount_of_the_last_step_alone_is_refused() -> None:
    for options in ({"over_steps": "last", "discount": 0.9}, {"over_steps": "sum", "discount": 0}):
        with pytest.raises(ValueError, match="discount must be in"):
            GoalCost(distance="l1", **options)


@pytest.mark.parametrize("memory_mb", [1e-6, 64.0])
def test_a_world_model_hands_over_actions_and_several_goals(memory_mb: float) -> None:
    spec = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), frame_skip=1)
    world = WorldModel(tiny.encoder(), tiny.predictor(), action_spec=spec, memory_mb=memory_mb)
    generator = torch.Generator().manual_seed(0)
    context, past = torch.randn(3, 2, 6, 12, generator=generator), torch.zeros(3, 1, 2)
    actions = torch.randn(3, 4, 3, 2, generator=generator)
    goals = Goal(torch.randn(3, 2, 6, 12, generator=generator))
    subgoals, latents = SubgoalCost(distance="l1"), world.rollout(context, past, actions)
    wanted = subgoals(latents, goals) + 10 * actions.square().mean((-1, -2))
    cost = subgoals + 10 * Effort()
    costs = world.costs(context, past, actions, goal=goals, cost=cost)
    torch.testing.assert_close(costs, wanted, rtol=1e-4, atol=1e-4)
