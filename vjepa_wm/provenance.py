"""Where a result comes from: versions, commit and machine, for checkpoints and reports."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("vjepa-wm", "torch", "gymnasium", "mujoco", "numpy")


def provenance() -> dict[str, object]:
    """Versions of what matters, and the git commit when run from a checkout.

    The commit ends in `-dirty` where tracked files were changed since.
    """
    return {"versions": _versions(), "python": platform.python_version(), "git_commit": _commit()}


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None  # run from a folder that was not installed
    return versions


def _commit() -> str | None:
    try:
        # A wheel installed inside another project's repository is not of that project's commit.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        # Shipped weights are told by their digests, and making them changes them
        others = (":/", ":(top,exclude)vjepa_wm/weights")
        is_changed = _git("status", "--porcelain", "--untracked-files=no", "--", *others)
        return _git("rev-parse", "HEAD") + ("-dirty" if is_changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or an installed wheel


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
