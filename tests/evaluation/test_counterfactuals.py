"""Counterfactual accuracy where the right answer is known."""

import numpy as np
import pytest
import torch

from tests.training.test_dynamics import MovingWorld
from vjepa_wm.evaluation.counterfactuals import (
    Bilinear,
    Rate,
    bilinear_is_own,
    imagine_trials,
    nearest_is_own,
    rate_of,
)
from vjepa_wm.evaluation.diagnostics import Windows, imagine

B, K, T = 60, 5, 3


def windows() -> Windows:
    generator = torch.Generator().manual_seed(0)
    return Windows(
        pixels=np.zeros((B, 2 + T, 1, 1, 3), np.uint8),
        latents=torch.randn(B, 2 + T, 3, 4, generator=generator),
        actions=torch.randn(B, 1 + T, 4, generator=generator),
        proprio=torch.zeros(B, 2 + T, 0),
        sim_state=np.zeros((B, 2 + T, 0)),
        episodes=np.arange(B),
        context_len=2,
    )


def tried(*, seed: int = 1) -> torch.Tensor:
    """Return actions held for T steps (B, K, T, A)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, K, 1, 4, generator=generator).expand(-1, -1, T, -1)


def rate(is_own: torch.Tensor) -> Rate:
    """Of states that are of an episode each."""
    return rate_of(is_own, np.arange(len(is_own)), seed=0)


def test_a_perfect_predictor_is_always_right() -> None:
    truth = imagine_trials(MovingWorld(), windows(), tried())
    assert truth.shape == (B, K, 2, 3, 4)
    moved = windows().now + tried()[:, :, 0].unsqueeze(2)
    torch.testing.assert_close(truth[:, :, 0], moved)
    found = rate(nearest_is_own(truth[:, :, 1], truth[:, :, 1]))
    assert found.rate == 1.0 and found.interval[1] == 1.0 > found.interval[0]


@pytest.mark.parametrize("hears", [0.0, None])
def test_a_predictor_that_does_not_listen_is_right_by_chance(hears: float | None) -> None:
    """Frames that heed no action, or those of other actions, are right in 1 of K."""
    truth = imagine_trials(MovingWorld(), windows(), tried())
    if hears is None:
        imagined = imagine_trials(MovingWorld(), windows(), tried(seed=2))
    else:
        imagined = imagine_trials(MovingWorld(hears=hears), windows(), tried())
    for step in range(2):
        found = rate(nearest_is_own(imagined[:, :, step], truth[:, :, step]))
        assert found.rate == pytest.approx(1 / K, abs=0.06)
        assert found.interval[0] < 1 / K < found.interval[1]


def test_outcomes_that_are_the_same_are_no_mistakes() -> None:
    same = torch.zeros(4, K, 3, 4)
    assert bool(nearest_is_own(same, same).all())
    assert bool(nearest_is_own(torch.ones(4, 1, 3, 4).expand(-1, K, -1, -1), same).all())


def test_the_interval_counts_states_not_actions() -> None:
    is_own = torch.rand(40, K, generator=torch.Generator().manual_seed(0)) < 0.5
    low, high = rate(is_own).interval
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 40) ** 0.5, rel=0.1)


def test_states_of_one_episode_are_not_counted_apart() -> None:
    """Episodes in which all is right or all wrong: as many trials as there are episodes."""
    is_own = (torch.arange(10) % 2).bool().repeat_interleave(40).unsqueeze(1).expand(-1, K)
    low, high = rate_of(is_own, np.arange(400) // 40, seed=0).interval
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 10) ** 0.5, rel=0.1)
    assert high - low > 3 * np.diff(rate(is_own).interval)[0]


def test_the_bilinear_floor_finds_bilinear_dynamics() -> None:
    """Each of two numbers is multiplied by its action: nothing linear can know that."""
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(400, 1, 2, generator=generator)
    taken = torch.rand(400, 2, generator=generator) * 2 - 1
    after = before * (1 + taken.unsqueeze(1))
    transitions = (torch.stack([before, after], dim=1), taken)
    floor = Bilinear(*transitions)
    actions = torch.rand(B, K, 2, generator=generator) * 2 - 1
    states = torch.randn(B, 1, 2, generator=generator)
    outcomes = states.unsqueeze(1) * (1 + actions.unsqueeze(2))
    torch.testing.assert_close(
        floor.next(states, actions), floor.components(outcomes), atol=0.02, rtol=0
    )
    assert rate(bilinear_is_own(transitions, states, actions, outcomes)).rate > 0.97


def test_windows_are_cut_where_the_context_ends() -> None:
    """The last observed frame is moved by the first of the future actions."""
    given = windows()
    imagined = imagine(MovingWorld(), given)
    moved = given.latents[:, 1] + given.actions[:, 1].unsqueeze(1)
    torch.testing.assert_close(imagined[:, 0], moved)
    assert imagined.shape == given.future.shape
