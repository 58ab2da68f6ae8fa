"""Base class of the environments: pixels, velocities, goals as images, success that is held."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.policies import Policy
from envs.rendering import PROFILES, largest_size, load_model, render
from envs.rollouts import STATE_SPEC, FloatArray, copy_state, follow, read_state

HOLD_STEPS = 3  # consecutive steps within every threshold that make a success
NEAR_STEPS = 25  # longest exploration between a start and its "near" goal
_MAX_TRIES = 1000
_TRIES_PER_START = 20
_RESET_OPTIONS = ("start", "goal", "level")


class PixelGoalEnv(gymnasium.Env):
    """Robot seen from above whose goal is a picture of the wanted state.

    Observation: `pixels` uint8 (H,W,3) and `proprio` float32 (Q,), the robot's own sensing.
    Action: float32 (A,) in [-1,1], a velocity as a share of `max_speed`, held for 0.1 s.
    `info` (of `reset` and `step`): `goal` (`pixels`, `proprio`; None in an episode without goal),
    `is_success`, and `distance`, criterion name -> distance to the goal in physical units.
    Success: every distance under its threshold in `criteria` for 3 consecutive steps; it ends the
    episode. Reward: minus the first criterion's distance in units of its threshold.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    scene: ClassVar[str]
    criteria: ClassVar[dict[str, float]]
    levels: ClassVar[tuple[str, ...]] = ("near", "far")
    max_speed: ClassVar[float]
    num_substeps: ClassVar[int] = 10
    proprio_dim: ClassVar[int]
    proprio_limit: ClassVar[float]
    may_lack_goal: ClassVar[bool] = True  # `reset` takes a goal of None, which saves its picture

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        image_size: int = 64,
        profile: str = "fast",
        render_size: int = 256,
    ) -> None:
        """Build the environment on the scene's shared model.

        Args:
            render_mode: None or "rgb_array"; `render` always draws in the pretty profile.
            image_size: Height and width of the observed pixels.
            profile: Quality of the observed pixels, "fast" or "pretty".
            render_size: Height and width of the pictures `render` returns.

        Raises:
            ValueError: If a name is unknown or a size is not positive, or too large to draw.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}.")
        if profile not in PROFILES:
            raise ValueError(f"profile must be one of {list(PROFILES)}, got {profile!r}.")
        self._model = load_model(self.scene)
        for name, size, drawn in (
            ("image_size", image_size, profile),
            ("render_size", render_size, "pretty"),
        ):
            largest = largest_size(self._model, drawn)
            if not 1 <= size <= largest:
                raise ValueError(f"{name} must be from 1 to {largest}, got {size}.")
        self.render_mode = render_mode
        self.image_size = image_size
        self.profile = profile
        self.render_size = render_size
        self._data = mujoco.MjData(self._model)
        self._scratch = mujoco.MjData(self._model)
        self._held_steps = 0
        self._goal_state: FloatArray | None = None
        self._goal: dict[str, NDArray] | None = None
        self.action_space = spaces.Box(-1.0, 1.0, (self._model.nu,), np.float32)
        limit = self.proprio_limit
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
                "proprio": spaces.Box(-limit, limit, (self.proprio_dim,), np.float32),
            }
        )

    # --- what an environment says about itself -----------------------------------------------

    def distances(self, qpos: FloatArray, goal_qpos: FloatArray) -> FloatArray:
        """Measure how far states are from the goal, one column per criterion.

        Args:
            qpos: Generalised positions (...,nq).
            goal_qpos: Generalised positions of the goal (nq,).

        Returns:
            Distances (...,K) in the order and units of `criteria`.
        """
        raise NotImplementedError

    def _proprio(self, qpos: FloatArray) -> FloatArray:
        """Give the robot's own sensing (Q,)."""
        raise NotImplementedError

    def _sample_qpos(self, rng: np.random.Generator) -> FloatArray:
        """Draw a random legal state (nq,)."""
        raise NotImplementedError

    def _sample_scene(
        self, rng: np.random.Generator, data: mujoco.MjData, *, level: str | None
    ) -> None:
        """Draw what varies between episodes of a level, if any, into `data`'s mocap poses."""

    def _accepts_goal(self, level: str, qpos: FloatArray, goal_qpos: FloatArray) -> bool:
        """Tell whether a goal candidate belongs to a level when starting at `qpos`."""
        raise NotImplementedError

    def _policy(self, data: mujoco.MjData, *, frame_skip: int) -> Policy:
        """Build the exploration policy that watches `data`."""
        raise NotImplementedError

    def make_policy(self, *, frame_skip: int = 1) -> Policy:
        """Build the exploration policy of this environment; call its `reset(rng)` per episode.

        Args:
            frame_skip: Environment steps for which each of its actions will be repeated.
        """
        return self._policy(self._data, frame_skip=frame_skip)

    # --- Gymnasium ----------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seed of everything random in this and later episodes; None continues.
            options: `start`: sim_state (S,) to begin at; its success counter is set to zero.
                `goal`: sim_state (S,) of the goal, or None for an episode without one.
                `level`: one of `levels`, for what is sampled of start and goal; "near" unless told.

        Returns:
            Observation and info.

        Raises:
            ValueError: If an option or level is unknown or a state is malformed; the episode before
                goes on.
            RuntimeError: If no goal of the level can be found from a given start; the episode has
                none then.
        """
        options = {} if options is None else options
        level = self._check_options(options)
        super().reset(seed=seed)
        mujoco.mj_resetData(self._model, self._data)
        self._held_steps, self._goal_state, self._goal = 0, None, None
        is_start_given = options.get("start") is not None
        if is_start_given:
            self.set_sim_state(options["start"])
            self._held_steps = 0
        else:
            self._sample_start(level)
        if "goal" not in options:
            self._goal_state = self._sample_goal(level, is_start_given)
        else:
            goal = options["goal"]
            self._goal_state = None if goal is None else np.array(goal, dtype=np.float64)
        self._goal = self._draw_goal()
        return self._observe(self._data), self._info()

    def step(self, action: NDArray) -> tuple[dict[str, NDArray], float, bool, bool, dict[str, Any]]:
        """Hold a velocity for 0.1 s.

        Args:
            action: Share of `max_speed` (A,); clipped to [-1,1].

        Returns:
            Observation, reward, terminated, truncated (always False), info.

        Raises:
            ValueError: If the action has the wrong shape or a value that is not finite.
        """
        self._advance(self._data, self._check_actions(action, (self._model.nu,)))
        info = self._info()
        shares = [value / self.criteria[name] for name, value in info["distance"].items()]
        is_within = bool(shares) and max(shares) < 1.0
        self._held_steps = min(self._held_steps + 1, HOLD_STEPS) if is_within else 0
        info["is_success"] = self._held_steps >= HOLD_STEPS
        reward = -shares[0] if shares else 0.0
        return self._observe(self._data), reward, info["is_success"], False, info

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the current state for people: (H,W,3) in rgb_array mode, None without a mode."""
        if self.render_mode is None:
            return None
        return self.draw(size=self.render_size, profile="pretty")

    def draw(self, *, size: int, profile: str) -> NDArray[np.uint8]:
        """Draw the current state (size,size,3) in either profile, whatever the env observes in."""
        return self._draw(self._data, size, profile)

    # --- privileged: never for the agent ------------------------------------------------------

    @property
    def goal_state(self) -> FloatArray | None:
        """The goal's sim_state (S,), a copy; None in an episode without goal."""
        return None if self._goal_state is None else self._goal_state.copy()

    def get_sim_state(self) -> FloatArray:
        """Copy the whole simulator state (S,), including the success counter (last entry)."""
        return np.append(read_state(self._model, self._data), float(self._held_steps))

    def set_sim_state(self, state: FloatArray) -> None:
        """Restore a state from `get_sim_state`; stepping on from it is bit-identical.

        Args:
            state: Simulator state (S,).

        Raises:
            ValueError: If the shape is wrong or a value is not finite.
        """
        state = self._check_state(state)
        mujoco.mj_setState(self._model, self._data, state[:-1], STATE_SPEC)
        self._held_steps = int(state[-1])

    def simulate(self, actions: NDArray) -> FloatArray:
        """Follow the true dynamics from the current state without disturbing it.

        Args:
            actions: Candidates (N,T,A), clipped to [-1,1].

        Returns:
            Distances to the goal after each step (N,T,K), in the order of `criteria`.

        Raises:
            ValueError: If the actions are malformed.
            RuntimeError: If the episode has no goal.
        """
        if self._goal_state is None:
            raise RuntimeError("simulate measures distances to the goal; this episode has none.")
        return self.distances(self._follow(actions), self._qpos_of(self._goal_state))

    def simulate_obs(self, actions: NDArray, *, steps: Sequence[int]) -> dict[str, NDArray]:
        """Observe where the true dynamics lead from the current state without disturbing it.

        Args:
            actions: Candidates (N,T,A), clipped to [-1,1].
            steps: Which F of the T steps to observe, from 0; only these are drawn.

        Returns:
            `pixels` uint8 (N,F,H,W,3) and `proprio` float32 (N,F,Q) after each of these steps.

        Raises:
            ValueError: If the actions are malformed, or there are no steps.
        """
        if not len(steps):
            raise ValueError("steps: wanted at least one to observe, got none.")
        ends = self._follow(actions)[:, list(steps)]
        copy_state(self._model, self._data, self._scratch)
        observed = []
        for qpos in ends.reshape(-1, self._model.nq):
            self._scratch.qpos[:] = qpos
            observed.append(self._observe(self._scratch))
        stacked = {name: np.stack([obs[name] for obs in observed]) for name in observed[0]}
        return {name: s.reshape(*ends.shape[:2], *s.shape[1:]) for name, s in stacked.items()}

    def distance_between(self, state: FloatArray, other: FloatArray) -> dict[str, float]:
        """Measure how far apart two sim_states (S,) are, by criterion, in physical units.

        Raises:
            ValueError: If a state is malformed.
        """
        ends = (self._qpos_of(self._check_state(s)) for s in (state, other))
        return dict(zip(self.criteria, self.distances(*ends).tolist(), strict=True))

    # --- inside -------------------------------------------------------------------------------

    def _check_options(self, options: Mapping[str, Any]) -> str:
        """Refuse unknown reset options and malformed states, and return the level."""
        for name in options:
            if name not in _RESET_OPTIONS:
                raise ValueError(_unknown("reset option", name, _RESET_OPTIONS))
        level = options.get("level", self.levels[0])
        if level not in self.levels:
            raise ValueError(_unknown("level", level, self.levels))
        for name in ("start", "goal"):
            if options.get(name) is not None:
                self._check_state(options[name])
        return level

    def _check_actions(self, actions: NDArray, shape: tuple[int, ...]) -> FloatArray:
        """Refuse malformed actions and clip the others."""
        actions = np.asarray(actions, dtype=np.float64)
        if actions.shape != shape:
            raise ValueError(f"Action must have shape {shape}, got {actions.shape}.")
        if not np.isfinite(actions).all():
            raise ValueError(f"Action must be finite, got {actions}.")
        return np.clip(actions, -1.0, 1.0)

    def _check_state(self, state: FloatArray) -> FloatArray:
        """Refuse a malformed simulator state."""
        state = np.asarray(state, dtype=np.float64)
        wanted = (mujoco.mj_stateSize(self._model, STATE_SPEC) + 1,)
        if state.shape != wanted:
            raise ValueError(f"sim_state must have shape {wanted}, got {state.shape}.")
        if not np.isfinite(state).all():
            raise ValueError("sim_state must be finite, got NaN or infinity.")
        return state

    def _follow(self, actions: NDArray) -> FloatArray:
        """Try candidates (N,T,A) out; returns generalised positions after each step (N,T,nq)."""
        actions = np.asarray(actions)
        if actions.ndim != 3 or not len(actions):
            raise ValueError(f"actions must have shape (N, T, A), N > 0, got {actions.shape}.")
        actions = self._check_actions(actions, (*actions.shape[:2], self._model.nu))
        controls = np.repeat(actions * self.max_speed, self.num_substeps, axis=1)
        ends = follow(self._model, self._data, self._scratch, controls)
        return ends[:, self.num_substeps - 1 :: self.num_substeps]

    def _qpos_of(self, state: FloatArray) -> FloatArray:
        """Cut the generalised positions (nq,) out of a sim_state, which begins with the time."""
        return state[1 : 1 + self._model.nq]

    def _advance(self, data: mujoco.MjData, action: FloatArray) -> None:
        """Run one environment step of physics on `data`."""
        data.ctrl[:] = action * self.max_speed
        mujoco.mj_step(self._model, data, nstep=self.num_substeps)

    def _draw(self, data: mujoco.MjData, size: int, profile: str) -> NDArray[np.uint8]:
        """Draw `data`; the two calls place bodies and camera and leave the dynamics alone."""
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_camlight(self._model, data)
        return render(data, scene=self.scene, size=size, profile=profile)

    def _observe(self, data: mujoco.MjData) -> dict[str, NDArray]:
        """Give the observation of `data`."""
        proprio = np.clip(self._proprio(data.qpos), -self.proprio_limit, self.proprio_limit)
        return {
            "pixels": self._draw(data, self.image_size, self.profile),
            "proprio": proprio.astype(np.float32),
        }

    def _draw_goal(self) -> dict[str, NDArray] | None:
        """Observe the goal state, if there is one."""
        if self._goal_state is None:
            return None
        mujoco.mj_setState(self._model, self._scratch, self._goal_state[:-1], STATE_SPEC)
        return self._observe(self._scratch)

    def _distance(self) -> dict[str, float]:
        """Measure every criterion now; empty without a goal."""
        if self._goal_state is None:
            return {}
        values = self.distances(self._data.qpos, self._qpos_of(self._goal_state))
        return {name: float(v) for name, v in zip(self.criteria, values, strict=True)}

    def _info(self) -> dict[str, Any]:
        """Describe the present; the goal is copied, as callers may keep or change what they get."""
        goal = self._goal
        return {
            "goal": None if goal is None else {name: part.copy() for name, part in goal.items()},
            "is_success": self._held_steps >= HOLD_STEPS,
            "distance": self._distance(),
        }

    def _sample_start(self, level: str | None) -> None:
        """Draw a random start at rest into the episode's data, in a scene of the level."""
        mujoco.mj_resetData(self._model, self._data)
        self._sample_scene(self.np_random, self._data, level=level)
        self._data.qpos[:] = self._sample_qpos(self.np_random)

    def _sample_goal(self, level: str, is_start_given: bool) -> FloatArray:
        """Draw a goal of the level; starts from which none is found soon are drawn anew."""
        for attempt in range(_MAX_TRIES):
            if attempt % _TRIES_PER_START == _TRIES_PER_START - 1 and not is_start_given:
                self._sample_start(level)
            goal_qpos = self._explore() if level == "near" else self._sample_qpos(self.np_random)
            if self._accepts_goal(level, self._data.qpos, goal_qpos):
                return self._state_at(goal_qpos)
        raise RuntimeError(f"Found no {level!r} goal from this start in {_MAX_TRIES} tries.")

    def _explore(self) -> FloatArray:
        """Explore on the scratch data for at most 25 steps and return where it ends (nq,)."""
        copy_state(self._model, self._data, self._scratch)
        policy = self._policy(self._scratch, frame_skip=1)
        policy.reset(self.np_random)
        for _ in range(int(self.np_random.integers(NEAR_STEPS // 2, NEAR_STEPS + 1))):
            self._advance(self._scratch, np.clip(policy.act(), -1.0, 1.0).astype(np.float64))
        return self._scratch.qpos.copy()

    def _state_at(self, qpos: FloatArray) -> FloatArray:
        """Make the sim_state (S,) of a rest at `qpos` in this episode's scene."""
        mujoco.mj_resetData(self._model, self._scratch)
        copy_state(self._model, self._data, self._scratch)
        self._scratch.time = 0.0
        self._scratch.qpos[:] = qpos
        self._scratch.qvel[:] = 0.0
        self._scratch.qacc_warmstart[:] = 0.0
        return np.append(read_state(self._model, self._scratch), 0.0)


def _unknown(kind: str, name: object, known: tuple[str, ...]) -> str:
    """Say that a name is unknown, with the nearest one and the list."""
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
    return f"Unknown {kind} {name!r}. Did you mean {nearest[0]!r}? Known: {list(known)}."
