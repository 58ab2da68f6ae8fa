"""Checkpoints: what is saved comes back, and what is damaged or does not fit is named."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vjepa_wm.checkpoint import CONFIG, WEIGHTS, load_checkpoint, save_checkpoint, tensor_faults
from vjepa_wm.errors import CheckpointError, DataError
from vjepa_wm.files import digest, read_json, write_json


def network(*, width: int = 4, layers: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), *(nn.Linear(width, width) for _ in range(layers - 1)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of two parts."""
    save_checkpoint(
        tmp_path / "saved",
        {"predictor": network(), "metric": nn.Linear(2, 1)},
        {"kind": "toy", "width": 4},
    )
    return tmp_path / "saved"


def reseal(folder: Path) -> None:
    """Make the configuration name the weights as they are now, as a forger would."""
    config = read_json(folder / CONFIG)
    write_json(folder / CONFIG, {**config, "weights_digest": digest(folder / WEIGHTS)})


def test_what_is_saved_comes_back(folder: Path) -> None:
    """In half precision, part by part, with the configuration and the digest."""
    loaded = load_checkpoint(folder)
    assert loaded.config["kind"] == "toy"
    assert loaded.config["width"] == 4
    assert loaded.digest == loaded.config["weights_digest"] == digest(folder / WEIGHTS)
    other = network()
    nn.init.zeros_(other[0].weight)
    loaded.load_into(other, "predictor")
    for name, tensor in network().state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor.half().float())
    assert other[0].weight.dtype == torch.float32
    loaded.load_into(nn.Linear(2, 1), "metric")


def test_saving_twice_gives_the_same_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    digests = {save_checkpoint(tmp_path, {"a": network()}, {"kind": "toy"}) for _ in range(2)}
    assert len(digests) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


def test_the_same_weights_keep_what_is_said_of_how_they_were_made(folder: Path) -> None:
    parts = {"predictor": network(), "metric": nn.Linear(2, 1)}
    first, second = ({"kind": "toy", "name": n, "config": {"seed": n}} for n in (1, 2))
    save_checkpoint(folder, parts, first)
    save_checkpoint(folder, parts, second)
    config = read_json(folder / CONFIG)
    assert config["config"] == {"seed": 1} and config["name"] == 2  # such as where its encoder lies
    nn.init.zeros_(parts["metric"].weight)
    save_checkpoint(folder, parts, second)
    assert read_json(folder / CONFIG)["config"] == {"seed": 2}
    (folder / CONFIG).write_text("{")
    save_checkpoint(folder, parts, first)
    assert read_json(folder / CONFIG)["config"] == {"seed": 1}


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_half_precision_cannot_hold_are_not_saved(tmp_path: Path, value) -> None:
    model = network()
    with torch.no_grad():
        model[1].bias[2] = value
    with pytest.raises(CheckpointError, match=r"predictor\.1\.bias hold values .* not finite"):
        save_checkpoint(tmp_path, {"predictor": model}, {"kind": "toy"})
    assert not list(tmp_path.iterdir())


def flip_last(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


@pytest.mark.parametrize("damage", [flip_last, lambda raw: raw[:-10], lambda raw: b""])
def test_damaged_weights_are_noticed(folder: Path, damage) -> None:
    """A single bit, a file cut short, an empty one: by digest, before anything is read."""
    path = folder / WEIGHTS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or was replaced"):
        load_checkpoint(folder)


@pytest.mark.parametrize("raw", [b"", b"12345678", b"\xff" * 100])
def test_what_is_no_safetensors_file_is_an_error(folder: Path, raw: bytes) -> None:
    """Also where the digest was made to fit."""
    (folder / WEIGHTS).write_bytes(raw)
    reseal(folder)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_checkpoint(folder)


class Bomb:
    """Runs code when a careless program unpickles it."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_in_disguise_is_refused_and_not_run(folder: Path, monkeypatch, write) -> None:
    monkeypatch.chdir(folder.parent)
    with (folder / WEIGHTS).open("wb") as file:
        write(Bomb(), file)
    reseal(folder)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_checkpoint(folder)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name} in {folder}"):
        load_checkpoint(folder)


def test_a_damaged_configuration_is_named(folder: Path) -> None:
    (folder / CONFIG).write_text('{"kind": "t')
    with pytest.raises(DataError, match="config.json is not valid JSON"):
        load_checkpoint(folder)


@pytest.mark.parametrize("config", [{"model_type": "vjepa2"}, [], {"weights_digest": "0"}])
def test_a_configuration_of_something_else_is_refused(folder: Path, config) -> None:
    """Other packages use the same two file names."""
    write_json(folder / CONFIG, config)
    with pytest.raises(CheckpointError, match="lacks kind or weights_digest"):
        load_checkpoint(folder)


def test_every_tensor_that_does_not_fit_is_named(folder: Path) -> None:
    """Missing, surplus and mis-shaped ones in one message; the module keeps what it had."""
    tensors = load_file(folder / WEIGHTS)
    del tensors["predictor.0.bias"]
    tensors["predictor.9.bias"] = torch.zeros(1).half()
    tensors["predictor.1.weight"] = torch.zeros(2, 4).half()
    save_file(tensors, folder / WEIGHTS)
    reseal(folder)
    model = network()
    with pytest.raises(CheckpointError) as info:
        load_checkpoint(folder).load_into(model, "predictor")
    for fault in ("missing 0.bias", "surplus 9.bias", "1.weight: wanted (4, 4), got (2, 4)"):
        assert fault in str(info.value)
    assert "0.weight" not in str(info.value)
    assert torch.equal(model[1].weight, network()[1].weight)


def test_names_that_differ_in_a_number_share_an_entry() -> None:
    """Two families of one size differ in hundreds of tensors; the message stays readable."""
    wanted = {f"blocks.{i}.norm{j}.bias": torch.zeros(3) for i in range(12) for j in (1, 2)}
    got = {name: tensor for name, tensor in wanted.items() if name.split(".")[1] in ("4", "5", "9")}
    got |= {f"mask_tokens.{i}": torch.zeros(1) for i in range(2)}
    got["blocks.9.norm1.bias"] = torch.zeros(4)
    assert tensor_faults(wanted, got) == (
        "blocks.9.norm1.bias: wanted (3,), got (4,); "
        "missing blocks.0-3,6-8,10-11.norm1.bias; missing blocks.0-3,6-8,10-11.norm2.bias; "
        "surplus mask_tokens.0-1"
    )
    assert tensor_faults(wanted, wanted) == ""


def test_an_absent_part_is_all_missing(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="missing 0.bias; missing 0.weight"):
        load_checkpoint(folder).load_into(network(layers=1), "decoder")
