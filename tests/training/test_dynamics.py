"""Losses and validation of the predictor, in worlds where the right answer is known.

In these worlds a latent is a point that the action moves: P = 3 tokens, D = A = 4.
"""

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from vjepa_wm.costs import CostCallable, score
from vjepa_wm.training.dynamics import DynamicsLoss, horizon_errors, horizon_figures
from vjepa_wm.world_model import ActionSpec, WorldModel

PLAIN = {"rollout_steps": 1, "rollout_weight": 0.0, "rollout_from": 0.0, "change_weight": 0.0}


class MovingWorld(nn.Module):
    """Predicts that tokens move by the action, plus an error that is the same each step.

    Args:
        error: added to every prediction, (P, D) or a number.
        hears: how much of the action it applies; 0 ignores actions.
        still_tokens: so many of the first tokens never move.
    """

    def __init__(
        self, *, error: Tensor | float = 0.0, hears: float = 1.0, still_tokens: int = 0
    ) -> None:
        super().__init__()
        self.error = nn.Parameter(torch.as_tensor(error, dtype=torch.float32))
        self.gain = hears * (torch.arange(3) >= still_tokens).unsqueeze(1)
        self.max_frames = 5

    def forward(self, latents: Tensor, actions: Tensor, proprio: None = None) -> Tensor:
        return latents + self.gain * actions.unsqueeze(2) + self.error

    def rollout(
        self, context: Tensor, past_actions: Tensor, actions: Tensor, proprio: None = None
    ) -> Tensor:
        frames, last = [], context[:, None, -1]
        for t in range(actions.shape[2]):
            last = self(last, actions[:, :, t])
            frames.append(last)
        return torch.stack(frames, dim=2)

    takes_proprio = False

    def observe(self, context: Tensor, past_actions: Tensor, proprio: None) -> "Seen":
        return Seen(self, context)


class Seen:
    """What a moving world imagines from, as `vjepa_wm.world_model.Imagination` does."""

    def __init__(self, world: MovingWorld, context: Tensor) -> None:
        self.world, self.context = world, context

    def rollout(self, actions: Tensor) -> Tensor:
        return self.world.rollout(self.context, actions[:, 0, :0], actions).detach()

    def costs(self, actions: Tensor, *, goal: Tensor, cost: CostCallable) -> Tensor:
        return score(cost, self.rollout(actions), goal, actions=actions, proprio=None)


def windows(*, speed: float = 1.0, still_tokens: int = 0) -> tuple[Tensor, Tensor]:
    """Return true latents (8, 6, 3, 4) and actions (8, 5, 4), each entry `speed` up or down."""
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(8, 1, 3, 4, generator=generator)]
    actions = speed * torch.randn(8, 5, 4, generator=generator).sign()
    world = MovingWorld(still_tokens=still_tokens)
    for t in range(5):
        frames.append(world(frames[-1], actions[:, t : t + 1]).detach())
    return torch.cat(frames, dim=1), actions


def loss_of(world: nn.Module, batch: tuple, *, share: float = 1.0, **options: float) -> tuple:
    return DynamicsLoss(world, **{**PLAIN, **options})(*batch, share=share)


def test_a_perfect_world_has_no_loss() -> None:
    options = {"rollout_steps": 4, "rollout_weight": 1.0, "change_weight": 2.0}
    loss, parts = loss_of(MovingWorld(), windows(), **options)
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert set(parts) == {"forced_loss", "rollout_loss"}


def test_the_rollout_term_comes_in_late() -> None:
    """From its share of the budget on, with its weight."""
    options = {"rollout_steps": 3, "rollout_weight": 0.5, "rollout_from": 0.6}
    world = MovingWorld(error=0.1)
    early, early_parts = loss_of(world, windows(), share=0.59, **options)
    late, parts = loss_of(world, windows(), share=0.6, **options)
    assert set(early_parts) == {"forced_loss"}
    assert torch.equal(early, parts["forced_loss"])
    torch.testing.assert_close(late, early + 0.5 * parts["rollout_loss"])


@pytest.mark.parametrize(("steps", "wanted"), [(2, 0.2), (3, 0.25), (5, 0.35)])
def test_rollout_errors_accumulate(steps: int, wanted: float) -> None:
    """Pass j adds its error to those of j own outputs: the mean of 2e, 3e, ... k e at e = 0.1."""
    options = {"rollout_steps": steps, "rollout_weight": 1.0}
    _, parts = loss_of(MovingWorld(error=0.1), windows(), **options)
    assert float(parts["forced_loss"].detach()) == pytest.approx(0.1, abs=1e-5)
    assert float(parts["rollout_loss"].detach()) == pytest.approx(wanted, abs=1e-5)


def test_no_gradient_flows_through_own_outputs() -> None:
    """Each pass answers for its last step only: a slope of 1, not of the number of steps."""
    world = MovingWorld(error=0.1)
    _, parts = loss_of(world, windows(), rollout_steps=4, rollout_weight=1.0)
    parts["rollout_loss"].backward()
    assert float(world.error.grad) == pytest.approx(1.0, abs=1e-4)


