"""The recipes of pretrain, end to end on tiny networks: what each trains, and that it loads."""

import json
from pathlib import Path

import hydra
import pytest
import torch
from hydra.utils import instantiate

from tests import tiny
from vjepa_wm import load_mask_predictor, pretrain
from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.encoders.registry import load_encoder
from vjepa_wm.errors import CheckpointError
from vjepa_wm.pretraining.jepa import JEPA

SIZE = 32
TINY = [
    "vit=tiny",
    "mask_predictor=tiny",
    f"image_size={SIZE}",
    "trainer.batch_size=4",
    "trainer.validate_every=3",
    "trainer.precision=fp32",
    "validation_episodes=2",
]
RECIPES = sorted(path.stem for path in (tiny.CONFIGS / "recipe").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "squares"
    tiny.moving_squares(folder, episodes=6, length=9, size=SIZE)
    return folder


def run(monkeypatch, data: Path, out: Path, *options: str) -> list[dict]:
    """Pretrain and return the rows of the log."""
    monkeypatch.setattr("sys.argv", ["pretrain", *TINY, f"data=[{data}]", f"out={out}", *options])
    pretrain.main()
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def compose(*options: str):
    with hydra.initialize_config_module("configs", version_base="1.3"):
        return hydra.compose("pretrain", overrides=[*TINY, *options])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_and_its_encoder_loads(
    data: Path, tmp_path: Path, monkeypatch, recipe: str
) -> None:
    rows = run(monkeypatch, data, tmp_path, f"recipe={recipe}", "trainer.steps=4")
    assert [row["step"] for row in rows] == [0, 3, 4]
    parts = {"compact": "sigreg_loss", "vjepa2_1": "context_loss", "pixels": "pixel_loss"}
    assert parts.get(recipe, "prediction_loss") in rows[-1]
    assert ("sigreg_loss" in rows[-1]) == (recipe == "compact")
    assert "variance_loss" not in rows[-1]
    config = load_checkpoint(tmp_path).config
    assert config["name"] == recipe
    assert config["which"] == ("encoder" if recipe == "pixels" else "target_encoder")
    encoder = load_encoder(str(tmp_path), dtype="fp32")
    latents = encoder.encode(tiny.pixels(2, 3, SIZE, SIZE))
    assert latents.shape == (2, 3, 16, 32) and latents.isfinite().all()
    clips = encoder.encode_clips(tiny.pixels(2, 4, SIZE, SIZE))
    assert clips.shape == (2, 2, 16, 32) and clips.isfinite().all()


@pytest.mark.parametrize("recipe", ["vjepa1", "vjepa2", "vjepa2_1"])
def test_a_killed_recipe_goes_on_where_it_was(data, tmp_path, monkeypatch, recipe: str) -> None:
    """Stopped in its fifth step and run again: the log is that of an undisturbed run."""
    options = [f"recipe={recipe}", "trainer.steps=6"]
    straight = run(monkeypatch, data, tmp_path / "straight", *options)
    calls, update = [], JEPA.update_target

    def interrupted(self: JEPA) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        update(self)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(JEPA, "update_target", interrupted)
        run(patch, data, tmp_path / "killed", *options)
    again = run(monkeypatch, data, tmp_path / "killed", *options)
    for mine, theirs in zip(again, straight, strict=True):
        assert {**mine, "minutes": 0} == {**theirs, "minutes": 0}


def test_the_published_figures_are_set() -> None:
    """Those of the papers that a configuration can hold; the schedules have tests of their own."""
    first, second, third = (compose(f"recipe={name}") for name in ("vjepa1", "vjepa2", "vjepa2_1"))
    for cfg in (first, second, third):
        short, long = cfg.masks.video
        assert (short.num_blocks, short.spatial_scale) == (8, 0.15)
        assert (long.num_blocks, long.spatial_scale) == (2, 0.7)
        for kind in (*cfg.masks.video, *cfg.masks.image):
            assert (kind.temporal_scale, kind.min_aspect, kind.max_aspect) == (1.0, 0.75, 1.5)
        augment = cfg.augment
        assert (list(augment.area), list(augment.aspect)) == ([0.3, 1.0], [0.75, 1.35])
        assert augment.flip and augment.trajectories
        assert cfg.objective.loss_exponent == 1
        terms = instantiate(cfg.objective.terms, _convert_="all")
        assert not any(any(term.weights.values()) for term in terms.values())
    assert [cfg.objective.ema_decay for cfg in (first, second, third)] == [0.998, 0.99925, 0.99925]
    assert [cfg.objective.ema_decay_end for cfg in (first, second, third)] == [1.0, None, None]
    assert [cfg.levels for cfg in (first, second, third)] == [1, 1, 4]
    assert [cfg.positions for cfg in (first, second, third)] == ["sincos", "rotary", "rotary"]
    assert [cfg.vit.rope_style for cfg in (second, third)] == ["tiled", "interpolated"]
    assert (third.masks.image[0].num_blocks, third.masks.image[0].spatial_scale) == (10, 0.15)
    assert (third.objective.dense.weight, third.objective.dense.image_weight) == (0.5, 0.7)
    assert third.trainer.warmup == pytest.approx(12 / 135, abs=1e-4)


def test_the_command_line_goes_before_the_recipe() -> None:
    cfg = compose("recipe=vjepa2", "trainer=pretrain", "objective=pixels", "vit.rope_style=tiled")
    assert "schedule" not in cfg.trainer
    assert cfg.objective._target_.endswith("PixelPrediction")
    assert cfg.masks._target_.endswith("MultiBlockMasks")


def test_the_terms_of_before_train_as_they_did_before_there_were_recipes(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    """Figures of the commit before (5bad2f4), with the masks of now."""
    rows = run(monkeypatch, data, tmp_path, *tiny.TERMS_BEFORE_SIGREG, "pool=2", "trainer.steps=7")
    found = {row["step"]: row for row in rows}
    for step, figures in BEFORE.items():
        for name, value in figures.items():
            assert found[step][name] == pytest.approx(value, rel=1e-4), f"{name} at step {step}"


def test_a_cooldown_starts_from_the_networks_of_the_first_phase(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    first = ["recipe=vjepa2", "trainer.steps=3", "select=null"]
    run(monkeypatch, data, tmp_path / "first", *first)
    cooldown = ["recipe=vjepa2", "trainer.warmup=0", "trainer.schedule.cooldown=1", "select=null"]
    cooldown += [f"state_from={tmp_path / 'first'}", "trainer.steps=0"]
    run(monkeypatch, data, tmp_path / "second", *cooldown)
    taken, given = (load_checkpoint(tmp_path / name).tensors for name in ("second", "first"))
    assert taken.keys() == given.keys()
    assert all(torch.equal(taken[name], given[name]) for name in given)


def test_no_steps_give_a_random_frozen_encoder(data: Path, tmp_path: Path, monkeypatch) -> None:
    """The floor under every objective; another seed is another encoder."""
    latents = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        run(monkeypatch, data, out, "trainer.steps=0", f"trainer.seed={seed}")
        latents.append(load_encoder(str(out), dtype="fp32").encode(tiny.pixels(1, 2, SIZE, SIZE)))
    assert not torch.allclose(*latents, atol=1e-3)


def test_the_mask_predictor_is_kept_beside_the_encoder(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    """As it was when the encoder was; the encoder's own files do not know of it."""
    run(monkeypatch, data, tmp_path, "recipe=vjepa2_1", "trainer.steps=3", "select=null")
    net = load_mask_predictor(str(tmp_path), dtype="fp32")
    assert net.dense and not any(p.requires_grad for p in net.parameters())
    state = torch.load(tmp_path / "state.pt", weights_only=True)["module"]
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, state[f"mask_predictor.{name}"], atol=1e-4, rtol=1e-3)
    assert load_checkpoint(tmp_path).parts == {"encoder"}
    kept = load_checkpoint(tmp_path / "mask_predictor").config
    assert kept["encoder_digest"] == load_checkpoint(tmp_path).digest


def test_the_baseline_has_no_mask_predictor_to_load(data, tmp_path, monkeypatch) -> None:
    run(monkeypatch, data, tmp_path, "recipe=pixels", "trainer.steps=1")
    with pytest.raises(CheckpointError, match="holds a encoder, wanted a mask_predictor"):
        load_mask_predictor(str(tmp_path))


def test_sigreg_can_be_switched_on_in_any_recipe(data, tmp_path, monkeypatch) -> None:
    options = ["recipe=vjepa2", "objective.terms.sigreg.weight=1", "trainer.steps=3"]
    assert run(monkeypatch, data, tmp_path, *options)[-1]["sigreg_loss"] > 0


@pytest.mark.parametrize("recipe", ["vjepa2_1", "pixels"])
def test_every_objective_trains_in_pieces_and_by_its_last_blocks(
    data, tmp_path, monkeypatch, recipe: str
) -> None:
    """Pieces and recomputed activations change nothing; blocks that are not trained stay."""
    options = [f"recipe={recipe}", "image_share=0", "trainer.steps=2", "train_blocks=1"]
    options += ["trainer.warmup=0", "select=null"]
    memory = ["trainer.accumulate=2", "checkpoint_activations=true"]
    for name, more in {"whole": ["trainer.steps=0"], "plain": [], "saving": memory}.items():
        run(monkeypatch, data, tmp_path / name, *options, *more)
    before, plain, saving = (
        torch.load(tmp_path / name / "state.pt", weights_only=True)["module"]
        for name in ("whole", "plain", "saving")
    )
    names = [name for name in plain if "qkv.bias" not in name]  # keys have no gradient but rounding
    change, difference = (
        torch.cat([(plain[n] - other[n]).flatten() for n in names]).norm()
        for other in (before, saving)
    )
    assert change > 0 and difference < 0.02 * change
    for name, tensor in before.items():
        if name.startswith(("encoder.patch_embed", "encoder.blocks.0.")):
            assert torch.equal(tensor, plain[name]), name


def test_a_recipe_takes_the_network_it_starts_from(data, tmp_path, monkeypatch) -> None:
    """One level, rotary positions and the sizes of that encoder; and records them as they are."""
    run(monkeypatch, data, tmp_path / "first", "trainer.steps=0")
    options = ["recipe=vjepa2_1", "positions=sincos", f"start_from={tmp_path / 'first'}"]
    rows = run(monkeypatch, data, tmp_path / "second", *options, "vit=compact", "trainer.steps=2")
    assert "context_loss" in rows[-1]
    first, second = (load_checkpoint(tmp_path / name).config for name in ("first", "second"))
    assert second["vit"] == first["vit"]
    assert (second["config"]["levels"], second["config"]["positions"]) == (1, "rotary")


# Step -> running averages and monitors
BEFORE: dict[int, dict[str, float]] = {
    3: {
        "loss": 1.1399621776103972,
        "prediction_loss": 0.8303976580858231,
        "variance_loss": 0.5428771203756333,
        "covariance_loss": 0.3812592469453815,
        "frame_std": 0.07394890487194061,
        "effective_rank": 5.054166865066488,
    },
    7: {
        "loss": 1.1362563175748308,
        "prediction_loss": 0.8275346535541225,
        "variance_loss": 0.5347221368223831,
        "covariance_loss": 0.41360567388742603,
        "frame_std": 0.07517777383327484,
        "effective_rank": 5.064080775377656,
    },
}
