"""The verb train_bc end to end, tiny: from trajectories to a policy that acts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vjepa_wm.behaviour_cloning import load_behaviour_cloning
from vjepa_wm.checkpoint import load_checkpoint, save_checkpoint
from vjepa_wm.data.hindsight import HindsightPairs
from vjepa_wm.data.trajectories import Trajectories
from vjepa_wm.files import read_json

ROOT = Path(__file__).parent.parent


def train(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the verb on the folder's data and encoder."""
    command = [sys.executable, "-m", "vjepa_wm.train_bc", f"out={folder}/run"]
    command += [f"data={folder}/data", f"cache={folder}/cache", "evaluation_episodes=0"]
    command += [f"encoder.checkpoint={folder}/encoder", "encoder.dtype=fp32"]
    command += ["trainer.precision=fp32", "trainer.steps=60", "trainer.minutes=null"]
    command += ["trainer.validate_every=30", "validation_pairs=300", "goal_steps=6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny trajectories, a random encoder, and a policy of sixty steps."""
    folder = tmp_path_factory.mktemp("train_bc")
    tiny.moving_squares(folder / "data", episodes=60, length=16, size=tiny.IMAGE_SIZE)
    config = {"kind": "encoder", "name": "tiny", "vit": tiny.VIT}
    config |= {"image_size": tiny.IMAGE_SIZE, "pool": 2}
    save_checkpoint(folder / "encoder", {"encoder": tiny.vit()}, config)
    done = train(folder)
    assert done.returncode == 0, done.stderr
    assert "always the mean action" in done.stdout
    assert str(folder / "run") in done.stdout
    return folder


def test_without_actions_there_is_nothing_to_clone(trained: Path, tmp_path: Path) -> None:
    tiny.moving_squares(tmp_path / "data", episodes=20, length=16, size=16, acting=False)
    done = train(trained, f"data={tmp_path}/data", f"out={tmp_path}/run")
    assert done.returncode == 2
    assert "has no actions, there is nothing to clone" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_policy_acts_and_its_figures_are_kept(trained: Path) -> None:
    agent = load_behaviour_cloning(trained / "run", dtype="fp32")
    frames = tiny.pixels(2, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE).numpy()
    agent.reset(goal=frames[0])
    action = agent.act({"pixels": frames[1], "proprio": np.ones(2, np.float32)})
    assert action.shape == (2,)
    assert np.abs(action).max() <= 1
    config = read_json(trained / "run" / "config.json")
    figures = config["figures"]["policy"]
    trajectories = Trajectories.open(trained / "data")
    train, held_out = trajectories.split()
    mean = np.concatenate([trajectories.episode(i).actions for i in train]).mean(axis=0)
    pairs = HindsightPairs(trajectories.lengths, max_steps=6, episodes=held_out)
    frames, _ = pairs.sample(np.random.default_rng(0), 300)
    wanted = trajectories.actions.gather(frames[:, None])[:, 0]
    floor = np.square(wanted - mean).mean()  # bounds are -1 and 1, half ranges 1
    assert figures["mean_action_loss"] == pytest.approx(floor, rel=1e-5)
    lines = (trained / "run" / "policy" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert figures["held_out_loss"] == min(row["held_out_loss"] for row in rows)
    assert rows[-1]["loss"] < rows[1]["loss"]
    assert config["data"] and config["encoder"]["digest"] == agent.encoder.digest


def test_resumed_is_as_one_run_and_other_goals_are_refused(trained: Path) -> None:
    before = load_checkpoint(trained / "run").digest
    again = train(trained)
    assert again.returncode == 0 and "resumed" in again.stderr
    assert load_checkpoint(trained / "run").digest == before
    other = train(trained, "goal_steps=3")
    assert other.returncode == 2
    assert "goal_steps: wanted 6, got 3" in other.stderr


def test_proprio_can_be_left_out(trained: Path, tmp_path: Path) -> None:
    assert load_behaviour_cloning(trained / "run").policy.takes_proprio
    options = ["proprio=false", "trainer.steps=1", f"out={tmp_path}/run"]
    done = train(trained, *options)
    assert done.returncode == 0, done.stderr
    assert not load_behaviour_cloning(tmp_path / "run").policy.takes_proprio
