"""What a clip is: how far apart its frames are, and what is cut out of them.

Shapes: T frames of a clip.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.data.videos import Cut, Timeline, UnreadableError
from vjepa_wm.errors import SettingError

OFF_STEP = 0.25  # how far a step in seconds may be off a whole number of recorded steps
ROUNDING_S = 1e-6


@dataclass(frozen=True)
class ClipSteps:
    """How far apart the frames of a clip are; one is drawn per source and batch.

    Attributes:
        strides: In recorded steps, or pictures of a video. 0 is a still, one frame repeated, as
            V-JEPA 2 shows images (arXiv 2506.09985, section 2.2).
        seconds: In seconds, in place of strides; 0 is a still.
    """

    strides: Sequence[int]
    seconds: Sequence[float] | None = None

    def __post_init__(self) -> None:
        name = "strides" if self.seconds is None else "seconds"
        chosen = getattr(self, name)
        if not chosen or min(chosen) < 0:
            raise SettingError(f"{name}: wanted one or more numbers of at least 0, got {chosen}")

    def recorded(self, trajectories: Trajectories) -> list[int]:
        """Return the steps in recorded steps of trajectories.

        Raises:
            SettingError: What was recorded is too coarse for a step in seconds.
        """
        if self.seconds is None:
            return list(self.strides)
        fps = trajectories.meta.fps
        strides = [max(1, round(step * fps)) if step else 0 for step in self.seconds]
        for step, stride in zip(self.seconds, strides, strict=True):
            if abs(step * fps - stride) > OFF_STEP * stride:
                raise SettingError(
                    f"seconds={step:g}: {trajectories.folder} has {fps:g} frames per second, "
                    f"wanted about a multiple of {1 / fps:g} s; the nearest is {stride / fps:g}"
                )
        return strides

    def pictures(self, times: Timeline, *, num_frames: int, which: int, place: float) -> NDArray:
        """Choose the pictures (T,) of a clip.

        Args:
            times: Of the video.
            num_frames: How many.
            which: Index of the step.
            place: Of the clip between beginning and end of the video, in [0, 1).
        """
        if self.seconds is not None and self.seconds[which]:
            offsets = np.arange(num_frames) * self.seconds[which]
            begin = place * max(times.duration - offsets[-1], 0.0)
            return times.at(begin + offsets + ROUNDING_S)
        stride = 0 if self.seconds is not None else self.strides[which]
        span = (num_frames - 1) * stride
        return int(place * (len(times.starts) - span)) + np.arange(num_frames) * stride

    def check(self, times: Timeline, *, num_frames: int) -> None:
        """Refuse a video that has no clip at the longest step.

        Raises:
            UnreadableError: It is too short.
        """
        if self.seconds is not None:
            wanted = (num_frames - 1) * max(self.seconds)
            if times.duration + ROUNDING_S < wanted:
                raise UnreadableError(f"too short: {times.duration:.2f} s, wanted {wanted:.2f} s")
            return
        pictures = max(2, (num_frames - 1) * max(self.strides) + 1)
        if len(times.starts) < pictures:
            raise UnreadableError(f"too short: {len(times.starts)} pictures, wanted {pictures}")

    def __len__(self) -> int:
        """Return the number of steps to draw from."""
        return len(self.strides if self.seconds is None else self.seconds)


@dataclass(frozen=True)
class Augment:
    """Random cuts and mirroring, the same for all frames of a clip (V-JEPA 2's are the defaults).

    Attributes:
        area: Smallest and largest share of the picture's area; None cuts out the middle.
        aspect: Smallest and largest width / height of what is cut out.
        flip: Mirror half of the clips.
        trajectories: Cut frames of trajectories, too, and not of videos alone.
    """

    area: Sequence[float] | None = (0.3, 1.0)
    aspect: Sequence[float] = (0.75, 1.35)
    flip: bool = True
    trajectories: bool = False

    def __post_init__(self) -> None:
        for name, limits in (("area", self.area), ("aspect", self.aspect)):
            if limits is None:
                continue
            if len(limits) != 2 or not 0 < limits[0] <= limits[1]:
                raise SettingError(f"augment.{name}: wanted [low, high] above 0, got {limits}")
        if self.area is not None and self.area[1] > 1:
            raise SettingError(f"augment.area: wanted shares of at most 1, got {self.area}")

    def draw(self, rng: np.random.Generator, count: int) -> list[Cut]:
        """Draw so many cuts."""
        cuts = []
        for area, aspect, left, top, mirrored in rng.random((count, 5)).tolist():
            share = None if self.area is None else _between(self.area, area)
            # Of the logarithm, so that wide is as likely as tall
            ratio = math.exp(_between([math.log(limit) for limit in self.aspect], aspect))
            cuts.append(Cut(share, ratio, left, top, self.flip and mirrored < 0.5))
        return cuts


def _between(limits: Sequence[float], place: float) -> float:
    return limits[0] + place * (limits[1] - limits[0])


class Clip(NamedTuple):
    """What is to be read for one clip.

    Attributes:
        item: Index of the video; 0 for trajectories, whose frames are numbered through.
        frames: Which frames or pictures (T,).
        cut: What becomes the square; None is the middle.
        seed: Of the clip that takes its place if the video breaks.
    """

    item: int
    frames: NDArray[np.int64]
    cut: Cut | None
    seed: int
