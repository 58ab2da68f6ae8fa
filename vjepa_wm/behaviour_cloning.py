"""Goal-conditioned behaviour cloning: from latents now and of the goal straight to an action.

The floor a learned planner must beat: it sees what the planner sees and imagines nothing. Trained
by hindsight on trajectories, whose later frames serve as goals of the actions before them, as in
goal-conditioned imitation (Ding et al., arXiv 1906.05838) and GCSL (Ghosh et al., arXiv
1912.06088, whose first iteration this is).

Shapes: B samples, n environments, P tokens, D latent width, A action width, Q proprio width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vjepa_wm.action_units import HalfRanges
from vjepa_wm.checkpoint import Checkpoint, load_checkpoint
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.recorded import load_recorded
from vjepa_wm.errors import CheckpointError
from vjepa_wm.observations import Pixels, read_frames, read_goal, read_mask, read_proprio
from vjepa_wm.proprio import check_units
from vjepa_wm.world_model import ActionSpec

KIND = "behaviour_cloning"
PART = "policy"


class GoalPolicy(nn.Module):
    """Chooses the action of one model step: each token is narrowed, then an MLP sees all of them.

    Args:
        latent_dim: width D of latents.
        num_patches: tokens per frame P.
        low: smallest action, A numbers.
        high: largest action, A numbers.
        token_dim: width a token is narrowed to, in frame and goal alike.
        hidden_dim: width of the two hidden layers.
        proprio_mean: of each entry over the trajectories, Q numbers; None takes no proprio.
        proprio_std: standard deviation of each entry.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        num_patches: int,
        low: Sequence[float],
        high: Sequence[float],
        token_dim: int,
        hidden_dim: int,
        proprio_mean: Sequence[float] | None = None,
        proprio_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.takes_proprio = proprio_mean is not None
        constants = {
            "low": low,
            "high": high,
            "mean": proprio_mean if self.takes_proprio else (),
            "std": proprio_std if self.takes_proprio else (),
        }
        for name, values in constants.items():
            values = torch.tensor(tuple(values), dtype=torch.float32)
            self.register_buffer(name, values, persistent=False)
        self.action_units = HalfRanges(low, high)
        self.narrow = nn.Linear(latent_dim, token_dim)
        self.net = nn.Sequential(
            nn.Linear(2 * num_patches * token_dim + len(self.mean), hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, len(self.low)),
        )

    def forward(self, latents: Tensor, goal: Tensor, proprio: Tensor | None = None) -> Tensor:
        """Choose actions (B, A), inside the bounds.

        Args:
            latents: now (B, P, D).
            goal: of the goal (B, P, D).
            proprio: now (B, Q), where the policy takes it.
        """
        half = (self.high - self.low) / 2
        return self.low + half * (self._share(latents, goal, proprio).clamp(-1, 1) + 1)

    def loss(
        self, latents: Tensor, goal: Tensor, actions: Tensor, proprio: Tensor | None = None
    ) -> Tensor:
        """Mean squared error against the actions taken (B, A), in half ranges of each entry."""
        return (self._share(latents, goal, proprio) - self.to_share(actions)).square().mean()

    def to_share(self, actions: Tensor) -> Tensor:
        """Actions (..., A) as shares of half their range, -1 to 1."""
        return self.action_units(actions)

    def _share(self, latents: Tensor, goal: Tensor, proprio: Tensor | None) -> Tensor:
        """What `loss` compares, before it is held inside the bounds."""
        frames = torch.stack([latents, goal], dim=1).float()  # (B, 2, P, D)
        seen = [self.narrow(frames).flatten(1)]
        if self.takes_proprio:
            seen.append((proprio.float() - self.mean) / self.std)
        return self.net(torch.cat(seen, dim=-1)).float()


