"""The agent with the signatures of other libraries' policies: what they hand over, turned to ours.

Shapes: n environments, H W C image, A action width, Q proprio width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vjepa_wm.agent_memory import Slot
from vjepa_wm.errors import SettingError
from vjepa_wm.observations import Pixels, read_images, read_pixels, which_changed


class PolicySignatures(ABC):
    """Stable-Baselines3's, LeRobot's and stable-worldmodel's policies, for an agent with goals.

    Attributes:
        seed: of the planner's noise.
        goal: latents (n, P, D) of what is planned for now; None before the first `reset`.
        is_single: whether there is one environment, whose arrays have no n.
        slots: what is remembered of each environment.
    """

    seed: int
    goal: Tensor | None
    is_single: bool
    slots: list[Slot]
    _given_goal: Tensor | None  # pixels of all goals, as they were given

    @abstractmethod
    def reset(self, goal: Pixels | Mapping[str, Pixels]) -> None:
        """Forget everything and take a goal image."""

    @abstractmethod
    def set_goal(self, goal: Pixels | Mapping[str, Pixels], env_ids: np.ndarray) -> None:
        """Give new goals to some environments and forget their past."""

    @abstractmethod
    def act(self, obs: Mapping[str, Pixels], *, is_active: np.ndarray | None = None) -> np.ndarray:
        """Choose the next action of every environment."""

    def _require_goal(self) -> None:
        if self.goal is None:
            raise RuntimeError("no goal yet: call agent.reset(goal=...) with a goal image first")

    def predict(
        self,
        observation: Mapping[str, Pixels],
        state: None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """Act, with the signature of Stable-Baselines3's `predict`.

        Environments whose episode has just started are forgotten; their goals are kept.
        """
        del state, deterministic  # the agent keeps its own state; its noise is seeded
        self._require_goal()
        if episode_start is not None:
            self._begin_again(np.flatnonzero(episode_start))
        return self.act(observation), None

    def _begin_again(self, env_ids: np.ndarray) -> None:
        """Forget what some environments have seen; of their goals the first one comes first."""
        for i in env_ids:
            self.slots[i].forget()
            if self.slots[i].goals:
                self.goal[i] = self.slots[i].goals[0]

    def select_action(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Act, with the signature of LeRobot's policies.

        Args:
            batch: one `observation.images.<camera>` (n, C, H, W), floating in [0, 1] or uint8, and
                `observation.state` (n, Q) where the world model takes proprio.

        Returns:
            Actions (n, A) on the images' device.

        Raises:
            SettingError: there are several cameras or none, or images of another shape or range.
        """
        names = [name for name in batch if name.startswith("observation.image")]
        if len(names) != 1:
            raise SettingError(f"wanted one camera 'observation.images.<name>', got {names}")
        images = batch[names[0]]
        obs = {"pixels": read_images(images, names[0]).cpu()}
        if "observation.state" in batch:
            obs["proprio"] = batch["observation.state"].cpu()
        actions = torch.from_numpy(np.atleast_2d(self.act(obs)))
        return actions.to(images.device)

    def set_env(self, env: object) -> None:
        """Take what stable-worldmodel's `World` hands its policies; nothing of it is needed."""
        del env

    def set_seed(self, seed: int) -> None:
        """Seed the planner's noise, from the next `reset` on, as `World` does."""
        self.seed = int(seed)

    def get_action(self, info: MutableMapping[str, Any]) -> np.ndarray:
        """Act, with the signature of stable-worldmodel's policies.

        Args:
            info: `pixels` and `goal`, uint8 (n, H, W, 3) or (n, 1, H, W, 3). Environments whose
                goal changed forget their past, and so do those that `_needs_flush` (n,) says have
                begun anew; it is taken out, as its sender leaves it in. Without it a new episode
                with the goal of the last one is not noticed. Those that are `terminated` or
                `truncated` (n,) or (n, 1) wait, and get zeros. Where the world model takes it,
                also `proprio` (n, Q) or (n, 1, Q).
        """
        goal, pixels = (_single_frame(read_pixels(info[key], key)) for key in ("goal", "pixels"))
        given = self._given_goal
        if given is None or given.shape != goal.shape:
            self.reset(goal=goal)
        elif (changed := which_changed(given, goal)).size:
            self.set_goal(goal if self.is_single else goal[changed], changed)
        if "_needs_flush" in info:
            self._begin_again(np.flatnonzero(info.pop("_needs_flush")))
        obs = {"pixels": pixels}
        if "proprio" in info:
            proprio = torch.as_tensor(info["proprio"])
            obs["proprio"] = proprio.squeeze(1) if proprio.ndim == 3 else proprio
        is_over = np.zeros(len(self.slots), dtype=bool)
        for name in ("terminated", "truncated"):
            if name in info:
                is_over |= np.asarray(info[name], dtype=bool).reshape(-1)
        return self.act(obs, is_active=~is_over)


def _single_frame(pixels: Tensor) -> Tensor:
    return pixels.squeeze(1) if pixels.ndim == 5 else pixels
