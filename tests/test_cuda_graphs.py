"""Costs replayed from a recording are those that are computed."""

import pytest
import torch
from torch import Tensor

from tests import tiny
from vjepa_wm.costs import GoalCost
from vjepa_wm.cuda_graphs import (
    COMES_OFTEN,
    MOST_BYTES,
    MOST_RECORDINGS,
    RecordedCosts,
    is_small,
)
from vjepa_wm.world_model import ActionSpec, Imagination, WorldModel

COST = GoalCost(distance="l2", over_steps="sum")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
OFTEN = COMES_OFTEN + 2


def world(device: str, *, takes_proprio: bool) -> WorldModel:
    spec = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), frame_skip=1)
    integrate = tiny.integrator() if takes_proprio else None
    predictor = tiny.predictor(takes_proprio=takes_proprio)
    model = WorldModel(tiny.encoder(), predictor, action_spec=spec, integrate=integrate)
    return model.to(device).requires_grad_(False)


def problem(
    model: WorldModel, *, seed: int, context: int = 2, candidates: int = 5
) -> tuple[Imagination, Tensor, Tensor]:
    """Draw two problems: what is imagined from, candidates (2, N, 3, 2) and goals (2, P, D)."""
    net, generator = model.predictor, torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    latents = drawn(2, context + 1, net.num_patches, net.latent_dim)
    sensed = None if net.proprio_dim is None else drawn(2, context, net.proprio_dim)
    past = model.observe(latents[:, :context], drawn(2, context - 1, 2), sensed)
    return past, drawn(2, candidates, 3, 2), latents[:, -1]


def assert_computed(scores: RecordedCosts, imagination: Imagination, *rest: Tensor) -> None:
    actions, goal = rest
    wanted = imagination.costs(actions, goal=goal, cost=COST)
    found = scores(imagination, actions, goal=goal, cost=COST)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_cpu_computes_as_ever() -> None:
    scores, model = RecordedCosts(), world("cpu", takes_proprio=True)
    for seed in range(OFTEN):
        assert_computed(scores, *problem(model, seed=seed))
    assert not scores._recordings


def test_what_keeps_a_gpu_busy_is_not_recorded() -> None:
    model = world("cpu", takes_proprio=False)
    past, actions, _ = problem(model, seed=0)
    assert is_small(past, actions)
    frames = MOST_BYTES // model.predictor.bytes_per_frame // (2 * 3)
    assert is_small(past, actions[:, :1].expand(-1, frames, -1, -1))
    assert not is_small(past, actions[:, :1].expand(-1, frames + 1, -1, -1))


@on_gpu
@pytest.mark.parametrize("takes_proprio", [False, True])
@pytest.mark.parametrize("context", [1, 2])
def test_a_recording_scores_other_problems(context: int, takes_proprio: bool) -> None:
    """Of the same shapes; also when those of other shapes come in between."""
    scores, model = RecordedCosts(), world("cuda", takes_proprio=takes_proprio)
    for seed in range(2 * OFTEN):
        assert_computed(
            scores, *problem(model, seed=seed, context=context, candidates=4 + seed % 2)
        )
    assert len(scores._recordings) == 2


@on_gpu
def test_what_was_returned_is_not_written_over() -> None:
    scores, model = RecordedCosts(), world("cuda", takes_proprio=False)
    found = []
    for seed in range(OFTEN):
        past, actions, goal = problem(model, seed=seed)
        found.append(scores(past, actions, goal=goal, cost=COST))
    assert not torch.equal(found[-1], found[-2])


@on_gpu
def test_a_cost_that_looks_at_its_numbers_is_computed(caplog: pytest.LogCaptureFixture) -> None:
    def looking(latents: Tensor, goal: Tensor) -> Tensor:
        return COST(latents, goal) * float(latents.abs().max())

    scores, model = RecordedCosts(), world("cuda", takes_proprio=False)
    for seed in range(OFTEN):
        past, actions, goal = problem(model, seed=seed)
        found = scores(past, actions, goal=goal, cost=looking)
        wanted = past.costs(actions, goal=goal, cost=looking)
        torch.testing.assert_close(found, wanted)
    assert caplog.text.count("without CUDA graphs") == 1


@on_gpu
def test_gradients_and_other_costs() -> None:
    """Where gradients are wanted they come; another cost is not scored by the recording of one."""
    scores, model = RecordedCosts(), world("cuda", takes_proprio=False)
    for seed in range(OFTEN):
        past, actions, goal = problem(model, seed=seed)
        scores(past, actions, goal=goal, cost=COST)
    other = GoalCost(distance="l1", over_steps="last")
    wanted = past.costs(actions, goal=goal, cost=other)
    torch.testing.assert_close(scores(past, actions, goal=goal, cost=other), wanted)
    actions.requires_grad_()
    scores(past, actions, goal=goal, cost=other).sum().backward()
    assert actions.grad.abs().sum() > 0


@on_gpu
def test_recordings_do_not_pile_up() -> None:
    scores, model = RecordedCosts(), world("cuda", takes_proprio=False)
    for candidates in range(1, MOST_RECORDINGS + 4):
        for seed in range(OFTEN):
            assert_computed(scores, *problem(model, seed=seed, candidates=candidates))
    assert len(scores._recordings) == MOST_RECORDINGS
