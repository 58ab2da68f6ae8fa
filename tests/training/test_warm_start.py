"""Training that starts from a world model goes on where that one was."""

from pathlib import Path

import pytest
import torch

from tests import tiny
from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.errors import CheckpointError
from vjepa_wm.loading import load_world_model
from vjepa_wm.metric import TemporalMetric
from vjepa_wm.predictor import ActionPredictor
from vjepa_wm.proprio import LearnedIntegrator
from vjepa_wm.training.warm_start import start_from
from vjepa_wm.world_model import ActionSpec, WorldModel

STATISTICS = {"proprio_mean": [0.0, 1.0], "proprio_std": [1.0, 2.0]}


def fresh(loaded, **changes: object) -> WorldModel:
    """Return a world model as train_ac builds it, untrained, on the encoder of a checkpoint."""
    torch.manual_seed(1)
    integrate = LearnedIntegrator(mean=[0.0, 1.0], std=[1.0, 2.0], action_dim=2, hidden_dim=4)
    settings = {**loaded.config["predictor"], **changes}
    trained = load_world_model(loaded.folder, dtype="fp32")
    return WorldModel(
        trained.encoder,
        ActionPredictor(**settings),
        action_spec=trained.action_spec,
        metric=TemporalMetric(**loaded.config["metric"]),
        integrate=integrate if "proprio_mean" in settings else None,
    )


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, STATISTICS], ids=["as it was", "with proprio"])
def test_it_predicts_what_it_started_from_predicts(tmp_path: Path, changes: dict) -> None:
    """Proprio that is new changes nothing before the first step."""
    folder = tiny.save_world_model(tmp_path)
    world_model = fresh(load_checkpoint(folder), **changes)
    start_from(world_model, load_checkpoint(folder))
    wanted = load_world_model(folder, dtype="fp32")
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 3, 4, 24, generator=generator)
    actions = torch.randn(2, 3, 2, generator=generator)
    proprio = torch.randn(2, 3, 2, generator=generator) if changes else None
    torch.testing.assert_close(
        world_model.next(latents, actions, proprio), wanted.next(latents, actions)
    )
    torch.testing.assert_close(world_model.metric.embed(latents), wanted.metric.embed(latents))


def test_weights_that_read_actions_otherwise_are_refused(tmp_path: Path) -> None:
    """Those of before read them as they are, which is the same for actions from -1 to 1 alone."""
    loaded = load_checkpoint(tiny.save_world_model(tmp_path))
    start_from(fresh(loaded), loaded)
    loaded.config["action_spec"] |= {"low": [0.0, 0.0], "high": [512.0, 512.0]}
    world_model = fresh(loaded)
    world_model.action_spec = ActionSpec(**loaded.config["action_spec"])
    with pytest.raises(CheckpointError, match="actions: wanted shares of half .* as they are"):
        start_from(world_model, loaded)


def test_another_encoder_or_size_is_refused(tmp_path: Path) -> None:
    folder = tiny.save_world_model(tmp_path)
    loaded = load_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"cannot start the predictor .* missing blocks"):
        start_from(fresh(loaded, depth=3), loaded)
    loaded.config["encoder"]["digest"] = "another"
    with pytest.raises(CheckpointError, match="encoder: wanted .*, got another"):
        start_from(fresh(loaded), loaded)
    loaded = load_checkpoint(folder)
    loaded.config["action_spec"]["frame_skip"] = 7
    with pytest.raises(CheckpointError, match="frame_skip: wanted 2, got 7"):
        start_from(fresh(load_checkpoint(folder)), loaded)
