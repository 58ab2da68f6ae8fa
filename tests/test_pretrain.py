"""The verb pretrain, end to end: from pictures of moving squares to an encoder that loads."""

import json
from pathlib import Path

import pytest
import torch

from tests import films, published_files, tiny
from vjepa_wm import pretrain
from vjepa_wm.checkpoint import load_checkpoint
from vjepa_wm.encoders.registry import load_encoder
from vjepa_wm.pretraining.monitors import collapse_figures
from vjepa_wm.training.inputs import INPUTS

SIZE = 32
TINY = [
    "vit=tiny",
    "mask_predictor=tiny",
    f"image_size={SIZE}",
    "strides=[1,2]",
    "trainer.batch_size=4",
    "trainer.validate_every=3",
    "validation_episodes=2",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two sets of trajectories."""
    root = tmp_path_factory.mktemp("data")
    for name, length in (("a", 9), ("b", 12)):
        tiny.moving_squares(root / name, episodes=6, length=length, size=SIZE)
    return root


def run(monkeypatch, data: Path, out: Path, *options: str) -> None:
    folders = f"data=[{data / 'a'},{data / 'b'}]"
    monkeypatch.setattr("sys.argv", ["pretrain", *TINY, folders, f"out={out}", *options])
    pretrain.main()


def steps(out: Path) -> list[int]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_stopped_run_continues_and_its_encoder_loads(data, tmp_path, monkeypatch, capsys) -> None:
    """Interrupted after 5 of 7 steps: the state of step 3 is taken up, not begun anew."""
    out, update = tmp_path / "run", pretrain.JEPA.update_target
    calls = []

    def interrupted(self: pretrain.JEPA) -> None:
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(1)
        update(self)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as info:
        patch.setattr(pretrain.JEPA, "update_target", interrupted)
        run(patch, data, out, "trainer.steps=7")
    assert info.value.code == 130
    assert steps(out) == [0, 3]
    assert not (out / "config.json").exists()

    run(monkeypatch, data, out, "trainer.steps=7")
    assert steps(out) == [0, 3, 6, 7]
    shown = capsys.readouterr().out
    assert shown.startswith(f"encoder: {out}")
    assert "time_rank_correlation" in shown

    encoder = load_encoder(str(out), dtype="fp32")
    latents = encoder.encode(tiny.pixels(2, 3, SIZE, SIZE))
    assert latents.shape == (2, 3, *encoder.latent_shape) == (2, 3, 16, 32)
    assert latents.isfinite().all()


def test_what_is_saved_is_the_best_teacher(data, tmp_path, monkeypatch) -> None:
    """With its figures, the data it was made of and the options, so that it can be made again."""
    options = ["trainer.steps=4", "trainer.precision=fp32", "select=time_rank_correlation"]
    run(monkeypatch, data, tmp_path, *options)
    best = torch.load(tmp_path / "state.pt", weights_only=True)["best"]
    loaded = load_checkpoint(tmp_path)
    for name, tensor in loaded.tensors.items():
        kept = best["state"]["target_" + name]
        torch.testing.assert_close(tensor, kept, atol=1e-6, rtol=1e-3)
    config = loaded.config
    assert config["figures"] == best["figures"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    highest = max(row["time_rank_correlation"] for row in rows)
    assert config["figures"]["time_rank_correlation"] == highest
    assert len(config["data"]) == 2
    assert config["config"]["trainer"]["steps"] == 4
    assert config["versions"]["torch"] == torch.__version__


def test_frames_of_another_size_are_refused(data, tmp_path, monkeypatch, capsys) -> None:
    """The encoder would be trained on one size and used on another."""
    with pytest.raises(SystemExit) as info:
        run(monkeypatch, data, tmp_path, "image_size=64")
    assert info.value.code == 2
    assert "wanted frames of (64, 64), the option image_size, got (32, 32)" in (
        capsys.readouterr().err
    )


FIRST_LOSSES = {
    "loss": 1.1943744469108966,
    "prediction_loss": 0.8275850562032319,
    "variance_loss": 0.63396408781003,
    "covariance_loss": 0.4980735247258187,
}


def test_the_terms_of_before_train_as_before(data, tmp_path, monkeypatch) -> None:
    """The figures of the version before SIGReg, videos and processes, with the masks of now."""
    options = [*tiny.TERMS_BEFORE_SIGREG, "trainer.steps=5", "trainer.precision=fp32"]
    run(monkeypatch, data, tmp_path, *options)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["average"] == pytest.approx(FIRST_LOSSES, rel=1e-4)


def test_videos_and_trajectories_are_trained_on_together(
    data, tmp_path, monkeypatch, capsys, caplog
) -> None:
    """In physical time, decoded by workers; what cannot be used is told and listed."""
    root = tmp_path / "videos"
    for number in range(3):
        frames = films.pictures(moves=True, seed=number, size=48)
        films.write_gif(root / f"{number}.gif", frames)
    films.write_folder(root / "pictures", frames)
    films.write_folder(root / "short", frames[:2])
    (root / "broken.gif").write_bytes(b"GIF89a")
    folders = [f"data=[{data / 'a'},{root}]", "weights=[1,2]", "seconds=[0,0.2]", "folder_fps=10"]
    options = [*folders, "trainer.steps=3", "workers=1", f"cache={tmp_path}/cache"]
    run(monkeypatch, data, tmp_path / "run", *options)
    skipped = json.loads((tmp_path / "run" / "skipped_videos.json").read_text())[str(root)]
    assert set(skipped) == {"short", "broken.gif"}
    assert f"{root}: 2 videos left out" in caplog.text
    config = load_checkpoint(tmp_path / "run").config
    assert set(config["data"]) == {str(data / "a"), str(root)}
    assert config["config"]["weights"] == [1, 2]
    first = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    run(monkeypatch, data, tmp_path / "again", *options, "workers=0")
    again = torch.load(tmp_path / "again" / "state.pt", weights_only=True)
    for name, tensor in first["module"].items():
        assert torch.equal(tensor, again["module"][name]), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["data=[nowhere]"], "no folder at nowhere"),
        (["data=[]"], "data: wanted at least one folder"),
        (["weights=[1]"], "weights: wanted 2 numbers above 0"),
        (["collapse={std:1}"], "std"),
        (["train_blocks=9"], "train_blocks: wanted 1 to 2, or null, got 9"),
        (["start_from=compcat"], "Did you mean 'compact'"),
        (
            ["start_from=compact", "state_from=here"],
            "start_from=compact and state_from=here: wanted",
        ),
        (["state_from=nowhere"], "no state.pt in"),
        (["image_share=1.5"], "image_share: wanted a share in [0, 1], got 1.5"),
        (["start_from=timm:vit_tiny"], "a ViT of timm sees single frames"),
        (["validation_episodes=0"], "validation_episodes: wanted at least 1 per set, got 0"),
        (["rank_share=1"], "rank_share: wanted a share of at least 0 and below 1, got 1"),
        (["pool=0"], "pool 0, both at least 1"),
        (["select=time_rank_corelation"], "Did you mean 'time_rank_correlation'"),
        (["select=time_rank_correlation_2"], "unknown figure to select by"),
        (["trainer.batch_size=1"], "trainer.batch_size: wanted at least 2, a clip of each of data"),
        (["trainer.steps=-5"], "steps must be 0 or more, or null, got -5"),
    ],
)
def test_impossible_options_are_refused(
    data, tmp_path, monkeypatch, capsys, options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as info:
        run(monkeypatch, data, tmp_path, "trainer.steps=1", *options)
    assert info.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / INPUTS).exists()  # nothing was begun, so other options may come


def test_a_run_is_not_gone_on_with_as_another(data, tmp_path, monkeypatch, capsys) -> None:
    """Of other data, clips or start; budget, rates and terms may change, as in older runs."""
    out = tmp_path / "run"
    run(monkeypatch, data, out, "trainer.steps=1")
    for options, said in (
        ([f"data=[{data / 'a'}]"], "data: wanted ['"),
        (
            ["strides=[1]", "weights=[1,3]"],
            "weights: wanted None, got [1, 3]; strides: wanted [1, ",
        ),
        (["recipe=pixels"], "objective: wanted vjepa_wm.pretraining.jepa.JEPA, got"),
        ([f"start_from={out}"], "start_from: wanted None, got"),
        ([f"state_from={out}", "trainer.seed=1"], "trainer.seed: wanted 0, got 1"),
    ):
        with pytest.raises(SystemExit) as info:
            run(monkeypatch, data, out, "trainer.steps=2", *options)
        assert info.value.code == 2
        assert said in capsys.readouterr().err
    assert steps(out) == [0, 1]
    free = ["trainer.learning_rate=1e-4", "objective.terms.sigreg.weight=0.2"]
    run(monkeypatch, data, out, "trainer.steps=2", *free, "objective.ema_decay=0.999")
    (out / INPUTS).unlink()
    run(monkeypatch, data, out, "trainer.steps=3")
    assert steps(out) == [0, 1, 2, 3]
    assert (out / INPUTS).exists()


def test_a_collapse_is_told_and_stops_where_asked(
    data, tmp_path, monkeypatch, capsys, caplog
) -> None:
    """By floors above what any encoder reaches; the state is then kept as it was before."""
    options = ["trainer.steps=3", "collapse.frame_std=2.0"]
    run(monkeypatch, data, tmp_path / "warned", *options)
    assert "the encoder has collapsed" in caplog.text and "wanted at least 2" in caplog.text
    with pytest.raises(SystemExit):
        run(monkeypatch, data, tmp_path / "stopped", *options, "stop_on_collapse=true")
    assert "standard deviation over frames" in capsys.readouterr().err
    assert not (tmp_path / "stopped" / "state.pt").exists()


def test_lost_directions_are_told_once(data, tmp_path, monkeypatch, caplog) -> None:
    """Beside random weights, also by a run that goes on; not where training starts from others."""
    ranks = iter([100.0, 100.0, 46.0, 44.0, 40.0, 100.0, 43.0])

    def figures(*args: object, **kwargs: object) -> dict[str, float]:
        return {**collapse_figures(*args, **kwargs), "effective_rank": next(ranks)}

    monkeypatch.setattr("vjepa_wm.pretrain.collapse_figures", figures)
    run(monkeypatch, data, tmp_path, "trainer.steps=3", "trainer.validate_every=1")
    said = "effective_rank is 44.0, under rank_share=0.45 of the 100.0 of random weights"
    assert caplog.text.count(said) == caplog.text.count("effective_rank is") == 1
    run(monkeypatch, data, tmp_path, "trainer.steps=4")
    assert "effective_rank is 43.0" in caplog.text
    caplog.clear()
    ranks = iter([100.0, 1.0, 1.0])
    run(monkeypatch, data, tmp_path / "more", "trainer.steps=1", f"start_from={tmp_path}")
    assert "of random weights" not in caplog.text


def test_a_collapsed_encoder_says_so_when_it_is_loaded(data, tmp_path, monkeypatch, caplog) -> None:
    run(monkeypatch, data, tmp_path, "trainer.steps=1")
    caplog.clear()
    load_encoder(str(tmp_path))
    assert not caplog.text
    config = json.loads((tmp_path / "config.json").read_text())
    config["figures"]["frame_std"] = 0.001
    (tmp_path / "config.json").write_text(json.dumps(config))
    load_encoder(str(tmp_path))
    assert "has collapsed" in caplog.text and "standard deviation over frames 0.001" in caplog.text
    caplog.clear()
    config["figures"]["frame_std"] = float("nan")
    (tmp_path / "config.json").write_text(json.dumps(config))
    load_encoder(str(tmp_path))
    assert "standard deviation over frames nan" in caplog.text


def test_training_starts_from_an_encoder(data, tmp_path, monkeypatch) -> None:
    """With its sizes, whatever vit says; only the last block and the norm move where asked."""
    run(monkeypatch, data, tmp_path / "first", "trainer.steps=2")
    options = ["vit=compact", f"start_from={tmp_path}/first", "image_size=null", "train_blocks=1"]
    run(monkeypatch, data, tmp_path / "second", "trainer.steps=3", "select=null", *options)
    first, second = (load_checkpoint(tmp_path / name) for name in ("first", "second"))
    assert second.config["vit"] == first.config["vit"]
    assert second.config["image_size"] == SIZE
    assert second.config["started_from"] == first.digest
    student = torch.load(tmp_path / "second" / "state.pt", weights_only=True)["module"]
    for name, tensor in first.part("encoder").items():
        may_move = name.startswith(("blocks.1.", "norm."))
        assert torch.equal(tensor, student[f"encoder.{name}"]) != may_move, name
        if not may_move:
            assert torch.equal(tensor, second.part("encoder")[name]), name


def test_recomputed_activations_change_nothing(data, tmp_path, monkeypatch) -> None:
    options = ["trainer.steps=2", "trainer.precision=fp32"]
    for name in ("plain", "recomputed"):
        more = [f"checkpoint_activations={str(name == 'recomputed').lower()}"]
        run(monkeypatch, data, tmp_path / name, *options, *more)
    plain, recomputed = (
        torch.load(tmp_path / name / "state.pt", weights_only=True)["module"]
        for name in ("plain", "recomputed")
    )
    for name, tensor in plain.items():
        torch.testing.assert_close(recomputed[name], tensor)


@pytest.mark.parametrize("name", ["tiny1", "tiny2", "tiny2_1"])
def test_training_starts_from_published_weights(data, tmp_path, monkeypatch, name: str) -> None:
    """Of every family; at step 0 the teacher is what was published."""
    published_files.register(monkeypatch)
    path = published_files.write(tmp_path / "published.pt", name)
    options = [f"start_from={name}", f"start_checkpoint={path}", "trainer.steps=0"]
    run(monkeypatch, data, tmp_path / "run", *options)
    wanted = load_encoder(name, path, dtype="fp32")
    found = load_encoder(str(tmp_path / "run"), dtype="fp32", pool=1, image_size=16)
    frames = tiny.pixels(1, 2, 16, 16)
    torch.testing.assert_close(found.encode(frames), wanted.encode(frames), atol=2e-2, rtol=1e-2)
