"""Draws the frames of a clip: every clip has a model of its own, all share one OpenGL context.

`mujoco.Renderer` makes a context per model. With Mesa's software renderer that costs more than all
frames of a clip, as shaders are compiled anew in each.
"""

import os
import threading
from functools import lru_cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.gl import missing_gl_error
from envs.rendering import FAST_OVERSAMPLING, average_blocks

_MAX_GEOMS = 200
_SMALLEST_FONT = int(mujoco.mjtFontScale.mjFONTSCALE_50.value)  # no text is drawn
_OFFSCREEN = int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value)


# A GL context belongs to one thread and does not survive a fork, hence both in the key.
@lru_cache(maxsize=16)
def _gl_context(process_id: int, thread_id: int, size: int) -> mujoco.GLContext:
    """Make the OpenGL context of this process, thread and size (pixels)."""
    del process_id, thread_id
    return mujoco.GLContext(size, size)


class Pictures:
    """Draws states of one model by its camera; close it when the model is done with.

    Args:
        model: With one camera, small enough an image in `size`.
        size: Height and width of the pictures, pixels.

    Raises:
        RuntimeError: If no working OpenGL is found.
    """

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        side = FAST_OVERSAMPLING * size
        model.vis.global_.offwidth = model.vis.global_.offheight = side
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, side, side)
        self._buffer = np.empty((side, side, 3), np.uint8)
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 1  # each object has a group of its own
        self._camera = mujoco.MjvCamera()
        self._camera.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)
        self._camera.fixedcamid = 0
        try:
            self._gl = _gl_context(os.getpid(), threading.get_ident(), side)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, _SMALLEST_FONT)
        except Exception as error:  # what is raised depends on the backend and on what is missing
            raise missing_gl_error() from error

    def draw(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        """Draw a state whose positions are up to date (`mj_kinematics` and `mj_camlight`).

        Returns:
            Picture (H,W,3), the caller's own.
        """
        self._gl.make_current()
        mujoco.mjr_setBuffer(_OFFSCREEN, self._context)  # others draw into the same OpenGL context
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._option,
            None,
            self._camera,
            int(mujoco.mjtCatBit.mjCAT_ALL),
            self._scene,
        )
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._buffer, None, self._rect, self._context)
        return average_blocks(np.flipud(self._buffer))

    def close(self) -> None:
        """Free what the model has in the graphics memory."""
        self._gl.make_current()
        self._context.free()
