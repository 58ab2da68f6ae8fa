"""Draws possible and impossible versions of the same scenes from an environment that has some.

Shapes: B pairs of clips, T frames, H W image, A action width, Q proprio width.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.data.recorder import Told, make_env
from vjepa_wm.errors import DataError, UnknownNameError
from vjepa_wm.progress import Progress, no_progress

TRIES = 40  # episodes looked at per pair before an event counts as too rare
_NEEDED = ("events", "missing_events", "make_twins")


@dataclass(frozen=True)
class TwinClips:
    """Pairs of clips; the first of two is possible, the second is not.

    Attributes:
        event: What happens in the second.
        says: The same in words.
        frame: First frame that shows it; before it both are equal.
        covered: Frames right before it in which a plate hides the object, in both.
        episodes: Number of the episode of each pair, which its seed follows from (B,).
        pixels: uint8 (2, B, T, H, W, 3).
        actions: Of both (B, T - 1, A).
        proprio: (2, B, T, Q).
    """

    event: str
    says: str
    frame: int
    covered: int
    episodes: tuple[int, ...]
    pixels: NDArray[np.uint8]
    actions: NDArray[np.float32]
    proprio: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of pairs B."""
        return len(self.episodes)

    @property
    def window(self) -> slice:
        """Frames that are scored: from the event on, or the one in which a plate is gone again.

        Afterwards nothing tells that frame from any other.
        """
        return slice(self.frame, self.frame + 1 if self.covered else None)


class Stage:
    """An environment that tells episodes twice. Privileged: for evaluation only.

    Args:
        env_id: Gymnasium id, ``module:id`` to import a module that registers it.
        image_size: Height and width of the pixels.
        frame_skip: Environment steps per frame; the action is repeated.

    Raises:
        UnknownNameError: There is no such environment.
        DataError: It has no impossible versions of its scenes.
    """

    def __init__(self, env_id: str, *, image_size: int, frame_skip: int) -> None:
        self._env = make_env(env_id, image_size=image_size)
        self._inner: Any = Told(self._env)
        missing = [name for name in _NEEDED if not hasattr(self._inner, name)]
        if missing:
            self._env.close()
            raise DataError(
                f"{env_id} has no {', '.join(missing)}: no impossible versions of its scenes are "
                "known; curves of recorded episodes need none: name their folder with data="
            )
        self.env_id = env_id
        self.frame_skip = frame_skip
        self.events: dict[str, str] = dict(self._inner.events)
        self.missing: dict[str, str] = dict(self._inner.missing_events)

    def __enter__(self) -> Self:
        """Return the stage."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the environment."""
        self._env.close()

    def check(self, event: str) -> None:
        """Raise an `UnknownNameError` for an event that is not known at all."""
        if event not in {**self.events, **self.missing}:
            raise UnknownNameError("event", event, {**self.events, **self.missing})

    def draw(
        self,
        event: str,
        *,
        count: int,
        before: int,
        after: int,
        seed: int,
        progress: Progress = no_progress,
    ) -> TwinClips:
        """Draw pairs, each from an episode of its own, so that they are independent.

        Args:
            event: One of `events`.
            count: Number of pairs B.
            before: Frames before the event.
            after: Frames from it on.
            seed: Of the episodes; the same ones are looked at for every event.
            progress: Makes the progress bar.

        Raises:
            DataError: The event hardly ever can happen, or the clips do not fit an episode.
        """
        found, episodes = [], []
        with progress(total=count, desc=f"draw {event}", unit="pairs") as bar:
            for episode in range(TRIES * count):
                twins = self._tell(event, [seed, episode], before=before, after=after)
                if twins is None:
                    continue
                found.append(twins)
                episodes.append(episode)
                bar.update(1)
                if len(found) == count:
                    break
            else:
                raise DataError(
                    f"{event} could happen in {len(found)} of {TRIES * count} episodes of "
                    f"{self.env_id}, wanted {count}: ask for fewer pairs, or name other events"
                )
        films = [[getattr(twins, kind) for twins in found] for kind in ("possible", "impossible")]
        return TwinClips(
            event=event,
            says=self.events[event],
            frame=found[0].frame,
            covered=found[0].covered,
            episodes=tuple(episodes),
            pixels=np.stack([[film.pixels for film in row] for row in films]),
            actions=np.stack([twins.actions for twins in found]),
            proprio=np.stack([[film.proprio for film in row] for row in films]),
        )

    def _tell(self, event: str, seed: list[int], *, before: int, after: int) -> Any:
        try:
            return self._inner.make_twins(
                event, seed=seed, before=before, after=after, frame_skip=self.frame_skip
            )
        except ValueError as error:
            raise DataError(str(error)) from error
