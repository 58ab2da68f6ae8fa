"""The inspect verb: what a file is, what would load it, and one line when it is nothing."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from tests import published_files, tiny
from vjepa_wm import inspect
from vjepa_wm.encoders.adapters import export_huggingface
from vjepa_wm.encoders.registry import load_encoder, shipped_folder
from vjepa_wm.encoders.vit import VideoViT
from vjepa_wm.pretraining.mask_predictor import MaskPredictor


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    published_files.register(monkeypatch)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", *map(str, arguments)])
    inspect.main()


def advised(text: str) -> list[str]:
    """Return the calls the verb proposes."""
    return [line.removeprefix("load: ") for line in text.splitlines() if line.startswith("load: ")]


def mask_predictor_weights(*, action: bool) -> dict[str, torch.Tensor]:
    predictor = MaskPredictor(
        embed_dim=24, predictor_embed_dim=12, depth=2, num_heads=2, num_mask_tokens=3
    )
    predictor.mask_tokens[1].data.fill_(1)
    weights = {key: value.detach() for key, value in predictor.state_dict().items()}
    if action:
        weights = {key: value for key, value in weights.items() if "mask_tokens" not in key}
        weights["action_encoder.weight"] = torch.zeros(12, 7)
    return weights


@pytest.mark.parametrize(
    ("name", "family"), [("tiny1", "V-JEPA 1"), ("tiny2", "V-JEPA 2"), ("tiny2_1", "V-JEPA 2.1")]
)
def test_the_calls_it_proposes_load_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, name: str, family: str
) -> None:
    """One for the average, one for the student, each with the network it names."""
    path = published_files.write(tmp_path / "meta.pt", name)
    run(monkeypatch, path)
    shown = capsys.readouterr().out
    net = published_files.NETS[name]
    assert f"  {net}: " in shown and f"{family} encoder of width 24 and depth 2" in shown
    assert "also: opt (dict of 2), scaler (None), epoch (90), loss (0.4)" in shown
    loaded = [eval(call, {"load_encoder": load_encoder}) for call in advised(shown)]
    assert {encoder.name for encoder in loaded} == {f"{name}/{net}", f"{name}/encoder"}


def test_what_the_weights_do_not_show_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Two published encoders of the same shapes, like ViT-g at 256 and at 384 pixels."""
    monkeypatch.setitem(inspect.ENCODERS, "tiny2_large_image", published_files.TINY["tiny2"])
    run(monkeypatch, published_files.write(tmp_path / "meta.pt", "tiny2"))
    shown = capsys.readouterr().out
    assert 'load_encoder("tiny2_large_image"' in shown
    assert "differ in image size alone, which the weights do not show" in shown


def test_predictors_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    content = published_files.content("tiny2")
    torch.save({**content, "predictor": mask_predictor_weights(action=False)}, tmp_path / "a.pt")
    run(monkeypatch, tmp_path / "a.pt")
    shown = capsys.readouterr().out
    assert "mask predictor of width 12 and depth 2 on latents of width 24, 3 mask tokens" in shown
    assert "mask tokens that are not zero: 1\n" in shown
    assert f'load_mask_predictor("tiny2", checkpoint="{tmp_path / "a.pt"}")' in advised(shown)
    torch.save({**content, "predictor": mask_predictor_weights(action=True)}, tmp_path / "b.pt")
    run(monkeypatch, tmp_path / "b.pt")
    shown = capsys.readouterr().out
    assert "action predictor of width 12 and depth 2" in shown and "7 action dimensions" in shown
    assert all(call.startswith("load_encoder") for call in advised(shown))


@pytest.mark.parametrize("has_state", [True, False])
def test_an_action_predictor_of_published_sizes_is_a_world_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, has_state: bool
) -> None:
    """V-JEPA 2-AC has state tokens, its retrained form has none."""
    sizes = {"latent_dim": 24, "width": 12, "depth": 2, "action_dim": 7}
    for name, published in inspect.PREDICTORS.items():
        proprio = published.predictor["proprio_dim"]
        tiny_sizes = dataclasses.replace(published, predictor={**sizes, "proprio_dim": proprio})
        monkeypatch.setitem(inspect.PREDICTORS, name, tiny_sizes)
    weights = mask_predictor_weights(action=True)
    if has_state:
        weights["state_encoder.weight"] = torch.zeros(12, 7)
    torch.save({"predictor": weights}, tmp_path / "ac.pt")
    run(monkeypatch, tmp_path / "ac.pt")
    name = "vjepa2_ac_vitg" if has_state else "vjepa2_ac_droid"
    wanted = f'load_world_model("{name}", checkpoint="{tmp_path / "ac.pt"}")'
    assert advised(capsys.readouterr().out) == [wanted]


def test_a_file_that_fits_nothing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    torch.save({"model": {"weight": torch.ones(2, 2)}}, tmp_path / "other.pt")
    run(monkeypatch, tmp_path / "other.pt")
    shown = capsys.readouterr().out
    assert "model: 1 tensors, 4e-06 M parameters, float32: unknown" in shown
    assert advised(shown) == ["nothing; no published encoder or predictor has these sizes"]


def test_keys_and_checksums_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path = published_files.write(tmp_path / "meta.pt", "tiny1")
    run(monkeypatch, path)
    assert "pos_embed" not in capsys.readouterr().out
    run(monkeypatch, path, "--keys", "--check")
    shown = capsys.readouterr().out
    assert "    pos_embed (1, 32, 24)\n" in shown
    assert "whole: its contents agree with their checksums, digest " in shown
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(SystemExit):
        run(monkeypatch, path, "--check")
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("as_file", [False, True])
def test_a_folder_from_hugging_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, as_file: bool
) -> None:
    vit = tiny.randomise(VideoViT(**published_files.TINY["tiny2"].vit))
    export_huggingface(tmp_path, vit, image_size=16, num_frames=4)
    run(monkeypatch, tmp_path / "model.safetensors" if as_file else tmp_path)
    shown = capsys.readouterr().out
    assert "V-JEPA 2 as on Hugging Face" in shown
    assert "does not say whether this is the student or the moving average" in shown
    assert advised(shown) == [f'load_encoder("tiny2", checkpoint="{tmp_path}")']


@pytest.mark.parametrize("as_file", [False, True])
def test_a_checkpoint_of_this_package(
    monkeypatch: pytest.MonkeyPatch, capsys, as_file: bool
) -> None:
    folder = shipped_folder("compact")
    run(monkeypatch, folder / "model.safetensors" if as_file else folder, "--check")
    shown = capsys.readouterr().out
    assert "checkpoint of encoder" in shown and "whole: " in shown
    assert advised(shown) == [f'load_encoder("{folder}")']


@pytest.mark.parametrize("write", [None, lambda path: path.write_text("hello, world")])
def test_a_mistake_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, write
) -> None:
    if write is not None:
        write(tmp_path / "file")
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path / "file")
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and not shown.out


def test_nothing_of_a_large_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Three gigabytes that are not there: a sparse file, its table of contents alone written."""
    path = tmp_path / "model.safetensors"
    shape = [750_000_000]
    header = (
        f'{{"patch_embed.proj.weight":{{"dtype":"F32","shape":{shape},'
        f'"data_offsets":[0,{4 * shape[0]}]}}}}'
    ).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * shape[0])
    run(monkeypatch, path)
    assert "750 M parameters" in capsys.readouterr().out
    assert path.stat().st_blocks * 512 < 1e6
