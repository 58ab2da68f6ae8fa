"""The rows beside which an agent is read: random actions below it, the true simulator above.

Shapes: E episodes of a batch, B of them planned for, N candidates, T planned steps, A action width,
K criteria.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planners import Planner, shift
from vjepa_wm.bounds import float32_inside
from vjepa_wm.data.recorder import Told
from vjepa_wm.errors import DataError

FloatArray = NDArray[np.float32]

_MEMORY = 0.85  # share of the last action that is kept
_NOISE_STD = 0.35  # in units of half the action range


class RandomAgent:
    """The floor: smooth random actions that heed neither goal nor observation.

    Each entry follows an Ornstein-Uhlenbeck process, clipped to its bounds, from a uniform start.
    It gets about further than independent noise would, so it is the harder floor to be above.
    An episode's actions follow from the seed and from how many episodes came before it.

    Args:
        low: Smallest action (A,).
        high: Largest action (A,).
        seed: Of all episodes.
    """

    def __init__(self, low: NDArray, high: NDArray, *, seed: int = 0) -> None:
        self._low, self._high = float32_inside(low, high)
        self._centre = (np.asarray(high, np.float64) + low) / 2
        self._half = (np.asarray(high, np.float64) - low) / 2
        self._seed = seed
        self._num_episodes = 0

    def reset(self, *, goal: NDArray[np.uint8]) -> None:
        """Begin as many episodes as there are goals (E,H,W,3)."""
        episodes = range(self._num_episodes, self._num_episodes + len(goal))
        self._rngs = [np.random.default_rng([self._seed, episode]) for episode in episodes]
        self._num_episodes += len(goal)
        self._walk = np.stack([rng.uniform(-1.0, 1.0, self._half.shape) for rng in self._rngs])

    def act(
        self, obs: Mapping[str, NDArray], *, is_active: NDArray[np.bool_] | None = None
    ) -> FloatArray:
        """Return the next actions (E,A)."""
        del obs, is_active
        actions = self._centre + self._half * self._walk
        actions = np.clip(actions.astype(np.float32), self._low, self._high)
        noise = np.stack([rng.normal(0.0, _NOISE_STD, self._half.shape) for rng in self._rngs])
        self._walk = np.clip(_MEMORY * self._walk + noise, -1.0, 1.0)
        return actions


class SimulatorAgent:
    """The ceiling: the planner with the true simulator and the true distance to the goal.

    Privileged by construction: it looks at nothing it is shown, but tries its candidates out in
    the very environments it acts in (`simulate`). What it cannot reach no world model will with
    this planner; what it reaches and a world model does not is lost in encoder, predictor or cost.
    The cost of a candidate is the sum over criteria of distance / threshold, averaged over steps.

    Args:
        envs: The environments of the batch, in its order.
        planner: Searches action sequences.
        replan_every: Planned steps executed of each plan, at most the planner's horizon.
        frame_skip: Environment steps per planned step; the action is repeated.
        seed: Of the planner's noise.

    Raises:
        ValueError: `replan_every` is out of range.
        DataError: The environments cannot be simulated from where they are.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        planner: Planner,
        *,
        replan_every: int,
        frame_skip: int = 1,
        seed: int = 0,
    ) -> None:
        if not 1 <= replan_every <= planner.horizon:
            raise ValueError(
                f"replan_every: wanted 1 to horizon {planner.horizon}, got {replan_every}"
            )
        self._envs: list[Any] = [Told(env) for env in envs]
        if not hasattr(self._envs[0], "simulate"):
            raise DataError(
                f"{envs[0].spec.id} has no simulate, wanted of an environment in which candidates "
                "are tried out: leave the row simulator out, agent=[random,mpc]"
            )
        self._planner = planner
        self._replan_every = replan_every
        self._frame_skip = frame_skip
        self._seed = seed
        self._num_episodes = 0
        space = envs[0].action_space
        self._low, self._high = torch.tensor(space.low), torch.tensor(space.high)
        self._thresholds = np.array(list(self._envs[0].criteria.values()))

    def reset(self, *, goal: NDArray[np.uint8]) -> None:
        """Begin as many episodes as there are goals (E,H,W,3)."""
        episodes = range(self._num_episodes, self._num_episodes + len(goal))
        self._rngs = [np.random.default_rng([self._seed, episode]) for episode in episodes]
        self._num_episodes += len(goal)
        centre = (self._low + self._high) / 2
        self._plans = centre.expand(len(goal), self._planner.horizon, -1).clone()  # (E,T,A)
        self._num_executed = 0  # of every plan: the episodes of a batch begin together
        self._num_steps = 0

    def act(
        self, obs: Mapping[str, NDArray], *, is_active: NDArray[np.bool_] | None = None
    ) -> FloatArray:
        """Return the next actions (E,A), planning for the active episodes only."""
        del obs
        is_active = np.ones(len(self._plans), bool) if is_active is None else is_active
        if self._num_steps % self._frame_skip == 0:
            if self._num_steps == 0 or self._num_executed == self._replan_every:
                self._plan(np.flatnonzero(is_active))
            self._num_executed += 1
        self._num_steps += 1
        return self._plans[:, self._num_executed - 1].numpy().copy()

    def _plan(self, rows: NDArray[np.intp]) -> None:
        """Replace the plans of some episodes."""

        def cost_fn(actions: Tensor) -> Tensor:
            costs = self._costs(rows, actions.detach().numpy())  # no gradient: some planners say so
            return torch.from_numpy(costs).to(actions.dtype)

        seeds = [int(self._rngs[row].integers(2**63)) for row in rows]
        plan = self._planner.plan(
            cost_fn,
            low=self._low,
            high=self._high,
            batch_size=len(rows),
            warm_start=shift(self._plans[rows], self._num_executed),
            seeds=torch.tensor(seeds),
        )
        self._plans[rows] = plan.actions
        self._num_executed = 0

    def _costs(self, rows: NDArray[np.intp], actions: FloatArray) -> NDArray[np.float64]:
        """Try candidates (B,N,T,A) out and return their costs (B,N)."""
        actions = actions.repeat(self._frame_skip, axis=2)
        distances = [
            self._envs[row].simulate(candidates)
            for row, candidates in zip(rows, actions, strict=True)
        ]
        return (np.stack(distances) / self._thresholds).sum(axis=-1).mean(axis=-1)
