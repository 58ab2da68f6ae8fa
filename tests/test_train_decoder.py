"""The verb train_decoder end to end, tiny: from trajectories to pictures."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vjepa_wm import load_decoder, load_encoder, train_decoder
from vjepa_wm.checkpoint import load_checkpoint, save_checkpoint
from vjepa_wm.evaluation.charts import CAPTION, SIZE

STEPS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold tiny trajectories and a random encoder."""
    folder = tmp_path_factory.mktemp("train_decoder")
    tiny.moving_squares(folder / "data", episodes=24, length=24, size=tiny.IMAGE_SIZE)
    config = {"kind": "encoder", "name": "tiny", "vit": tiny.VIT}
    config |= {"image_size": tiny.IMAGE_SIZE, "pool": 2}
    save_checkpoint(folder / "encoder", {"encoder": tiny.vit()}, config)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path):
    """Run the verb in an empty folder."""

    def run(*options: str) -> None:
        given = ["pixel_decoder=tiny", f"data={folder}/data", f"cache={folder}/cache", "out=out"]
        given += [f"encoder.checkpoint={folder}/encoder", "encoder.dtype=fp32"]
        given += ["trainer.minutes=null", f"trainer.steps={STEPS}", "trainer.precision=fp32"]
        given += ["trainer.validate_every=10", "validation_frames=24", "shown_frames=3"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train_decoder", *given, *options])
        train_decoder.main()

    return run


def test_it_trains_saves_shows_and_goes_on(run, folder: Path, tmp_path: Path, capsys) -> None:
    run()
    shown = capsys.readouterr().out
    assert "mean picture" in shown and "decoder: out" in shown
    figures = load_checkpoint(tmp_path / "out").config["figures"]
    assert figures["held_out_rare_error"] < 0.95 * figures["mean_picture_rare_error"]
    encoder = load_encoder("tiny", folder / "encoder", dtype="fp32")
    decoder = load_decoder(tmp_path / "out", encoder)
    drawn = decoder.decode(encoder.encode(tiny.pixels(1, 2, 16, 16)))
    assert drawn.shape == (1, 2, 16, 16, 3)
    with Image.open(tmp_path / "out" / train_decoder.PICTURE) as picture:
        assert picture.size == (3 * SIZE + 2 * 8, 2 * (SIZE + CAPTION) + 8)
        assert np.asarray(picture)[CAPTION:].std() > 10

    before = (tmp_path / "out" / "metrics.jsonl").read_text()
    run()  # nothing is left to do
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == before
    assert [json.loads(line)["step"] for line in before.splitlines()] == [0, 10, 20, 30]


def test_a_run_is_not_continued_on_other_inputs(run, tmp_path: Path, capsys) -> None:
    """Another size of pictures, or pictures of another size; a free size fits the grid."""
    run("trainer.steps=1")
    with pytest.raises(SystemExit):
        run("image_size=32")
    assert "drawn_at: wanted 16, got 32" in capsys.readouterr().err
    tiny.moving_squares(tmp_path / "odd", episodes=12, length=6, size=15)
    run("trainer.steps=1", f"data={tmp_path}/odd", f"cache={tmp_path}/cache", "out=odd_out")
    assert load_checkpoint(tmp_path / "odd_out").config["decoder"]["image_size"] == 16


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("shown_frames=0", "shown_frames: wanted at least 1, got 0"),
        ("image_size=15", "image_size: wanted a multiple of 2, got 15"),
        ("pixel_decoder=tini", "Did you mean 'tiny'"),
        ("rare_weight=2", "unknown option 'rare_weight'. Did you mean 'pixel_decoder.rare_weight'"),
    ],
)
def test_bad_options_end_with_one_line(run, tmp_path, option: str, said: str, capsys) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(option)
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
