"""An environment put into recorded states, to see what other actions would have done.

Shapes: F pairs of states, N sequences, T model steps, K actions per step, A action width, S
sim_state.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vjepa_wm.data.recorder import Told, make_env
from vjepa_wm.errors import DataError

_NEEDED = ("get_sim_state", "set_sim_state", "simulate", "criteria")


class Simulator:
    """Privileged: for diagnoses only. Distances are in thresholds, summed over criteria.

    Args:
        env_id: Gymnasium id, ``module:id`` to import a module that registers it.
        image_size: Height and width of the pixels.
        frame_skip: Environment steps per action, which is repeated.

    Raises:
        UnknownNameError: There is no such environment.
        DataError: It does not tell its state.
    """

    def __init__(self, env_id: str, *, image_size: int, frame_skip: int) -> None:
        self._env = make_env(env_id, image_size=image_size)
        self._inner: Any = Told(self._env)
        missing = [name for name in _NEEDED if not hasattr(self._inner, name)]
        if missing:
            self._env.close()
            raise DataError(f"{env_id} has no {', '.join(missing)}: it cannot be diagnosed in")
        self.frame_skip = frame_skip
        self._width = self._env.action_space.shape[0]
        self._thresholds = np.array(list(self._inner.criteria.values()))

    def __enter__(self) -> Self:
        """Return the simulator."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the environment."""
        self._env.close()

    def distances(self, states: NDArray, goals: NDArray) -> NDArray[np.float64]:
        """Measure how far states (F, S) are from goals (F, S): (F,)."""
        pairs = zip(states, goals, strict=True)
        return np.array([self._distance(state, goal) for state, goal in pairs])

    def outcomes(self, state: NDArray, actions: NDArray) -> tuple[NDArray[np.uint8], NDArray]:
        """Try actions from a state (S,), with a picture after each model step.

        Args:
            state: (S,).
            actions: (N, T, K * A), those of a model step side by side.

        Returns:
            Pixels (N, T, H, W, 3) and states (N, T, S).
        """
        self._inner.reset(options={"start": state, "goal": None})
        pixels, states = [], []
        for sequence in actions:
            self._inner.set_sim_state(state)
            for step in sequence:
                for action in step.reshape(-1, self._width).repeat(self.frame_skip, axis=0):
                    obs = self._inner.step(action)[0]
                pixels.append(obs["pixels"])
                states.append(self._inner.get_sim_state())
        shape = actions.shape[:2]
        return (
            np.stack(pixels).reshape(*shape, *pixels[0].shape),
            np.stack(states).reshape(*shape, -1),
        )

    def distances_after(self, state: NDArray, goal: NDArray, actions: NDArray) -> NDArray:
        """Measure how far from a goal (S,) actions (N, T, K * A) from a state end: (N,)."""
        self._inner.reset(options={"start": state, "goal": goal})
        single = actions.reshape(len(actions), -1, self._width)  # (N, T * K, A)
        after = self._inner.simulate(single.repeat(self.frame_skip, axis=1))
        return (after[:, -1] / self._thresholds).sum(axis=-1)

    def _distance(self, state: NDArray, goal: NDArray) -> float:
        _, info = self._inner.reset(options={"start": state, "goal": goal})
        values = np.array([info["distance"][name] for name in self._inner.criteria])
        return float((values / self._thresholds).sum())
