"""What --help says: every option of every verb with its comment, and how it is written."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
VERBS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "hydra_defaults")
MODULES = {
    name: f"{'demos' if (ROOT / 'demos' / f'{name}.py').exists() else 'vjepa_wm'}.{name}"
    for name in VERBS
}


def explained(text: str) -> dict[str, dict[str, str]]:
    """Read help text: part ("" or a group's place in the config) -> key -> the lines above it."""
    found: dict[str, dict[str, str]] = {"": {}}
    part, comment = "", ""
    for line in text.splitlines():
        if heading := re.match(r"\S.* written (\w+)\.key=value:", line):
            part = heading.group(1)
            found[part] = {}
        elif line.startswith("  #"):
            comment += line.strip("# ") + " "
        elif key := re.match(r"  (\w+):", line):
            found[part][key.group(1)] = comment
            comment = ""
        elif not line.strip():
            comment = ""
    return found


@pytest.mark.parametrize("name", VERBS)
def test_every_option_is_explained(name: str, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, "--help"])
    importlib.import_module(MODULES[name]).main()
    shown = capsys.readouterr().out
    found = explained(shown)
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose(name)
    groups = [
        choice.partition("@")
        for entry in hydra_defaults_of(name)
        if isinstance(entry, DictConfig)
        for choice in entry
        if not sets_others(choice)
    ]
    places = {package or group for group, _, package in groups}
    assert set(found) == {"", *places}
    for place in places:
        assert found[place].keys() == set(cfg[place]), f"{place} in the help of {name}"
    assert found[""].keys() == set(cfg) - places
    for part in found.values():
        for key, comment in part.items():
            assert key == "_target_" or len(comment) > 10, f"{key} is not explained"
    assert not list(tmp_path.iterdir())


def sets_others(group: str) -> bool:
    """Tell whether a group has no place of its own, but sets keys of the other groups."""
    return any("@package _global_" in path.read_text() for path in (CONFIGS / group).glob("*.yaml"))


def hydra_defaults_of(name: str) -> list:
    """Return the defaults list of a verb's config."""
    return OmegaConf.load(CONFIGS / f"{name}.yaml").defaults


@pytest.mark.parametrize("name", VERBS)
def test_the_first_lines_say_what_it_does_and_how_it_is_run(name: str) -> None:
    """The module's docstring holds a command to paste, which names the module."""
    document = importlib.import_module(MODULES[name]).__doc__
    assert f"python -m {MODULES[name]}" in document


def test_a_default_that_follows_another_option_is_shown_with_its_own(capsys, monkeypatch) -> None:
    """Push is planned with icem: its keys are listed, those cem does not have too."""
    monkeypatch.setattr("sys.argv", ["evaluate", "--help"])
    importlib.import_module("vjepa_wm.evaluate").main()
    shown = capsys.readouterr().out
    assert "default that of env, push." in shown
    assert "noise_beta: 2.0" in shown


def test_help_may_be_cut_off() -> None:
    """By `head`, say: as with any program, no traceback follows."""
    command = [sys.executable, "-m", "vjepa_wm.train_ac", "--help"]
    shown = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shown.stdout.close()
    assert shown.stderr.read() == b""
    assert shown.wait() == 0