class BehaviourCloningAgent:
    """Acts by a `GoalPolicy` on frozen latents, for one environment or n of them.

    It takes what `MPCAgent` takes: pixels, goal pixels and, where the policy does, proprio. It has
    no memory and no noise: each model step it looks and acts, and holds the action.

    Args:
        encoder: frozen, the one the policy was trained on.
        policy: chooses actions.
        action_spec: the actions it was trained on.
    """

    def __init__(
        self, encoder: FrozenEncoder, policy: GoalPolicy, *, action_spec: ActionSpec
    ) -> None:
        self.encoder = encoder
        self.policy = policy
        self.action_spec = action_spec
        self.goal: Tensor | None = None  # latents (n, P, D)

    def reset(self, goal: Pixels | Mapping[str, Pixels]) -> None:
        """Take goal pixels uint8 (H, W, 3) or (n, H, W, 3), or a mapping with them as `pixels`.

        Raises:
            SettingError: the image has another shape or dtype.
        """
        pixels = read_goal(goal)
        self.is_single = pixels.ndim == 3
        self.goal = self._encode(pixels)
        self._wait = np.zeros(len(self.goal), int)  # environment steps the present action goes on
        self._actions = np.zeros((len(self.goal), len(self.action_spec.low)), np.float32)

    def act(self, obs: Mapping[str, Pixels], *, is_active: np.ndarray | None = None) -> np.ndarray:
        """Choose the next action of every environment.

        Args:
            obs: `pixels` uint8 (H, W, 3) or (n, H, W, 3); where the policy takes proprio, also
                `proprio` (Q,) or (n, Q); other keys are not looked at.
            is_active: (n,) bool; the others cost nothing and get zeros. None is all.

        Returns:
            Actions float32 (A,) or (n, A), inside the bounds.

        Raises:
            RuntimeError: there is no goal yet.
            SettingError: the pixels have another shape or dtype, or another number of environments;
                the proprio is missing, or in other units than the policy's.
        """
        if self.goal is None:
            raise RuntimeError("no goal yet: call agent.reset(goal=...) with a goal image first")
        count = len(self.goal)
        pixels = read_frames(obs, count=count)
        is_active = np.ones(count, bool) if is_active is None else is_active
        active = read_mask(is_active, count, "is_active")
        if rows := np.flatnonzero(active & (self._wait == 0)).tolist():
            proprio = self._proprio(obs, rows)
            with torch.no_grad():
                chosen = self.policy(self._encode(pixels[rows]), self.goal[rows], proprio)
            low, high = self.action_spec.limits("cpu")
            self._actions[rows] = chosen.cpu().clamp(low, high).numpy()
            self._wait[rows] = self.action_spec.frame_skip
        self._wait[active] -= 1
        actions = np.where(active[:, None], self._actions, np.float32(0))
        return actions[0] if self.is_single else actions

    def _encode(self, pixels: Tensor) -> Tensor:
        """Encode single frames (..., H, W, 3) to latents (n, P, D)."""
        pixels = pixels.unsqueeze(0) if pixels.ndim == 3 else pixels
        return self.encoder.encode(pixels.unsqueeze(1).to(self.policy.low.device)).squeeze(1)

    def _proprio(self, obs: Mapping[str, Pixels], rows: list[int]) -> Tensor | None:
        """Proprio (k, Q) of some environments, where the policy takes it."""
        if not self.policy.takes_proprio:
            return None
        shape = (len(self.goal), len(self.policy.mean))
        need = f"this policy acts on proprio of {shape[1]} numbers"
        proprio = read_proprio(obs, shape=shape, need=need)[rows].to(self.policy.low.device)
        check_units(proprio, self.policy.mean, self.policy.std)
        return proprio


def open_behaviour_cloning(folder: str | Path) -> Checkpoint:
    """Read the checkpoint of a policy that `python -m vjepa_wm.train_bc` wrote.

    Raises:
        CheckpointError: the folder is incomplete, damaged or holds something else.
    """
    loaded = load_checkpoint(folder)
    if loaded.config["kind"] != KIND:
        raise CheckpointError(f"{loaded.folder} holds a {loaded.config['kind']}, wanted a {KIND}")
    return loaded


def load_behaviour_cloning(
    folder: str | Path,
    *,
    encoder_checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
) -> BehaviourCloningAgent:
    """Load a policy with the encoder it was trained on, ready to act.

    Args:
        folder: written by `python -m vjepa_wm.train_bc`.
        encoder_checkpoint: file or folder of the encoder's weights, where they lie elsewhere than
            the policy remembers.
        device: where it runs.
        dtype: of the encoder: `auto` (bfloat16 where the machine has it), `bf16` or `fp32`.

    Raises:
        CheckpointError: a file or folder is incomplete, damaged or of something else, or its
            encoder is not to be found; every tensor that does not fit is listed.
    """
    loaded = open_behaviour_cloning(folder)
    policy = GoalPolicy(**loaded.config[PART])
    loaded.load_into(policy, PART)
    encoder = load_recorded(
        loaded.config["encoder"],
        owner=loaded.folder,
        checkpoint=encoder_checkpoint,
        device=device,
        dtype=dtype,
    )
    return BehaviourCloningAgent(
        encoder,
        policy.to(device).eval().requires_grad_(False),
        action_spec=ActionSpec(**loaded.config["action_spec"]),
    )
