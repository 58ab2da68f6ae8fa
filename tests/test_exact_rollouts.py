"""What is imagined is what the plain computation gives, for every way to ask for it.

Every conditioning, number format, history, size of chunks, number of threads and split of the batch
is held against running the predictor on the whole sequence in every step.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests import tiny
from vjepa_wm.benchmarks.plain import PlainWorldModel
from vjepa_wm.frame_predictor import FramePredictor
from vjepa_wm.token_predictor import TokenPredictor
from vjepa_wm.world_model import ActionSpec, WorldModel

BATCH, CANDIDATES, HORIZON, LATENTS = 3, 4, 3, (6, 12)


def token_predictor(*, takes_proprio: bool) -> TokenPredictor:
    torch.manual_seed(0)
    return tiny.randomise(
        TokenPredictor(
            latent_dim=12,
            grid=(2, 3),
            action_dim=2,
            proprio_dim=3 if takes_proprio else None,
            width=24,
            depth=2,
            num_heads=2,
            max_frames=5,
        )
    ).eval()


CONDITIONINGS = {
    "adaln": lambda: tiny.predictor(),
    "adaln, proprio": lambda: tiny.predictor(takes_proprio=True),
    "tokens": lambda: token_predictor(takes_proprio=False),
    "tokens, proprio": lambda: token_predictor(takes_proprio=True),
}


@pytest.fixture(params=[1, 2])
def threads(request, monkeypatch) -> Iterator[int]:
    """As many threads for PyTorch, each with something to do, whatever cores there are."""
    monkeypatch.setattr("vjepa_wm.world_model.LEAST_TOKENS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def model_of(predictor: FramePredictor) -> WorldModel:
    takes_proprio = predictor.proprio_dim is not None
    return WorldModel(
        tiny.encoder(),
        predictor,
        action_spec=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), frame_skip=1),
        integrate=tiny.integrator() if takes_proprio else None,
    )


def problem(model: WorldModel, context_len: int) -> tuple[Tensor | None, ...]:
    """Return context, past actions, candidates, proprio of three problems."""
    generator = torch.Generator().manual_seed(3)
    shapes = (context_len, *LATENTS), (context_len - 1, 2), (CANDIDATES, HORIZON, 2)
    context, past, actions = (torch.randn(BATCH, *s, generator=generator) for s in shapes)
    proprio = torch.randn(BATCH, context_len, 3, generator=generator)
    return context, past, actions, proprio if model.takes_proprio else None


def imagined(model: WorldModel, arguments: tuple[Tensor | None, ...]) -> Tensor:
    """Imagine as for a plan, in chunks, and return the latents (B, N, T, P, D) costs were given."""
    found = torch.full((BATCH, CANDIDATES, HORIZON, *LATENTS), torch.nan)

    def keep(latents: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        assert latents.dtype == torch.float32  # whatever the predictor computes in
        for row, problem in enumerate(goal[:, 0, 0].long().tolist()):
            for column, first in enumerate(actions[row, :, 0, 0]):
                candidate = int((arguments[2][problem, :, 0, 0] == first).nonzero())
                found[problem, candidate] = latents[row, column]
        return latents.flatten(2).mean(dim=-1)

    goal = torch.arange(BATCH).view(-1, 1, 1).expand(BATCH, *LATENTS).float()
    model.costs(*arguments, goal=goal, cost=keep)
    return found


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 5, 1000])
@pytest.mark.parametrize("context_len", [1, 3])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_in_float32(conditioning: str, context_len: int, rows: int, threads: int) -> None:
    model = model_of(CONDITIONINGS[conditioning]())
    arguments = problem(model, context_len)
    wanted = imagined(PlainWorldModel.of(model), arguments)
    model.memory_mb = (rows + 0.5) * HORIZON * model.predictor.bytes_per_frame / 2**20
    torch.testing.assert_close(imagined(model, arguments), wanted, atol=1e-4, rtol=1e-4)
    assert wanted.std(dim=1).min() > 0  # candidates differ everywhere


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 5, 1000])
@pytest.mark.parametrize("context_len", [1, 3])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_in_bfloat16(conditioning: str, context_len: int, rows: int, threads: int) -> None:
    """Rounding differs with the shapes of products: about as far from float32 as plainly."""
    exact = model_of(CONDITIONINGS[conditioning]())
    arguments = problem(exact, context_len)
    wanted = imagined(PlainWorldModel.of(exact), arguments)
    model = model_of(CONDITIONINGS[conditioning]().bfloat16())
    plain_error = (imagined(PlainWorldModel.of(model), arguments) - wanted).abs().mean()
    model.memory_mb = (rows + 0.5) * HORIZON * model.predictor.bytes_per_frame / 2**20
    error = (imagined(model, arguments) - wanted).abs().mean()
    assert 0 < float(error) < min(0.1, 1.5 * float(plain_error))  # standard deviation is 1


@torch.no_grad()
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_each_problem_alone(conditioning: str, threads: int) -> None:
    model = model_of(CONDITIONINGS[conditioning]())
    context, past, actions, proprio = problem(model, 3)
    together = model.rollout(context, past, actions, proprio)
    for b in range(BATCH):
        one = slice(b, b + 1)
        alone = model.rollout(
            context[one], past[one], actions[one], None if proprio is None else proprio[one]
        )
        torch.testing.assert_close(alone, together[one], atol=1e-5, rtol=1e-5)
