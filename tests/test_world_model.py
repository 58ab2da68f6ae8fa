"""Rollouts and costs: the fast way gives what the plain way gives."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from planners import Gradient
from tests import tiny
from vjepa_wm.action_units import HalfRanges
from vjepa_wm.costs import GoalCost
from vjepa_wm.errors import SettingError
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.threads import side_by_side
from vjepa_wm.world_model import CPU_TOKENS_AT_ONCE, ActionSpec, WorldModel, _chunks

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
HORIZON = 3


def world(*, memory_mb: float = 64.0, takes_proprio: bool = False) -> WorldModel:
    spec = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), frame_skip=1)
    return WorldModel(
        tiny.encoder(),
        tiny.predictor(takes_proprio=takes_proprio),
        action_spec=spec,
        integrate=tiny.integrator() if takes_proprio else None,
        memory_mb=memory_mb,
    )


def problem(context_len: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return context (3, C, 6, 12), past actions (3, C - 1, 2), candidates (3, 4, 3, 2)."""
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(3, context_len, 6, 12, generator=generator),
        torch.randn(3, context_len - 1, 2, generator=generator),
        torch.randn(3, 4, HORIZON, 2, generator=generator),
    )


@torch.no_grad()
def naive_rollout(
    predictor: ActionPredictor, context: Tensor, past: Tensor, plan: Tensor
) -> Tensor:
    """Imagine one candidate (T, A) by running the whole sequence through `forward` each step."""
    frames, actions = context.unsqueeze(0), past.unsqueeze(0)
    for action in plan:
        actions = torch.cat([actions, action.view(1, 1, -1)], dim=1)
        frames = torch.cat([frames, predictor(frames, actions)[:, -1:]], dim=1)
    return frames[0, len(context) :]


@pytest.mark.parametrize("context_len", [1, 2, 3])
def test_rollout_is_the_naive_computation(context_len: int) -> None:
    """With no past, and with some that is computed once and shared by the candidates."""
    model = world()
    context, past, actions = problem(context_len)
    imagined = model.rollout(context, past, actions)
    assert imagined.shape == (3, 4, HORIZON, 6, 12)
    for b in range(3):
        for n in range(4):
            wanted = naive_rollout(model.predictor, context[b], past[b], actions[b, n])
            torch.testing.assert_close(imagined[b, n], wanted, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("context_len", [1, 3])
def test_proprio_is_moved_along_the_candidates(context_len: int) -> None:
    """Observed at the context, integrated from there on; costs are given it."""
    model = world(takes_proprio=True)
    context, past, actions = problem(context_len)
    proprio = torch.randn(3, context_len, 3, generator=torch.Generator().manual_seed(5))
    imagined = model.rollout(context, past, actions, proprio)
    frames, taken, sensed = context[1:2], past[1:2], proprio[1:2]
    for action in actions[1, 2]:
        taken = torch.cat([taken, action.view(1, 1, -1)], dim=1)
        frames = torch.cat([frames, model.predictor(frames, taken, sensed)[:, -1:]], dim=1)
        sensed = torch.cat([sensed, model.integrate(sensed[:, -1:], action.view(1, 1, -1))], dim=1)
    torch.testing.assert_close(imagined[1, 2], frames[0, context_len:], **CLOSE)

    def ends(latents: Tensor, goal: Tensor, proprio: Tensor) -> Tensor:
        return proprio[:, :, -1].sum(-1)

    costs = model.costs(context, past, actions, proprio, goal=context[:, 0], cost=ends)
    torch.testing.assert_close(costs[1, 2], sensed[0, -1].sum(), **CLOSE)
    other = model.rollout(context, past, actions, proprio + 0.5)
    assert float((other - imagined).abs().mean()) > 1e-3


@torch.no_grad()
def test_a_step_of_several_actions_moves_proprio_by_each_in_turn() -> None:
    """The predictor takes all of them at once, and the proprio at the first of them."""
    spec = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), frame_skip=1, actions_per_step=2)
    predictor = tiny.predictor(takes_proprio=True, action_dim=4)
    model = WorldModel(tiny.encoder(), predictor, action_spec=spec, integrate=tiny.integrator())
    context, _, single = problem(1)
    actions = torch.cat([single, -0.5 * single], dim=-1)  # (3, 4, T, 4)
    proprio = torch.randn(3, 1, 3, generator=torch.Generator().manual_seed(5))
    imagined = model.rollout(context, actions[:, 0, :0], actions, proprio)
    frames, sensed = context[1:2], proprio[1:2]
    for t in range(HORIZON):
        taken = actions[1:2, 2, : t + 1]
        frames = torch.cat([frames, predictor(frames, taken, sensed)[:, -1:]], dim=1)
        last = sensed[:, -1:]
        for action in taken[:, -1:].split(2, dim=-1):
            last = model.integrate(last, action)
        sensed = torch.cat([sensed, last], dim=1)
    torch.testing.assert_close(imagined[1, 2], frames[0, 1:], **CLOSE)
    low, high = spec.limits("cpu")
    assert low.tolist() == [-1.0] * 4 and high.tolist() == [1.0] * 4


