"""Published files: read whatever their wrapping, refused whatever is wrong with them."""

import io
import os
import pickle
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import published_files, tiny
from vjepa_wm.encoders.frozen import FrozenEncoder
from vjepa_wm.encoders.published import open_published
from vjepa_wm.encoders.registry import load_encoder
from vjepa_wm.errors import CheckpointError, UnknownNameError

FAMILIES = {"tiny1": "V-JEPA 1", "tiny2": "V-JEPA 2", "tiny2_1": "V-JEPA 2.1"}


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    published_files.register(monkeypatch)


def assert_weights(encoder: FrozenEncoder, wanted: dict[str, Tensor]) -> None:
    found = encoder.vit.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_the_average_is_loaded_whatever_wraps_the_names(
    tmp_path: Path, name: str, prefix: str
) -> None:
    path = published_files.write(tmp_path / "meta.pt", name, prefix=prefix)
    encoder = load_encoder(name, path, dtype="fp32")
    assert_weights(encoder, published_files.encoder_weights(name))
    assert encoder.name == f"{name}/{published_files.NETS[name]}"
    assert encoder.image_size == 16
    assert encoder.encode(tiny.pixels(1, 2, 20, 24)).shape == (1, 2, 16, 24)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_the_student_can_be_chosen_and_is_told_apart(tmp_path: Path) -> None:
    path = published_files.write(tmp_path / "meta.pt", "tiny2")
    average, student = (
        load_encoder("tiny2", path, dtype="fp32", net=net) for net in (None, "encoder")
    )
    halves = {key: value / 2 for key, value in published_files.encoder_weights("tiny2").items()}
    assert_weights(student, halves)
    assert student.name == "tiny2/encoder"
    assert student.digest != average.digest
    assert average.digest == load_encoder("tiny2", path, net="target_encoder").digest
    with pytest.raises(CheckpointError, match="no network 'ema_encoder'. It has: encoder, target_"):
        load_encoder("tiny2", path, net="ema_encoder")


