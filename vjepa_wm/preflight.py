"""Check before installing that Python, pip and the OpenGL libraries are there (stdlib only).

`make setup` runs this file with whatever Python it found, so it must also start on an old one:
`python3 vjepa_wm/preflight.py python` checks the interpreter, `... gl` the graphics libraries.
"""

import ctypes
import os
import shutil
import subprocess
import sys

WANTED_PYTHON = (3, 11)
WANTED_PIP = (22, 3)  # the first with `pip --python`
GL_PACKAGES = ("libegl1", "libgl1")
GL_ADVICE = "On Debian or Ubuntu, as root: apt-get install -y --no-install-recommends " + " ".join(
    GL_PACKAGES
)
OSMESA_LIBRARIES = ("libOSMesa.so.8", "libOSMesa.so.6")


def loads(library: str) -> bool:
    """Tell whether the dynamic linker finds and can load a shared library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def can_render_offscreen() -> bool:
    """Tell whether the libraries MuJoCo needs to draw without a display are there."""
    if not sys.platform.startswith("linux"):
        return True  # macOS and Windows bring their own OpenGL
    has_egl = loads("libEGL.so.1") and loads("libGL.so.1")
    return has_egl or any(loads(library) for library in OSMESA_LIBRARIES)


def pip_version() -> tuple:
    """Return the version of this interpreter's pip as numbers, `()` where there is none."""
    try:
        import pip
    except ImportError:
        return ()
    return tuple(int(part) for part in pip.__version__.split(".")[:2] if part.isdigit())


def dotted(version: tuple) -> str:
    """Write version numbers the usual way, "none" for `()`."""
    return ".".join(str(part) for part in version) or "none"


def python_problem() -> str:
    """Say what is wrong with this interpreter or its pip; empty when nothing is."""
    found = f"Python {dotted(sys.version_info[:3])} at {sys.executable}"
    if sys.version_info < WANTED_PYTHON:
        return (
            f"wanted Python {dotted(WANTED_PYTHON)} or newer, found {found}.\n"
            "Name another one: make setup PYTHON=/path/to/python3"
        )
    pip = pip_version()
    if pip < WANTED_PIP:
        return (
            f"wanted pip {dotted(WANTED_PIP)} or newer, found {dotted(pip)} for {found}.\n"
            "On Debian or Ubuntu: apt-get install -y python3-pip"
        )
    return ""


def apt_get(*arguments: str) -> int:
    """Run apt-get, showing errors only, and return its exit status."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    return subprocess.call(["apt-get", *arguments], env=environment, stdout=subprocess.DEVNULL)


def install_gl() -> bool:
    """Install the OpenGL libraries with apt-get and tell whether they now load."""
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *GL_PACKAGES]
    print("No OpenGL libraries: running " + " ".join(install), flush=True)
    if apt_get(*install[1:]) != 0:
        # A fresh container has no package lists yet.
        apt_get("update", "-q")
        apt_get(*install[1:])
    return can_render_offscreen()


def gl_problem() -> str:
    """Say what OpenGL lacks, after installing it where that is allowed; empty when nothing."""
    if can_render_offscreen():
        return ""
    may_install = shutil.which("apt-get") is not None and os.geteuid() == 0
    if may_install and install_gl():
        return ""
    return (
        "MuJoCo needs OpenGL libraries to draw, wanted libEGL.so.1 and libGL.so.1, found neither "
        "them nor OSMesa.\n" + GL_ADVICE
    )


def main() -> None:
    """Run the check named on the command line; exit with its message when it fails."""
    checks = {"python": python_problem, "gl": gl_problem}
    problem = checks[sys.argv[1]]()
    if problem:
        sys.exit("make setup: " + problem)


if __name__ == "__main__":
    main()
