"""The verb benchmark: each subject runs to its end, means something, and is written down."""

from pathlib import Path

import pytest

from tests import published_files
from vjepa_wm import benchmark
from vjepa_wm.files import read_json
from vjepa_wm.frame_predictor import FramePredictor

TINY = ["env=reacher", "frames=3", "episodes=6", "plans=2", "planner.horizon=2"]
TINY += ["planner.num_samples=8", "planner.num_elites=2", "planner.iterations=1"]
TINY += ["repeats=1", "size=tiny", "contexts=[1,3]", "horizons=[1,2]", "candidates=[3,2]"]
TINY += ["backbone=tiny2", "backbone_frames=2", "batch_size=2", "imagined=4"]


@pytest.fixture
def run(world_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the verb in an empty folder."""
    published_files.register(monkeypatch)

    def run(*words_and_options: str) -> None:
        words = [word for word in words_and_options if "=" not in word]
        options = [option for option in words_and_options if "=" in option]
        monkeypatch.chdir(tmp_path)
        model = f"model={world_model_folder}"
        monkeypatch.setattr("sys.argv", ["benchmark", *words, *TINY, model, *options])
        benchmark.main()

    return run


def results(folder: Path) -> dict[str, list[dict]]:
    return read_json(folder / "benchmark.json")["results"]


def named(figures: list[dict], part: str) -> list[dict]:
    return [figure for figure in figures if part in figure["name"]]


def test_words_are_subjects_and_all_is_written_down(run, tmp_path: Path, capsys) -> None:
    run("render", "train", "out=speed")
    written = read_json(tmp_path / "speed" / "benchmark.json")
    assert list(written["results"]) == ["render", "train"]
    (render,) = written["results"]["render"]
    assert render["baseline"] == "MuJoCo's default"
    assert render["ratio"] == pytest.approx(render["baseline_value"] / render["value"])
    train = written["results"]["train"]
    assert [figure["baseline"] for figure in train] == [
        "encoding its frames in every step",
        "float32",
    ]
    for figure in train:
        assert figure["ratio"] == pytest.approx(figure["value"] / figure["baseline_value"])
    assert written["config"]["planner"]["num_samples"] == 8
    assert "cores" in written["device"] and "torch threads" in written["device"]
    assert written["versions"]["torch"]
    shown = capsys.readouterr().out
    assert shown.startswith("reacher on ")
    assert "MuJoCo's default" in shown and "windows/s" in shown


def test_a_plan_has_parts_and_is_the_plain_planners(run, tmp_path: Path) -> None:
    run("plan", "out=speed", "replan_every=1")
    figures = results(tmp_path / "speed")["plan"]
    step = figures[0]
    assert step["name"] == "control step" and step["baseline"].startswith("plain planner")
    (apart,) = named(figures, "difference of actions")
    assert apart["value"] < 0.05  # bfloat16, where the machine has it
    parts = {figure["name"].strip(): figure for figure in figures if figure["unit"] == "s"}
    assert list(parts) == ["control step", "encode", "imagine", "cost", "planner", "all else"]
    own = [parts[name]["value"] for name in ("encode", "imagine", "cost", "planner")]
    assert min(own) > 0
    assert sum(own) + parts["all else"]["value"] >= step["value"] * (1 - 1e-9)
    (rate,) = named(figures, "rate of imagining")
    assert rate["ratio"] > 0 and rate["baseline"].startswith("bare matrix products")


def test_rollouts_are_those_of_the_plain_planner(run, tmp_path: Path) -> None:
    run("rollout", "precision=fp32", "out=speed")
    figures = results(tmp_path / "speed")["rollout"]
    seconds = [figure["name"] for figure in figures if figure["unit"] == "s"]
    assert seconds == [
        "1 history frame, 1 step, 3 candidates",
        "1 history frame, 2 steps, 2 candidates",
        "3 history frames, 1 step, 3 candidates",
        "3 history frames, 2 steps, 2 candidates",
    ]
    assert all(figure["baseline_value"] > 0 for figure in figures if figure["unit"] == "s")
    for figure in named(figures, "difference"):
        assert figure["value"] < 1e-5
    assert all(figure["ratio"] > 0 for figure in named(figures, "rate"))


def test_options_are_held_against_float32(run, tmp_path: Path, monkeypatch) -> None:
    """With nothing compiled, which takes long; that it computes the same is tested elsewhere."""
    monkeypatch.setattr(FramePredictor, "compile_layers", lambda predictor: None)
    run("options", "out=speed")
    figures = results(tmp_path / "speed")["options"]
    compared = [figure for figure in figures if figure["unit"] == "s"]
    assert [figure["name"] for figure in compared][:2] == ["bfloat16", "float32, compiled"]
    assert {figure["baseline"] for figure in compared} == {"float32"}
    apart = [figure["value"] for figure in named(figures, "difference of what it scores")]
    assert 0 < apart[0] < 0.05 and apart[1] == 0


def test_slopes_are_of_every_axis(run, tmp_path: Path) -> None:
    run("slopes", "out=speed")
    figures = results(tmp_path / "speed")["slopes"]
    axes = [figure["name"].split(" (")[0] for figure in named(figures, "time grows with")]
    assert axes == [
        f"time grows with {axis}" for axis in ("candidates", "horizon", "environments", "tokens")
    ]
    assert [figure["name"].strip() for figure in named(figures, "  candidates")] == [
        "candidates 4",
        "candidates 8",
        "candidates 16",
        "candidates 32",
    ]
    assert all(figure["value"] > 0 for figure in named(figures, "peak memory"))


def test_encoding_is_compared_with_bfloat16_and_shipped_weights(run, tmp_path: Path) -> None:
    """A network without a class in transformers; that one takes seconds to import."""
    run("encode", "backbone=tiny2_1", "out=speed")
    figures = results(tmp_path / "speed")["encode"]
    assert figures[0]["name"].startswith("tiny2_1, 16 px, 2 at once")
    compact = [figure for figure in figures if figure["name"].startswith("compact, 64 px")]
    assert [figure["baseline"] for figure in compact] == ["float32", "one frame at a time"]
    assert all(figure["value"] > 0 for figure in figures)


@pytest.mark.slow
def test_encoding_is_that_of_transformers(run, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    run("encode", "out=speed")
    ours, apart, *_ = results(tmp_path / "speed")["encode"]
    assert ours["name"] == "tiny2, 16 px, 2 at once, float32"
    assert ours["baseline"] == "transformers VJEPA2Model" and ours["ratio"] > 0
    assert apart["value"] < 1e-4


def test_collecting_is_measured_with_one_and_two_workers(run, tmp_path: Path) -> None:
    """On an environment without pictures of MuJoCo; the trajectories are gone afterwards."""
    fake = ["env.name=fake", "env.id=tests.data.fake_env:fake/Point-v0", "env.image_size=8"]
    run("what=collect", *fake)
    (figure,) = results(tmp_path / "runs" / "benchmark" / "fake")["collect"]
    assert figure["baseline"] == "1 worker"
    assert min(figure["value"], figure["baseline_value"]) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["what=[render,colect]"], "unknown benchmark 'colect'. Did you mean 'collect'"),
        (["render", "colect"], "unknown benchmark 'colect'. Did you mean 'collect'"),
        (["wat=render"], "unknown option 'wat'. Did you mean 'what'"),
        (["plan", "frames=0"], "frames: wanted at least 1, got 0"),
        (["slopes", "imagined=0"], "imagined: wanted at least 1, got 0"),
        (["slopes", "precision=bf61"], "precision must be auto, bf16 or fp32, got 'bf61'"),
        (["plan", "plans=0"], "plans: wanted at least 1, got 0"),
        (["rollout", "contexts=[]"], "contexts: wanted at least 1, got []"),
        (["rollout", "candidates=[4]"], "candidates: wanted a number for each of the horizons"),
        (["rollout", "size=tini"], "unknown size 'tini'. Did you mean 'tiny'"),
        (["rollout", "horizons=[1,30]"], "frames were given to a predictor trained on 16"),
        (["encode", "backbone=tiny3"], "unknown published encoder 'tiny3'. Did you mean 'tiny2'"),
        (["plan", "replan_every=3"], "replan_every must be between 1 and 2, the actions of a plan"),
        (["plan", "model=reachr"], "unknown world model 'reachr'. Did you mean 'reacher'"),
    ],
)
def test_bad_options_end_with_one_line(
    run, arguments: list[str], said: str, capsys, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
