"""MuJoCo environments with goal images; importing this package registers them with Gymnasium."""

import gymnasium

from envs.gl import configure_gl

# mujoco reads MUJOCO_GL while it is being imported, so this must come before the first such import.
configure_gl()

ENV_IDS = (
    "vjepa_wm/TwoRooms-v0",
    "vjepa_wm/Reacher-v0",
    "vjepa_wm/Push-v0",
    "vjepa_wm/PushT-v0",
)
_ENTRY_POINTS = (
    "envs.two_rooms:TwoRoomsEnv",
    "envs.reacher:ReacherEnv",
    "envs.push:PushEnv",
    "envs.push:PushTEnv",
)

for _id, _entry_point in zip(ENV_IDS, _ENTRY_POINTS, strict=True):
    gymnasium.register(_id, entry_point=_entry_point, max_episode_steps=50)

# Watched, not acted in: no goals, and an end of its own.
gymnasium.register("vjepa_wm/Play-v0", entry_point="envs.play.env:PlayEnv")

__all__ = ["ENV_IDS"]
