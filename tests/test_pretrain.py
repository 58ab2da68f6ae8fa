"""The verb pretrain, end to end: from pictures of moving squares to an encoder that loads."""

import json
from pathlib import Path

import pytest
import torch

from tests import tiny
from vjepa_wm import pretrain
from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.encoders.registry import load_encoder

SIZE = 32
TINY = [
    "vit=tiny",
    "mask_predictor=tiny",
    f"image_size={SIZE}",
    "strides=[1,2]",
    "trainer.batch_size=4",
    "trainer.validate_every=3",
    "validation_episodes=2",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two sets of trajectories."""
    root = tmp_path_factory.mktemp("data")
    for name, length in (("a", 9), ("b", 12)):
        tiny.moving_squares(root / name, episodes=6, length=length, size=SIZE)
    return root


def run(monkeypatch, data: Path, out: Path, *options: str) -> None:
    folders = f"data=[{data / 'a'},{data / 'b'}]"
    monkeypatch.setattr("sys.argv", ["pretrain", *TINY, folders, f"out={out}", *options])
    pretrain.main()


def steps(out: Path) -> list[int]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_stopped_run_continues_and_its_encoder_loads(data, tmp_path, monkeypatch, capsys) -> None:
    """Interrupted after 5 of 7 steps: the state of step 3 is taken up, not begun anew."""
    out, update = tmp_path / "run", pretrain.JEPA.update_target
    calls = []

    def interrupted(self: pretrain.JEPA) -> None:
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(1)
        update(self)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as info:
        patch.setattr(pretrain.JEPA, "update_target", interrupted)
        run(patch, data, out, "trainer.steps=7")
    assert info.value.code == 130
    assert steps(out) == [0, 3]
    assert not (out / "config.json").exists()

    run(monkeypatch, data, out, "trainer.steps=7")
    assert steps(out) == [0, 3, 6, 7]
    shown = capsys.readouterr().out
    assert shown.startswith(f"encoder: {out}")
    assert "time_rank_correlation" in shown

    encoder = load_encoder(str(out), dtype="fp32")
    latents = encoder.encode(tiny.pixels(2, 3, SIZE, SIZE))
    assert latents.shape == (2, 3, *encoder.latent_shape) == (2, 3, 4, 32)
    assert latents.isfinite().all()


def test_what_is_saved_is_the_best_teacher(data, tmp_path, monkeypatch) -> None:
    """With its figures, the data it was made of and the options, so that it can be made again."""
    options = ["trainer.steps=4", "trainer.precision=fp32", "select=time_rank_correlation"]
    run(monkeypatch, data, tmp_path, *options)
    best = torch.load(tmp_path / "state.pt", weights_only=True)["best"]
    loaded = load_checkpoint(tmp_path)
    for name, tensor in loaded.tensors.items():
        kept = best["state"]["target_" + name]
        torch.testing.assert_close(tensor, kept, atol=1e-6, rtol=1e-3)
    config = loaded.config
    assert config["figures"] == best["figures"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    highest = max(row["time_rank_correlation"] for row in rows)
    assert config["figures"]["time_rank_correlation"] == highest
    assert len(config["data"]) == 2
    assert config["config"]["trainer"]["steps"] == 4
    assert config["versions"]["torch"] == torch.__version__


def test_frames_of_another_size_are_refused(data, tmp_path, monkeypatch, capsys) -> None:
    """The encoder would be trained on one size and used on another."""
    with pytest.raises(SystemExit) as info:
        run(monkeypatch, data, tmp_path, "image_size=64")
    assert info.value.code == 2
    assert "wanted frames of (64, 64), the option image_size, got (32, 32)" in (
        capsys.readouterr().err
    )


def test_clips_become_normalised_video() -> None:
    """Channels first, frames in order."""
    clips = tiny.pixels(2, 3, 4, 5)
    video = pretrain.to_video(clips)
    assert video.shape == (2, 3, 3, 4, 5)
    wanted = (clips[1, 2, 3, 4, 0] / 255 - 0.485) / 0.229
    torch.testing.assert_close(video[1, 0, 2, 3, 4], wanted)
