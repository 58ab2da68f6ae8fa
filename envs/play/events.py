"""What happens in a clip, when, and how it is labelled; and whether it is what the scene is for.

All of it is read off the ground truth of the main object. Shapes: T frames.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from envs.play.looks import COLOURS, SHAPES, TEXTURES, FloatArray
from envs.play.scenes import KINDS
from envs.play.truth import Truth
from envs.play.views import is_inside

NEVER = -1.0
HIDDEN_SHARE = 0.25  # less of an object is seen than this: it is hidden
SHOWN_SHARE = 0.5  # more than this: it is there
REST_SPEED = 0.05  # m/s
REST_TURNING = 0.4  # rad/s
MIN_MOVE = 0.15  # picture widths; who goes less far hardly moves
MIN_INSIDE = 0.4  # share of the clip that it is to be seen in the picture
MIN_DEPTH_M = 0.5  # it is not to hit the lens
SLOW, FAST = 0.42, 0.7  # picture widths per second, limits of the speed classes
_REST_FRAMES = 3
_FREE_FRAMES = 2  # without touching anything, before touching something is landing

DIRECTIONS = ("right", "left", "up", "down")
SPEEDS = ("slow", "medium", "fast")
NO_YES = ("no", "yes")
# Label -> its classes, and what it tells of the main object or of the clip.
LABELS: dict[str, tuple[tuple[str, ...], str]] = {
    "event": (tuple(KINDS), "what happens in the clip"),
    "direction": (DIRECTIONS, "where in the picture it goes, from its start to its farthest"),
    "speed": (SPEEDS, f"its top speed in the picture: {SLOW} and {FAST} widths/s part the classes"),
    "lands": (NO_YES, "whether it hits floor, table or wall after flying free"),
    "touches": (NO_YES, "whether it touches another object"),
    "hides": (NO_YES, "whether it passes behind something"),
    "rests": (NO_YES, "whether it comes to rest before the end"),
    "camera": (("still", "moving"), "whether the camera moves"),
    "shape": (SHAPES, "its shape"),
    "texture": (TEXTURES, "its texture"),
    "colour": (COLOURS, "its colour"),
}
EVENTS = ("touches", "lands", "hides", "shows_again", "rests")


def events(truth: Truth) -> dict[str, float]:
    """Return when each of `EVENTS` happens, seconds; `NEVER` where it does not."""
    times = truth.motion.times
    hides = _hides(truth)
    found = {
        "touches": truth.motion.touches_object,
        "lands": _lands(truth),
        "hides": hides,
        "shows_again": _shown(truth) & (np.cumsum(hides) > 0),
        "rests": _rests(truth),
    }
    return {name: _first(happens, times) for name, happens in found.items()}


def labels(truth: Truth, when: dict[str, float]) -> dict[str, int]:
    """Return the class of each of `LABELS`, given when events happen."""
    look, told = truth.scene.look, {}
    told["event"] = tuple(KINDS).index(truth.scene.kind)
    told["direction"] = _direction(truth)
    told["speed"] = int(np.digitize(top_speed(truth), (SLOW, FAST)))
    for name in ("lands", "touches", "hides", "rests"):
        told[name] = int(when[name] != NEVER)
    told["camera"] = int(truth.scene.camera.is_moving)
    for name in ("shape", "texture", "colour"):
        told[name] = LABELS[name][0].index(look[name])
    return told


def fault(truth: Truth, when: dict[str, float]) -> str | None:
    """Say why a clip is not worth showing, or is not what its kind says; None where it is."""
    places = first_places(truth)
    inside = is_inside(truth.places[:, 0]) & is_inside(places)
    stays = (inside[1:] & inside[:-1]).mean() >= MIN_INSIDE
    if not (inside[0] and stays) or truth.depths[:, 0].min() < MIN_DEPTH_M:
        return "leaves the picture"
    if np.linalg.norm(places - places[0], axis=1)[inside].max() < MIN_MOVE:
        return "hardly moves"
    if np.mean(truth.visible[:, 0] > SHOWN_SHARE) < MIN_INSIDE:
        return "hardly seen"
    is_right = _AGREES[truth.scene.kind](truth, when)
    return None if is_right else f"does not {truth.scene.kind}"


def first_places(truth: Truth) -> FloatArray:
    """Where the main object is in the picture of the first frame's camera (T,2)."""
    return truth.views[0].place(truth.positions[:, 0])


