"""The learned integrator: what an action does to what the robot senses of itself."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vjepa_wm.errors import SettingError
from vjepa_wm.proprio import LearnedIntegrator, check_units, proprio_statistics

WALL = 0.3


def drives(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """A point driven at a velocity inside walls: proprio (B, 6, 2) and actions (B, 5, 2)."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (count, 5, 2))
    places = [rng.uniform(-WALL, WALL, (count, 2))]
    for t in range(5):
        places.append(np.clip(places[-1] + 0.1 * actions[:, t], -WALL, WALL))
    return torch.tensor(np.stack(places, axis=1)).float(), torch.tensor(actions).float()


@pytest.fixture(scope="module")
def integrator() -> LearnedIntegrator:
    proprio, actions = drives(2000, seed=0)
    mean, std = proprio_statistics(proprio.flatten(0, 1))
    torch.manual_seed(0)
    net = LearnedIntegrator(mean=mean, std=std, action_dim=2, hidden_dim=32)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        optimizer.zero_grad()
        net.errors(proprio, actions).mean().backward()
        optimizer.step()
        schedule.step()
    return net.requires_grad_(False)


def test_it_learns_to_drive_into_walls(integrator) -> None:
    """Over five steps, never looking again, seven times nearer than staying where it was."""
    proprio, actions = drives(200, seed=1)
    rolled = integrator.rollout(proprio[:, 0], actions)
    error = (rolled - proprio[:, 1:]).abs().mean()
    still = (proprio[:, 1:] - proprio[:, :1]).abs().mean()
    assert float(error) < 0.15 * float(still)
    at_wall = proprio[:, 1:].abs() == WALL
    assert at_wall.any()
    blind = proprio[:, :1] + 0.1 * actions.cumsum(dim=1)  # as if there were no walls
    beyond, through = ((x[at_wall].abs() - WALL).abs().mean() for x in (rolled, blind))
    assert float(beyond) < 0.5 * float(through)


def test_errors_are_in_standard_deviations(integrator) -> None:
    proprio, actions = drives(20, seed=2)
    rolled = integrator.rollout(proprio[:, 0], actions)
    wanted = (rolled - proprio[:, 1:]).abs() / torch.tensor(
        proprio_statistics(proprio.flatten(0, 1))[1]
    )
    found = integrator.errors(proprio, actions)
    assert found.shape == (20, 5, 2)
    assert float((found.mean() / wanted.mean() - 1).abs()) < 0.3


def test_other_units_are_refused(integrator) -> None:
    """Metres were trained on: millimetres, NaN and another robot are not taken for them."""
    proprio, _ = drives(5, seed=3)
    integrator.check(proprio)
    with pytest.raises(SettingError, match="entry 1 is .* other units"):
        integrator.check(proprio * torch.tensor([1.0, 1000.0]))
    proprio[2, 3, 0] = float("nan")
    with pytest.raises(SettingError, match="entry 0 is nan"):
        integrator.check(proprio)
    with pytest.raises(SettingError, match=r"wanted 2 numbers per frame, got \(5, 3\)"):
        integrator.check(torch.zeros(5, 3))


def test_entries_that_never_change_have_a_scale() -> None:
    mean, std = proprio_statistics(torch.tensor([[1.0, 3.0], [3.0, 3.0]]))
    assert mean == [2.0, 3.0]
    assert std == pytest.approx([2**0.5, 1.0])


def test_what_is_rarely_sensed_is_no_other_unit() -> None:
    """A contact in one of a thousand frames is in the trajectories, and may be met again."""
    proprio = torch.zeros(1000, 2)
    proprio[:, 0] = torch.linspace(-1, 1, 1000)
    proprio[7, 1] = 1.0
    mean, std = proprio_statistics(proprio)
    check_units(proprio, torch.tensor(mean), torch.tensor(std))
    assert std[0] == pytest.approx(float(proprio[:, 0].std()))
    with pytest.raises(SettingError, match="entry 1 is 2"):
        check_units(torch.tensor([[0.0, 2.0]]), torch.tensor(mean), torch.tensor(std))


def test_the_unit_of_actions_is_none_of_the_networks_business() -> None:
    """Millimetres or shares of the range: an integrator that knows the bounds does the same."""
    settings = {"mean": [0.0], "std": [1.0], "hidden_dim": 8, "action_dim": 2}
    torch.manual_seed(0)
    plain = LearnedIntegrator(**settings)
    scaled = LearnedIntegrator(**settings, action_low=[0.0, -5.0], action_high=[512.0, 5.0])
    scaled.load_state_dict(plain.state_dict())
    shares = torch.tensor([[-1.0, 0.5], [0.25, 1.0]])
    actions = torch.stack([256 + 256 * shares[:, 0], 5 * shares[:, 1]], dim=-1)
    proprio = torch.tensor([[0.3], [-0.2]])
    assert torch.equal(scaled(proprio, actions), plain(proprio, shares))