def shapes_given(monkeypatch, model: WorldModel, name: str) -> list[torch.Size]:
    """Watch a method of the predictor: the shapes of its first arguments, as it is called."""
    shapes = []
    method = getattr(model.predictor, name)

    def watched(first: Tensor, *others: object) -> Tensor:
        shapes.append(first.shape)
        return method(first, *others)

    monkeypatch.setattr(model.predictor, name, watched)
    return shapes


def test_the_past_is_computed_once_per_problem(monkeypatch) -> None:
    model = world()
    shapes = shapes_given(monkeypatch, model, "_embed")
    model.rollout(*problem(3))
    assert [shape[:2] for shape in shapes] == [(3, 2)] + [(12, 1)] * HORIZON


def test_what_conditions_a_rollout_is_computed_once(monkeypatch) -> None:
    """For all steps of all candidates, and for the observed past."""
    model = world()
    shapes = shapes_given(monkeypatch, model, "condition")
    model.rollout(*problem(3))
    assert shapes == [(3, 2, 2), (12, HORIZON, 2)]


def test_gradients_are_followed_only_where_actions_want_them() -> None:
    """Not because the caller's gradient mode is on: nothing is kept for a backward pass."""
    model = world()
    context, past, actions = problem(1)
    settings = {"goal": torch.zeros(3, 6, 12), "cost": GoalCost(distance="l2", over_steps="sum")}
    assert torch.is_grad_enabled()
    assert not model.costs(context, past, actions, **settings).requires_grad
    assert model.costs(context, past, actions.requires_grad_(), **settings).requires_grad


def test_a_plan_computes_its_past_once(monkeypatch) -> None:
    """However many rounds the planner takes and chunks there are; without a past, never."""
    model = world(memory_mb=1e-6)
    goal = torch.zeros(3, 6, 12)
    cost = GoalCost(distance="l2", over_steps="last")
    shapes = shapes_given(monkeypatch, model, "_through_blocks")
    for context_len, frames in ((3, [2]), (1, [])):
        shapes.clear()
        context, past, actions = problem(context_len)
        imagination = model.observe(context, past)
        assert [shape[1] for shape in shapes] == frames
        first = imagination.costs(actions, goal=goal, cost=cost)
        later = {shape[1] for shape in shapes[len(frames) :]}
        assert later == {1}  # from here on single frames only
        torch.testing.assert_close(imagination.costs(actions, goal=goal, cost=cost), first)
        wanted = model.costs(context, past, actions, goal=goal, cost=cost)
        torch.testing.assert_close(first, wanted)