def top_speed(truth: Truth) -> float:
    """Its speed in the first frame's picture that is exceeded a tenth of the time, widths/s."""
    places = first_places(truth)
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) / np.diff(truth.motion.times)
    inside = is_inside(places)
    return float(np.quantile(speeds[inside[1:] & inside[:-1]], 0.9))


def _direction(truth: Truth) -> int:
    places = first_places(truth)
    moved = places - places[0]
    far = np.where(is_inside(places), np.linalg.norm(moved, axis=1), 0.0)
    right, up = moved[int(far.argmax())]
    if abs(right) >= abs(up):
        return 0 if right > 0 else 1
    return 2 if up > 0 else 3


def _first(happens: NDArray[np.bool_], times: FloatArray) -> float:
    return float(times[happens.argmax()]) if happens.any() else NEVER


def _lands(truth: Truth) -> NDArray[np.bool_]:
    """Frames in which it touches scenery after having been free (T,)."""
    touched = truth.motion.touches_scenery
    is_free = ~touched
    lands = touched.copy()
    lands[: _FREE_FRAMES + 1] = False
    for back in range(1, _FREE_FRAMES + 1):
        lands[_FREE_FRAMES + 1 :] &= is_free[_FREE_FRAMES + 1 - back : len(lands) - back]
    return lands


def _shown(truth: Truth) -> NDArray[np.bool_]:
    return truth.visible[:, 0] > SHOWN_SHARE


def _hides(truth: Truth) -> NDArray[np.bool_]:
    """Frames in which it is hidden, in the picture, after having been seen (T,)."""
    hidden = (truth.visible[:, 0] < HIDDEN_SHARE) & is_inside(truth.places[:, 0])
    return hidden & (np.cumsum(_shown(truth)) > 0)


def _rests(truth: Truth) -> NDArray[np.bool_]:
    """Frames from which on it stands still, having moved before (T,)."""
    speed = np.linalg.norm(truth.velocities[:, 0], axis=1)
    still = (speed < REST_SPEED) & (np.linalg.norm(truth.turning[:, 0], axis=1) < REST_TURNING)
    to_the_end = np.logical_and.accumulate(still[::-1])[::-1]
    to_the_end[len(still) - _REST_FRAMES + 1 :] = False
    has_moved = np.maximum.accumulate(speed) > 2 * REST_SPEED
    return to_the_end & has_moved


def _falls(truth: Truth, when: dict[str, float]) -> bool:
    heights = truth.positions[:, 0, 2]
    return when["lands"] != NEVER and when["touches"] == NEVER and heights[0] - heights[-1] > 0.35


def _rolls(truth: Truth, when: dict[str, float]) -> bool:
    turning = np.linalg.norm(truth.turning[1:, 0], axis=1)
    has_turned = (turning * np.diff(truth.motion.times)).sum() > 2.0
    return has_turned and _travels(truth) and when["touches"] == NEVER


def _slides(truth: Truth, when: dict[str, float]) -> bool:
    quaternions = truth.quaternions[:, 0]
    upright = 1 - 2 * (quaternions[:, 1] ** 2 + quaternions[:, 2] ** 2)
    return bool(upright.min() > 0.9) and _travels(truth) and when["touches"] == NEVER


def _collides(truth: Truth, when: dict[str, float]) -> bool:
    moved = np.linalg.norm(truth.positions[-1, 1:] - truth.positions[0, 1:], axis=-1)
    end = truth.motion.times[-1]
    return bool(0.05 * end < when["touches"] < 0.85 * end and moved.max() > 0.05)


def _swings(truth: Truth, when: dict[str, float]) -> bool:
    return _travels(truth)


def _is_occluded(truth: Truth, when: dict[str, float]) -> bool:
    return when["hides"] != NEVER and when["shows_again"] != NEVER


def _travels(truth: Truth) -> bool:
    """Tell whether it gets half a metre away from its start, on the ground or in the air."""
    moved = truth.positions[:, 0] - truth.positions[0, 0]
    return bool(np.linalg.norm(moved, axis=1).max() > 0.5)


_AGREES: dict[str, Callable[[Truth, dict[str, float]], bool]] = {
    "fall": _falls,
    "roll": _rolls,
    "slide": _slides,
    "collide": _collides,
    "swing": _swings,
    "occlude": _is_occluded,
    "arm": _swings,
}
