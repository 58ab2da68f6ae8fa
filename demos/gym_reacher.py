"""Gymnasium's own Reacher-v5, made so that a world model can be trained on it.

The id is demos.gym_reacher:gym/Reacher-v0, importing this module registers it: a pattern for
environments of your own, see docs/your_environment.md.
"""

import gymnasium
import numpy as np
from gymnasium.wrappers import TransformAction

import envs  # noqa: F401  chooses how MuJoCo draws

SIZE = 64  # pixels
TORQUE = 0.1  # of what the motors could do, which spins the arm round between two pictures
FROM_ABOVE = {"distance": 0.55, "elevation": -90.0, "azimuth": 90.0, "lookat": np.zeros(3)}


def make() -> gymnasium.Env:
    """Make it, to be drawn by `render()`; the arm fills the picture."""
    env = gymnasium.make(
        "Reacher-v5",
        render_mode="rgb_array",
        width=SIZE,
        height=SIZE,
        default_camera_config=FROM_ABOVE,
        max_episode_steps=-1,
    )
    env.unwrapped.model.vis.quality.shadowsize = 0  # draws faster
    return TransformAction(env, lambda action: TORQUE * action, env.action_space)


gymnasium.register("gym/Reacher-v0", entry_point=make, max_episode_steps=100)
