"""How an action moves the robot's own sensing (proprio), learned from trajectories.

Planning needs the proprio of imagined steps. What a robot senses of itself follows from itself and
its action almost alone, so a small network on those two does, without any latents; where the world
pushes back, its error shows in `held_out_error`.

Shapes: B windows, T model steps, Q proprio width, A action width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vjepa_wm.action_units import HalfRanges
from vjepa_wm.errors import SettingError

FARTHEST = 20.0  # standard deviations from the mean that proprio may be before units are suspected


class LearnedIntegrator(nn.Module):
    """Moves proprio by an action: a residual MLP, fitted to rollouts; what a `WorldModel` needs.

    Args:
        mean: of each entry over the trajectories, Q numbers.
        std: standard deviation of each entry.
        action_dim: width A of actions.
        hidden_dim: width of the two hidden layers.
        action_low: smallest value of each of the A entries, and
        action_high: largest: it reads actions in shares of half their range. None reads them as
            they are.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        action_dim: int,
        hidden_dim: int,
        action_low: Sequence[float] | None = None,
        action_high: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.action_units = HalfRanges(action_low, action_high)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.net = nn.Sequential(
            nn.Linear(len(mean) + action_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, len(mean)),
        )

    def forward(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """Move proprio (..., Q) by actions (..., A), both in the units of the trajectories."""
        scaled = (proprio - self.mean) / self.std
        inputs = torch.cat([scaled, self.action_units(actions)], dim=-1)
        return proprio + self.std * self.net(inputs).float()

    def rollout(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """Move proprio (..., Q) along actions (..., T, A): (..., T, Q) after each of them."""
        moved = []
        for action in actions.unbind(dim=-2):
            proprio = self(proprio, action)
            moved.append(proprio)
        return torch.stack(moved, dim=-2)

    def check(self, proprio: Tensor) -> None:
        """Refuse proprio (..., Q) that cannot be of the same robot in the same units.

        Raises:
            SettingError: another width, not finite, or far outside the trajectories.
        """
        check_units(proprio, self.mean, self.std)

    def errors(self, proprio: Tensor, actions: Tensor) -> Tensor:
        """Absolute errors of a rollout, in standard deviations.

        Args:
            proprio: true (B, T, Q).
            actions: (B, T - 1, A).

        Returns:
            (B, T - 1, Q), from the first frame on without looking again.
        """
        rolled = self.rollout(proprio[:, 0], actions)
        return ((rolled - proprio[:, 1:]) / self.std).abs()


def check_units(proprio: Tensor, mean: Tensor, std: Tensor) -> None:
    """Refuse proprio (..., Q) that cannot be what mean and deviation (Q,) are of.

    Raises:
        SettingError: another width, not finite, or far outside.
    """
    if proprio.shape[-1] != len(mean):
        raise SettingError(
            f"proprio: wanted {len(mean)} numbers per frame, got {tuple(proprio.shape)}"
        )
    proprio = proprio.reshape(-1, proprio.shape[-1])
    # Also true of NaN, which no comparison is
    far = ~(((proprio - mean) / std).abs() <= FARTHEST)
    if far.any():
        entry = int(far.any(dim=0).nonzero()[0])
        worst = proprio[far[:, entry], entry][0]
        raise SettingError(
            f"proprio: entry {entry} is {float(worst):.4g}, in the trajectories it was "
            f"{float(mean[entry]):.4g} +- {float(std[entry]):.4g}: other units, or "
            "another robot?"
        )


def proprio_statistics(proprio: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each entry (F, Q); entries that never change get 1.

    One that is rarely anything but the same, such as a contact, gets a larger one, so that no frame
    is further than `FARTHEST` of them from the mean.
    """
    mean, std = proprio.mean(dim=0), proprio.std(dim=0)
    std = torch.maximum(std, (proprio - mean).abs().amax(dim=0) / FARTHEST)
    return mean.tolist(), torch.where(std > 1e-6, std, 1.0).tolist()
