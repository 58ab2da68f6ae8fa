"""Record episodes from any Gymnasium environment that can show a picture of itself."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from PIL import Image

from vjepa_wm.bounds import float32_inside
from vjepa_wm.data.shards import Episode
from vjepa_wm.data.trajectories import TrajectoryMeta
from vjepa_wm.data.truth import Truth
from vjepa_wm.errors import DataError, UnknownNameError

RECORDED_VERSIONS = ("vjepa-wm", "gymnasium", "mujoco", "numpy")
MAX_HOLD_STEPS = 8


class Policy(Protocol):
    """What chooses the actions of a collection."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def act(self) -> np.ndarray:
        """Return the next action ``(A,)``."""


class HeldRandomPolicy:
    """Uniformly random actions, each held for 1 to 8 steps; for environments without a policy.

    Args:
        low: Lowest action ``(A,)``.
        high: Highest action ``(A,)``.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        """Keep the bounds."""
        self._low = low
        self._high = high

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._rng = rng
        self._steps_left = 0

    def act(self) -> np.ndarray:
        """Return the action held now, or draw another."""
        if self._steps_left == 0:
            self._action = self._rng.uniform(self._low, self._high)
            self._steps_left = int(self._rng.integers(1, MAX_HOLD_STEPS + 1))
        self._steps_left -= 1
        return self._action


class Told:
    """What an environment tells beyond Gymnasium's interface, its wrappers first.

    Args:
        env: whose attributes are looked up from the outermost wrapper inwards.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        """Keep the environment."""
        self._env = env

    def __getattr__(self, name: str) -> Any:
        """Look an attribute up; an AttributeError where nobody has it."""
        return self._env.get_wrapper_attr(name)


