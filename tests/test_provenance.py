"""The commit a result is said to come from."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import vjepa_wm.provenance

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b.example")


def test_changed_code_is_marked_and_changed_weights_are_not(tmp_path: Path) -> None:
    """`make weights` ships the encoder before it trains on it, and is no change of the code."""
    package = tmp_path / "vjepa_wm"
    (package / "weights").mkdir(parents=True)
    shutil.copy(vjepa_wm.provenance.__file__, package / "provenance.py")
    code, weights = package / "code.py", package / "weights" / "config.json"
    for path in (code, weights):
        path.write_text("before")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    spec = importlib.util.spec_from_file_location("provenance", package / "provenance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    commit = module.provenance()["git_commit"]
    assert len(commit) == 40
    weights.write_text("after")
    assert module.provenance()["git_commit"] == commit
    code.write_text("after")
    assert module.provenance()["git_commit"] == f"{commit}-dirty"
