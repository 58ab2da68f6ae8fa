"""Impossible twins: an episode told twice, once with an event that no law of physics allows.

Privileged like sim_states: for evaluation, never for an agent. Both twins have the same start and
are given the same actions; they differ in the event and in what follows from it, in nothing else.

Shapes: T frames of a clip, H W image, Q proprio, S sim_state, A action width, N points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.alterations import STUCK_DAMPING, Alteration
from envs.base import PixelGoalEnv
from envs.rendering import CAMERA, load_model, render
from envs.rollouts import STATE_SPEC, FloatArray, read_state

COVERED_FRAMES = 2  # frames for which a plate hides the object before a hidden event
DRIFT_FRAMES = 3  # frames for which an object moves by itself
LEAST_JUMP = 0.12  # metres
_JUMP_TRIES = 50
_PLATE = (120, 120, 120)
_PLATE_MARGIN = 0.015  # metres around the object


@dataclass(frozen=True)
class Event:
    """What happens in the impossible twin, and how it is done.

    Attributes:
        says: What happens, for people.
        physics: Which of `TwinEnv.alterations` the physics goes on with, "" for none.
        look: Which of them the pictures are drawn with, "" for none.
        jumps: Whether the object is put somewhere else.
        drifts: Whether the object is moved beside what moves it.
        ignores_actions: Whether the robot is told to stand still.
        covered: Frames before the event in which a plate hides the object, in both twins.
    """

    says: str
    physics: str = ""
    look: str = ""
    jumps: bool = False
    drifts: bool = False
    ignores_actions: bool = False
    covered: int = 0

    @property
    def must_move(self) -> bool:
        """Whether the event shows in where things are, and so has to be noticeable there."""
        is_seen_otherwise = bool(self.look)
        is_done = bool(self.physics) or self.jumps or self.drifts or self.ignores_actions
        return is_done and not is_seen_otherwise


EVENTS: dict[str, Event] = {
    "nothing": Event("nothing happens; a control, its twins are equal"),
    "vanishes": Event("the object is gone", physics="ghost", look="hidden"),
    "teleports": Event("the object is somewhere else at once", jumps=True),
    "passes_through": Event("what collides passes through", physics="ghost"),
    "slides": Event("the object moves and nothing moves it", drifts=True),
    "stays": Event("the object is pushed and does not move", physics="stuck"),
    "disobeys": Event("the robot stands still whatever its action", ignores_actions=True),
    "changes_colour": Event("the object has other colours", look="colours"),
    "changes_shape": Event("the object has another shape", look="shapes"),
    "vanishes_hidden": Event(
        "behind a plate the object vanishes",
        physics="ghost",
        look="hidden",
        covered=COVERED_FRAMES,
    ),
    "teleports_hidden": Event(
        "behind a plate the object gets elsewhere", jumps=True, covered=COVERED_FRAMES
    ),
    "changes_shape_hidden": Event(
        "behind a plate the object gets another shape", look="shapes", covered=COVERED_FRAMES
    ),
}


# Events that only clips of random scenes have, and why environments that are acted in have not.
ELSEWHERE = {
    "hovers": "it is seen from above, nothing falls",
    "turns_back": "what moves by itself slides here, see slides",
}


class Film(NamedTuple):
    """One twin: pixels uint8 (T,H,W,3), proprio float32 (T,Q), sim_state (T,S)."""

    pixels: NDArray[np.uint8]
    proprio: NDArray[np.float32]
    sim_state: FloatArray


class Twins(NamedTuple):
    """A clip and its impossible twin, equal before `frame`.

    Attributes:
        frame: First frame of the clip that shows the event.
        covered: Frames right before it in which a plate hides the object, in both.
        actions: Given to both (T-1,A).
        possible: What happens.
        impossible: What cannot.
    """

    frame: int
    covered: int
    actions: NDArray[np.float32]
    possible: Film
    impossible: Film


class TwinEnv(PixelGoalEnv):
    """Environment that tells an episode twice, with and without an impossible event.

    `missing_events` says of each event that cannot be here why; `noticeable` is how far, in metres,
    something must be from where it would be in the event's first frame; `object_radius`, in metres,
    is that of what events happen to, around its points.
    """

    alterations: ClassVar[Mapping[str, Alteration]]
    missing_events: ClassVar[Mapping[str, str]] = ELSEWHERE
    noticeable: ClassVar[float]
    object_radius: ClassVar[float]

    def _points(self, qpos: FloatArray) -> FloatArray:
        """Place everything that moves (N,2), in metres."""
        raise NotImplementedError

    def _object_points(self, qpos: FloatArray) -> FloatArray:
        """Place the object that events happen to (N,2), in metres."""
        raise NotImplementedError

    def _put_object(self, qpos: FloatArray, drawn: FloatArray) -> FloatArray | None:
        """Put the object of a state (nq,) where it is in another; None where it would touch."""
        raise NotImplementedError

    def _drift(self, rng: np.random.Generator) -> FloatArray:
        """Draw how an object that moves by itself moves in a frame (nq,)."""
        raise NotImplementedError

    def _is_untouched(self, qpos: FloatArray) -> bool:
        """Tell whether nothing touches the object."""
        del qpos
        return True

    # --- privileged: never for the agent ------------------------------------------------------

    @property
    def events(self) -> dict[str, str]:
        """Events that can be here, name -> what happens."""
        return {
            name: event.says for name, event in EVENTS.items() if name not in self.missing_events
        }

    def make_twins(
        self,
        event: str,
        *,
        seed: int | list[int],
        before: int,
        after: int,
        frame_skip: int = 1,
        steps: int = 50,
    ) -> Twins | None:
        """Explore for one episode and tell a part of it twice.

        It ends the running episode, and what is random of later ones follows from `seed`.

        Args:
            event: One of `events`.
            seed: Decides the episode, the frame and the event.
            before: Frames of the clip before the event.
            after: Frames from the event on.
            frame_skip: Environment steps per frame; the action is repeated.
            steps: Frames of the episode after its first.

        Returns:
            The twins, or None where the episode has no frame at which the event shows.

        Raises:
            ValueError: The event cannot be here, or the clip does not fit the episode.
        """
        told = self._check_event(event, before=before, after=after, steps=steps)
        rng = np.random.default_rng(seed)
        states, actions = self._explored(rng, steps=steps, frame_skip=frame_skip)
        model = load_model(self.scene, alteration=self._alteration(told.physics))
        data = mujoco.MjData(model)
        for frame in rng.permutation(np.arange(before, steps + 2 - after)).tolist():
            after_it = slice(frame - 1, frame - 1 + after)
            mujoco.mj_setState(model, data, states[frame - 1], STATE_SPEC)
            ends = self._happens(
                told, model, data, states[frame], actions[after_it], rng, frame_skip=frame_skip
            )
            if ends is None:
                continue
            drifting = (states[frame - 1 : frame + DRIFT_FRAMES], ends[:DRIFT_FRAMES])
            if told.drifts and not all(map(self._is_untouched, self._qpos(*drifting))):
                continue
            clip = states[frame - before : frame + after]
            return self._twins(told, clip, ends, actions[frame - before : frame + after - 1])
        return None

    # --- inside -------------------------------------------------------------------------------

    def _check_event(self, event: str, *, before: int, after: int, steps: int) -> Event:
        """Refuse what cannot be told."""
        check_event(event, self.events, self.missing_events)
        told = EVENTS[event]
        check_clip(event, covered=told.covered, before=before, after=after, num_frames=steps + 1)
        return told

    def _alteration(self, kind: str) -> Alteration | None:
        return self.alterations[kind] if kind else None

    def _explored(
        self, rng: np.random.Generator, *, steps: int, frame_skip: int
    ) -> tuple[FloatArray, NDArray[np.float32]]:
        """Follow the exploration policy: physics states (T,S-1) and actions (T-1,A)."""
        self._begin(int(rng.integers(2**31)))
        policy = self.make_policy(frame_skip=frame_skip)
        policy.reset(rng)
        states, actions = [read_state(self._model, self._data)], []
        for _ in range(steps):
            actions.append(np.clip(policy.act(), -1.0, 1.0).astype(np.float32))
            for _ in range(frame_skip):
                self._advance(self._data, actions[-1].astype(np.float64))
            states.append(read_state(self._model, self._data))
        return np.stack(states), np.stack(actions)

    def _begin(self, seed: int) -> None:
        """Begin an episode without goal, as `reset` does, but draw nothing."""
        gymnasium.Env.reset(self, seed=seed)
        self._sample_start(None)
        self._goal_state, self._goal, self._held_steps = None, None, 0

    def _happens(
        self,
        told: Event,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        would_be: FloatArray,
        actions: NDArray[np.float32],
        rng: np.random.Generator,
        *,
        frame_skip: int,
    ) -> FloatArray | None:
        """Go on from `data` with the event: physics states (T,S-1), None where it hardly shows."""
        if told.jumps and not self._jump(data, rng):
            return None
        # What is stopped has to stand still already: so much damping would be a blow.
        data.qvel[model.dof_damping >= STUCK_DAMPING] = 0.0
        drift = self._drift(rng) / frame_skip if told.drifts else None
        ends: list[FloatArray] = []
        for action in actions.astype(np.float64):
            control = np.zeros_like(action) if told.ignores_actions else action * self.max_speed
            for _ in range(frame_skip):
                _advance(model, data, control, substeps=self.num_substeps, drift=drift)
            ends.append(read_state(model, data))
            if told.must_move and len(ends) == 1 and self._gap(would_be, ends[0]) < self.noticeable:
                return None
            if len(ends) == DRIFT_FRAMES:
                drift = None
        return np.stack(ends)

    def _jump(self, data: mujoco.MjData, rng: np.random.Generator) -> bool:
        """Put the object somewhere else; False where no place is found."""
        for _ in range(_JUMP_TRIES):
            put = self._put_object(data.qpos.copy(), self._sample_qpos(rng))
            if put is None:
                continue
            moved = self._object_points(put) - self._object_points(data.qpos)
            if np.linalg.norm(moved, axis=-1).max() >= LEAST_JUMP:
                data.qpos[:] = put
                return True
        return False

    def _qpos(self, *states: FloatArray) -> FloatArray:
        """Cut the generalised positions (T,nq) out of physics states (...,T,S-1)."""
        return np.concatenate(states)[:, 1 : 1 + self._model.nq]

    def _gap(self, state: FloatArray, other: FloatArray) -> float:
        """Measure how far apart anything is in two physics states, in metres."""
        here, there = (self._points(qpos) for qpos in self._qpos(state[None], other[None]))
        return float(np.linalg.norm(here - there, axis=-1).max())

    def _twins(
        self, told: Event, clip: FloatArray, ends: FloatArray, actions: NDArray[np.float32]
    ) -> Twins:
        """Draw both versions; what they share is drawn once."""
        frame = len(clip) - len(ends)
        possible = self._film(clip)
        if told.covered:
            hidden = slice(frame - told.covered, frame)
            self._cover(possible.pixels[hidden], self._qpos(clip[hidden]))
        other = self._film(ends, self._alteration(told.look))
        shared = (part[:frame] for part in possible)
        joined = (np.concatenate(pair) for pair in zip(shared, other, strict=True))
        return Twins(frame, told.covered, actions, possible, Film(*joined))

    def _film(self, states: FloatArray, look: Alteration | None = None) -> Film:
        """Observe physics states (T,S-1)."""
        pixels, proprio = [], []
        for state in states:
            mujoco.mj_setState(self._model, self._scratch, state, STATE_SPEC)
            pixels.append(self._draw_altered(self._scratch, look))
            limit = self.proprio_limit
            proprio.append(np.clip(self._proprio(self._scratch.qpos), -limit, limit))
        held = np.zeros((len(states), 1))  # nobody counts success here
        sensed = np.stack(proprio).astype(np.float32)
        return Film(np.stack(pixels), sensed, np.concatenate([states, held], axis=1))

    def _draw_altered(self, data: mujoco.MjData, look: Alteration | None) -> NDArray[np.uint8]:
        """Draw `data` as it is observed, but for what looks different."""
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_camlight(self._model, data)
        size, profile = self.image_size, self.profile
        return render(data, scene=self.scene, size=size, profile=profile, alteration=look)

    def _cover(self, pixels: NDArray[np.uint8], qpos: FloatArray) -> None:
        """Draw a plate over everywhere the object is in frames (T,H,W,3) with positions (T,nq)."""
        points = np.concatenate([self._object_points(one) for one in qpos])
        side = self._model.cam_fovy[self._model.camera(CAMERA).id]  # metres, seen by the picture
        cover(pixels, points / side, reach=(self.object_radius + _PLATE_MARGIN) / side)


def cover(pixels: NDArray[np.uint8], places: FloatArray, *, reach: float) -> None:
    """Draw a plate into frames (T,H,W,3).

    Args:
        pixels: The frames, all of which get the same plate.
        places: What it is to hide (N,2), right and up from the middle, in picture widths.
        reach: How far it is to go beyond them, in picture widths.
    """
    (left, low), (right, high) = places.min(axis=0) - reach, places.max(axis=0) + reach
    size = pixels.shape[1]
    columns = np.clip([(left + 0.5) * size, (right + 0.5) * size], 0, size)
    rows = np.clip([(0.5 - high) * size, (0.5 - low) * size], 0, size)
    across = slice(int(columns[0]), int(np.ceil(columns[1])))
    down = slice(int(rows[0]), int(np.ceil(rows[1])))
    pixels[:, down, across] = _PLATE


def check_event(event: str, events: Mapping[str, str], missing: Mapping[str, str]) -> None:
    """Raise a ValueError for an event that cannot be told, with the reason."""
    if event not in events:
        why = missing.get(event, "it is unknown")
        raise ValueError(f"No event {event!r}: {why}. Known here: {list(events)}.")


def check_clip(event: str, *, covered: int, before: int, after: int, num_frames: int) -> None:
    """Raise a ValueError when a clip of so many frames before and from an event on does not fit."""
    if before <= covered or after < 1 or before + after > num_frames:
        raise ValueError(
            f"{event} wants more than {covered} frames before it, at least 1 from it on, "
            f"and at most {num_frames} in all, got {before} and {after}."
        )


def _advance(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    control: FloatArray,
    *,
    substeps: int,
    drift: FloatArray | None,
) -> None:
    """Run one environment step of physics, perhaps with a drift (nq,) beside it."""
    data.ctrl[:] = control
    if drift is None:
        mujoco.mj_step(model, data, nstep=substeps)
        return
    for _ in range(substeps):
        data.qpos[:] += drift / substeps
        mujoco.mj_step(model, data)
