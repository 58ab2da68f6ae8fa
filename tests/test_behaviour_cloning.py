"""Behaviour cloning: it learns what tells goal from present, and acts by the agents' contract."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from vjepa_wm.behaviour_cloning import (
    BehaviourCloningAgent,
    GoalPolicy,
    load_behaviour_cloning,
)
from vjepa_wm.checkpoint import WEIGHTS
from vjepa_wm.errors import CheckpointError, SettingError
from vjepa_wm.files import digest, read_json, write_json
from vjepa_wm.world_model import ActionSpec

LOW, HIGH = [-1.0, 0.0], [1.0, 4.0]


def policy(*, takes_proprio: bool = False, latent_dim: int = 24, patches: int = 16) -> GoalPolicy:
    torch.manual_seed(0)
    statistics = {"proprio_mean": [0.0, 1.0, 0.0], "proprio_std": [1.0, 2.0, 0.5]}
    return GoalPolicy(
        latent_dim=latent_dim,
        num_patches=patches,
        low=LOW,
        high=HIGH,
        token_dim=4,
        hidden_dim=32,
        **(statistics if takes_proprio else {}),
    )


def agent(*, takes_proprio: bool = False, frame_skip: int = 1) -> BehaviourCloningAgent:
    net = tiny.randomise(policy(takes_proprio=takes_proprio)).eval()
    spec = ActionSpec(tuple(LOW), tuple(HIGH), frame_skip)
    return BehaviourCloningAgent(tiny.encoder(), net, action_spec=spec)


def frames(count: int, *, seed: int = 0) -> np.ndarray:
    return tiny.pixels(count, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, seed=seed).numpy()


def test_it_learns_to_go_where_the_goal_is() -> None:
    """Token 0 tells the place, actions lead to the goal's: far better than their mean action."""
    net = policy(latent_dim=2, patches=3)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    def batch(count: int) -> tuple[torch.Tensor, ...]:
        latents, goal = torch.randn(2, count, 3, 2, generator=generator)
        way = (goal - latents)[:, 0].clamp(-1, 1)
        return latents, goal, net.low + (net.high - net.low) / 2 * (way + 1)

    for _ in range(300):
        optimizer.zero_grad()
        net.loss(*batch(128)).backward()
        optimizer.step()
    latents, goal, actions = batch(512)
    share = net.to_share(actions)
    floor = (share - share.mean(dim=0)).square().mean()
    assert net.loss(latents, goal, actions) < 0.15 * floor
    chosen = net(10 * latents, goal)  # far outside of what it has seen
    assert (chosen >= net.low).all() and (chosen <= net.high).all()


def test_shares_are_of_half_the_range() -> None:
    shares = policy().to_share(torch.tensor([[-1.0, 0.0], [1.0, 4.0], [0.0, 1.0]]))
    assert shares.tolist() == [[-1, -1], [1, 1], [0, -0.5]]


def test_what_it_sees_decides() -> None:
    """Present, goal and, where it takes some, proprio each change the action."""
    net = tiny.randomise(policy(takes_proprio=True)).eval()
    latents, goal = torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    proprio = torch.tensor([[0.1, 0.2, 0.3]])
    chosen = net(latents, goal, proprio)
    for other in (
        net(latents + 0.5, goal, proprio),
        net(latents, -goal, proprio),
        net(latents, goal, -proprio),
    ):
        assert not torch.allclose(other, chosen)


def test_one_environment_or_many_and_actions_are_held() -> None:
    """For as many environment steps as an action was repeated in training."""
    many, single = agent(frame_skip=2), agent(frame_skip=2)
    goal, seen = frames(3), [frames(3, seed=seed) for seed in (1, 2, 3)]
    many.reset(goal=goal)
    single.reset(goal={"pixels": goal[1]})
    acted = [many.act({"pixels": pixels}) for pixels in seen]
    alone = [single.act({"pixels": pixels[1]}) for pixels in seen]
    assert acted[0].shape == (3, 2) and acted[0].dtype == np.float32
    np.testing.assert_array_equal(acted[0], acted[1])
    assert not np.allclose(acted[1], acted[2])
    np.testing.assert_allclose(np.stack(acted)[:, 1], np.stack(alone), atol=1e-5)


def test_environments_that_are_over_cost_nothing(monkeypatch) -> None:
    acting = agent()
    acting.reset(goal=frames(3))
    encoded = []
    encode = acting.encoder.encode
    monkeypatch.setattr(
        acting.encoder, "encode", lambda pixels: encoded.append(len(pixels)) or encode(pixels)
    )
    actions = acting.act({"pixels": frames(3)}, is_active=np.array([True, False, True]))
    assert encoded == [2]
    assert not actions[1].any() and actions[0].any() and actions[2].any()


def test_inputs_of_another_kind_are_refused() -> None:
    acting = agent(takes_proprio=True)
    with pytest.raises(RuntimeError, match="no goal yet"):
        acting.act({"pixels": frames(1)})
    acting.reset(goal=frames(2))
    with pytest.raises(SettingError, match="the goal is for 2 environments, got pixels of 3"):
        acting.act({"pixels": frames(3)})
    with pytest.raises(SettingError, match="acts on proprio of 3 numbers: obs has no 'proprio'"):
        acting.act({"pixels": frames(2)})
    with pytest.raises(SettingError, match=r"obs\['proprio'\]: wanted \(2, 3\), got \(1, 3\)"):
        acting.act({"pixels": frames(2), "proprio": np.zeros(3, np.float32)})
    with pytest.raises(SettingError, match="obs\\['pixels'\\]: wanted uint8"):
        acting.act({"pixels": frames(2).astype(np.float32)})
    far = np.full((2, 3), 1000.0, np.float32)
    with pytest.raises(SettingError, match="other units, or another robot"):
        acting.act({"pixels": frames(2), "proprio": far})
    with pytest.raises(SettingError, match="uint8"):
        acting.reset(goal=frames(2).astype(np.float32))


def test_a_checkpoint_acts_as_what_was_saved(goal_policy_folder: Path) -> None:
    loaded = load_behaviour_cloning(goal_policy_folder, dtype="fp32")
    again = load_behaviour_cloning(goal_policy_folder, dtype="fp32")
    pixels = tiny.pixels(2, 64, 64).numpy()
    for acting in (loaded, again):
        acting.reset(goal=pixels[:1])
    first, second = (acting.act({"pixels": pixels[1:]}) for acting in (loaded, again))
    np.testing.assert_array_equal(first, second)
    assert loaded.action_spec.frame_skip == 2
    assert not any(p.requires_grad for p in loaded.policy.parameters())


def test_loading_is_strict(goal_policy_folder: Path, world_model_folder: Path, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="holds a world_model, wanted a behaviour_cloning"):
        load_behaviour_cloning(world_model_folder)
    config = read_json(goal_policy_folder / "config.json")
    tensors = load_file(goal_policy_folder / WEIGHTS)
    tensors["policy.extra"] = tensors.pop("policy.narrow.bias")
    save_file(tensors, tmp_path / WEIGHTS)
    write_json(tmp_path / "config.json", {**config, "weights_digest": digest(tmp_path / WEIGHTS)})
    with pytest.raises(CheckpointError, match=r"missing narrow.bias; surplus extra"):
        load_behaviour_cloning(tmp_path)
