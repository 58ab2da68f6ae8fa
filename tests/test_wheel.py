"""The wheel, installed elsewhere: everything it needs is inside, and the verbs run from anywhere.

The environment it is installed into is empty but for a path to the dependencies of this one, so
what is found of the project is found in the wheel.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from vjepa_wm.files import read_json

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("configs", "demos", "envs", "planners", "vjepa_wm")
BASE_PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
VERBS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
VERBS.remove("hydra_defaults")
MODULES = ["vjepa_wm.doctor", "demos.gymnasium_agent", "demos.success_table"]
MODULES += [
    f"{'demos' if (ROOT / 'demos' / f'{name}.py').exists() else 'vjepa_wm'}.{name}"
    for name in VERBS
]


def pip(*arguments: str | Path, python: Path) -> None:
    """Run the pip of the base Python on an environment, without a network."""
    command = [BASE_PYTHON, "-m", "pip", "--python", python, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that no build results are left in it."""
    if subprocess.run([BASE_PYTHON, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip(f"{BASE_PYTHON} has no pip to build and install wheels with")
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=ignored)
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / "tree")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", folder]
    pip("wheel", *options, folder / "tree", python=Path(sys.executable))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """The Python of an environment with the wheel and the dependencies of this one."""
    folder = wheel.parent / "venv"
    venv.create(folder, with_pip=False)
    found = folder / "bin" / "python"
    pip("install", "--no-deps", "--no-index", "-q", wheel, python=found)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # A path file is not read inside what another one names: the editable install stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return found


@pytest.fixture
def run(python: Path, tmp_path: Path):
    """Run a module of the installed wheel in an empty folder."""

    def run(module: str, *options: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [python, "-m", module, *options],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_everything_of_the_packages_is_inside(wheel: Path) -> None:
    """Modules, configs, scenes, tasks, and weights where there are some; nothing of the tests."""
    with ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == there
    for pattern in ("configs/env/push.yaml", "envs/assets/push.xml"):
        assert pattern in inside
    tasks = [name for name in inside if name.startswith("vjepa_wm/evaluation/task_sets/")]
    assert len(tasks) >= 4
    assert wheel.stat().st_size < 40e6


def test_it_is_the_wheel_that_runs(python: Path, tmp_path: Path) -> None:
    code = "import configs, demos, envs, planners, vjepa_wm; "
    code += "print(*(m.__file__ for m in (configs, demos, envs, planners, vjepa_wm)), sep='\\n')"
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for line in done.stdout.split():
        assert Path(line).is_relative_to(python.parents[1])


def test_collect_and_evaluate_run_where_no_checkout_is(run, tmp_path: Path) -> None:
    options = ["env=reacher", "episodes=2", "steps=3", "workers=1"]
    collected = run("vjepa_wm.collect", *options)
    assert "data/reacher: 2 episodes, 8 frames" in collected.stdout
    run("vjepa_wm.evaluate", "env=reacher", "agent=random", "episodes=2", "max_steps=3")
    summary = read_json(tmp_path / "runs" / "evaluate" / "reacher_near" / "summary.json")
    assert summary["rows"][0]["agent"] == "random"
    assert summary["versions"]["vjepa-wm"]
    assert summary["git_commit"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"data", "runs"}


@pytest.mark.parametrize("module", MODULES)
def test_help_is_there_for_every_program(run, module: str, tmp_path: Path) -> None:
    shown = run(module, "--help").stdout
    assert "--help" in shown
    if module.rpartition(".")[2] in VERBS:
        assert "Options, written key=value" in shown
    assert not list(tmp_path.iterdir())


def test_shipped_weights_load_from_the_wheel(python: Path, tmp_path: Path) -> None:
    names = [path.parent.name for path in (ROOT / "vjepa_wm" / "weights").glob("*/config.json")]
    models = [name for name in names if name != "compact"]
    assert models
    code = f"import vjepa_wm\nfor name in {models}: vjepa_wm.load_world_model(name)"
    subprocess.run([python, "-c", code], cwd=tmp_path, check=True)
