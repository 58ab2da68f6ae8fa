"""What clips are drawn from: trajectories and folders of videos, behind the same methods.

`draw` decides with a random generator and reads nothing; `read` reads what was decided, anywhere
and in any order. So the clips do not depend on who reads them, or when.

Shapes: T frames of a clip, S side of the square, E episodes or videos.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vjepa_wm.data.held import Room
from vjepa_wm.data.trajectories import Trajectories, split_episodes
from vjepa_wm.data.video_scan import Video, VideoScan
from vjepa_wm.data.videos import Cut, UnreadableError, cut_square, read_pictures
from vjepa_wm.errors import DataError
from vjepa_wm.pretraining.clips import ROUNDING_S, Augment, Clip, ClipSteps

VALIDATION_FRAMES = 16  # of a video, at most
FEWEST_FRAMES = 3  # of a held-out piece, unless all are shorter: one distance has no order
MAX_REPLACEMENTS = 10  # videos that break in a row before the folder is called broken


class Source(Protocol):
    """What clips are drawn from.

    Attributes:
        folder: Where it lies.
        digest: Names its contents.
        is_slow: Whether reading is decoding, which is better left to worker processes.
    """

    folder: Path
    digest: str
    is_slow: bool

    def draw(self, rng: np.random.Generator, count: int) -> list[Clip]:
        """Decide on so many clips."""

    def read(self, clip: Clip) -> tuple[NDArray[np.uint8], dict[str, str]]:
        """Read a clip, (T, S, S, 3), and say what could not be read: name -> why."""

    def hold(self, room: Room) -> "HeldClips | None":
        """Copy all frames to where there is room; None where that cannot be."""

    def validation_frames(self, num_episodes: int) -> Tensor:
        """Read frames of what is held out, uint8 (E, T, S, S, 3)."""


HeldClips = Callable[[Sequence[Clip]], Tensor]  # clips of one `draw` -> uint8 (B, T, S, S, 3)


class TrajectorySource:
    """Clips of the training episodes of trajectories.

    Args:
        trajectories: With square frames of the size that is wanted.
        num_frames: Frames per clip, T.
        steps: How far apart they are.
        augment: Random cuts; None leaves frames as they are.
    """

    is_slow = False

    def __init__(
        self,
        trajectories: Trajectories,
        *,
        num_frames: int,
        steps: ClipSteps,
        augment: Augment | None = None,
    ) -> None:
        self.trajectories = trajectories
        self.folder = trajectories.folder
        self.digest = trajectories.digest
        self.num_frames = num_frames
        self.augment = augment
        self.windows = [
            trajectories.windows(
                num_frames=num_frames if stride else 1,
                stride=stride or 1,
                episodes=trajectories.split()[0],
            )
            for stride in steps.recorded(trajectories)
        ]

    def draw(self, rng: np.random.Generator, count: int) -> list[Clip]:
        """Decide on so many clips, all at one step."""
        frames = self.windows[rng.integers(len(self.windows))].index.sample(rng, count)
        cuts = [None] * count if self.augment is None else self.augment.draw(rng, count)
        return [Clip(0, row, cut, 0) for row, cut in zip(frames, cuts, strict=True)]

    def read(self, clip: Clip) -> tuple[NDArray[np.uint8], dict[str, str]]:
        """Read a clip; a still is repeated to its length."""
        pixels = self.trajectories.pixels.gather(clip.frames[None])[0]
        if clip.cut is not None:
            side = pixels.shape[1]
            pictures = [Image.fromarray(picture) for picture in pixels]
            pixels = np.stack([cut_square(p, side=side, cut=clip.cut) for p in pictures])
        return np.broadcast_to(pixels, (self.num_frames, *pixels.shape[1:])), {}

    def hold(self, room: Room) -> HeldClips | None:
        """Copy all frames to where there is room, if none of them is to be cut."""
        held = room.hold(self.trajectories.pixels) if self.augment is None else None
        if held is None:
            return None

        def read(clips: Sequence[Clip]) -> Tensor:
            pixels = held.gather(np.stack([clip.frames for clip in clips]))
            return pixels.expand(-1, self.num_frames, -1, -1, -1)

        return read

    def validation_frames(self, num_episodes: int) -> Tensor:
        """Read the first held-out episodes that are not too short, cut to the shortest.

        Raises:
            DataError: No episode is held out.
        """
        _, held_out = self.trajectories.split()
        if not len(held_out):
            raise DataError(
                f"{self.folder} holds out no episode of its {self.trajectories.num_episodes} for "
                "validation: record at least two"
            )
        longer = held_out[self.trajectories.lengths[held_out] >= FEWEST_FRAMES]
        chosen = (longer if len(longer) else held_out)[:num_episodes]
        episodes = [self.trajectories.episode(int(i)).pixels for i in chosen]
        length = min(len(pixels) for pixels in episodes)
        return torch.from_numpy(np.stack([pixels[:length] for pixels in episodes]))


class VideoSource:
    """Clips of the videos of a folder; a tenth of the videos is held out.

    A video is drawn uniformly, whatever its length, and the clip's place in it as well.

    Args:
        scan: What is in the folder.
        num_frames: Frames per clip, T.
        steps: How far apart they are.
        side: Of the square, pixels.
        augment: Random cuts; None takes the middle.

    Attributes:
        skipped: Videos that are left out -> why; those that break later come to it.

    Raises:
        DataError: Fewer than two videos are long enough.
    """

    is_slow = True

    def __init__(
        self,
        scan: VideoScan,
        *,
        num_frames: int,
        steps: ClipSteps,
        side: int,
        augment: Augment | None = None,
    ) -> None:
        self.folder = scan.root
        self.digest = scan.digest
        self.num_frames = num_frames
        self.steps = steps
        self.side = side
        self.augment = augment
        self.skipped = dict(scan.skipped)
        videos = [video for video in scan.videos if self._is_long_enough(video)]
        if len(videos) < 2:
            listed = "; ".join(f"{name} ({why})" for name, why in list(self.skipped.items())[:3])
            raise DataError(
                f"{scan.root}: wanted at least two videos that can be used, one to validate "
                f"on, got {len(videos)}. {len(self.skipped)} skipped: {listed}"
            )
        self.videos, self.held_out = (
            [videos[index] for index in half] for half in split_episodes(len(videos))
        )

    def _is_long_enough(self, video: Video) -> bool:
        try:
            self.steps.check(video.timeline, num_frames=self.num_frames)
        except UnreadableError as error:
            self.skipped[video.name] = str(error)
            return False
        return True

    def draw(self, rng: np.random.Generator, count: int) -> list[Clip]:
        """Decide on so many clips, all at one step."""
        which = int(rng.integers(len(self.steps)))
        items = rng.integers(len(self.videos), size=count).tolist()
        places = rng.random(count).tolist()
        seeds = rng.integers(2**62, size=count).tolist()
        cuts = [None] * count if self.augment is None else self.augment.draw(rng, count)
        rows = zip(items, places, cuts, seeds, strict=True)
        return [
            Clip(item, self._pictures(item, which, place), cut, seed)
            for item, place, cut, seed in rows
        ]

    def _pictures(self, item: int, which: int, place: float) -> NDArray[np.int64]:
        times = self.videos[item].timeline
        return self.steps.pictures(times, num_frames=self.num_frames, which=which, place=place)

    def read(self, clip: Clip) -> tuple[NDArray[np.uint8], dict[str, str]]:
        """Read a clip; where its video breaks, one that the clip's seed names takes its place.

        Raises:
            DataError: Those break, too.
        """
        faults: dict[str, str] = {}
        for _ in range(MAX_REPLACEMENTS):
            video = self.videos[clip.item]
            try:
                return self._read(video, clip.frames, clip.cut), faults
            except UnreadableError as error:
                faults[video.name] = str(error)
            (clip,) = self.draw(np.random.default_rng(clip.seed), 1)
        raise DataError(
            f"{MAX_REPLACEMENTS} videos in a row could not be read: {faults}. Was {self.folder} "
            "changed or taken away?"
        )

    def _read(self, video: Video, frames: NDArray[np.int64], cut: Cut | None) -> NDArray[np.uint8]:
        path, starts = self.folder / video.name, video.timeline.starts
        try:
            return read_pictures(path, frames, side=self.side, cut=cut, starts=starts)
        except OSError as error:  # it was there when the folder was looked at
            raise UnreadableError(str(error)) from error

    def hold(self, room: Room) -> None:
        """Videos stay compressed."""

    def validation_frames(self, num_episodes: int) -> Tensor:
        """Read the middles of the first held-out videos, at the shortest step that moves.

        Those of fewer than `FEWEST_FRAMES` such pictures are read only where there are no others.

        Raises:
            DataError: None of them can be read.
        """
        clips = []
        for video in sorted(self.held_out, key=self._is_brief):
            if len(clips) == num_episodes:
                break
            try:
                clips.append(self._read(video, self._validation_pictures(video), None))
            except UnreadableError as error:
                self.skipped[video.name] = str(error)
        if not clips:
            raise DataError(
                f"none of the {len(self.held_out)} held-out videos of {self.folder} can be read"
            )
        clips = [clip for clip in clips if len(clip) >= FEWEST_FRAMES] or clips
        length = min(map(len, clips))
        return torch.from_numpy(np.stack([clip[:length] for clip in clips]))

    def _is_brief(self, video: Video) -> bool:
        return len(self._validation_pictures(video)) < FEWEST_FRAMES

    def _validation_pictures(self, video: Video) -> NDArray[np.int64]:
        """Pictures of a long clip from the middle, as many as fit."""
        chosen = self.steps.strides if self.steps.seconds is None else self.steps.seconds
        step = min((step for step in chosen if step), default=None)
        times = video.timeline
        if self.steps.seconds is not None and step is not None:
            count = min(VALIDATION_FRAMES, max(2, int((times.duration + ROUNDING_S) / step)))
            begin = (times.duration - (count - 1) * step) / 2
            return times.at(begin + np.arange(count) * step)
        stride = 1 if step is None or self.steps.seconds is not None else int(step)
        count = min(VALIDATION_FRAMES, (len(times.starts) - 1) // stride + 1)
        begin = (len(times.starts) - 1 - (count - 1) * stride) // 2
        return begin + np.arange(count) * stride
