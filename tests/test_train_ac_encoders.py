"""train_ac on encoders published elsewhere: V-JEPA files and timm, found again when planning."""

import json
from pathlib import Path

import hydra
import pytest
import torch

from tests import published_files, tiny
from vjepa_wm import load_world_model, train_ac
from vjepa_wm.data.latents import MAX_BATCH, frames_per_batch
from vjepa_wm.errors import CheckpointError, DataError

QUICK = (
    "predictor=tiny",
    "evaluation_episodes=0",
    "validation_windows=8",
    "trainer.steps=2",
    "trainer.minutes=null",
    "trainer.precision=fp32",
    "metric_trainer.steps=2",
    "integrator_trainer.steps=2",
    "metric_trainer.precision=fp32",
)


@pytest.fixture
def tiny_names(monkeypatch: pytest.MonkeyPatch) -> None:
    published_files.register(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    tiny.moving_squares(folder, episodes=20, length=24, size=20)
    return folder


def train(data: Path, folder: Path, *options: str) -> Path:
    """Run the verb in this process, and return the folder of the world model."""
    places = (f"data={data}", f"cache={folder}/cache", f"out={folder}/run")
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose("train_ac", overrides=[*QUICK, *places, *options])
    train_ac.main.__wrapped__(cfg)
    return folder / "run"


def published_options(path: Path) -> list[str]:
    return ["encoder=vjepa2_vitl_256", "encoder.name=tiny2", f"encoder.checkpoint={path}"]


@pytest.mark.usefixtures("tiny_names")
def test_a_published_vjepa_at_a_size_of_ones_own(data: Path, tmp_path: Path, caplog) -> None:
    path = published_files.write(tmp_path / "vitl.pt", "tiny2")
    options = [*published_options(path), "encoder.image_size=32", "encoder.pool=2"]
    options += ["encoder.pool_by=stack"]
    with caplog.at_level("INFO"):
        run = train(data, tmp_path, *options, "encoder.net=encoder", "encoder.dtype=fp32")
    assert "480 frames with tiny2/encoder, 16 tokens of width 96" in caplog.text
    assert "encoding will take about" in caplog.text
    record = json.loads((run / "config.json").read_text())["encoder"]
    assert (record["name"], record["net"], record["image_size"]) == ("tiny2", "encoder", 32)
    assert (record["checkpoint"], record["preprocessing"]["image_size"]) == (str(path), 32)
    world_model = load_world_model(run, dtype="bf16")
    assert world_model.predictor.grid == world_model.encoder.grid == (4, 4)
    assert world_model.encoder.digest == record["digest"]
    assert world_model.encoder.latent_shape == (16, 96)
    latents = world_model.encode(tiny.pixels(1, 1, 20, 20))
    none = torch.zeros(1, 1, 2)
    assert world_model.next(latents.bfloat16(), none.bfloat16(), none).isfinite().all()
    with pytest.raises(DataError, match="latent_shape: wanted .16, 96., got .64, 24."):
        train(data, tmp_path, *published_options(path), "encoder.image_size=32")


@pytest.mark.usefixtures("tiny_names")
def test_weights_that_were_moved_are_named_and_can_be_passed(data: Path, tmp_path: Path) -> None:
    path = published_files.write(tmp_path / "vitl.pt", "tiny2")
    run = train(data, tmp_path, *published_options(path))
    elsewhere = path.rename(tmp_path / "elsewhere.pt")
    with pytest.raises(CheckpointError, match=r"vitl\.pt does not exist.*encoder_checkpoint=PATH"):
        load_world_model(run)
    assert load_world_model(run, encoder_checkpoint=elsewhere).encoder.grid == (4, 4)
    content = published_files.content("tiny2")
    content["target_encoder"] = content["encoder"]
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="was trained on encoder tiny2 with weights digest"):
        load_world_model(run, encoder_checkpoint=tmp_path / "other.pt")


def test_a_timm_encoder(data: Path, tmp_path: Path) -> None:
    name = "timm:vit_tiny_patch16_224"
    options = ["encoder=timm", f"encoder.name={name}", "encoder.pretrained=false"]
    run = train(data, tmp_path, *options, "encoder.image_size=32", "encoder.crop_pct=1")
    world_model = load_world_model(run)
    assert world_model.encoder.name == name
    assert world_model.predictor.grid == (2, 2)
    assert "crop_pct" not in world_model.encoder.preprocessing


def test_batches_shrink_as_frames_grow() -> None:
    """Within a gigabyte on a CPU, and never below one frame."""
    small, large = tiny.encoder(), tiny.encoder()
    large.image_size = 1600  # 160,000 tokens
    assert frames_per_batch(small.frame_bytes, "cpu") == MAX_BATCH
    assert frames_per_batch(large.frame_bytes, "cpu") == 1
    assert frames_per_batch(100 * 2**20, "cpu") == 10
