"""make_weights end to end, tiny: from nothing to weights that load, with cards and figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from omegaconf import OmegaConf

from vjepa_wm import load_encoder, load_world_model, make_weights
from vjepa_wm.errors import DataError, SettingError, UnknownNameError
from vjepa_wm.evaluation.tasks import load_task_set
from vjepa_wm.files import read_json

ROOT = Path(__file__).parents[1]
OPTIONS = {
    "collect": ["steps=24", "workers=1"],
    "corpus": ["corpus.num_frames=8", "workers=1"],
    "pretrain": ["vit=tiny", "mask_predictor=tiny", "trainer.batch_size=4", "pool=4"],
    "train_ac": [
        "predictor=tiny",
        "trainer.steps=4",
        "trainer.validate_every=2",
        "metric_trainer.steps=2",
        "integrator_trainer.steps=2",
        "validation_windows=8",
    ],
    "evaluate": [
        "max_steps=2",
        "planner.num_samples=8",
        "planner.num_elites=2",
        "planner.iterations=1",
        "simulator_planner.horizon=2",
        "simulator_planner.num_samples=8",
        "simulator_planner.num_elites=2",
        "simulator_planner.iterations=1",
    ],
}


@pytest.mark.slow
def test_weights_are_made_from_nothing_and_again(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "vjepa_wm.make_weights",
        "ship_to=shipped",
        "episodes.reacher=12",
    ]
    command += ["~minutes.two_rooms", "~minutes.push", "~minutes.push_t", "minutes.reacher=1"]
    command += ["proprio=[reacher]"]
    command += ["pretrain_steps=2", "evaluation_episodes=2", "corpus_hours=0.002"]
    for name, options in OPTIONS.items():
        listed = ",".join(json.dumps(option) for option in options)
        command.append(f"more.{name}=[{listed}]")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def run() -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    first = run()
    assert first.returncode == 0, first.stderr
    assert "data=[data/reacher,data/play]" in first.stdout
    shipped = tmp_path / "shipped"
    assert {path.name for path in shipped.iterdir()} == {"compact", "reacher"}
    for name in ("compact", "reacher"):
        assert (shipped / name / "model.safetensors").stat().st_size < 1e6
        assert (shipped / name / "README.md").read_text().startswith("# ")
        assert str(tmp_path) not in (shipped / name / "config.json").read_text()
    evaluation = read_json(shipped / "reacher" / "evaluation.json")
    assert [summary["level"] for summary in evaluation] == ["near", "far"]
    digest = read_json(shipped / "reacher" / "config.json")["weights_digest"]
    for summary in evaluation:
        assert [row["agent"] for row in summary["rows"]] == ["random", "mpc", "simulator"]
        assert summary["digests"]["model"] == digest
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        world_model = load_world_model("shipped/reacher")
    assert world_model.encoder.pool == 4
    assert world_model.takes_proprio
    cards = (shipped / "reacher" / "README.md").read_text()
    assert "pixels and proprio" in cards
    assert "all but measuring" in first.stdout

    command.append("pretrain_steps=null")
    kept = run()
    assert kept.returncode != 0  # the run was of another encoder
    log = tmp_path / "runs" / "weights" / "reacher.log"
    assert "choose another out=" in log.read_text()
    command.append("out=kept")
    kept = run()
    assert kept.returncode == 0, kept.stderr
    assert "vjepa_wm.pretrain" not in kept.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert load_world_model("shipped/reacher").encoder.digest == load_encoder("compact").digest
    del command[-2:]

    second = run()
    assert second.returncode == 0, second.stderr
    assert "recorded 0 frames" in second.stdout
    assert read_json(shipped / "reacher" / "config.json")["weights_digest"] == digest


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"proprio": ["pusk"]}, UnknownNameError, "Did you mean 'push'"),
        ({"jobs": 0}, SettingError, "jobs: wanted at least 1"),
        ({"corpus_hours": -1.0}, SettingError, "corpus_hours: wanted 0 or more"),
        ({"evaluation_episodes": 101}, DataError, "wanted between 1 and 100"),
        ({"evaluation_episodes": -1}, DataError, "wanted between 1 and 100"),
    ],
)
def test_what_cannot_be_is_found_before_anything_is_done(options, error, message) -> None:
    fine = {"jobs": None, "minutes": {"push": 1}, "episodes": {"push": 9}, "proprio": []}
    fine |= {"corpus_hours": 0.0, "evaluation_episodes": 100}
    make_weights.check_environments(OmegaConf.create(fine))
    with pytest.raises(error, match=message):
        make_weights.check_environments(OmegaConf.create(fine | options))


def test_every_level_of_the_environments_has_tasks_to_measure() -> None:
    for env, env_id in (("two_rooms", "TwoRooms"), ("push", "Push"), ("reacher", "Reacher")):
        known = gymnasium.make(f"envs:vjepa_wm/{env_id}-v0").unwrapped.levels
        assert set(load_task_set(env).levels) == set(known)
