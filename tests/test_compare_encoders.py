"""compare_encoders: every encoder is measured once, alike, and one can be added later."""

import sys
from pathlib import Path

import pytest

from tests import tiny
from vjepa_wm import compare_encoders
from vjepa_wm.encoders.registry import shipped_folder
from vjepa_wm.errors import SettingError
from vjepa_wm.files import read_json

QUICK = [
    "env=reacher",
    "episodes=12",
    "steps=2",
    "metric_steps=2",
    "integrator_steps=2",
    "levels=[near]",
    "tasks=frozen",
    "what=[counterfactual]",
    "windows=4",
    "evaluation_episodes=2",
    'more.train_ac=["predictor=tiny","validation_windows=4"]',
    'more.evaluate=["max_steps=2","planner.num_samples=4","planner.num_elites=2","pictures=0"]',
    'more.diagnose=["tried=2"]',
]


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_encoders", *QUICK, *options])
    compare_encoders.main()


@pytest.mark.slow
def test_an_encoder_is_measured_once_and_another_added(
    world_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = world_model_folder.parent / "encoder"
    run(monkeypatch, f"encoders=[{encoder}]")
    shown = capfd.readouterr().out
    assert shown.count("$ python -m vjepa_wm.train_ac") == 1 and "near goals, %" in shown

    run(monkeypatch, f"encoders=[{encoder},compact]")
    shown = capfd.readouterr().out
    assert shown.count("$ python -m vjepa_wm.train_ac") == 1
    assert "encoder.name=compact" in shown
    out = tmp_path / "runs" / "compare_encoders" / "reacher"
    found = read_json(out / "encoders.json")["encoders"]
    own, shipped = found
    assert own.endswith("-encoder") and shipped == "compact"
    for row in found.values():
        assert 0 <= row["near goals, %"]["value"] <= 1
        assert row["error / copy's, step 1"]["value"] > 0
        assert row["own outcome nearest (chance 50 %), step 1, %"]["interval"]
    assert "near goals, % more than the first" in found["compact"]
    assert (out / "report.html").exists()

    with pytest.raises(SystemExit):
        run(monkeypatch, f"encoders=[{encoder}]", "steps=3")
    assert "begun with other inputs (steps: wanted 2, got 3)" in capfd.readouterr().err


def test_rows_are_named_after_encoders() -> None:
    assert compare_encoders.named(["compact", "runs/pretrain/compact", "timm:vit_tiny.x"]) == {
        "compact": "compact",
        "runs-pretrain-compact": "runs/pretrain/compact",
        "timm-vit_tiny.x": "timm:vit_tiny.x",
    }
    with pytest.raises(SettingError, match="names that differ, got runs/a, runs/a"):
        compare_encoders.named(["runs/a", "runs/a"])
    with pytest.raises(SettingError, match="at least one"):
        compare_encoders.named([])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("encoders=[compakt]", "Did you mean 'compact'"),
        ("levels=[nearest]", "Did you mean 'near'"),
        (f"encoders=[compact,{shipped_folder('compact')}]", "wanted different weights"),
        ("evaluation_episodes=101", "wanted between 1 and 100"),
        ("jobs=0", "jobs: wanted at least 1"),
        ("what=[prob]", "Did you mean 'probe'"),
        ('more.evaluate=["planer=icem"]', "Did you mean 'planner'"),
        ('more.train_ac=["trainer.step=3"]', "Did you mean 'trainer.steps'"),
        ('more.diagnose=["window=4"]', "Did you mean 'windows'"),
        ('more.evaluate=["planner=cem","planner.noise_beta=0"]', "planner.noise_beta"),
    ],
)
def test_what_cannot_be_is_found_before_anything_is_done(
    wrong: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, wrong)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("inputs.json"))  # the next try may have other options


def test_a_folder_that_holds_no_encoder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = tiny.save_world_model(tmp_path / "world_model")
    with pytest.raises(SystemExit):
        run(monkeypatch, f"encoders=[{folder}]", f"out={tmp_path / 'out'}")
    assert "wanted an encoder" in capsys.readouterr().err