def test_a_choice_of_network_needs_a_file_with_several() -> None:
    with pytest.raises(ValueError, match="net=encoder chooses a network of a published"):
        load_encoder("compact", net="encoder")


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("asked", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_half_precision_is_read_into_the_dtype_asked_for(
    tmp_path: Path, stored: torch.dtype, asked: str, dtype: torch.dtype
) -> None:
    weights = {k: v.to(stored) for k, v in published_files.encoder_weights("tiny2").items()}
    torch.save({"target_encoder": weights}, tmp_path / "half.pt")
    encoder = load_encoder("tiny2", tmp_path / "half.pt", dtype=asked)
    assert_weights(encoder, {key: value.to(dtype) for key, value in weights.items()})
    assert {value.dtype for value in encoder.state_dict().values()} == {dtype}


def test_pool_and_image_size_can_be_chosen(tmp_path: Path) -> None:
    path = published_files.write(tmp_path / "meta.pt", "tiny1")
    encoder = load_encoder("tiny1", path, dtype="fp32", image_size=24, pool=2)
    assert encoder.encode(tiny.pixels(1, 1, 24, 24)).shape == (1, 1, 9, 24)


@pytest.mark.parametrize("name", ["tiny2", "tiny2_1"])
def test_a_position_table_that_rotary_models_do_not_use_is_dropped(
    tmp_path: Path, name: str
) -> None:
    weights = published_files.encoder_weights(name)
    table = {"pos_embed": torch.zeros(1, 7, 24)}
    torch.save({published_files.NETS[name]: weights | table}, tmp_path / "meta.pt")
    assert_weights(load_encoder(name, tmp_path / "meta.pt", dtype="fp32"), weights)


@pytest.mark.parametrize("form", ["torch", "old torch", "safetensors", "grouped"])
def test_tensors_of_one_network_are_read_too(tmp_path: Path, form: str) -> None:
    """As users cut them out, in the formats they use; PyTorch's before 1.6 among them."""
    weights, path = published_files.encoder_weights("tiny2"), tmp_path / "weights"
    if form == "safetensors":
        save_file(weights, path)
    elif form == "grouped":
        save_file({f"target_encoder.{key}": value for key, value in weights.items()}, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == "torch")
    assert_weights(load_encoder("tiny2", path, dtype="fp32"), weights)


def test_the_file_is_free_once_it_is_loaded(tmp_path: Path) -> None:
    """The weights are a copy: what happens to the file later does not touch them."""
    path = published_files.write(tmp_path / "meta.pt", "tiny2")
    encoder = load_encoder("tiny2", path, dtype="fp32")
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_weights(encoder, published_files.encoder_weights("tiny2"))


@pytest.mark.parametrize("asked", FAMILIES)
@pytest.mark.parametrize("given", FAMILIES)
def test_no_family_loads_as_another(tmp_path: Path, asked: str, given: str) -> None:
    """Of the same sizes; above all V-JEPA 2.1 not as V-JEPA 2, which other code does silently."""
    weights = published_files.encoder_weights(given)
    nets = dict.fromkeys(("target_encoder", "ema_encoder"), weights)
    torch.save(nets, tmp_path / "meta.pt")
    if asked == given:
        load_encoder(asked, tmp_path / "meta.pt")
        return
    message = f"is a {FAMILIES[given]} encoder of width 24 .* not {asked} .*Load it as: {given}$"
    with pytest.raises(CheckpointError, match=message):
        load_encoder(asked, tmp_path / "meta.pt")


def test_another_size_is_named_with_the_encoder_it_fits(tmp_path: Path) -> None:
    path = published_files.write(tmp_path / "meta.pt", "tiny2_wide")
    message = r"width 36 and depth 2, not tiny2 \(width 24, depth 2\). Load it as: tiny2_wide"
    with pytest.raises(CheckpointError, match=message):
        load_encoder("tiny2", path)
    with pytest.raises(CheckpointError, match="not vjepa2_vitg_256 .width 1408, depth 40"):
        load_encoder("vjepa2_vitg_256", path)


def test_a_file_without_the_name_of_its_encoder_is_no_riddle(tmp_path: Path) -> None:
    path = published_files.write(tmp_path / "meta.pt", "tiny2")
    with pytest.raises(UnknownNameError, match="unknown published encoder 'tiny'. Did you mean"):
        load_encoder("tiny", path)


def test_every_tensor_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    weights = published_files.encoder_weights("tiny2")
    for block in range(2):
        del weights[f"blocks.{block}.norm2.bias"]
    weights["cls_token"] = torch.zeros(1, 1, 24)
    weights["norm.weight"] = torch.zeros(25)
    torch.save({"target_encoder": weights}, tmp_path / "meta.pt")
    with pytest.raises(CheckpointError) as info:
        load_encoder("tiny2", tmp_path / "meta.pt")
    assert str(info.value).endswith(
        "does not fit: missing blocks.0-1.norm2.bias; norm.weight: wanted (24,), got (25,); "
        "surplus cls_token"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    weights = published_files.encoder_weights("tiny2")
    weights["blocks.1.mlp.fc1.weight"][3, 5] = value
    save_file(weights, tmp_path / "damaged.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.mlp\.fc1\.weight holds values .* not f"):
        load_encoder("tiny2", tmp_path / "damaged.safetensors")


@pytest.mark.parametrize("form", ["torch", "old torch", "safetensors"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / "cut"
    weights = published_files.encoder_weights("tiny2")
    if form == "safetensors":
        save_file(weights, whole)
    else:
        torch.save(
            {"target_encoder": weights}, whole, _use_new_zipfile_serialization=form[0] == "t"
        )
    raw = whole.read_bytes()
    rng = random.Random(0)
    lengths = [0, 1, 4, 9, 100, len(raw) - 1, *(rng.randrange(len(raw)) for _ in range(20))]
    for length in lengths:
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match="cut"):
            load_encoder("tiny2", path)


def test_a_flipped_bit_never_changes_the_weights(tmp_path: Path) -> None:
    """PyTorch's files carry checksums, which it does not look at when it maps them; we do."""
    path = published_files.write(tmp_path / "meta.pt", "tiny2")
    raw, wanted = path.read_bytes(), published_files.encoder_weights("tiny2")
    rng = random.Random(0)
    refused = 0
    for _ in range(50):
        damaged = bytearray(raw)
        damaged[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            encoder = load_encoder("tiny2", path, dtype="fp32")
        except CheckpointError:
            refused += 1
            continue
        assert_weights(encoder, wanted)  # it was in the padding
    assert refused > 30


class Bomb:
    """Runs code when a careless program unpickles it."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


def dump_with_weights(content: object, file: io.BufferedWriter) -> None:
    torch.save({**published_files.content("tiny2"), "args": content}, file)


@pytest.mark.parametrize("write", [pickle.dump, torch.save, dump_with_weights])
def test_a_file_that_wants_to_run_code_is_refused(tmp_path: Path, monkeypatch, write) -> None:
    """Also where the weights beside the code are good; nobody is told to run it all the same."""
    monkeypatch.chdir(tmp_path)
    with open("evil.pt", "wb") as file:
        write(Bomb(), file)
    with pytest.raises(CheckpointError, match=r"evil.pt .* not loaded: .* publisher$") as info:
        load_encoder("tiny2", "evil.pt")
    assert not Path("exploded").exists()
    if write is not pickle.dump:  # of another protocol, which the restricted reader cannot follow
        assert ".mkdir when it is loaded" in str(info.value)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "test.py")


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "no weights here")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("<html>not found</html>"), "no PyTorch or safetensors file"),
        (write_tar, "no PyTorch or safetensors file"),
        (write_zip, "not one that PyTorch wrote"),
        (lambda path: torch.save([torch.ones(2)], path), "holds a list, wanted named tensors"),
        (lambda path: torch.save({"epoch": 3}, path), "no network 'target_encoder'. It has: none"),
        (lambda path: torch.save({"a.weight": torch.ones(2)}, path), "is no V-JEPA encoder"),
        (lambda path: path.mkdir(), "no config.json in"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_no_published_file_is_said_to_be_none(tmp_path: Path, write, message: str) -> None:
    path = tmp_path / "vitl.pt"
    write(path)
    with pytest.raises(CheckpointError, match=message):
        load_encoder("tiny2", path)


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    torch.save({"encoder": {"module.a": torch.ones(1), "a": torch.ones(1)}}, tmp_path / "twice.pt")
    with pytest.raises(CheckpointError, match="holds two tensors for a: one of them is a"):
        open_published(tmp_path / "twice.pt")