class Recorder:
    """An environment and the policy that moves it, giving episodes.

    The pixels come from the observation's ``pixels``, from an observation that is an image, or from
    ``render()``; proprio and simulator state are recorded where the environment has them.

    Args:
        env_id: Gymnasium id, ``module:id`` to import a module that registers it.
        image_size: Height and width of the frames, pixels.
        frame_skip: Environment steps per recorded step; the action is repeated.
        options: Further arguments of the environment.

    Raises:
        UnknownNameError: If there is no such environment.
        DataError: If it refuses its options, or its actions are not a bounded vector.
    """

    def __init__(
        self,
        env_id: str,
        *,
        image_size: int,
        frame_skip: int = 1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the environment, without a time limit."""
        self.env_id = env_id
        self.image_size = image_size
        self.frame_skip = frame_skip
        self.env = make_env(env_id, image_size=image_size, options=options)
        self._told: Any = Told(self.env)
        self.low, self.high = _action_bounds(self.env, env_id)
        self.has_sim_state = hasattr(self._told, "get_sim_state")
        self.policy: Policy = (
            self._told.make_policy(frame_skip=frame_skip)
            if hasattr(self._told, "make_policy")
            else HeldRandomPolicy(self.low, self.high)
        )

    def episode(self, seed: np.random.SeedSequence, *, steps: int) -> Episode:
        """Record at most ``steps`` steps; the seed alone decides what happens.

        Args:
            seed: Seeds the environment and the policy, apart from each other.
            steps: Recorded steps; fewer when the environment ends the episode.

        Returns:
            An episode of ``steps + 1`` frames or fewer.
        """
        env_seed, policy_seed = seed.spawn(2)
        # Drawing a goal would cost a render, and nothing of it is recorded.
        options = {"goal": None} if hasattr(self._told, "may_lack_goal") else None
        obs, _ = self.env.reset(seed=int(env_seed.generate_state(1)[0]), options=options)
        self.policy.reset(np.random.default_rng(policy_seed))
        frames, actions = [self._look(obs)], []
        for _ in range(steps):
            action = np.clip(self.policy.act(), self.low, self.high).astype(np.float32)
            obs, is_over = self._step(action)
            actions.append(action)
            frames.append(self._look(obs))
            if is_over:
                break
        pixels, proprio, sim_state = zip(*frames, strict=True)
        return Episode(np.stack(pixels), np.stack(actions), np.stack(proprio), np.stack(sim_state))

    def _step(self, action: np.ndarray) -> tuple[Any, bool]:
        """Repeat one action for the skipped steps."""
        for _ in range(self.frame_skip):
            obs, _, terminated, truncated, _ = self.env.step(action)
            if terminated or truncated:
                return obs, True
        return obs, False

    def _look(self, obs: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return pixels, proprio and simulator state of one moment, each its own copy."""
        is_dict = isinstance(obs, dict)
        if is_dict and "pixels" in obs:
            pixels = obs["pixels"]
        elif isinstance(obs, np.ndarray) and obs.dtype == np.uint8 and obs.ndim == 3:
            pixels = obs
        else:
            pixels = _rendered(self.env)
        proprio = obs["proprio"] if is_dict and "proprio" in obs else np.zeros(0)
        sim_state = self._told.get_sim_state() if self.has_sim_state else np.zeros(0)
        return (
            _resized(pixels, self.image_size),
            _as_vector(proprio),
            np.array(sim_state, np.float64),
        )

    def meta(self, *, episodes: int, steps: int, seed: int) -> TrajectoryMeta:
        """Describe what this recorder records."""
        obs, _ = self.env.reset(seed=seed)
        _, proprio, sim_state = self._look(obs)
        rate = self.env.metadata.get("render_fps") or 1
        has_meaning = hasattr(self._told, "action_meaning")
        return TrajectoryMeta(
            env_id=self.env_id,
            image_size=(self.image_size, self.image_size),
            fps=rate / self.frame_skip,
            action_low=tuple(self.low.tolist()),
            action_high=tuple(self.high.tolist()),
            action_meaning=str(self._told.action_meaning) if has_meaning else "",
            frame_skip=self.frame_skip,
            proprio_dim=len(proprio),
            sim_state_dim=len(sim_state),
            seed=seed,
            steps=steps,
            policy=type(self.policy).__name__,
            versions=_versions(),
            episodes=episodes,
        )

    def truth(self) -> Truth | None:
        """Say what the columns of sim_state mean, where the environment does."""
        return Truth(**self._told.truth_meta) if hasattr(self._told, "truth_meta") else None

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def make_env(
    env_id: str, *, image_size: int, options: Mapping[str, Any] | None = None
) -> gymnasium.Env:
    """Make an environment that can be seen, without a time limit.

    Args:
        env_id: Gymnasium id, ``module:id`` to import a module that registers it.
        image_size: Given to environments that take an ``image_size``, in pixels.
        options: Further arguments of the environment.

    Raises:
        UnknownNameError: If there is no such environment.
        DataError: If it cannot be imported, or refuses its options.
    """
    importlib.import_module("envs")  # chooses how MuJoCo draws, before anybody imports it
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise DataError(f"environment '{env_id}': {error}; install what it is in") from error
    if name not in gymnasium.registry:
        kind = "environment" if module else "environment (module:id imports what registers it)"
        raise UnknownNameError(kind, name, gymnasium.registry)
    spec = gymnasium.spec(name)
    given = {**_picture_options(spec, image_size), **(options or {})}
    try:
        return gymnasium.make(spec, max_episode_steps=-1, disable_env_checker=True, **given)
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise DataError(f"environment '{env_id}': {error}") from error


def _picture_options(spec: EnvSpec, image_size: int) -> dict[str, Any]:
    """Return what an environment is to be made with, so that it gives pictures of this size."""
    creator = spec.entry_point
    creator = load_env_creator(creator) if isinstance(creator, str) else creator
    bases = inspect.getmro(creator) if inspect.isclass(creator) else (creator,)
    known = _parameters(bases)
    given: dict[str, Any] = {"image_size": image_size} if "image_size" in known else {}
    if "render_mode" in known:
        given["render_mode"] = "rgb_array"
    # Gymnasium's MuJoCo environments would draw 480 x 480 pixels. In others width may mean anything
    if any(base.__module__ == "gymnasium.envs.mujoco.mujoco_env" for base in bases):
        given |= {name: image_size for name in ("width", "height") if name in known}
    return given


def _parameters(bases: Iterable[Callable[..., Any]]) -> set[str]:
    """Name what a function or a class can be called with, its bases as far as **kwargs reach."""
    known: set[str] = set()
    for base in bases:
        if inspect.isclass(base) and "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base).parameters
        known |= set(parameters)
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return known


def _action_bounds(env: gymnasium.Env, env_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds ``(A,)`` of a bounded action vector."""
    space = env.action_space
    is_vector = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1
    if not is_vector or not space.is_bounded():
        raise DataError(f"{env_id}: wanted actions in a bounded Box of shape (A,), got {space}")
    low, high = float32_inside(space.low, space.high)  # recorded actions are float32
    return low.astype(np.float64), high.astype(np.float64)


def _rendered(env: gymnasium.Env) -> np.ndarray | None:
    """Draw an environment."""
    try:
        return env.render()
    except gymnasium.error.DependencyNotInstalled as error:
        raise DataError(f"{env.spec.id} cannot be drawn: {error}") from error
    except NotImplementedError as error:
        raise DataError(
            f"{env.spec.id} gives no pictures: wanted an observation with 'pixels', one that is a "
            "picture, or a render() that returns one"
        ) from error


def _as_vector(proprio: Any) -> np.ndarray:
    """Return a copy of proprio, ``(Q,)`` float32."""
    try:
        vector = np.array(proprio, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"proprio: wanted a vector of numbers, got {type(proprio).__name__}; concatenate its "
            "parts in a wrapper"
        ) from error
    if vector.ndim != 1:
        raise DataError(f"proprio: wanted a vector of numbers, got shape {vector.shape}")
    return vector


def _resized(pixels: np.ndarray | None, image_size: int) -> np.ndarray:
    """Return a copy ``(image_size, image_size, 3)``, the middle square scaled where needed.

    An encoder, too, cuts the middle out of wide pictures: what is recorded is what is acted on.
    """
    if pixels is None or pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        got = "nothing" if pixels is None else f"{pixels.dtype} {pixels.shape}"
        raise DataError(
            f"wanted pictures (H, W, 3) uint8, got {got}; the environment needs 'pixels' in its "
            "observation or render_mode 'rgb_array' (one that takes **kwargs is not told that: "
            "register it with kwargs={'render_mode': 'rgb_array'})"
        )
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    pixels = pixels[top : top + side, left : left + side]
    if side == image_size:
        return pixels.copy()
    return np.asarray(Image.fromarray(pixels).resize((image_size, image_size), Image.BILINEAR))


def _versions() -> dict[str, str]:
    """Return the versions of what makes the pictures and the physics."""
    found = {}
    for package in RECORDED_VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
