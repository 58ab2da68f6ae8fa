"""Probes on latents that are made of the state, so that what they can know is known."""

import numpy as np
import pytest
import torch

from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.probes import (
    Probe,
    Target,
    Targets,
    fit_probe,
    rollout_figure,
    score,
    targets_of,
)

POSITION = Target("position_m", (1, 2))
ANGLE = Target("angle_rad", (3,), is_angle=True)
TARGETS = Targets((POSITION, ANGLE), passive=POSITION)


def states(count: int, *, seed: int = 0) -> np.ndarray:
    """Return time, x, y, angle (F, 4)."""
    return np.random.default_rng(seed).uniform(-3, 3, (count, 4))


def latents(sim_state: np.ndarray, *, noise: float = 0.0) -> torch.Tensor:
    """Mix what the targets are into latents (F, 5, 8), more channels than frames."""
    rng = np.random.default_rng(1)
    values = TARGETS.values(sim_state)
    mixed = 2.0 + values @ rng.normal(size=(4, 40))
    mixed += noise * np.random.default_rng(2).normal(size=mixed.shape)
    return torch.from_numpy(mixed).float().unflatten(1, (5, 8))


def test_what_is_in_the_latents_is_found() -> None:
    probe = fit_probe(latents(states(30)), TARGETS.values(states(30)))
    other = states(50, seed=9)
    r2, rmse = score(TARGETS, probe.predict(latents(other)), other)
    assert min(r2.values()) > 0.999 and max(rmse.values()) < 0.05


def test_what_is_not_in_the_latents_is_not_found() -> None:
    """The penalty that generalises best leaves R2 near 0, not far below it."""
    train, test = states(100), states(200, seed=9)
    noise = torch.randn(300, 5, 8, generator=torch.Generator().manual_seed(0))
    probe = fit_probe(noise[:100], TARGETS.values(train))
    r2, _ = score(TARGETS, probe.predict(noise[100:]), test)
    assert all(-0.3 < value < 0.1 for value in r2.values())


@pytest.mark.parametrize("frames", [30, 60])
def test_ridge_is_the_solution_of_its_equations(frames: int) -> None:
    """Whether there are fewer frames than channels (40) or more."""
    x, y = latents(states(frames), noise=2.0), TARGETS.values(states(frames))
    probe = fit_probe(x, y)
    centred = x.flatten(1).double() - probe.mean
    residual = torch.from_numpy(y) - probe.bias - centred @ probe.weight
    pulls = centred.T @ residual  # penalty * weight
    penalties = pulls / probe.weight
    torch.testing.assert_close(penalties, penalties.mean().expand_as(penalties), rtol=1e-4, atol=0)


def test_the_penalty_is_chosen_alike_by_either_side_of_the_latents() -> None:
    """A channel that never varies adds no direction, and must not change what is found."""
    x, y = latents(states(45), noise=2.0), TARGETS.values(states(45))
    padded = torch.cat([x, torch.full((45, 2, 8), 3.0)], dim=1)  # 40 channels become 56
    narrow, wide = fit_probe(x, y), fit_probe(padded, y)
    np.testing.assert_allclose(narrow.predict(x), wide.predict(padded), rtol=1e-6, atol=1e-9)
    still = torch.cat([x[..., :5], torch.full((45, 5, 3), 3.0)], dim=2)  # 40, 25 of which vary
    moving = fit_probe(x[..., :5], y)
    np.testing.assert_allclose(moving.predict(x[..., :5]), fit_probe(still, y).predict(still))


def test_angles_are_compared_around_the_circle() -> None:
    state = np.array([[0.0, 0.0, 0.0, 3.1]])
    predicted = np.array([[0.0, 0.0, 5 * np.cos(-3.1), 5 * np.sin(-3.1)]])
    _, rmse = score(TARGETS, predicted, state)
    assert rmse["angle_rad"] == pytest.approx(2 * np.pi - 6.2)
    assert rmse["position_m"] == 0.0


def test_what_stands_still_has_nothing_to_be_told() -> None:
    """However little it is missed by, and so it does not decide between heads."""
    state = states(20)
    state[:, 1:3] = 0.3
    predicted = TARGETS.values(state)
    predicted[:, :2] += 1e-3
    r2, _ = score(TARGETS, predicted, state)
    assert r2["position_m"] == 0.0 and r2["angle_rad"] == pytest.approx(1.0)


def test_columns_of_one_value_are_averaged() -> None:
    door = Target("door_y_m", ((0, 2),))
    assert door.values(np.array([[1.0, 5.0, 3.0]])).tolist() == [[2.0]]


def reader() -> Probe:
    """Return a probe of latents (1, 4) that are the values themselves."""
    return Probe(torch.zeros(4).double(), torch.eye(4).double(), torch.zeros(4).double())


def test_rollouts_are_measured_where_something_is_pushed() -> None:
    """In half of the windows x grows by 0.1 a step; nothing imagined is better than copying."""
    sim_state = np.zeros((8, 4, 4))
    sim_state[:, :, 2] = np.arange(8)[:, None]
    sim_state[:4, :, 1] = 0.1 * np.arange(4)
    true = torch.from_numpy(TARGETS.values(sim_state)).unsqueeze(2)
    rows = {
        "imagined": true[:, 1:],
        "copy": true[:, :1].expand(-1, 3, -1, -1),
        "encoded": true[:, 1:],
    }
    figure = rollout_figure(reader(), TARGETS, rows, sim_state)
    assert (figure.windows, figure.pushed_only) == (4, True)
    assert figure.rmse["position_m"]["imagined"] == pytest.approx([0.0, 0.0, 0.0])
    assert figure.rmse["position_m"]["copy"] == pytest.approx([0.1, 0.2, 0.3])
    assert not figure.findings()[0].is_bad
    worse = rollout_figure(reader(), TARGETS, {**rows, "imagined": rows["copy"]}, sim_state)
    assert worse.findings()[0].is_bad
    with pytest.raises(DataError, match="raise windows="):
        rollout_figure(reader(), TARGETS, rows, sim_state[:, :1].repeat(4, axis=1))


@pytest.mark.parametrize(
    "env_id", ["envs:vjepa_wm/Push-v0", "vjepa_wm/PushT-v0", "envs:vjepa_wm/TwoRooms-v0"]
)
def test_the_targets_of_an_environment_are_where_they_are_said_to_be(env_id: str) -> None:
    import gymnasium

    import envs  # noqa: F401

    env = gymnasium.make(env_id).unwrapped
    env.reset(seed=3, options={"goal": None})
    state = env.get_sim_state()
    first = targets_of(env_id).all[0].state(state)
    np.testing.assert_allclose(first, env._proprio(env._qpos_of(state)))
    if "TwoRooms" in env_id:
        door = targets_of(env_id).all[1].state(state)
        np.testing.assert_allclose(door, env._data.mocap_pos[:, 1].mean())
    else:
        assert targets_of(env_id).passive.state(state).tolist() == state[3:5].tolist()


def test_unknown_environments_have_no_targets() -> None:
    assert targets_of("squares") is None
