"""The report as one HTML file: what it shows, that it stands alone, damaged runs."""

import csv
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.evaluation.saved_runs import (
    SEED,
    episode,
    episodes,
    save_diagnosis,
    save_evaluation,
    save_training,
)
from vjepa_wm import report
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.html.elements import element, join
from vjepa_wm.evaluation.html.report import page, write_page
from vjepa_wm.evaluation.html.runs import read_evaluation
from vjepa_wm.evaluation.html.success import over_start, solved_within
from vjepa_wm.evaluation.html.words import flat, number
from vjepa_wm.evaluation.statistics import wilson_interval
from vjepa_wm.files import read_json, write_json

EVIL = "<script>alert('1')</script> & \x07\"end"


def read(folders: Sequence[Path]) -> tuple[ElementTree.Element, str]:
    """Build a page without complaints; return it parsed by a strict reader, and its words."""
    markup, problems = page(folders)
    assert problems == []
    return parsed(markup)


def parsed(markup: str) -> tuple[ElementTree.Element, str]:
    assert markup.startswith("<!DOCTYPE html>\n<html")
    tree = ElementTree.fromstring(markup)
    return tree, " ".join(" ".join(tree.find("body").itertext()).split())


@pytest.fixture
def everything(tmp_path: Path) -> list[Path]:
    """Two evaluations of the same tasks, a diagnosis and a training."""
    agents = {"random": episodes(12, successes=1), "mpc": episodes(12, successes=8)}
    better = {"mpc": episodes(12, successes=11)}
    return [
        save_evaluation(tmp_path / "runs" / "a", agents, pictures=4),
        save_evaluation(tmp_path / "runs" / "b", better, pictures=2),
        save_diagnosis(tmp_path / "diagnosis", is_bad=True),
        save_training(tmp_path / "training"),
    ]


def test_a_page_stands_alone(everything: list[Path]) -> None:
    """Nothing is loaded or run; what the page refers to is in it."""
    tree, _ = read(everything)
    names = {node.tag for node in tree.iter()}
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    ids = {node.get("id") for node in tree.iter()}
    for node in tree.iter():
        assert not any(name.startswith("on") for name in node.attrib)
        assert node.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert node.get("href") is None or node.get("href").removeprefix("#") in ids
    style = tree.find("head/style").text
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_every_figure_of_every_episode_appears(everything: list[Path]) -> None:
    tree, words = read(everything[:1])
    cells = {cell.text for cell in tree.iter("td")} | {cell.text for cell in tree.iter("th")}
    with open(everything[0] / "episodes.csv", newline="") as file:
        for line in csv.DictReader(file):
            for cell in line.values():
                shown = f"{float(cell):.6g}" if "." in cell else cell
                assert (shown or None) in cells
    for said in ("0123456789abcdef", "planner.horizon=6", "planner.samples=null", "a test"):
        assert said in words
    assert f"{SEED} to {SEED + 11}" in words
    assert "position < 0.05 m" in words


def test_success_is_said_with_its_interval(everything: list[Path]) -> None:
    _, words = read(everything[:1])
    low, high = wilson_interval(8, 12)
    assert f"67 % [{100 * low:.0f}, {100 * high:.0f}]" in words
    assert "8 of 12 goals reached in 7.50 steps on average" in words


def test_success_over_steps_is_counted_and_bounded(everything: list[Path]) -> None:
    """Successes end at steps 4 to 11 of 12 episodes; the line jumps there and nowhere else."""
    run = read_evaluation(everything[0])
    line = solved_within("mpc", 1, run.episodes["mpc"], 20.0)
    at = dict(zip(line.x, line.y, strict=True))  # the upper end of each jump
    bounds = dict(zip(line.x, zip(line.low, line.high, strict=True), strict=True))
    assert set(at) == {0.0, *map(float, range(4, 12)), 20.0}
    for step, share in {0: 0, 4: 1 / 12, 7: 4 / 12, 11: 8 / 12, 20: 8 / 12}.items():
        assert at[step] == pytest.approx(share)
        assert bounds[step] == pytest.approx(wilson_interval(round(12 * share), 12))


def test_success_over_start_distance_needs_episodes(everything: list[Path], tmp_path: Path) -> None:
    run = read_evaluation(everything[0])
    assert "2 groups" in over_start(run, "position_m")
    few = save_evaluation(tmp_path / "few", {"mpc": episodes(9, successes=3)})
    assert over_start(read_evaluation(few), "position_m") is None


