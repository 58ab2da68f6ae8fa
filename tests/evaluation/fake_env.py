"""A point that must get to where a picture shows it; importing this registers it with Gymnasium."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEP_M = 0.1
HOLD_STEPS = 3


class PointGoalEnv(gymnasium.Env):
    """Moves by its action; the first pixel tells where it is. Near goals are often too near."""

    criteria = {"position_m": 0.05}
    levels = ("near", "far")
    metadata = {"render_modes": [], "render_fps": 10}

    def __init__(self, image_size: int = 8):
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
                "proprio": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            }
        )
        self.image_size = image_size
        self.goal: np.ndarray | None = None
        self.num_steps = 0
        self.seeds: list[int | None] = []

    @property
    def goal_state(self) -> np.ndarray | None:
        return None if self.goal is None else self.goal.copy()

    def get_sim_state(self) -> np.ndarray:
        return np.array([*self.position, float(self.held)])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        options = options or {}
        reach = 0.2 if options.get("level", "near") == "near" else 1.0
        start = options.get("start", self.np_random.uniform(-0.5, 0.5, 3))
        if len(start) != 3:
            raise ValueError(f"start must have shape (3,), got ({len(start)},)")
        self.position, self.held, self.num_steps = np.array(start[:2]), 0, 0
        offset = self.np_random.uniform(-reach, reach, 2)
        goal = options["goal"] if "goal" in options else [*(self.position + offset), 0.0]
        self.goal = None if goal is None else np.array(goal)
        return self._obs(self.position), self._info()

    def step(self, action: np.ndarray):
        self.num_steps += 1
        self.position = self.position + STEP_M * np.clip(action, -1, 1).astype(np.float64)
        is_within = self._info()["distance"]["position_m"] < self.criteria["position_m"]
        self.held = self.held + 1 if is_within else 0
        info = self._info()
        return self._obs(self.position), 0.0, info["is_success"], False, info

    def simulate(self, actions: np.ndarray) -> np.ndarray:
        positions = self.position + STEP_M * np.clip(actions, -1, 1).cumsum(axis=1)
        return np.linalg.norm(positions - self.goal[:2], axis=-1, keepdims=True)

    def simulate_obs(self, actions: np.ndarray, *, steps: list[int]) -> dict[str, np.ndarray]:
        positions = self.position + STEP_M * np.clip(actions, -1, 1).cumsum(axis=1)
        seen = [[self._obs(position) for position in row[steps]] for row in positions]
        return {
            name: np.array([[obs[name] for obs in row] for row in seen])
            for name in ("pixels", "proprio")
        }

    def distance_between(self, state: np.ndarray, other: np.ndarray) -> dict[str, float]:
        return {"position_m": float(np.linalg.norm(state[:2] - other[:2]))}

    def _obs(self, position: np.ndarray) -> dict[str, np.ndarray]:
        pixels = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        pixels[0, 0, :2] = np.clip(np.round(128 + 80 * position), 0, 255)
        return {"pixels": pixels, "proprio": position.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        if self.goal is None:
            return {"goal": None, "is_success": False, "distance": {}}
        return {
            "goal": self._obs(self.goal[:2]),
            "is_success": self.held >= HOLD_STEPS,
            "distance": {"position_m": float(np.linalg.norm(self.position - self.goal[:2]))},
        }


class Seeker:
    """Reaches goals from pixels alone; keeps what it was shown."""

    def __init__(self) -> None:
        self.masks: list[np.ndarray] = []
        self.seen: list[dict[str, np.ndarray]] = []

    def reset(self, *, goal: np.ndarray) -> None:
        self.target = goal[:, 0, 0, :2].astype(float)
        self.masks, self.seen = [], []

    def act(self, obs: dict[str, np.ndarray], *, is_active: np.ndarray) -> np.ndarray:
        self.masks.append(is_active)
        self.seen.append(obs)
        offset = (self.target - obs["pixels"][:, 0, 0, :2]) / 80
        actions = np.clip(offset / STEP_M, -1, 1).astype(np.float32)
        actions[~is_active] = np.nan
        return actions


class LameEnv(gymnasium.Env):
    """Has no simulator state, so there are no tasks in it."""

    def __init__(self, image_size: int = 8):
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.uint8), {}


class StuckEnv(PointGoalEnv):
    """All of its goals are where it starts."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        start = np.zeros(3)
        return super().reset(seed=seed, options={**(options or {}), "start": start, "goal": start})


class VectorEnv(gymnasium.Env):
    """Moves a point; what it is seen in and measured by are its wrapper's."""

    def __init__(self, image_size: int = 8):
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Measured(gymnasium.Wrapper):
    """All that tasks need on a wrapper: as PointGoalEnv, its distances in float32."""

    criteria = PointGoalEnv.criteria
    levels = PointGoalEnv.levels

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.inner = PointGoalEnv()
        self.observation_space = self.inner.observation_space

    @property
    def goal_state(self) -> np.ndarray:
        """Known from the first reset on, as of many environments."""
        return np.array(self.inner.goal[:3])

    def get_sim_state(self) -> np.ndarray:
        return self.inner.get_sim_state()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        obs, info = self.inner.reset(seed=seed, options=options)
        return obs, self._in_float32(info)

    def step(self, action: np.ndarray):
        *rest, info = self.inner.step(action)
        return *rest, self._in_float32(info)

    def _in_float32(self, info: dict[str, Any]) -> dict[str, Any]:
        distance = {name: np.float32(value) for name, value in info["distance"].items()}
        return {**info, "distance": distance}


def make_measured(image_size: int = 8) -> gymnasium.Env:
    return Measured(VectorEnv(image_size))


gymnasium.register("fake/Measured-v0", entry_point=make_measured)
gymnasium.register("fake/PointGoal-v0", entry_point=PointGoalEnv, max_episode_steps=2)
gymnasium.register("fake/Lame-v0", entry_point=LameEnv)
gymnasium.register("fake/Stuck-v0", entry_point=StuckEnv)
