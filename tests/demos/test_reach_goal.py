"""The demo that reaches goals: what it writes, says and refuses, with a random world model."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos import reach_goal
from demos.pictures import CAPTION, SIZE
from tests import tiny
from vjepa_wm import load_world_model
from vjepa_wm.files import read_json

STEPS = 3
TINY = ["env=reacher", f"max_steps={STEPS}", "planner.horizon=2", "planner.num_samples=8"]
TINY += ["planner.num_elites=2", "planner.iterations=1"]
STRIP_WIDTH = 7 * SIZE + 6 * 6  # six views and the goal, with gaps


@pytest.fixture
def run(world_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the demo in an empty folder."""

    def run(*options: str) -> None:
        monkeypatch.chdir(tmp_path)
        options = (f"model={world_model_folder}", *options)
        monkeypatch.setattr("sys.argv", ["reach_goal", *TINY, *options])
        reach_goal.main()

    return run


def frames_of(path: Path) -> list[np.ndarray]:
    """Return the frames of an animation."""
    with Image.open(path) as animation:
        frames = []
        for index in range(animation.n_frames):
            animation.seek(index)
            frames.append(np.asarray(animation.convert("RGB")))
        return frames


def panels_of(picture: np.ndarray, count: int) -> list[np.ndarray]:
    """Cut a row of panels apart, captions off."""
    lefts = [index * (SIZE + 6) for index in range(count)]
    return [picture[CAPTION:, left : left + SIZE].astype(int) for left in lefts]


def test_an_animation_and_a_strip_per_goal(run, tmp_path: Path, capsys) -> None:
    """As many frames as steps and one more; in each a scene, the goal and a growing curve."""
    run("episodes=2", "seed=7", "out=shown", "level=far")
    files = {path.name for path in (tmp_path / "shown").iterdir()}
    assert files == {f"reacher_{seed}.{s}" for seed in (7, 8) for s in ("webp", "png")} | {
        "reacher.json"
    }
    assert read_json(tmp_path / "shown" / "reacher.json") == {
        "level": "far",
        "reached": 0,
        "episodes": 2,
    }
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == 3
    assert lines[0].startswith(f"reacher, seed 7: not reached in {STEPS} steps; distance 0.")
    assert " m; " in lines[0] and "shown/reacher_7.webp" in lines[0]
    assert lines[-1] == "reacher: 0 of 2 goals reached"

    frames = frames_of(tmp_path / "shown" / "reacher_7.webp")
    assert len(frames) == STEPS + 1
    panels = [panels_of(frame, 3) for frame in frames]
    assert frames[0].shape == (SIZE + CAPTION, 3 * SIZE + 2 * 6, 3)
    for now, goal, _ in panels:
        assert now.std() > 10 and goal.std() > 10
        assert np.abs(goal - panels[0][1]).mean() < 2  # the goal stays, but for compression
    red = [((c[..., 0] > 180) & (c[..., 1] < 110)).sum() for _, _, c in panels[:STEPS]]
    assert 0 < red[0] < red[1] < red[2]

    strips = [np.asarray(Image.open(tmp_path / "shown" / f"reacher_{seed}.png")) for seed in (7, 8)]
    for strip in strips:
        assert strip.shape == (SIZE + CAPTION, STRIP_WIDTH, 3)
        *views, goal = panels_of(strip, 7)
        assert min(part.std() for part in (*views, goal)) > 10
        assert np.abs(views[0] - views[-1]).max() > 50  # the arm has moved
    assert np.abs(strips[0].astype(int) - strips[1]).max() > 50  # other seed, other scene


def test_with_a_decoder_it_also_shows_where_plans_were_imagined_to_end(
    run, world_model_folder: Path, tmp_path: Path
) -> None:
    """One more panel in the film; below the strip, one per step and the goal as decoded."""
    encoder = load_world_model(world_model_folder, dtype="fp32").encoder
    decoder = tiny.save_decoder(tmp_path / "decoder", encoder)
    run("out=plain")
    run("out=shown", f"decoder={decoder}")
    frames = frames_of(tmp_path / "shown" / "reacher_0.webp")
    assert len(frames) == STEPS + 1
    assert {frame.shape for frame in frames} == {(SIZE + CAPTION, 4 * SIZE + 3 * 6, 3)}
    plain, shown = (
        np.asarray(Image.open(tmp_path / name / "reacher_0.png")) for name in ("plain", "shown")
    )
    assert plain.shape == (SIZE + CAPTION, STRIP_WIDTH, 3)
    assert shown.shape == (2 * (SIZE + CAPTION) + 8, STRIP_WIDTH, 3)
    assert np.array_equal(shown[: SIZE + CAPTION], plain)  # drawing changes nothing of the acting
    *ends, goal = panels_of(shown[SIZE + CAPTION + 8 :], 7)
    assert min(part.std() for part in (*ends, goal)) > 1
    assert np.abs(ends[0] - goal).max() > 0


def test_a_decoder_of_another_encoder_is_refused(run, tmp_path: Path, capsys) -> None:
    decoder = tiny.save_decoder(tmp_path / "decoder", tiny.encoder())
    with pytest.raises(SystemExit):
        run("out=shown", f"decoder={decoder}")
    assert "digest: wanted 0, got" in capsys.readouterr().err
    assert not (tmp_path / "shown").exists()


def test_image_size_is_the_environments_own(run, tmp_path: Path, capsys) -> None:
    """Another size than the encoder's is resized; the goal panel shows what the agent sees."""
    run("env.image_size=32", "max_steps=1")
    run("env.image_size=64", "max_steps=1", "out=large")
    small, large = (
        panels_of(np.asarray(Image.open(tmp_path / folder / "reacher_0.png")), 7)[-1]
        for folder in ("runs/demos", "large")
    )
    difference = np.abs(small - large)
    assert 1 < difference.mean() < 20  # the same goal, with coarser edges


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("epsiodes=2", "unknown option 'epsiodes'. Did you mean 'episodes'"),
        ("env=reachr", "unknown option of 'env' 'reachr'. Did you mean 'reacher'"),
        ("env=play", "Play-v0 has no goals to reach"),
        ("cost=metrik", "Did you mean 'metric'"),
        ("level=neer", "unknown level of reacher 'neer'. Did you mean 'near'"),
        ("model=pussh", "unknown world model 'pussh'. Did you mean 'push'"),
        ("episodes=0", "episodes: wanted at least 1, got 0"),
        ("max_steps=0", "max_steps: wanted at least 1, got 0"),
        ("planner.horizon=9", "the predictor was trained on 6"),
        ("replan_every=3", "replan_every must be between 1 and 2, the actions of a plan, got 3"),
        ("planner.num_elites=99", "num_elites"),
        ("env.frame_skip=3", "was trained for other actions than env=reacher has"),
    ],
)
def test_bad_options_end_with_one_line(run, option: str, said: str, capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(option)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_browser_can_watch(run, tmp_path: Path, capsys, monkeypatch) -> None:
    """Every frame of the animation is shown as it is made; the address is said first."""
    shown = []
    monkeypatch.setattr(reach_goal.LiveView, "show", lambda self, image: shown.append(image))
    run("live=0", "out=shown")
    assert capsys.readouterr().out.startswith("live: http://127.0.0.1:")
    assert len(shown) == len(frames_of(tmp_path / "shown" / "reacher_0.webp"))