def test_failures_are_shown_first_with_start_goal_and_end(everything: list[Path]) -> None:
    tree, words = read(everything[:1])
    cards = [node for node in tree.iter("article")]
    assert len(cards) == 8
    assert "mpc: the first 3 of 4 failures and the first 1 of 8 successes" in words
    said = [" ".join(card.itertext()) for card in cards[4:]]
    assert ["missed" in one for one in said] == [True, True, True, False]
    first, seed = cards[4], SEED + 8
    assert f"seed {seed}" in said[0] and "end, step 20" in said[0]
    assert "start 0.180 m, nearest 0.190 m, end 0.380 m" in said[0]
    alts = [image.get("alt") for image in first.iter("img")]
    assert alts[:3] == ["start of episode 8", "goal of episode 8", "end of episode 8"]
    assert alts[3] == "imagined end of the last plan of episode 8"
    assert len(alts) == 4 + 6


def test_runs_of_the_same_tasks_are_compared(everything: list[Path]) -> None:
    tree, words = read([everything[0].parent])
    assert "World models: 2 evaluations" in words
    rows = [
        [" ".join(cell.itertext()) for cell in row] for row in tree.find("body/main").iter("tr")
    ]
    assert rows[-1][:4] == ["point, near goals", "mpc, b", "random, a", "12"]
    assert rows[-1][-2:] == ["10", "0"] and rows[-1][4].startswith("+83 [")
    assert rows[-2][1:3] == ["mpc, a", "random, a"]


def test_figures_nobody_told_the_page_of_get_a_column(everything: list[Path]) -> None:
    summary = read_json(everything[0] / "summary.json")
    for row in summary["rows"]:
        row |= {"success_at_any_time": 0.875, "path_efficiency": None, "any_interval": [0.25, 1.0]}
    write_json(everything[0] / "summary.json", summary)
    _, words = read(everything[:1])
    assert "success at any time path efficiency any interval" in words
    assert "0.875 - [0.250, 1.00]" in words


def test_an_error_budget_is_shown_where_there_is_one(everything: list[Path]) -> None:
    summary = read_json(everything[0] / "summary.json")
    loss = {"part": "predictor", "mean": 0.125, "low": -0.03, "high": 0.28}
    summary["error_budget"] = {"tasks": 8, "same_planner": True, "losses": [loss]}
    write_json(everything[0] / "summary.json", summary)
    tree, words = read(everything[:1])
    assert "what mpc misses on 8 tasks" in words
    rows = [[cell.text for cell in row] for row in tree.iter("tr")]
    assert ["predictor", "+12 [\u22123, +28]"] in rows
    assert "Where success is lost" not in read(everything[1:2])[1]


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    found = [episode(0, steps=3, distance=0.2, fault=EVIL), *episodes(3, successes=1)[1:]]
    found = [replace(one, level=EVIL) for one in found]
    about = {"env": EVIL, "level": EVIL, "machine": EVIL}
    run = save_evaluation(tmp_path / EVIL[:8], {EVIL: found}, pictures=2, about=about)
    diagnosis = save_diagnosis(tmp_path / "diagnosis", is_bad=False)
    tree, words = read([run, diagnosis])
    assert not list(tree.iter("script"))
    assert words.count("<script>alert('1')</script> & \ufffd\"end") > 5
    assert "probe: what <frames> know" in words


def test_markup_is_built_safely() -> None:
    inner = element("b", "1 < 2", attributes={"title": 'a "b" <c>'})
    assert inner == '<b title="a &quot;b&quot; &lt;c&gt;">1 &lt; 2</b>'
    assert element("p.x.y", inner, "&") == f'<p class="x y">{inner}&amp;</p>'
    assert join(["<", inner]) == f"&lt;{inner}"


def test_a_diagnosis_is_shown_with_its_verdict_and_picture(tmp_path: Path) -> None:
    bad, fine = (save_diagnosis(tmp_path / str(flag), is_bad=flag) for flag in (True, False))
    tree, words = read([bad])
    assert "Diagnosis of point" in words and "Bad: train longer & on more" in words
    assert "0.375 [0.125, 0.500] random encoder \u22120.250" in words
    assert "no costs: no sim_state was recorded" in words
    assert [image.get("alt") for image in tree.iter("img")] == [
        "picture of probe: what <frames> know"
    ]
    assert "Fine ; if it were bad: train longer & on more" in read([fine])[1]


