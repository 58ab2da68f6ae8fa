"""The checks before installing: what they accept, what they say, what they install."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from vjepa_wm import preflight

INSTALL = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "libegl1", "libgl1"]


class Machine:
    """A Linux machine of which the test says what is installed and who is logged in."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.libraries: set[str] = set()
        self.is_root = True
        self.has_apt = True
        self.needs_update = False
        self.commands: list[list[str]] = []
        patch.setattr(sys, "platform", "linux")
        patch.setattr(preflight, "loads", lambda name: name in self.libraries)
        patch.setattr("os.geteuid", lambda: 0 if self.is_root else 1000)
        patch.setattr("shutil.which", lambda name: "/usr/bin/apt-get" if self.has_apt else None)
        patch.setattr(subprocess, "call", self.call)

    def call(self, command: list[str], env: dict[str, str], stdout: int) -> int:
        self.commands.append(command)
        if command[1] == "update":
            self.needs_update = False
        elif self.needs_update:
            return 100
        else:
            self.libraries |= {"libEGL.so.1", "libGL.so.1"}
        return 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize("libraries", [{"libEGL.so.1", "libGL.so.1"}, {"libOSMesa.so.8"}])
def test_nothing_is_done_where_a_backend_is_there(machine: Machine, libraries: set[str]) -> None:
    machine.libraries = libraries
    assert preflight.gl_problem() == "" and machine.commands == []


def test_root_on_debian_gets_the_libraries_and_is_told(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.libraries = {"libEGL.so.1"}  # alone it is not enough
    assert preflight.gl_problem() == "" and machine.commands == [INSTALL]
    assert " ".join(INSTALL) in capsys.readouterr().out


def test_package_lists_are_fetched_where_the_container_has_none(machine: Machine) -> None:
    machine.needs_update = True
    assert preflight.gl_problem() == ""
    assert [command[1] for command in machine.commands] == ["install", "update", "install"]


@pytest.mark.parametrize(("is_root", "has_apt"), [(False, True), (True, False)])
def test_others_are_told_the_packages_and_nothing_is_installed(
    machine: Machine, is_root: bool, has_apt: bool
) -> None:
    machine.is_root, machine.has_apt = is_root, has_apt
    problem = preflight.gl_problem()
    assert "libegl1 libgl1" in problem and "libEGL.so.1" in problem
    assert machine.commands == []


def test_macos_brings_its_own_opengl(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert preflight.gl_problem() == "" and machine.commands == []


def test_an_old_python_is_told_what_was_wanted_and_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    assert "wanted Python 3.11 or newer, found Python 3.9.2" in preflight.python_problem()


@pytest.mark.parametrize(("version", "found"), [((), "none"), ((20, 3), "20.3")])
def test_a_missing_or_old_pip_is_named(
    monkeypatch: pytest.MonkeyPatch, version: tuple, found: str
) -> None:
    monkeypatch.setattr(preflight, "pip_version", lambda: version)
    problem = preflight.python_problem()
    assert f"wanted pip 22.3 or newer, found {found}" in problem and "python3-pip" in problem


def test_a_new_pip_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "pip_version", lambda: (22, 3))
    assert preflight.python_problem() == ""


def test_a_problem_ends_the_program_with_its_message() -> None:
    # -S hides site-packages, and pip with them.
    command = [sys.executable, "-I", "-S", preflight.__file__, "python"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "make setup: wanted pip" in done.stderr


def test_it_starts_on_an_old_python() -> None:
    # It must reach its message there: no annotation or syntax newer than 3.6.
    source = Path(preflight.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))
    assert " | " not in source and "import annotations" not in source
