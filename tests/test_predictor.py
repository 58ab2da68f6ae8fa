"""The predictor: nothing looks ahead, the action counts, and a cached step is a parallel one."""

import pytest
import torch
from torch import Tensor

from tests import tiny
from vjepa_wm.encoders.frozen import layer_norm
from vjepa_wm.predictor import ActionPredictor

FRAMES = 5


@pytest.fixture
def predictor() -> ActionPredictor:
    return tiny.predictor(max_frames=FRAMES)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Latents (2, 5, 6, 12) and actions (2, 5, 2)."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, FRAMES, 6, 12, generator=generator)
    return latents, torch.randn(2, FRAMES, 2, generator=generator)


def changed_frames(before: Tensor, after: Tensor) -> list[int]:
    """Return the frames at which (B, T, P, D) differ by more than rounding."""
    return (before - after).abs().amax(dim=(0, 2, 3)).gt(1e-4).nonzero().flatten().tolist()


@torch.no_grad()
@pytest.mark.parametrize("frame", range(FRAMES))
def test_only_later_predictions_hear_of_a_frame_or_an_action(predictor, batch, frame: int) -> None:
    """Frame t and the action at t change the predictions at t and after, all of them."""
    latents, actions = batch
    before = predictor(latents, actions)
    other_latents, other_actions = latents.clone(), actions.clone()
    other_latents[:, frame] = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(9))
    other_actions[:, frame] += 1.0
    later = list(range(frame, FRAMES))
    assert changed_frames(before, predictor(other_latents, actions)) == later
    assert changed_frames(before, predictor(latents, other_actions)) == later


@torch.no_grad()
@pytest.mark.parametrize("frame", range(FRAMES))
def test_only_later_predictions_hear_of_proprio(batch, frame: int) -> None:
    predictor = tiny.predictor(max_frames=FRAMES, takes_proprio=True)
    proprio = torch.randn(2, FRAMES, 3, generator=torch.Generator().manual_seed(4))
    other = proprio.clone()
    other[:, frame] += 1.0
    before, after = predictor(*batch, proprio), predictor(*batch, other)
    assert changed_frames(before, after) == list(range(frame, FRAMES))


