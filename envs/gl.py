"""Choose how MuJoCo draws without a screen, and explain what to do when it cannot."""

import ctypes
import os
import sys

MISSING_GL_MESSAGE = (
    "MuJoCo cannot draw: no working OpenGL was found (MUJOCO_GL is {backend!r}).\n"
    "On Debian or Ubuntu: apt-get install -y libegl1 libgl1\n"
    "If these are installed: import envs before mujoco, which chooses its backend on import,\n"
    "or set MUJOCO_GL to egl, osmesa or glfw before Python starts."
)


def _loads(*library_names: str) -> bool:
    """Tell whether every one of these shared libraries can be loaded."""
    try:
        for name in library_names:
            ctypes.CDLL(name)
    except OSError:
        return False
    return True


def choose_backend() -> str | None:
    """Pick the backend for a machine without a screen.

    Returns:
        "egl" or "osmesa"; None where the choice belongs to someone else: not Linux, MUJOCO_GL
        already set, a display present, or no library found (the first rendering then explains).
    """
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not sys.platform.startswith("linux") or os.environ.get("MUJOCO_GL") or has_display:
        return None
    if _loads("libEGL.so.1", "libGL.so.1"):
        return "egl"
    if _loads("libOSMesa.so.8") or _loads("libOSMesa.so.6"):
        return "osmesa"
    return None


def configure_gl() -> None:
    """Set MUJOCO_GL where it is unset and a backend without a screen works."""
    # Mesa's software renderer otherwise draws on threads, which a fork leaves behind: a worker
    # forked after the first picture would wait for them for ever. Small pictures lose nothing.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    backend = choose_backend()
    if backend is not None:
        os.environ["MUJOCO_GL"] = backend


def missing_gl_error() -> RuntimeError:
    """Build the error that names the cure when a renderer could not be made."""
    return RuntimeError(MISSING_GL_MESSAGE.format(backend=os.environ.get("MUJOCO_GL", "unset")))
