"""Compiled scenes and off-screen renderers, shared by all environments of a process."""

import os
import threading
from functools import lru_cache
from importlib import resources

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.alterations import Alteration
from envs.gl import missing_gl_error

PROFILES = ("fast", "pretty")
CAMERA = "top"
# `fast` draws at twice the size and averages 2 x 2 pixels, so that motion below a pixel shows.
FAST_OVERSAMPLING = 2


@lru_cache(maxsize=64)
def load_model(
    scene: str, profile: str = "pretty", alteration: Alteration | None = None
) -> mujoco.MjModel:
    """Compile a scene once per process; the result is shared and must never be written to.

    Args:
        scene: File name without ending in `envs/assets`.
        profile: "pretty" keeps MuJoCo's quality; "fast" has neither shadows nor multisampling.
            Physics is the same in both.
        alteration: What is altered of one body; sim_states fit the altered model, too.

    Returns:
        The compiled model.
    """
    xml = resources.files("envs").joinpath("assets", f"{scene}.xml").read_text(encoding="utf-8")
    spec = mujoco.MjSpec.from_string(xml)
    if profile == "fast":
        spec.visual.quality.shadowsize = 0
        spec.visual.quality.offsamples = 0
        spec.visual.quality.numslices = 16
        spec.visual.quality.numstacks = 8
        for light in spec.lights:
            light.castshadow = False
    model = spec.compile()
    if alteration is not None:
        alteration.apply(model)
    return model


# A GL context belongs to one thread and does not survive a fork, hence both in the key.
@lru_cache(maxsize=64)
def _renderer(
    process_id: int,
    thread_id: int,
    scene: str,
    size: int,
    profile: str,
    alteration: Alteration | None,
) -> mujoco.Renderer:
    """Make the renderer of this process, thread, scene, size (pixels), profile and look."""
    del process_id, thread_id
    model = load_model(scene, profile, alteration)
    try:
        renderer = mujoco.Renderer(model, height=size, width=size)
    except ValueError:  # a size beyond the scene's off-screen buffer; the message says so
        raise
    except Exception as error:  # what is raised depends on the backend and on what is missing
        raise missing_gl_error() from error
    if profile == "fast":
        renderer.scene.flags[int(mujoco.mjtRndFlag.mjRND_SHADOW)] = 0
        renderer.scene.flags[int(mujoco.mjtRndFlag.mjRND_REFLECTION)] = 0
    return renderer


def largest_size(model: mujoco.MjModel, profile: str) -> int:
    """Tell the largest square picture, in pixels, that the scene's off-screen buffer holds."""
    side = min(model.vis.global_.offwidth, model.vis.global_.offheight)
    return side // (FAST_OVERSAMPLING if profile == "fast" else 1)


def average_blocks(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average 2 x 2 pixels, rounding to nearest: (2H,2W,3) -> (H,W,3)."""
    rows = image[0::2].astype(np.uint16)
    rows += image[1::2]
    total = rows[:, 0::2] + rows[:, 1::2]
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def render(
    data: mujoco.MjData,
    *,
    scene: str,
    size: int,
    profile: str,
    alteration: Alteration | None = None,
) -> NDArray[np.uint8]:
    """Draw the scene from its top camera.

    Args:
        data: State whose positions are up to date (`mj_kinematics` and `mj_camlight`).
        scene: The scene `data` belongs to.
        size: Height and width in pixels.
        profile: "fast" for learning, "pretty" for people.
        alteration: What looks different of one body.

    Returns:
        Picture (H,W,3), the caller's own.

    Raises:
        RuntimeError: If no working OpenGL is found.
    """
    oversampling = FAST_OVERSAMPLING if profile == "fast" else 1
    renderer = _renderer(
        os.getpid(), threading.get_ident(), scene, size * oversampling, profile, alteration
    )
    renderer.update_scene(data, camera=CAMERA)
    image = renderer.render()
    return average_blocks(image) if oversampling == 2 else image
