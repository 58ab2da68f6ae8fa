"""Play: clips of random scenes as a Gymnasium environment that is watched and not acted in."""

import difflib
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.impossible import Film, Twins, check_clip, check_event
from envs.play.drawing import Pictures
from envs.play.events import LABELS, events, fault
from envs.play.impossible import HAPPENINGS, MISSING, Happening, hide, tell_otherwise
from envs.play.layout import columns, rows, targets
from envs.play.looks import FloatArray
from envs.play.scenes import KINDS, build
from envs.play.simulation import Motion, UnstableError, compile_scene, simulate
from envs.play.truth import Truth, observe, place_state
from envs.play.views import View

MAX_STEP_S = 0.0045  # longest physical time step
MAX_REDRAWS = 200


class Clip(NamedTuple):
    """A clip that is to be drawn.

    Attributes:
        model: The compiled scene.
        truth: What happens in it.
        rows: The same as numbers (T,S).
    """

    model: mujoco.MjModel
    truth: Truth
    rows: FloatArray


class PlayEnv(gymnasium.Env):
    """Random scenes of things that fall, roll, slide, collide, swing, hide, and of arms.

    `reset` builds a scene and lets its physics run for the whole clip; steps only draw it. A scene
    whose physics is not sane, or in which does not happen what it is for, is thrown away and
    another is built in its place; `get_sim_state` says how often. Every episode lasts `num_frames`
    frames, then it is truncated. There is nothing to do: actions have no entries.

    Observation: `pixels` uint8 (H,W,3). `get_sim_state` is the ground truth of the frame, whose
    columns and labels `truth_meta` explains.

    Args:
        render_mode: None or "rgb_array".
        image_size: Height and width of the pixels.
        fps: Frames per second of simulated time.
        num_frames: Frames of a clip.
        kinds: Kinds of scenes, drawn alike; None for all.
        shadow_share: Share of clips with shadows; they cost several times as much to draw.

    Raises:
        ValueError: If a kind is unknown or a number is out of its range.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 12}
    action_meaning = "none: clips are watched"
    missing_events: ClassVar[dict[str, str]] = MISSING

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        image_size: int = 64,
        fps: float = 12.0,
        num_frames: int = 32,
        kinds: Sequence[str] | None = None,
        shadow_share: float = 0.2,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}.")
        if image_size < 1 or num_frames < 8 or not 1 <= fps <= 1 / MAX_STEP_S:
            raise ValueError(
                "wanted image_size of 1 or more, num_frames of 8 or more, fps of 1 to "
                f"{1 / MAX_STEP_S:.0f}, got {image_size}, {num_frames} and {fps}."
            )
        if not 0 <= shadow_share <= 1:
            raise ValueError(f"shadow_share must be from 0 to 1, got {shadow_share}.")
        self.render_mode = render_mode
        self.image_size = image_size
        self.num_frames = num_frames
        self.kinds = tuple(KINDS) if kinds is None else _checked(kinds)
        self.shadow_share = shadow_share
        self.substeps = math.ceil(1 / (fps * MAX_STEP_S))
        self.step_s = 1 / (fps * self.substeps)
        self.metadata = {**self.metadata, "render_fps": float(fps)}
        nothing = np.zeros(0, np.float32)
        self.action_space = spaces.Box(nothing, nothing, (0,), np.float32)
        pixels = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = spaces.Dict({"pixels": pixels})
        self._clip: Clip | None = None
        self._pictures: Pictures | None = None
        self._data: mujoco.MjData | None = None
        self._frame = 0

    @property
    def truth_meta(self) -> dict[str, Any]:
        """What the columns of `get_sim_state` mean, as JSON can hold it.

        `columns`: name -> columns. `targets`: what of the main object's state is worth telling
        -> columns. `labels`: name -> its column, its classes and what it tells. `settings`: what
        else decides what clips are like.
        """
        where = columns()
        return {
            "columns": where,
            "targets": targets(),
            "labels": {
                name: {
                    "column": where[f"label_{name}"][0],
                    "classes": list(classes),
                    "meaning": meaning,
                }
                for name, (classes, meaning) in LABELS.items()
            },
            "settings": {
                "physics_step_s": self.step_s,
                "physics_steps_per_frame": self.substeps,
                "num_frames": self.num_frames,
                "kinds": list(self.kinds),
                "shadow_share": self.shadow_share,
            },
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """Build the next clip and show its first frame.

        Args:
            seed: Seed of this and later clips; None continues.
            options: None; there are none.

        Raises:
            ValueError: If there are options.
            RuntimeError: If no scene is as it should be.
        """
        super().reset(seed=seed)
        if options:
            raise ValueError(f"reset takes no options here, got {sorted(options)}.")
        self.close()
        self._clip = self._draw_clip(int(self.np_random.integers(2**63)), self.kinds)
        self._frame = 0
        return self._observe(), {}

    def step(self, action: NDArray) -> tuple[dict[str, NDArray], float, bool, bool, dict[str, Any]]:
        """Show the next frame.

        Args:
            action: Nothing (0,).

        Returns:
            Observation, reward (0), terminated (False), truncated at the last frame, info.

        Raises:
            ValueError: If there is an action.
            RuntimeError: If the clip is over.
        """
        if np.shape(action) != (0,):
            raise ValueError(f"Action must have shape (0,), got {np.shape(action)}.")
        if self._frame == self.num_frames - 1:
            raise RuntimeError("The clip is over: call reset.")
        self._frame += 1
        return self._observe(), 0.0, False, self._frame == self.num_frames - 1, {}

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the current frame (H,W,3) in rgb_array mode, None without a mode."""
        return None if self.render_mode is None else self._observe()["pixels"]

    def get_sim_state(self) -> FloatArray:
        """Return the ground truth of the current frame (S,), see `truth_meta`; privileged."""
        return self._shown().rows[self._frame].copy()

    def close(self) -> None:
        """Free what draws."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None

    # --- impossible twins, privileged as well ---------------------------------------------------

    @property
    def events(self) -> dict[str, str]:
        """Events that can be told of these clips, name -> what happens."""
        return {
            name: told.says
            for name, told in HAPPENINGS.items()
            if not set(told.kinds).isdisjoint(self.kinds)
        }

    def make_twins(
        self, event: str, *, seed: int | list[int], before: int, after: int, frame_skip: int = 1
    ) -> Twins | None:
        """Draw a clip and tell a part of it twice; see `envs.impossible.TwinEnv.make_twins`.

        Raises:
            ValueError: The event cannot be here, or the part does not fit the clip.
        """
        check_event(event, self.events, self.missing_events)
        told = HAPPENINGS[event]
        check_clip(
            event, covered=told.covered, before=before, after=after, num_frames=self.num_frames
        )
        if frame_skip != 1:
            raise ValueError(f"frame_skip must be 1, a clip has a frame per step: {frame_skip}.")
        rng = np.random.default_rng(seed)
        kinds = [kind for kind in told.kinds if kind in self.kinds]
        clip = self._draw_clip(int(rng.integers(2**63)), kinds)
        possible = np.flatnonzero(told.may(clip.truth))
        possible = possible[(possible >= before) & (possible <= self.num_frames - after)]
        for frame in rng.permutation(possible).tolist():
            last = frame + after
            other = tell_otherwise(
                told, clip.truth, rng, frame=frame, num_frames=last, substeps=self.substeps
            )
            if other is not None:
                before_it, from_it = range(frame - before, frame), range(frame, last)
                return self._twins(told, clip, other, before_it=before_it, from_it=from_it)
        return None

    def _twins(
        self,
        told: Happening,
        clip: Clip,
        other: tuple[mujoco.MjModel, Motion],
        *,
        before_it: range,
        from_it: range,
    ) -> Twins:
        """Draw a part of a clip as it was, and as it went on otherwise."""
        frame, truth = len(before_it), clip.truth
        film = self._film(clip.model, truth.motion, truth, range(before_it.start, from_it.stop))
        if told.covered:
            hidden = before_it[-told.covered :]
            hide(film.pixels[frame - told.covered : frame], truth, hidden)
        ends = self._film(*other, truth, from_it)
        shared = (part[:frame] for part in film)
        joined = (np.concatenate(pair) for pair in zip(shared, ends, strict=True))
        nothing = np.zeros((len(film.pixels) - 1, 0), np.float32)  # no actions
        return Twins(frame, told.covered, nothing, film, Film(*joined))

    def _film(self, model: mujoco.MjModel, motion: Motion, truth: Truth, frames: range) -> Film:
        """Draw frames of a motion as the camera of a clip sees them."""
        pictures, data = Pictures(model, self.image_size), mujoco.MjData(model)
        drawn = [_draw(pictures, model, data, motion, truth.views[at], at) for at in frames]
        pictures.close()
        states = np.concatenate([motion.qpos, motion.qvel], axis=1)[frames.start : frames.stop]
        return Film(np.stack(drawn), np.zeros((len(frames), 0), np.float32), states)

    # --- inside -------------------------------------------------------------------------------

    def _shown(self) -> Clip:
        if self._clip is None:
            raise RuntimeError("Call reset first.")
        return self._clip

    def _draw_clip(self, seed: int, kinds: Sequence[str]) -> Clip:
        """Build scenes until one is as it should be; the kind is drawn once, so all come alike."""
        kind = str(np.random.default_rng(seed).choice(kinds))
        for attempt in range(MAX_REDRAWS):
            rng = np.random.default_rng([seed, attempt])
            scene = build(kind, rng, step_s=self.step_s, shadow_share=self.shadow_share)
            model = compile_scene(scene)
            try:
                motion = simulate(model, scene, num_frames=self.num_frames, substeps=self.substeps)
            except UnstableError:
                continue
            truth = observe(model, scene, motion)
            if fault(truth, events(truth)) is None:
                return Clip(model, truth, rows(truth, redraws=attempt))
        raise RuntimeError(
            f"None of {MAX_REDRAWS} scenes of the kind {kind!r} was as it should be: give clips "
            f"more time, {self.num_frames} frames at {self.metadata['render_fps']:g} fps may be "
            "too short, or leave this kind out."
        )

    def _observe(self) -> dict[str, NDArray]:
        """Draw the current frame."""
        model, truth, _ = self._shown()
        if self._pictures is None:
            self._pictures = Pictures(model, self.image_size)
            self._data = mujoco.MjData(model)
        view, at = truth.views[self._frame], self._frame
        return {"pixels": _draw(self._pictures, model, self._data, truth.motion, view, at)}


def _draw(
    pictures: Pictures,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    motion: Motion,
    view: View,
    frame: int,
) -> NDArray[np.uint8]:
    """Draw a frame of a motion as a camera sees it."""
    model.cam_pos[0], model.cam_quat[0] = view.position, view.quaternion
    place_state(model, data, motion, frame)
    mujoco.mj_camlight(model, data)
    return pictures.draw(data)


def _checked(kinds: Sequence[str]) -> tuple[str, ...]:
    """Refuse kinds that there are not."""
    for kind in kinds:
        if kind not in KINDS:
            nearest = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"Unknown kind of scene {kind!r}. Did you mean {nearest!r}? Known: {list(KINDS)}."
            )
    if not kinds:
        raise ValueError(f"kinds is empty. Known: {list(KINDS)}.")
    return tuple(kinds)
