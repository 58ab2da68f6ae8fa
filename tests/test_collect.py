"""The verb collect: killed at any moment it continues, and its workers never import torch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vjepa_wm.data.trajectories import Trajectories

ROOT = Path(__file__).parents[1]
OPTIONS = ["env.name=fake", "env.image_size=8", "episodes=12", "steps=10", "shard_episodes=2"]


def command(out: Path, env: str, workers: int) -> list[str]:
    """Return the command line of a small collection."""
    verb = [sys.executable, "-m", "vjepa_wm.collect", f"env.id=tests.data.fake_env:fake/{env}-v0"]
    return [*verb, *OPTIONS, f"out={out}", f"workers={workers}"]


def test_kill_and_rerun_gives_what_an_undisturbed_run_gives(tmp_path: Path) -> None:
    """Killed with SIGKILL once a shard is there; leftovers are cleared, finished shards kept."""
    shards = tmp_path / "killed" / "shards"
    process = subprocess.Popen(command(tmp_path / "killed", "Slow", 2), cwd=ROOT)
    deadline = time.monotonic() + 20
    while not any(shards.glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("[0-9]*")}
    assert 1 <= len(kept) < 6
    (shards / ".tmp-00005-1").mkdir()
    subprocess.run(command(tmp_path / "killed", "Slow", 2), cwd=ROOT, check=True)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert not list(shards.glob(".tmp*"))
    subprocess.run(command(tmp_path / "whole", "Slow", 1), cwd=ROOT, check=True)
    killed, whole = (Trajectories.open(tmp_path / name) for name in ("killed", "whole"))
    assert killed.num_episodes == 12
    assert killed.shard_digests == whole.shard_digests


def test_the_last_line_says_what_was_made(tmp_path: Path) -> None:
    """Where it is, how much, how fast; an error in a worker is one line and exit code 2."""
    good = subprocess.run(
        command(tmp_path / "a", "Point", 1), cwd=ROOT, capture_output=True, text=True
    )
    assert good.returncode == 0
    assert good.stdout.startswith(f"{tmp_path / 'a'}: 12 episodes, 132 frames")
    assert "the environment ended" not in good.stdout
    bad = subprocess.run(
        command(tmp_path / "b", "Failing", 1), cwd=ROOT, capture_output=True, text=True
    )
    assert bad.returncode == 2
    assert "fell off the table" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_episodes_that_end_early_are_counted(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "Foreign", 1), cwd=ROOT, capture_output=True, text=True, check=True
    )
    lengths = Trajectories.open(tmp_path).lengths
    assert (lengths < 11).any()
    assert f"the environment ended {(lengths < 11).sum()} of 12 episodes" in done.stdout


def test_gymnasiums_own_environments_are_collected_without_a_screen(tmp_path: Path) -> None:
    """By their id alone, drawn by MuJoCo at the size that is kept."""
    options = ["env.id=Reacher-v5", "env.name=gym_reacher", "env.image_size=24", "episodes=2"]
    unset = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    subprocess.run(
        [sys.executable, "-m", "vjepa_wm.collect", *options, "steps=3", f"out={tmp_path / 'data'}"],
        cwd=ROOT,
        env=unset,
        check=True,
    )
    trajectories = Trajectories.open(tmp_path / "data")
    first, second = (trajectories.episode(index).pixels for index in range(2))
    assert first.shape == (4, 24, 24, 3)
    assert first.std() > 5
    assert (first != second).any() and (first[0] != first[3]).any()


def test_collecting_does_not_import_torch() -> None:
    """A worker starts in a fraction of the time and of the memory."""
    code = "import sys, vjepa_wm.collect; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def corpus_command(out: Path, workers: int, *options: str) -> list[str]:
    """Return the command line of a small corpus: forty clips of a second each."""
    verb = [sys.executable, "-m", "vjepa_wm.collect", "corpus=play", "hours=0.0111"]
    small = ["corpus.image_size=16", "corpus.num_frames=12", "corpus.kinds=[swing]"]
    return [*verb, *small, "shard_episodes=4", f"out={out}", f"workers={workers}", *options]


def test_a_corpus_goes_on_after_a_kill_to_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the number of workers; its last lines count the classes of its labels."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(corpus_command(killed, 1), cwd=ROOT)
    deadline = time.monotonic() + 240
    while not any((killed / "shards").glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 1 <= len(list((killed / "shards").glob("[0-9]*"))) < 10
    subprocess.run(corpus_command(killed, 2), cwd=ROOT, check=True)
    done = subprocess.run(
        corpus_command(whole, 1), cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert f"{whole}: 40 episodes, 480 frames" in done.stdout
    assert "0.011 hours of video" in done.stdout
    assert "event: fall 0, roll 0, slide 0, collide 0, swing 40, occlude 0, arm 0" in done.stdout
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.*"))
    assert len(files) == 2 + 10 * 6
    for file in files:
        assert (killed / file).read_bytes() == (whole / file).read_bytes(), file


def test_misspelt_options_of_a_corpus_name_the_nearest(tmp_path: Path) -> None:
    """Of the group and of the kinds of scenes; nothing is written."""
    for option, said in (
        ("corpus=plai", "Did you mean 'play'"),
        ("corpus.kinds=[swinge]", "Did you mean 'swing'"),
        ("corpus.frames=3", "Did you mean 'corpus."),
        ("hours=0", "hours: wanted a number above 0"),
    ):
        command = corpus_command(tmp_path / "a", 1, option)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and said in done.stderr
    assert not list(tmp_path.iterdir())