@torch.no_grad()
def test_proprio_counts_in_its_own_standard_deviations(batch) -> None:
    """In millimetres, with the statistics in millimetres, it says the same as in metres."""
    settings = {"latent_dim": 12, "grid": (2, 3), "action_dim": 2, "width": 24, "depth": 2}
    settings |= {"num_heads": 2, "max_frames": FRAMES}
    proprio = torch.randn(2, FRAMES, 1, generator=torch.Generator().manual_seed(4))
    found = [
        tiny.randomise(
            ActionPredictor(**settings, proprio_mean=[0.2 * unit], proprio_std=[0.5 * unit])
        )(*batch, unit * proprio)
        for unit in (1.0, 1000.0)
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_bfloat16_does_not_round_the_statistics_of_proprio(batch) -> None:
    """Entries that vary little around a large mean are still told apart."""
    settings = {"latent_dim": 12, "grid": (2, 3), "action_dim": 2, "width": 24, "depth": 2}
    settings |= {"num_heads": 2, "max_frames": FRAMES}
    net = ActionPredictor(**settings, proprio_mean=[100.3], proprio_std=[0.1])
    net = tiny.randomise(net)
    proprio = 100.3 + 0.1 * torch.randn(2, FRAMES, 1, generator=torch.Generator().manual_seed(4))
    exact = net(*batch, proprio)
    assert float((net.bfloat16()(*batch, proprio) - exact).abs().mean()) < 0.03


@torch.no_grad()
def test_tokens_of_a_frame_see_each_other(predictor, batch) -> None:
    """Causal between frames, not within: the first token hears of the last one."""
    latents, actions = batch
    other = latents.clone()
    other[:, 2, -1] += torch.randn(12, generator=torch.Generator().manual_seed(9))
    change = (predictor(latents, actions) - predictor(other, actions)).abs()
    assert float(change[:, 2, 0].max()) > 1e-4


def cached(predictor: ActionPredictor, latents: Tensor, actions: Tensor, past: int) -> Tensor:
    """Predict from frame `past` on, one step at a time."""
    caches = tiny.caches_after(
        predictor, latents[:, :past], actions[:, :past], max_frames=latents.shape[1]
    )
    conditions = predictor.condition(actions)
    steps = range(past, latents.shape[1])
    return torch.stack([predictor.step(latents[:, t], conditions[:, t], caches) for t in steps], 1)


@torch.no_grad()
@pytest.mark.parametrize("past", [0, 1, 2])
def test_cached_steps_are_the_parallel_pass(predictor, batch, past: int) -> None:
    latents, actions = batch
    wanted = predictor(latents, actions)[:, past:]
    torch.testing.assert_close(
        cached(predictor, latents, actions, past), wanted, atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("past", [0, 2])
@pytest.mark.parametrize("is_autocast", [False, True])
def test_cached_steps_in_bfloat16(predictor, batch, past: int, is_autocast: bool) -> None:
    """As close to the parallel pass as bfloat16 itself is to float32, in either way to use it."""
    exact = predictor(*batch)[:, past:]
    if not is_autocast:
        predictor = predictor.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        parallel = predictor(*batch)[:, past:]
        stepped = cached(predictor, *batch, past)
    assert stepped.dtype == parallel.dtype == torch.float32
    for result in (parallel, stepped):
        assert float((result - exact).abs().mean()) < 0.03  # of values with standard deviation 1


@torch.no_grad()
def test_copies_share_one_past(predictor, batch) -> None:
    """Candidates of a problem are neighbouring rows, each as if it had the past for itself."""
    latents, actions = batch
    candidates = torch.randn(6, 2, generator=torch.Generator().manual_seed(2))
    shared = tiny.caches_after(predictor, latents[:, :2], actions[:, :2], max_frames=3, copies=3)
    newest = latents[:, 2].repeat_interleave(3, dim=0)
    conditions = predictor.condition(candidates.unsqueeze(1))[:, 0]
    together = predictor.step(newest, conditions, shared)
    for row in range(6):
        problem = slice(row // 3, row // 3 + 1)
        own = tiny.caches_after(predictor, latents[problem, :2], actions[problem, :2], max_frames=3)
        alone = predictor.step(latents[problem, 2], conditions[row : row + 1], own)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_predictions_are_layer_normed_as_latents_are(predictor, batch) -> None:
    out = predictor(*batch)
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, FRAMES, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        out.var(-1, unbiased=False), torch.ones(2, FRAMES, 6), atol=1e-3, rtol=0
    )


@torch.no_grad()
def test_more_frames_than_trained_on_are_refused(predictor, batch) -> None:
    """In parallel and step by step, naming both numbers."""
    latents, actions = batch
    message = "6 frames .* trained on 5"
    with pytest.raises(ValueError, match=message):
        predictor(latents[:, [0, 0, 1, 2, 3, 4]], actions[:, [0, 0, 1, 2, 3, 4]])
    caches = tiny.caches_after(predictor, latents, actions, max_frames=6)
    with pytest.raises(ValueError, match=message):
        predictor.step(latents[:, 0], predictor.condition(actions)[:, 0], caches)


@pytest.mark.parametrize(
    ("latents", "actions"),
    [((2, 3, 6, 12), (2, 2, 2)), ((2, 3, 6, 12), (2, 3, 1)), ((2, 3, 4, 12), (2, 3, 2))],
)
def test_shapes_that_disagree_are_named(predictor, latents: tuple, actions: tuple) -> None:
    with pytest.raises(ValueError, match=r"wanted latents \(B, T, 6, D\) and actions \(B, T, 2\)"):
        predictor(torch.zeros(latents), torch.zeros(actions))


def test_candidates_of_another_width_are_named(predictor) -> None:
    with pytest.raises(ValueError, match=r"wanted actions \(B, T, 2\), got \(4, 3, 1\)"):
        predictor.condition(torch.zeros(4, 3, 1))


def test_a_new_predictor_copies_and_every_part_of_it_learns(batch) -> None:
    """It starts as the floor it has to beat; after two steps no parameter is without gradient."""
    torch.manual_seed(0)
    predictor = ActionPredictor(
        latent_dim=12, grid=(2, 3), action_dim=2, width=24, depth=2, num_heads=2, max_frames=FRAMES
    )
    latents, actions = batch
    torch.testing.assert_close(predictor(latents, actions), layer_norm(latents))
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=0.01)
    target = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (predictor(latents, actions) - target).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > losses[1] > losses[2]
    silent = [name for name, p in predictor.named_parameters() if not p.grad.abs().max() > 0]
    assert not silent


@torch.no_grad()
def test_the_unit_of_actions_does_not_matter_where_their_bounds_are_known(batch) -> None:
    """In pixels or in shares of half the range; the shares themselves are left as they are."""
    settings = {"latent_dim": 12, "grid": (2, 3), "action_dim": 2, "width": 24, "depth": 2}
    settings |= {"num_heads": 2, "max_frames": FRAMES}
    torch.manual_seed(0)
    plain = ActionPredictor(**settings)
    torch.nn.init.normal_(plain.head.weight, std=0.1)
    wanted = plain(*batch)
    latents, shares = batch
    pixels = ActionPredictor(**settings, action_low=[0.0, -2.0], action_high=[512.0, 2.0])
    units = ActionPredictor(**settings, action_low=[-1.0, -1.0], action_high=[1.0, 1.0])
    for predictor in (pixels, units):
        predictor.load_state_dict(plain.state_dict())
    actions = shares * torch.tensor([256.0, 2.0]) + torch.tensor([256.0, 0.0])
    torch.testing.assert_close(pixels(latents, actions), wanted)
    assert torch.equal(units(latents, shares), wanted)