def test_rollout_windows_must_be_long_enough() -> None:
    latents, actions = windows()
    with pytest.raises(ValueError, match="rollout_steps 4 needs windows of at least 5 .* got 4"):
        loss_of(MovingWorld(), (latents[:, :4], actions[:, :3]), rollout_steps=4)
    with pytest.raises(ValueError, match="between 1 and max_frames 5, got 6"):
        DynamicsLoss(MovingWorld(), **{**PLAIN, "rollout_steps": 6})


def test_token_weights_have_mean_one() -> None:
    """The same error everywhere costs the same whatever the weighting."""
    world = MovingWorld(error=0.1, still_tokens=1)
    for change_weight in (0.0, 2.0, 10.0):
        loss, _ = loss_of(world, windows(still_tokens=1), change_weight=change_weight)
        assert float(loss.detach()) == pytest.approx(0.1, abs=1e-5)


def test_errors_on_tokens_that_change_count_more() -> None:
    """At weight w a token with 1.5 times the mean change counts 1 + 1.5 w times a still one."""
    costs = []
    for token in (0, 1):
        error = torch.zeros(3, 4)
        error[token] = 0.1
        world = MovingWorld(error=error, still_tokens=1)
        loss, _ = loss_of(world, windows(still_tokens=1), change_weight=2.0)
        costs.append(float(loss.detach()))
    assert costs[1] / costs[0] == pytest.approx(1 + 1.5 * 2.0, rel=1e-4)


def test_floors_of_a_world_that_listens() -> None:
    """Perfect with the true actions, wrong with others', worse than copying nothing."""
    latents, actions = windows()
    errors = horizon_errors(MovingWorld(), latents, actions, context_len=2)
    assert {name: row.shape for name, row in errors.items()} == {
        name: (4,) for name in ("true", "shuffled", "copy")
    }
    assert float(errors["true"].max()) == pytest.approx(0.0, abs=1e-5)
    assert float(errors["shuffled"].min()) > 0.3
    figures = horizon_figures(errors)
    assert figures["action_ratio"] > 100
    assert figures["rollout_error"] == pytest.approx(0.0, abs=1e-5)
    assert figures["h4_copy"] == pytest.approx(
        float((latents[:, 2:6] - latents[:, 1:2])[:, 3].abs().mean())
    )


def test_copying_is_exact_in_a_world_that_stands_still() -> None:
    latents, actions = windows(speed=0.0)
    errors = horizon_errors(MovingWorld(error=0.1), latents, actions, context_len=1)
    assert float(errors["copy"].max()) == 0.0
    assert errors["true"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-5)


def test_a_world_that_ignores_actions_has_ratio_one() -> None:
    latents, actions = windows()
    errors = horizon_errors(MovingWorld(hears=0.0), latents, actions, context_len=2)
    figures = horizon_figures(errors)
    assert figures["action_ratio"] == pytest.approx(1.0)
    assert figures["h1_true"] == pytest.approx(figures["h1_copy"])


def test_the_real_world_model_fits_in() -> None:
    """Horizons beyond the context, up to the predictor's trained length."""
    spec = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), frame_skip=1)
    model = WorldModel(tiny.encoder(), tiny.predictor(), action_spec=spec)
    latents, actions = torch.randn(3, 6, 6, 12), torch.randn(3, 5, 2)
    errors = horizon_errors(model, latents, actions, context_len=2)
    wanted = model.predictor(latents[:, :2], actions[:, :2])[:, -1]
    error = (wanted - latents[:, 2]).abs().mean().detach()
    torch.testing.assert_close(errors["true"][0], error)
    options = {"rollout_steps": 5, "rollout_weight": 0.5, "change_weight": 2.0}
    loss, _ = loss_of(model.predictor, (latents, actions), **options)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.predictor.parameters())


def test_open_loop_errors_use_observed_proprio_only() -> None:
    """What is sensed after the context is integrated, not looked up."""
    spec = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), frame_skip=1)
    net = tiny.predictor(takes_proprio=True)
    model = WorldModel(tiny.encoder(), net, action_spec=spec, integrate=tiny.integrator())
    latents, actions, proprio = torch.randn(3, 6, 6, 12), torch.randn(3, 5, 2), torch.randn(3, 6, 3)
    later, earlier = proprio.clone(), proprio.clone()
    later[:, 2:] += 1
    earlier[:, :2] += 1
    wanted, same, other = (
        horizon_errors(model, latents, actions, given, context_len=2)["true"]
        for given in (proprio, later, earlier)
    )
    assert torch.equal(wanted, same)
    assert not torch.allclose(wanted, other)


def test_the_loss_gives_each_frame_its_own_proprio() -> None:
    """The last frame is a target only: what was sensed there changes nothing."""
    net = tiny.predictor(takes_proprio=True)
    latents, actions, proprio = torch.randn(3, 6, 6, 12), torch.randn(3, 5, 2), torch.randn(3, 6, 3)
    options = {"rollout_steps": 2, "rollout_weight": 0.5}
    loss, _ = loss_of(net, (latents, actions, proprio), **options)
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in net.proprio_embed.parameters())
    last = proprio.clone()
    last[:, -1] += 1
    assert torch.equal(loss, loss_of(net, (latents, actions, last), **options)[0])
    assert not torch.equal(loss, loss_of(net, (latents, actions, proprio + 1), **options)[0])
