"""The training verb end to end, tiny: from trajectories to an agent that acts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from planners import CEM
from tests import tiny
from vjepa_wm import GoalCost, MPCAgent, evaluate, load_world_model, train_ac
from vjepa_wm.checkpoint import load_checkpoint, save_checkpoint
from vjepa_wm.data.collection import CollectSettings, collect
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.errors import CheckpointError, DataError, SettingError
from vjepa_wm.files import read_json, write_json
from vjepa_wm.training.inputs import (
    INPUTS,
    OURS,
    open_latents,
    open_or_collect,
    require_lengths,
    split_windows,
)

ROOT = Path(__file__).parent.parent


def train(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the verb on the folder's data and encoder."""
    command = [sys.executable, "-m", "vjepa_wm.train_ac", "predictor=tiny", f"out={folder}/run"]
    command += [f"data={folder}/data", f"cache={folder}/cache", "evaluation_episodes=0"]
    command += [f"encoder.checkpoint={folder}/encoder", "encoder.dtype=fp32"]
    command += ["trainer.precision=fp32", "metric_trainer.precision=fp32", "trainer.minutes=null"]
    command += ["integrator_trainer.steps=4"]
    command += ["trainer.validate_every=2", "validation_windows=8", "metric_trainer.steps=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny trajectories, a random encoder, and a world model of four steps."""
    folder = tmp_path_factory.mktemp("train_ac")
    tiny.moving_squares(folder / "data", episodes=24, length=24, size=tiny.IMAGE_SIZE)
    config = {"kind": "encoder", "name": "tiny", "vit": tiny.VIT}
    config |= {"image_size": tiny.IMAGE_SIZE, "pool": 2}
    save_checkpoint(folder / "encoder", {"encoder": tiny.vit()}, config)
    done = train(folder, "trainer.steps=4")
    assert done.returncode == 0, done.stderr
    assert "copy" in done.stdout
    assert str(folder / "run") in done.stdout
    assert "still ignores actions" in done.stderr
    return folder


def test_the_world_model_plans(trained: Path) -> None:
    world_model = load_world_model(trained / "run", dtype="fp32")
    cost = GoalCost(distance="metric", over_steps="sum", metric=world_model.metric)
    planner = CEM(horizon=3, num_samples=8, num_elites=2, iterations=2)
    agent = MPCAgent(world_model, planner, cost, context_len=2, replan_every=1)
    frames = tiny.pixels(3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE).numpy()
    agent.reset(goal=frames[0])
    for frame in frames[1:]:
        action = agent.act({"pixels": frame, "proprio": np.ones(2, np.float32)})
        assert action.shape == (2,)
        assert np.abs(action).max() <= 1


def test_it_says_how_far_latents_move_in_a_step(trained: Path) -> None:
    """What squared distance is measured in: the mean over the training episodes."""
    world_model = load_world_model(trained / "run", dtype="fp32")
    trajectories = Trajectories.open(trained / "data")
    squared = []
    for index in trajectories.split()[0]:
        pixels = torch.from_numpy(trajectories.episode(int(index)).pixels.copy())
        latents = world_model.encode(pixels[None])[0]
        squared.append((latents[1:] - latents[:-1]).square().mean((1, 2)))
    wanted = float(torch.cat(squared).mean())
    assert world_model.metric.squared_step == pytest.approx(wanted, rel=0.1)
    cost = GoalCost(distance="metric", over_steps="last", metric=world_model.metric)
    assert cost.l2_unit == world_model.metric.squared_step


def test_the_metric_trained_on_centred_latents_takes_them_as_they_are(trained: Path) -> None:
    """Its loss on the validation windows, as the encoder gives them, is the one of training."""
    world_model = load_world_model(trained / "run", dtype="fp32")
    trajectories = Trajectories.open(trained / "data")
    cache = open_latents(trajectories, world_model.encoder, root=trained / "cache", device="cpu")
    _, held_out = split_windows(cache, num_frames=20)
    windows = held_out.sample(np.random.default_rng(0), 32)
    loss, _ = world_model.metric.loss(windows.latents.float())
    rows = (trained / "run" / "metric" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(row)["held_out_loss"] for row in rows if "held_out_loss" in row]
    assert min(losses) < losses[0]
    assert float(loss) == pytest.approx(min(losses), rel=2e-3)


def test_metrics_of_before_they_were_centred_are_not_gone_on_with(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    path = tmp_path / "run" / INPUTS
    write_json(path, {k: v for k, v in read_json(path).items() if k != "metric_inputs"})
    done = train(trained, f"out={tmp_path}/run")
    assert done.returncode == 2
    assert "metric_inputs: wanted as they are, got centred" in done.stderr


def test_proprio_can_be_left_out(trained: Path, tmp_path: Path) -> None:
    """Asked for, or because none was recorded; the integrator is then neither made nor saved."""
    assert load_world_model(trained / "run").takes_proprio
    tiny.moving_squares(tmp_path / "data", episodes=20, length=24, size=16, sensed=False)
    for folder, options in ((trained, ["proprio=false"]), (tmp_path, [])):
        (tmp_path / "encoder").unlink(missing_ok=True)
        (tmp_path / "encoder").symlink_to(trained / "encoder")
        out = tmp_path / f"run{len(options)}"
        done = train(folder, *options, "trainer.steps=1", f"out={out}")
        assert done.returncode == 0, done.stderr
        assert not load_world_model(out).takes_proprio
        assert not (out / "integrator").exists()


@pytest.mark.parametrize(
    ("env_id", "is_measured"), [("envs:vjepa_wm/Push-v0", True), ("my_envs:Push-v0", False)]
)
def test_only_environments_with_frozen_tasks_are_measured_on_them(
    env_id: str, is_measured: bool, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Whatever it is called: another environment's tasks would say nothing of it."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(evaluate, "run_verb", lambda *words: asked.append(words))
    env = {"name": "push", "id": env_id, "image_size": 64, "frame_skip": 4}
    cfg = {"env": env, "evaluation_episodes": 3, "device": "cuda", "out": "runs/x"}
    evaluate.evaluate_trained(OmegaConf.create(cfg), "agent=mpc")
    assert ("not evaluated" in capsys.readouterr().out) != is_measured
    wanted = ("evaluate", "env=push", "env.frame_skip=4", "agent=mpc", "device=cuda")
    wanted += ("tasks=tuning", "episodes=3", "out=runs/x/evaluation")
    assert asked == ([wanted] if is_measured else [])


@pytest.mark.parametrize(("max_frames", "told"), [(4, ["planner.horizon=4"]), (6, []), (8, [])])
def test_a_shorter_predictor_is_planned_with_as_many_steps_as_it_has(
    max_frames: int, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the six of the environment's planner the evaluation after a training would fail."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(evaluate, "run_verb", lambda *words: asked.append(words))
    env = {"name": "push", "id": "envs:vjepa_wm/Push-v0", "image_size": 64, "frame_skip": 2}
    cfg = {"env": env, "evaluation_episodes": 3, "device": "cpu", "out": "runs/x"}
    evaluate.evaluate_trained(OmegaConf.create(cfg), "agent=mpc", max_frames=max_frames)
    assert [word for word in asked[0] if word.startswith("planner")] == told


def test_without_actions_it_foresees_and_plans_nothing(trained: Path, tmp_path: Path) -> None:
    """As of videos: no metric, no shuffled actions; what plans or clones refuses it."""
    tiny.moving_squares(
        tmp_path / "data", episodes=20, length=24, size=16, sensed=False, acting=False
    )
    (tmp_path / "encoder").symlink_to(trained / "encoder")
    done = train(tmp_path, "env=play", "trainer.steps=2", "evaluation_episodes=5")
    assert done.returncode == 0, done.stderr
    assert "shuffled" not in done.stdout and "ignores actions" not in done.stderr
    assert "Warning" not in done.stderr
    world_model = load_world_model(tmp_path / "run", dtype="fp32")
    assert world_model.metric is None and world_model.action_spec.low == ()
    planner = CEM(horizon=3, num_samples=8, num_elites=2, iterations=2)
    with pytest.raises(SettingError, match="takes no actions"):
        MPCAgent(
            world_model,
            planner,
            GoalCost(distance="l1", over_steps="sum"),
            context_len=2,
            replan_every=1,
        )
    start = [f"start_from={tmp_path}/run", f"out={tmp_path}/next"]
    again = train(tmp_path, *start, "trainer.steps=0", "trainer.seed=1")
    assert again.returncode == 0, again.stderr
    first, second = (load_checkpoint(tmp_path / name).tensors for name in ("run", "next"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_episodes_too_short_for_the_metric_are_found_out_first(trained: Path) -> None:
    """Before the predictor is trained, and with the option that helps."""
    trajectories = Trajectories.open(trained / "data")
    longest = int(trajectories.lengths.max())
    require_lengths(trajectories, {"metric_frames": longest})
    with pytest.raises(DataError, match=rf"metric_frames asks .* {longest + 1} .* has {longest}"):
        require_lengths(trajectories, {"metric_frames": longest + 1})


def test_episodes_that_are_left_out_are_counted(trained: Path, caplog) -> None:
    trajectories = Trajectories.open(trained / "data")
    require_lengths(trajectories, {"metric_frames": int(trajectories.lengths.min())})
    assert not caplog.records
    trajectories.lengths = trajectories.lengths.copy()
    trajectories.lengths[:3] = 2
    require_lengths(trajectories, {"metric_frames": 20})
    [record] = caplog.records
    assert f"3 of {trajectories.num_episodes} episodes" in record.message
    assert "shorter than the 20 frames that metric_frames asks for" in record.message


@pytest.mark.parametrize("start", [False, True])
def test_what_was_never_trained_is_kept_only_where_it_was_before(
    start: bool, trained: Path, tmp_path: Path
) -> None:
    """The untrained predictor copies the last frame, which a short training may not beat."""
    options = [f"start_from={trained}/run"] if start else []
    rate = "trainer.learning_rate=1"  # makes it worse than it was
    done = train(trained, *options, rate, "trainer.steps=1", f"out={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    kept = load_checkpoint(tmp_path / "run").config["figures"]["predictor"]["step"]
    assert kept == (0 if start else 1)
    assert f"the predictor kept is that of step {kept}" in done.stdout


def test_a_single_episode_holds_none_out(tmp_path: Path) -> None:
    tiny.moving_squares(tmp_path, episodes=1, length=24, size=16)
    with pytest.raises(DataError, match="holds 1 episode: wanted at least two"):
        require_lengths(Trajectories.open(tmp_path), {"metric_frames": 20})


def test_only_the_predictors_training_is_compiled_and_only_where_asked(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its forward; the names of its weights stay, so that any run may go on or be loaded."""
    compiled: list[object] = []

    def remember(call, **options):
        compiled.append(call.__self__)
        return call

    monkeypatch.setattr(torch, "compile", remember)
    world_model = load_world_model(trained / "run", dtype="fp32")
    names = list(world_model.predictor.state_dict())
    monkeypatch.setattr(train_ac, "instantiate", lambda _: SimpleNamespace(fit=lambda *a, **k: {}))
    cache = open_latents(
        Trajectories.open(trained / "data"),
        world_model.encoder,
        root=trained / "cache",
        device="cpu",
    )
    cfg = {"trainer": {}, "rollout_steps": 1, "rollout_weight": 0.0, "rollout_from": 1.0}
    cfg |= {"change_weight": 0.0, "validation_windows": 2, "out": "runs/x", "actions_per_step": 1}
    cfg |= {"start_from": None}
    for wanted in (False, True):
        train_ac.train_predictor(OmegaConf.create(cfg | {"compile": wanted}), world_model, cache)
        assert compiled == ([world_model.predictor] if wanted else [])
    assert list(world_model.predictor.state_dict()) == names


def test_recordings_that_are_incomplete_are_not_collected_into(tmp_path: Path) -> None:
    """They name neither steps nor seed, and are of something that is not the environment."""
    tiny.moving_squares(tmp_path / "data", episodes=4, length=9, size=16)
    shutil.rmtree(next((tmp_path / "data" / "shards").iterdir()))
    env = {"name": "reacher", "id": "envs:vjepa_wm/Reacher-v0", "image_size": 16, "frame_skip": 1}
    with pytest.raises(DataError, match="holds trajectories of other settings"):
        open_or_collect(tmp_path / "data", env, episodes=2)


def test_nothing_of_ours_is_collected_under_anothers_name(tmp_path: Path) -> None:
    """A misspelt data= of recordings, whose env.id is still the default."""
    env = {"id": "envs:vjepa_wm/Reacher-v0", "name": "my_robot", "image_size": 64, "frame_skip": 2}
    with pytest.raises(DataError, match=r"env.name=my_robot has no environment .* reacher's"):
        open_or_collect(tmp_path / "my_robt", env, episodes=4)
    assert not (tmp_path / "my_robt").exists()


def test_our_environments_are_those_of_the_configs() -> None:
    files = [OmegaConf.load(path) for path in (ROOT / "configs" / "env").glob("*.yaml")]
    assert {env.id: env.name for env in files if env.name != "play"} == OURS


def test_clips_are_not_collected_where_nothing_acts(tmp_path: Path) -> None:
    env = {"name": "play", "id": "envs:vjepa_wm/Play-v0", "image_size": 16, "frame_skip": 1}
    with pytest.raises(DataError, match=r"vjepa_wm.collect corpus=play"):
        open_or_collect(tmp_path / "data", env, episodes=2)
    assert not (tmp_path / "data").exists()


def test_it_goes_on_from_a_world_model(trained: Path, tmp_path: Path) -> None:
    """Without a step of its own it is that model, integrator included; resuming keeps to it."""
    none = ["trainer.steps=0", "metric_trainer.steps=0", "integrator_trainer.steps=0"]
    options = [f"start_from={trained}/run", f"out={tmp_path}", *none]
    done = train(trained, *options)
    assert done.returncode == 0, done.stderr
    first, second = (load_checkpoint(folder) for folder in (trained / "run", tmp_path))
    assert second.parts == {"predictor", "metric", "integrator"}
    for name, tensor in first.tensors.items():  # the metric is centred, and taken back
        rounding = 1e-5 if name.startswith("metric") else 0
        torch.testing.assert_close(second.tensors[name], tensor, rtol=rounding, atol=rounding)
    again = train(trained, f"out={tmp_path}", *none)
    assert again.returncode == 2
    assert "start_from: wanted" in again.stderr
    wrong = train(trained, "start_from=pusk", f"out={tmp_path}/other")
    assert wrong.returncode == 2
    assert "Did you mean 'push'" in wrong.stderr


def test_resumed_is_as_one_run(trained: Path, tmp_path: Path) -> None:
    """Two steps, then two more, leave the weights that four steps left."""
    for name in ("data", "cache", "encoder"):
        (tmp_path / name).symlink_to(trained / name)
    # The schedule follows the budget, so the first half is the whole run, killed.
    whole = (trained / "run" / "predictor" / "metrics.jsonl").read_text().splitlines()
    assert train(tmp_path, "trainer.steps=4").returncode == 0
    again = train(tmp_path, "trainer.steps=4")
    assert again.returncode == 0
    assert "resumed" in again.stderr
    rows = (tmp_path / "run" / "predictor" / "metrics.jsonl").read_text().splitlines()
    for row, other in zip(rows, whole, strict=True):
        row, other = json.loads(row), json.loads(other)
        del row["minutes"], other["minutes"]
        assert row == other
    first, second = (
        json.loads((folder / "run" / "config.json").read_text())["weights_digest"]
        for folder in (trained, tmp_path)
    )
    assert first == second


def test_other_data_for_the_same_run_is_refused(trained: Path, tmp_path: Path) -> None:
    tiny.moving_squares(tmp_path / "data", episodes=20, length=24, size=2 * tiny.IMAGE_SIZE)
    done = train(trained, f"data={tmp_path}/data")
    assert done.returncode == 2
    assert "image_size: wanted [16, 16], got [32, 32]" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_seed_is_another_run(trained: Path) -> None:
    before = (trained / "run" / "config.json").read_text()
    done = train(trained, "trainer.steps=4", "metric_trainer.seed=1")
    assert done.returncode == 2
    assert "metric_trainer.seed: wanted 0, got 1" in done.stderr
    assert (trained / "run" / "config.json").read_text() == before


def test_another_encoder_than_trained_on_is_refused(trained: Path, tmp_path: Path) -> None:
    config = json.loads((trained / "run" / "config.json").read_text())
    other = tmp_path / "encoder"
    encoder_config = {"kind": "encoder", "name": "tiny", "vit": tiny.VIT}
    encoder_config |= {"image_size": tiny.IMAGE_SIZE, "pool": 2}
    save_checkpoint(other, {"encoder": tiny.randomise(tiny.vit(), std=0.1)}, encoder_config)
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes((trained / "run" / "model.safetensors").read_bytes())
    config["encoder"]["checkpoint"] = str(other)
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="trained on encoder"):
        load_world_model(run)


def test_a_killed_collection_is_finished_first(tmp_path: Path) -> None:
    """What a kill leaves, meta.json and some of the shards, is completed as it was begun."""
    env = {"id": "envs:vjepa_wm/Reacher-v0", "image_size": 16, "frame_skip": 1}
    begun = CollectSettings(env_id=env["id"], image_size=16, episodes=2, steps=7, seed=3)
    collect(begun, tmp_path / "data")
    whole = Trajectories.open(tmp_path / "data")
    shutil.rmtree(next((tmp_path / "data" / "shards").iterdir()))
    again = open_or_collect(tmp_path / "data", env, episodes=7)
    assert again.num_episodes == 2
    assert again.digest == whole.digest


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(Exception, match="Did you mean 'reacher'"):
        load_world_model("reachr")


class LatentsOf:
    """Stands in for the cache of 40 frames, one window each."""

    def __init__(self, latents: torch.Tensor) -> None:
        self.trajectories = SimpleNamespace(split=lambda: ([0], [1]))
        self._latents = latents

    def windows(self, num_frames: int, *, stride: int, episodes: list[int]) -> "LatentsOf":
        assert (num_frames, stride, episodes) in [(1, 1, [0]), (1, 1, [1])]
        return self

    def sample(self, rng: np.random.Generator, count: int) -> SimpleNamespace:
        return SimpleNamespace(latents=self._latents[rng.integers(40, size=count)].half())


def test_an_encoder_that_sees_nothing_here_is_told(caplog) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(40, 1, 4, 24, generator=generator)
    train_ac.warn_of_collapse(LatentsOf(latents))
    assert not caplog.text
    train_ac.warn_of_collapse(LatentsOf(latents[:1] + 0.01 * latents))
    assert "look alike to the encoder: standard deviation over frames 0.00" in caplog.text


def test_steps_of_several_actions_are_trained_and_planned(trained: Path, tmp_path: Path) -> None:
    """Windows reach twice as far; who goes on must take as many actions per step."""
    options = ["actions_per_step=2", "predictor.max_frames=3", f"out={tmp_path}"]
    done = train(trained, "trainer.steps=2", *options)
    assert done.returncode == 0, done.stderr
    world_model = load_world_model(tmp_path, dtype="fp32")
    assert world_model.action_spec.actions_per_step == 2
    assert world_model.predictor.action_dim == 4
    planner = CEM(horizon=3, num_samples=8, num_elites=2, iterations=2)
    cost = GoalCost(distance="metric", over_steps="sum", metric=world_model.metric)
    agent = MPCAgent(world_model, planner, cost, context_len=1, replan_every=1)
    frame = tiny.pixels(tiny.IMAGE_SIZE, tiny.IMAGE_SIZE).numpy()
    agent.reset(goal=frame)
    assert agent.act({"pixels": frame, "proprio": np.ones(2, np.float32)}).shape == (2,)
    again = train(trained, f"out={tmp_path}")
    assert again.returncode == 2
    assert "actions_per_step: wanted 2, got 1" in again.stderr
    other = train(trained, f"start_from={tmp_path}", f"out={tmp_path}/other")
    assert other.returncode == 2
    assert "actions_per_step: wanted 1, got 2" in other.stderr
    long = train(trained, "actions_per_step=5", f"out={tmp_path}/long")
    assert long.returncode == 2
    assert "max_frames x actions_per_step asks for pieces of 31 frames" in long.stderr