def test_on_a_cpu_few_candidates_are_imagined_at_once() -> None:
    model = world(memory_mb=1e6)
    tokens = model.rows_at_once(HORIZON) * model.predictor.tokens_per_frame
    limit = CPU_TOKENS_AT_ONCE * torch.get_num_threads()
    assert limit <= tokens < limit + model.predictor.tokens_per_frame


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[int]:
    """As many threads for PyTorch, whatever cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_threads_imagine_side_by_side(threads: int, monkeypatch) -> None:
    """The costs are the same; gradients, which threads would lose, are followed in one."""
    monkeypatch.setattr("vjepa_wm.world_model.LEAST_TOKENS", 6)
    model = world(takes_proprio=True)
    context, past, actions = problem(2)
    proprio = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(5))
    goal = torch.zeros(3, 6, 12)
    names = set()
    step = model.predictor.step

    def observed_step(*given: object) -> Tensor:
        names.add(threading.current_thread().name)
        return step(*given)

    monkeypatch.setattr(model.predictor, "step", observed_step)
    cost = GoalCost(distance="l1", over_steps="sum")
    with torch.no_grad():
        found = model.costs(context, past, actions, proprio, goal=goal, cost=cost)
    assert (names == {threading.main_thread().name}) == (threads == 1)
    assert torch.get_num_threads() == threads
    wanted = cost(model.rollout(context, past, actions, proprio), goal)
    torch.testing.assert_close(found, wanted, **CLOSE)
    counts = []  # of FLOPs, by a counter that sees those of its own thread
    for call in (
        lambda: model.costs(context, past, actions, proprio, goal=goal, cost=cost),
        lambda: model.rollout(context, past, actions, proprio),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
    names.clear()
    leaf = actions.clone().requires_grad_()
    model.costs(context, past, leaf, proprio, goal=goal, cost=cost).sum().backward()
    assert names == {threading.main_thread().name}
    assert leaf.grad.abs().min() > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 7), (5, 64), (64, 3)])
@pytest.mark.parametrize("rows", [1, 3, 32, 500])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_chunks_hold_every_candidate_once(shape: tuple[int, int], rows: int, workers: int) -> None:
    seen = torch.zeros(shape)
    for problems, columns in _chunks(*shape, rows, workers):
        seen[problems, columns] += 1
        assert seen[problems, columns].numel() <= rows
    assert bool((seen == 1).all())


def test_wide_networks_get_all_threads_for_one_product_after_the_other(monkeypatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    model = world()
    assert model.workers(1000, 2) == 4
    monkeypatch.setattr("vjepa_wm.world_model.MOST_WIDTH", model.predictor.width - 1)
    assert model.workers(1000, 2) == 1


def test_an_error_in_a_thread_is_raised() -> None:
    def work(piece: int) -> int:
        if piece == 2:
            raise SettingError("two is wrong")
        return piece

    assert side_by_side(work, [0, 1, 3], workers=3) == [0, 1, 3]
    with pytest.raises(SettingError, match="two is wrong"):
        side_by_side(work, [0, 1, 2, 3], workers=2)


def test_problems_do_not_influence_each_other() -> None:
    model = world()
    context, past, actions = problem(2)
    together = model.rollout(context, past, actions)
    for b in range(3):
        one = slice(b, b + 1)
        alone = model.rollout(context[one], past[one], actions[one])
        torch.testing.assert_close(together[one], alone, **CLOSE)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 11, 12, 1000])
def test_costs_do_not_depend_on_the_memory(rows: int, threads: int, monkeypatch) -> None:
    """What is imagined at once, by all threads together, never exceeds the memory."""
    monkeypatch.setattr("vjepa_wm.world_model.LEAST_TOKENS", 1)
    model = world()
    goal = torch.randn(3, 6, 12, generator=torch.Generator().manual_seed(4))
    sizes = []
    distance = GoalCost(distance="l1", over_steps="sum")

    def cost(latents: Tensor, goal: Tensor) -> Tensor:
        sizes.append(latents.shape[0] * latents.shape[1])
        return distance(latents, goal)

    context, past, actions = problem(2)
    wanted = distance(model.rollout(context, past, actions), goal)
    model.memory_mb = (rows + 0.5) * HORIZON * model.predictor.bytes_per_frame / 2**20
    costs = model.costs(context, past, actions, goal=goal, cost=cost)
    torch.testing.assert_close(costs, wanted, **CLOSE)
    assert sum(sizes) == 12
    assert max(sizes) * min(threads, rows) <= rows
    if threads == 1:
        assert max(sizes) == min(rows, 12) if rows < 4 else max(sizes) == 4 * min(rows // 4, 3)


def test_a_plan_past_the_trained_length_is_refused() -> None:
    """C - 1 + T = 6 frames of input, 5 were trained on; 5 are fine."""
    model = world()
    model.rollout(*problem(3))
    with pytest.raises(ValueError, match="6 frames .* trained on 5"):
        model.rollout(*problem(4))


@pytest.mark.parametrize(
    "wrong", [lambda a: a[:2], lambda a: a[..., :1], lambda a: a[0], lambda a: a[:, :, 0]]
)
def test_candidates_of_another_shape_are_refused(wrong: Callable[[Tensor], Tensor]) -> None:
    context, past, actions = problem(2)
    wanted = r"wanted candidates \(B, N, T, A\) with B = 3 and A = 2, got"
    with pytest.raises(SettingError, match=wanted):
        world().rollout(context, past, wrong(actions))
    cost = GoalCost(distance="l2", over_steps="last")
    with pytest.raises(SettingError, match=wanted):
        world().costs(context, past, wrong(actions), goal=context[:, 0], cost=cost)


def test_a_goal_for_each_problem_is_wanted() -> None:
    """One for all would be scored as if there were more problems, or fewer."""
    context, past, actions = problem(2)
    cost = GoalCost(distance="l2", over_steps="last")
    for goals in (context[:1, 0], context[[0, 1, 2, 2], 0]):
        with pytest.raises(SettingError, match="goal: wanted 3, one per problem, got"):
            world().costs(context, past, actions, goal=goals, cost=cost)


def test_encode_and_next_are_the_parts() -> None:
    model = world()
    pixels = tiny.pixels(1, 2, 16, 16)
    assert torch.equal(model.encode(pixels), model.encoder.encode(pixels))
    context, _, actions = problem(3)
    assert torch.equal(model.next(context, actions[:, 0]), model.predictor(context, actions[:, 0]))


def test_gradients_of_costs_are_those_of_the_naive_computation() -> None:
    model = world(memory_mb=1e-6)
    model.predictor.requires_grad_(False)
    context, past, actions = problem(2)
    goal = torch.randn(3, 6, 12, generator=torch.Generator().manual_seed(4))
    cost = GoalCost(distance="l2", over_steps="sum")
    actions.requires_grad_(True)
    costs = model.costs(context, past, actions, goal=goal, cost=cost)
    (gradient,) = torch.autograd.grad(costs.sum(), actions)
    one = actions[1, 2]
    frames, taken = context[1:2], past[1:2]
    for action in one:
        taken = torch.cat([taken, action.view(1, 1, -1)], dim=1)
        frames = torch.cat([frames, model.predictor(frames, taken)[:, -1:]], dim=1)
    naive = cost(frames[:, None, 2:], goal[1:2]).sum()
    (wanted,) = torch.autograd.grad(naive, actions)
    assert wanted[1, 2].abs().sum() > 0
    torch.testing.assert_close(gradient[1, 2], wanted[1, 2], **CLOSE)


def test_gradient_planning_lowers_the_cost() -> None:
    model = world()
    model.predictor.requires_grad_(False)
    context, past, actions = problem(2)
    goal = model.rollout(context, past, actions[:, :1].clamp(-1, 1))[:, 0, -1]
    plan = Gradient(horizon=HORIZON, num_starts=2, iterations=10).plan(
        lambda tried: model.costs(
            context, past, tried, goal=goal, cost=GoalCost(distance="l2", over_steps="last")
        ),
        low=-torch.ones(2),
        high=torch.ones(2),
        batch_size=3,
        seeds=torch.arange(3),
        keep_history=True,
    )
    assert (plan.cost < 0.5 * plan.history[0].cost).all() and not plan.actions.requires_grad


@pytest.mark.slow
def test_compiled_blocks_imagine_the_same() -> None:
    """With and without a past, one candidate and several."""
    model = world()
    calls = []
    for context_len in (1, 2):
        context, past, actions = problem(context_len)
        for count in (1, 4):
            calls.append((context, past, actions[:, :count]))
    wanted = [model.rollout(*call) for call in calls]
    model.predictor.compile_layers()
    for call, latents in zip(calls, wanted, strict=True):
        torch.testing.assert_close(model.rollout(*call), latents, **CLOSE)


def test_action_bounds_are_taken_as_spaces_give_them() -> None:
    spec = ActionSpec(low=np.array([-1, -2], np.float32), high=[1, 2], frame_skip=1)
    assert spec == ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0), frame_skip=1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frame_skip": 0}, "frame_skip: wanted at least 1"),
        ({"low": (-1.0,)}, "as many of each"),
        ({"low": (1.0, 1.0)}, "low < high"),
        ({"high": (float("inf"), 1.0)}, "finite"),
        ({"actions_per_step": 0}, "actions_per_step: wanted at least 1, got 0"),
    ],
)
def test_actions_that_cannot_be_are_refused(change: dict, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        ActionSpec(**{"low": (-1.0, -1.0), "high": (1.0, 1.0), "frame_skip": 1, **change})


def test_actions_of_another_width_than_the_predictors_are_refused() -> None:
    spec = ActionSpec(low=(-1.0,) * 3, high=(1.0,) * 3, frame_skip=1)
    with pytest.raises(SettingError, match="wanted 2 numbers .* got 1 actions of 3"):
        WorldModel(tiny.encoder(), tiny.predictor(), action_spec=spec)


def test_proprio_of_other_frames_than_the_contexts_is_refused() -> None:
    model = world(takes_proprio=True)
    context, past, _ = problem(2)
    width = model.predictor.proprio_dim
    for shape in ((3, 1, width), (2, 2, width), (3, 2, width + 1)):
        with pytest.raises(SettingError, match="one row per frame of the context"):
            model.observe(context, past, torch.zeros(shape))


def test_constants_moved_without_gradients_are_of_use_with_them() -> None:
    """What is kept after the first use under inference mode takes part in training later."""
    units = HalfRanges([-1.0], [1.0])
    with torch.inference_mode():
        units(torch.zeros(1, 1, device="meta"))
    actions = torch.zeros(1, 1, device="meta", requires_grad=True)
    torch.autograd.grad(units(actions).sum(), actions)
