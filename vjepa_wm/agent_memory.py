"""What the agent remembers of one environment: what it saw, did, plans, and still has to pass.

Shapes: C context frames, P tokens, D latent width, Q proprio, A action width, T planned steps, K
actions per step.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Past(NamedTuple):
    """What was observed of one environment: frames and the actions between them."""

    latents: list[Tensor]  # (P, D) each
    proprio: list[Tensor | None]  # at them, (Q,) each
    actions: list[np.ndarray]  # taken at all but the last of them

    def spaced(self, count: int) -> "Past":
        """Every so many frames, back from the last, with all actions between two side by side."""
        latents, proprio = (rows[::-count][::-1] for rows in (self.latents, self.proprio))
        steps = len(latents) - 1
        taken = np.array(self.actions[len(self.actions) - steps * count :], dtype=np.float32)
        return Past(latents, proprio, list(taken.reshape(steps, -1)) if steps else [])


class Slot:
    """What the agent remembers of one environment."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self.num_plans = 0  # that were followed; noise follows from it
        self.goals: list[
            Tensor
        ] = []  # subgoals in their order, then the goal; none without subgoals
        self.forget()

    def forget(self) -> None:
        """Begin an episode."""
        self.latents: list[Tensor] = []  # the last frames, (P, D) each
        self.proprio: list[Tensor | None] = []  # at them, (Q,) each
        self.actions: list[np.ndarray] = []  # taken at them
        self.plan: Tensor | None = None  # actions (T * K, A)
        self.planned_from: Past | None = None
        self.plan_cost = float("nan")
        self.executed = 0
        self.wait = 0  # environment steps for which the present action goes on
        self.num_passed = 0  # subgoals that are done with
        self.steps_to_goal = 0  # actions since the last of them

    def next_goal(self) -> Tensor:
        """Be done with a subgoal; returns the goal after it (P, D)."""
        self.num_passed += 1
        self.steps_to_goal = 0
        self.plan = None  # it led to another goal
        return self.goals[self.num_passed]

    def observe(self, latents: Tensor, proprio: Tensor | None, num_frames: int) -> None:
        """Add a frame, dropping what the predictor no longer sees: all but so many."""
        self.latents = [*self.latents, latents][-num_frames:]
        self.proprio = [*self.proprio, proprio][-num_frames:]
        self.actions = self.actions[-(num_frames - 1) :] if num_frames > 1 else []

    def past(self) -> Past:
        """What is to be planned from; it stays when more is observed."""
        return Past(self.latents, self.proprio, list(self.actions))

    def go_back(self, past: Past) -> None:
        """Return to an earlier `past`: what was observed since is forgotten."""
        self.latents, self.proprio, self.actions = past

    @property
    def next_seed(self) -> int:
        """Seed of the next plan, an int64: what does not fit wraps around."""
        seed = self.seed * 10_007 + self.num_plans + 1
        return (seed + 2**63) % 2**64 - 2**63

    def take(self, plan: Tensor, cost: float) -> None:
        """Follow a new plan."""
        self.plan, self.plan_cost, self.executed = plan, cost, 0
        self.planned_from = self.past()
        self.num_plans += 1

    def next_action(self, frame_skip: int) -> np.ndarray:
        """The action of this environment step."""
        if self.wait == 0:
            self.actions.append(self.plan[self.executed].float().cpu().numpy())
            self.executed += 1
            self.steps_to_goal += 1
            self.wait = frame_skip
        self.wait -= 1
        return self.actions[-1]