def test_training_curves_group_what_is_read_together(tmp_path: Path) -> None:
    markup, problems = page([save_training(tmp_path / "run")])
    tree, words = parsed(markup)
    assert problems == []
    titles = [caption.text for caption in tree.iter("figcaption")]
    assert titles == [
        "Open-loop error, 1 model step ahead",
        "Open-loop error, 3 model steps ahead",
        "Losses",
        "Action ratio",
        "Losses: loss",  # of the metric
    ]
    assert "200 steps in 2.00 minutes" in words
    assert "last: true 0.300; copy 0.300" in words
    assert "1 of its lines cannot be read" in words
    assert "nan" not in markup.lower().split("</head>")[1]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda run: (run / "summary.json").unlink(),
            "has no summary.json: wanted a folder",
        ),
        (lambda run: (run / "episodes.csv").unlink(), "has no episodes.csv"),
        (lambda run: cut(run / "summary.json"), "is not valid JSON"),
        (lambda run: cut(run / "episodes.csv"), "is not what evaluate writes"),
        (lambda run: drop_line(run / "episodes.csv"), "has 11 episodes of mpc"),
        (lambda run: write_json(run / "summary.json", {"rows": 3}), "is not what evaluate writes"),
        (lambda run: spoil_row(run / "summary.json"), "KeyError('interval')"),
    ],
)
def test_a_damaged_run_is_named_and_the_rest_goes_on(
    everything: list[Path], damage, said: str
) -> None:
    damage(everything[1])
    markup, problems = page(everything)
    _, words = parsed(markup)
    assert len(problems) == 1
    assert said in problems[0] and str(everything[1]) in problems[0]
    assert "1 evaluation, 1 diagnosis, 1 training" in words
    assert " ".join(problems[0].split()) in words


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def drop_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def spoil_row(path: Path) -> None:
    summary = read_json(path)
    del summary["rows"][0]["interval"]
    write_json(path, summary)


def test_pictures_of_other_episodes_are_not_shown(everything: list[Path]) -> None:
    sheet = everything[0] / "pictures_mpc.png"
    sheet.write_bytes((everything[1] / "pictures_mpc.png").read_bytes())
    (everything[2] / "probe.png").write_bytes(b"no picture")
    tree, words = read([everything[0], everything[2]])
    assert "pictures_mpc.png shows other episodes than episodes.csv lists" in words
    assert "probe.png is a damaged picture" in words
    alts = [image.get("alt") for image in tree.iter("img")]
    assert alts and not any(alt.startswith("picture of") for alt in alts)


def test_runs_without_pictures_and_later_columns_are_shown(everything: list[Path]) -> None:
    """As runs of earlier versions are."""
    summary = read_json(everything[0] / "summary.json")
    del summary["criteria"], summary["machine"]
    write_json(everything[0] / "summary.json", summary)
    for sheet in everything[0].glob("*.png"):
        sheet.unlink()
    with open(everything[0] / "episodes.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    with open(everything[0] / "episodes.csv", "w", newline="") as file:
        names = [name for name in lines[0] if not name.startswith("start_")]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    _, words = read(everything[:1])
    assert "No pictures of episodes were recorded" in words
    assert "Success by how far the goal was" not in words


def test_the_same_page_comes_back_from_the_folders(everything: list[Path], tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", everything)
    first = (tmp_path / "report.html").read_bytes()
    write_page(tmp_path / "report.html", everything)
    assert (tmp_path / "report.html").read_bytes() == first


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(*words: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["report", *words])
        report.main()

    return run


def test_the_verb_names_what_it_leaves_out(run, everything, capsys, tmp_path: Path) -> None:
    (tmp_path / "sweep=1").mkdir()
    save_diagnosis(tmp_path / "sweep=1", is_bad=False)
    run("runs", "nowhere", "sweep=1", "out=all.html")
    shown = capsys.readouterr()
    assert shown.err == "left out: nowhere is no folder\n"
    assert shown.out == "report: all.html\n"
    _, words = parsed((tmp_path / "all.html").read_text(encoding="utf-8"))
    assert "2 evaluations, 1 diagnosis" in words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "ot=all.html"], "Did you mean 'out'"),
        (["out=all.html"], "wanted the folder of at least one run"),
        (["nowhere"], "nothing to report: nowhere is no folder"),
        (["."], "holds nothing to report: wanted one of summary.json"),
    ],
)
def test_the_verb_ends_with_one_line(run, capsys, tmp_path, words: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*words)
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))


def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to report"):
        write_page(tmp_path / "report.html", [])


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (0.0222, "0.0222"), (12.5, "12.5"), (-3.25, "\u22123.25"), (1234.5, "1,234")],
)
def test_numbers_have_three_digits(value: float, written: str) -> None:
    assert number(value) == written


def test_settings_are_written_as_options() -> None:
    config = {"a": {"b": 1, "c": {"d": None}}, "e": [1, 2]}
    assert list(flat(config)) == ["a.b=1", "a.c.d=null", "e=[1, 2]"]
