"""Several processes train as one does, and each goes on with what the other left."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import films, tiny
from vjepa_wm import pretrain

ROOT = Path(__file__).parents[1]
SIZE = 32
OPTIONS = ["vit=tiny", "mask_predictor=tiny", f"image_size={SIZE}", "trainer.batch_size=4"]
OPTIONS += ["trainer.validate_every=2", "trainer.precision=fp32", "validation_episodes=1"]
TERM = "objective.terms.variance_covariance"
# They compare clips, and do so within a piece
NO_TERMS = [
    f"{TERM}.variance_weight=0",
    f"{TERM}.covariance_weight=0",
    "objective.terms.sigreg.weight=0",
]
OPTIONS += [*tiny.VARIANCE_COVARIANCE, "objective.terms.sigreg.weight=0.1"]
OPTIONS += ["workers=0", "collapse.effective_rank=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    tiny.moving_squares(root / "squares", episodes=4, length=8, size=SIZE)
    for number in range(3):
        films.write_gif(root / "gifs" / f"{number}.gif", films.pictures(moves=True, seed=number))
    (root / "gifs" / "broken.gif").write_bytes(b"GIF89a")
    return root


def options_of(data: Path, out: Path, steps: int) -> list[str]:
    folders = f"data=[{data / 'squares'},{data / 'gifs'}]"
    return [*OPTIONS, folders, f"out={out}", f"cache={data}/cache", f"trainer.steps={steps}"]


def alone(monkeypatch, data: Path, out: Path, steps: int, *more: str) -> dict:
    monkeypatch.setattr("sys.argv", ["pretrain", *options_of(data, out, steps), *more])
    pretrain.main()
    return torch.load(out / "state.pt", weights_only=True)


def together(data: Path, out: Path, steps: int) -> tuple[str, list[dict]]:
    """Train with two processes; returns what was printed, and the last state of each."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "tests/pretrain_worker.py", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *options_of(data, out, steps)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    states = [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return done.stdout + done.stderr, states


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same_change(found: dict, wanted: dict, before: dict) -> None:
    """Compare what training changed, all in all.

    Adam blows up the rounding of gradients that are all but zero, so single weights may differ;
    the biases of keys, whose gradient is zero, are left out.
    """
    names = [name for name in wanted if "qkv.bias" not in name]
    change, difference = (
        torch.cat([(wanted[n] - other[n]).flatten() for n in names]).norm()
        for other in (before, found)
    )
    assert change > 0
    assert difference < 0.02 * change


def test_two_processes_train_as_one_and_either_goes_on_with_the_other(
    data, tmp_path, monkeypatch
) -> None:
    """One process to step 4, then one or two to step 8, then one to step 10."""
    one, two = tmp_path / "one", tmp_path / "two"
    before = alone(monkeypatch, data, one, 4)
    shutil.copytree(one, two)
    shown, states = together(data, two, 8)
    wanted = alone(monkeypatch, data, one, 8)
    found = torch.load(two / "state.pt", weights_only=True)
    assert found["rng"] == wanted["rng"]
    assert_same_change(found["module"], wanted["module"], before["module"])
    for name, tensor in states[0].items():  # among them the teacher's
        assert torch.equal(tensor, states[1][name]), name
    assert shown.count("encoder: ") == 1
    assert shown.count("1 videos left out: broken.gif") == 1
    for row, other in zip(rows(two), rows(one), strict=True):
        assert row["step"] == other["step"]
        if row["step"]:
            for name in ("prediction_loss", "variance_loss", "covariance_loss", "sigreg_loss"):
                assert row[name] == pytest.approx(other[name], rel=1e-4), name
    later = alone(monkeypatch, data, one, 10)
    again = alone(monkeypatch, data, two, 10)
    assert again["step"] == 10 and again["rng"] == later["rng"]
    assert_same_change(again["module"], later["module"], before["module"])


def test_a_batch_in_pieces_takes_the_step_of_the_whole(data, tmp_path, monkeypatch) -> None:
    before = alone(monkeypatch, data, tmp_path / "none", 0)
    wanted = alone(monkeypatch, data, tmp_path / "whole", 3, *NO_TERMS)
    found = alone(monkeypatch, data, tmp_path / "pieces", 3, *NO_TERMS, "trainer.accumulate=4")
    assert found["rng"] == wanted["rng"]
    assert_same_change(found["module"], wanted["module"], before["module"])
    for name in ("loss", "prediction_loss"):
        assert found["average"][name] == pytest.approx(wanted["average"][name], rel=1e-4)


def test_a_batch_has_to_be_shared_evenly(data, tmp_path, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        alone(monkeypatch, data, tmp_path, 1, "trainer.accumulate=3")
    assert "trainer.batch_size 4 must be a multiple of 1 processes times" in capsys.readouterr().err
