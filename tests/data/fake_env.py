"""Tiny environments that draw without a renderer; importing this registers them with Gymnasium."""

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class WalkPolicy:
    """Random actions from the generator it is reset with."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._rng = rng

    def act(self) -> np.ndarray:
        """Return a random action."""
        return self._rng.uniform(-1, 1, 2)


class PointEnv(gymnasium.Env):
    """A point that moves by its action; the picture's first pixel tells where it is."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    action_meaning = "displacement in units of the arena's width, x and y"
    may_lack_goal = True

    def __init__(self, image_size: int = 8, step_seconds: float = 0.0, fail_after: int = -1):
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
                "proprio": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            }
        )
        self.image_size = image_size
        self.step_seconds = step_seconds
        self.fail_after = fail_after
        self.num_steps = 0

    def make_policy(self, *, frame_skip: int = 1) -> WalkPolicy:
        """Return the policy for collecting."""
        return WalkPolicy()

    def get_sim_state(self) -> np.ndarray:
        """Return the position and the number of steps."""
        return np.array([*self.position, self.clock])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin at a random place."""
        super().reset(seed=seed)
        assert options is None or options == {"goal": None}
        self.position = self.np_random.uniform(-1, 1, 2)
        self.clock = 0
        return self._obs(), {}

    def step(self, action: np.ndarray):
        """Move; every 10th step of `Point` is the last when nobody lifts the time limit."""
        time.sleep(self.step_seconds)
        self.num_steps += 1
        if self.num_steps == self.fail_after:
            raise RuntimeError("the point fell off the table")
        self.position = self.position + 0.1 * np.asarray(action, np.float64)
        self.clock += 1
        return self._obs(), 0.0, False, False, {}

    def _obs(self) -> dict[str, np.ndarray]:
        pixels = np.full((self.image_size, self.image_size, 3), self.clock % 256, np.uint8)
        pixels[0, 0, :2] = np.clip(128 + 20 * self.position, 0, 255)
        return {"pixels": pixels, "proprio": self.position.astype(np.float32)}


class ForeignEnv(gymnasium.Env):
    """Somebody else's environment: vector observations, pictures by `render`, an early end."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, render_mode: str | None = None):
        self.action_space = spaces.Box(np.float32([0, -2]), np.float32([1, 2]))
        self.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin an episode of random length."""
        super().reset(seed=seed)
        assert options is None
        self.left = int(self.np_random.integers(3, 9))
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray):
        """Count down."""
        assert self.action_space.contains(action)
        self.left -= 1
        return np.zeros(3, np.float32), 0.0, self.left == 0, False, {}

    def render(self) -> np.ndarray | None:
        """Return a picture that is not square."""
        return None if self.render_mode is None else np.full((20, 30, 3), self.left, np.uint8)


class DiscreteEnv(ForeignEnv):
    """An environment whose actions are no vector."""

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        self.action_space = spaces.Discrete(3)


class WideEnv(ForeignEnv):
    """An environment that hands its options to its base, and whose width is no picture's."""

    def __init__(self, width: int = 5, **options: str | None):
        super().__init__(**options)
        self.width = width

    def render(self) -> np.ndarray | None:
        """Return a picture as wide as the world."""
        return None if super().render() is None else np.zeros((5, self.width, 3), np.uint8)


class EdgeEnv(ForeignEnv):
    """A wide picture whose left and right thirds are red; it takes a size and a render mode."""

    def __init__(self, render_mode: str | None = None, image_size: int = 8):
        super().__init__(render_mode)

    def render(self) -> np.ndarray | None:
        """Return a picture of 20 x 60."""
        if self.render_mode is None:
            return None
        picture = np.zeros((20, 60, 3), np.uint8)
        picture[:, :20, 0] = picture[:, 40:, 0] = 255
        return picture


class Guided(gymnasium.Wrapper):
    """What somebody wraps an environment in, to say how it is explored and what state it is in."""

    def make_policy(self, *, frame_skip: int = 1) -> WalkPolicy:
        """Return the policy for collecting."""
        return WalkPolicy()

    def get_sim_state(self) -> np.ndarray:
        """Return what is left to count down."""
        return np.array([self.env.unwrapped.left], np.float64)


def make_guided() -> gymnasium.Env:
    """Return a wrapped environment, as the entry point of one's own module would."""
    return Guided(ForeignEnv(render_mode="rgb_array"))


gymnasium.register("fake/Edge-v0", entry_point=EdgeEnv)
gymnasium.register("fake/Guided-v0", entry_point=make_guided)
gymnasium.register("fake/Point-v0", entry_point=PointEnv, max_episode_steps=3)
gymnasium.register("fake/Slow-v0", entry_point=PointEnv, kwargs={"step_seconds": 0.005})
gymnasium.register("fake/Failing-v0", entry_point=PointEnv, kwargs={"fail_after": 15})
gymnasium.register("fake/Foreign-v0", entry_point=ForeignEnv)
gymnasium.register("fake/Wide-v0", entry_point=WideEnv)
gymnasium.register("fake/Discrete-v0", entry_point=DiscreteEnv)
