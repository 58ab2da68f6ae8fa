"""make_reports end to end, tiny, with the shipped weights of one environment."""

import json
from pathlib import Path

import pytest

from vjepa_wm import make_reports
from vjepa_wm.files import read_json

QUICK = {
    "collect": ["steps=12"],
    "train_bc": ["trainer.steps=2"],
    "train_decoder": ["trainer.steps=2", "pixel_decoder=tiny"],
    "evaluate": ["max_steps=2"],
    "diagnose": ["what=[rollout,counterfactual,pictures]", "frames=40", "tried=2"],
    "surprise": ["events=[vanishes,teleports]"],
}


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    more = [f"more.{name}={json.dumps(given)}" for name, given in QUICK.items()]
    counts = [
        "episodes=2",
        "budget_episodes=1",
        "training_episodes=12",
        "diagnosed_episodes=12",
        "states=4",
        "pairs=2",
    ]
    monkeypatch.setattr("sys.argv", ["make_reports", *counts, *more, *options])
    make_reports.main()


@pytest.mark.slow
def test_all_that_is_measured_is_in_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "envs=[reacher]", "cards=cards")
    page = (tmp_path / "docs" / "reports" / "reacher.html").read_text()
    (folder,) = (tmp_path / "runs" / "reports" / "reacher").iterdir()
    names = {"training", "latents", "policy", "decoder", "diagnosed"}  # what is measured with
    names |= {"near", "far", "budget", "diagnosis", "surprise"}
    assert {path.name for path in folder.iterdir()} == names
    for shown in ("true_dynamics", "end of the last plan, imagined", "counterfactual", "vanishes"):
        assert shown in page, shown
    assert 'src="http' not in page
    rows = read_json(folder / "near" / "summary.json")["rows"]
    assert [row["agent"] for row in rows] == ["random", "bc", "mpc", "simulator"]
    cards = tmp_path / "cards" / "reacher"
    assert read_json(cards / "evaluation.json")[0]["rows"] == rows
    assert "| near | bc |" in (cards / "README.md").read_text()
    shown = capfd.readouterr().out
    assert "report: docs/reports/reacher.html" in shown and "left out" not in shown

    log = (tmp_path / "runs" / "reports" / "reacher.log").read_text()
    run(monkeypatch, "envs=[reacher]")
    again = (tmp_path / "runs" / "reports" / "reacher.log").read_text()
    assert "frozen tasks" in log and "frozen tasks" not in again[len(log) :]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("envs=[pusk]", "Did you mean 'push'"),
        ("episodes=101", "wanted between 1 and 100"),
        ("pairs=1", "pairs: wanted at least 2"),
    ],
)
def test_what_cannot_be_is_found_before_anything_is_done(
    wrong: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, wrong)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.html"))
