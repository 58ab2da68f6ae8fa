"""Devices and number formats: what is not there is refused, naming what is."""

import sys
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from vjepa_wm.cli import verb
from vjepa_wm.errors import SettingError
from vjepa_wm.precision import check_device, resolve_dtype

CONFIGS = Path(__file__).parents[1] / "configs"
WITH_DEVICE = sorted(
    path.stem for path in CONFIGS.glob("*.yaml") if "\ndevice:" in path.read_text()
)


@pytest.mark.parametrize("device", ["cpuu", "cuda:99", "", "vulkan", None])
def test_devices_that_are_not_there_are_refused(device: str) -> None:
    """Misspelt, a GPU too many, or a kind this torch cannot use."""
    with pytest.raises(SettingError, match=f"no device '{device}' here, wanted one of: cpu"):
        check_device(device)
    with pytest.raises(SettingError, match="wanted one of: cpu"):
        resolve_dtype("auto", device)


def test_devices_that_are_there_pass() -> None:
    for device in ("cpu", "cpu:0", "meta", torch.device("cpu")):
        assert check_device(device).type in ("cpu", "meta")
    if torch.cuda.is_available():
        assert check_device("cuda") == torch.device("cuda")


def test_precisions() -> None:
    assert resolve_dtype("fp32", "cpu") == torch.float32
    assert resolve_dtype("bf16", "cpu") == torch.bfloat16
    with pytest.raises(SettingError, match="must be auto, bf16 or fp32, got 'fp16'"):
        resolve_dtype("fp16", "cpu")


def _started(cfg: DictConfig) -> None:
    """Do nothing."""
    raise AssertionError("the verb was started")


@pytest.mark.parametrize("name", WITH_DEVICE)
def test_every_verb_refuses_an_unknown_device(name: str, monkeypatch, capsys, tmp_path) -> None:
    """Before it does anything, in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["verb", "device=cpuu"])
    with pytest.raises(SystemExit) as exit_info:
        verb(name)(_started)()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no device 'cpuu' here, wanted one of: cpu")
    assert "Traceback" not in error
