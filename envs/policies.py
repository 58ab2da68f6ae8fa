"""Exploration policies for collecting data: they know neither goal nor reward."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
QposReader = Callable[[], FloatArray]
Proposer = Callable[[np.random.Generator, FloatArray], list[FloatArray]]

_MAX_STEPS_PER_WAYPOINT = 20
_ARRIVAL_DISTANCE = 0.015  # metres


class Policy(Protocol):
    """What collection needs of a policy."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode whose randomness comes from `rng`."""

    def act(self) -> NDArray[np.float32]:
        """Choose the next action (A,) in [-1,1]."""


class SmoothRandom:
    """Random actions with memory.

    Half of the episodes follow an Ornstein-Uhlenbeck process, half hold a random action for a few
    steps; some of the held actions are zero, so that standing still is seen as well.
    """

    def __init__(self, action_dim: int) -> None:
        """Make a policy for actions of this width."""
        self.action_dim = action_dim

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode whose randomness comes from `rng`."""
        self._rng = rng
        self._is_walk = bool(rng.random() < 0.5)
        self._action = rng.uniform(-1.0, 1.0, self.action_dim)
        self._steps_left = int(rng.integers(2, 9))

    def act(self) -> NDArray[np.float32]:
        """Choose the next action (A,) in [-1,1]."""
        if self._is_walk:
            noise = self._rng.normal(0.0, 0.35, self.action_dim)
            self._action = np.clip(0.85 * self._action + noise, -1.0, 1.0)
        elif self._steps_left == 0:
            is_still = self._rng.random() < 0.15
            action = self._rng.uniform(-1.0, 1.0, self.action_dim)
            self._action = np.zeros(self.action_dim) if is_still else action
            self._steps_left = int(self._rng.integers(2, 9))
        self._steps_left -= 1
        return self._action.astype(np.float32)


class SeekWaypoints:
    """Noisy drives along waypoints in a share of the episodes, smooth random in the others."""

    def __init__(
        self, qpos: QposReader, propose: Proposer, *, step_length: float, share: float
    ) -> None:
        """Make a policy for a robot whose first two generalised positions are x and y.

        Args:
            qpos: Reads the current generalised positions (nq,).
            propose: From (rng, qpos) a non-empty list of waypoints (2,) in metres.
            step_length: Metres covered by a full action in one step.
            share: Share of episodes that seek waypoints.
        """
        self._read_qpos = qpos
        self._propose = propose
        self._step_length = step_length
        self._share = share
        self._random = SmoothRandom(2)

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode whose randomness comes from `rng`."""
        self._rng = rng
        self._is_seeking = bool(rng.random() < self._share)
        self._noise = rng.uniform(0.05, 0.35)
        self._waypoints: list[FloatArray] = []
        self._random.reset(rng)

    def act(self) -> NDArray[np.float32]:
        """Choose the next action (A,) in [-1,1]."""
        if not self._is_seeking:
            return self._random.act()
        qpos = self._read_qpos()
        if not self._waypoints:
            self._waypoints = self._propose(self._rng, qpos)
            self._start_leg()
        offset = self._waypoints[0] - qpos[:2]
        distance = float(np.linalg.norm(offset))
        speed = min(self._speed, distance / self._step_length)
        action = offset / max(distance, 1e-6) * speed
        action = action + self._rng.normal(0.0, self._noise, 2)
        self._steps_left -= 1
        if distance < _ARRIVAL_DISTANCE + self._step_length * speed or self._steps_left == 0:
            self._waypoints.pop(0)
            self._start_leg()
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _start_leg(self) -> None:
        """Draw the speed of the next leg and the steps after which it is given up."""
        self._speed = self._rng.uniform(0.5, 1.0)
        self._steps_left = _MAX_STEPS_PER_WAYPOINT


class SeekContact(SeekWaypoints):
    """Walks around a block and pushes it from all sides in about 80 % of the episodes."""

    def __init__(
        self, qpos: QposReader, *, step_length: float, clearance: float, limit: float
    ) -> None:
        """Make a policy for a pusher at qpos[0:2] and a block at qpos[2:4].

        Args:
            qpos: Reads the current generalised positions (nq,).
            step_length: Metres covered by a full action in one step.
            clearance: Distance of the pusher from the block's centre that surely touches nothing.
            limit: Largest absolute coordinate of the pusher in metres.
        """
        self._clearance = clearance
        self._limit = limit
        super().__init__(qpos, self._propose_push, step_length=step_length, share=0.8)

    def _propose_push(self, rng: np.random.Generator, qpos: FloatArray) -> list[FloatArray]:
        """Plan a walk around the block to behind it, and a push through it."""
        pusher, block = qpos[:2], qpos[2:4]
        heading = rng.uniform(-np.pi, np.pi)
        direction = np.array([np.cos(heading), np.sin(heading)])
        sideways = np.array([-direction[1], direction[0]]) * rng.uniform(-0.05, 0.05)
        behind = block - direction * self._clearance + sideways
        through = behind + direction * rng.uniform(0.10, 0.28)
        waypoints = [*self._walk_around(pusher, block, heading + np.pi), behind, through]
        return [np.clip(point, -self._limit, self._limit) for point in waypoints]

    def _walk_around(self, pusher: FloatArray, block: FloatArray, end: float) -> list[FloatArray]:
        """Place points on a circle round the block, from the pusher's side to angle `end`."""
        offset = pusher - block
        begin = float(np.arctan2(offset[1], offset[0]))
        turn = (end - begin + np.pi) % (2 * np.pi) - np.pi
        num_points = int(abs(turn) // 0.8)
        angles = begin + turn * np.arange(1, num_points + 1) / (num_points + 1)
        radius = self._clearance + 0.02
        return [block + radius * np.array([np.cos(a), np.sin(a)]) for a in angles]
