"""Runs side by side: the same tasks are compared one by one, anything else is refused or said."""

import csv
import sys
from pathlib import Path

import pytest

from vjepa_wm import compare
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.comparison import comparison, difference, over_seeds, read_run
from vjepa_wm.evaluation.episodes import Episode
from vjepa_wm.evaluation.report import summarise, write_report
from vjepa_wm.files import read_json, write_json


def write(
    folder: Path,
    solved: str,
    *,
    level: str = "near",
    first: int = 0,
    tasks: str = "t",
    weights: str = "m",
    **config: object,
) -> Path:
    """Write a run of one agent: `solved` has a 1 for each task that it solves, from a seed on."""
    episodes = [
        Episode(
            level=level,
            seed=first + i,
            is_success=mark == "1",
            is_touched=mark in "1t",
            steps=3,
            final_distance={"x_m": 0.1},
            best_distance={"x_m": 0.1},
            path_length=None,
            spl=None,
            seconds_per_action=0.01,
            fault="" if mark != "!" else "NaN",
            start_distance={"x_m": 0.3},
        )
        for i, mark in enumerate(solved)
    ]
    about = {"env": "push", "level": level, "config": {"planner": {"horizon": 6}, **config}}
    about["digests"] = {"tasks": tasks, "model": weights}
    row = summarise("mpc", episodes, seconds=1.0)
    write_report(folder, {"mpc": episodes}, [row], about=about)
    return folder


def test_tasks_are_compared_one_by_one(tmp_path: Path) -> None:
    """Six of ten and nine of ten: four gained, one lost, and what was set differently."""
    (first,) = read_run(write(tmp_path / "a", "1111110000"))
    (other,) = read_run(write(tmp_path / "b", "1111101111", env={"frame_skip": 5}))
    found = difference(first, other)
    assert (found.shared, found.gained, found.lost) == (10, 4, 1)
    assert found.success.mean == pytest.approx(0.3)
    assert found.success.low < 0.3 < found.success.high
    assert found.settings == {"env.frame_skip": (None, 5)}
    lines = comparison([first, other])
    assert lines[0] == "push, near goals"
    assert "a:mpc: 60 [31, 83] % of 10" in lines[1]
    assert "+30 " in lines[3] and "4 gained, 1 lost, p = 0.38; could be chance" in lines[3]
    assert lines[4].strip() == "env.frame_skip: None -> 5"


def test_touched_goals_are_told_where_they_were_noted(tmp_path: Path) -> None:
    """Runs of versions without the newer figures are read as before."""
    run = write(tmp_path / "a", "11t0")
    (entry,) = read_run(run)
    assert entry.touched == 3
    assert "of 4, 75 % touched" in comparison([entry])[1]
    kept = ["agent", "episode", "level", "seed", "is_success", "steps", "fault"]
    with (run / "episodes.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    with (run / "episodes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    summary = read_json(run / "summary.json")
    for name in ("touched", "path_length", "spl", "fault"):
        del summary["rows"][0][name]
    write_json(run / "summary.json", summary)
    (old,) = read_run(run)
    assert (old.touched, old.success) == (None, entry.success)
    assert comparison([old])[1].endswith("of 4")


def test_only_shared_tasks_count(tmp_path: Path) -> None:
    (first,) = read_run(write(tmp_path / "a", "1010"))
    (other,) = read_run(write(tmp_path / "b", "0101", first=2))
    assert difference(first, other).shared == 2
    (apart,) = read_run(write(tmp_path / "c", "1111", first=100))
    assert "not comparable: 0 tasks in common" in comparison([first, apart])[-1]
    (changed,) = read_run(write(tmp_path / "d", "1010", tasks="u"))
    assert difference(first, changed).shared == 0


def test_levels_stand_apart_in_the_order_given(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a", "11"), write(tmp_path / "b", "10", level="far")]
    runs.append(write(tmp_path / "c", "0!"))
    lines = comparison([entry for run in runs for entry in read_run(run)])
    assert [line for line in lines if line.startswith("push")] == [
        "push, near goals",
        "push, far goals",
    ]
    assert lines.index("push, far goals") == 4
    assert "1 stopped" in lines[2]


def test_seeds_are_averaged(tmp_path: Path, monkeypatch, capsys) -> None:
    """60, 70 and 80 %: Student's interval with two degrees of freedom is 70 +- 4.303 * 5.774.

    Wilson's of 7 in 10 is [39.7, 89.2].
    """
    solved = {"a": "1111110000", "b": "1111111000", "c": "1111111100"}
    runs = [str(write(tmp_path / name, row, weights=name)) for name, row in solved.items()]
    monkeypatch.setattr(sys, "argv", ["compare", "--seeds", *runs])
    compare.main()
    said = (
        "push, near goals, mpc: 70.0 % over 3 seeds, 60 to 80; [45.2, 94.8] over seeds on these "
        "10 tasks, [39.7, 89.2] over tasks\n"
    )
    assert capsys.readouterr().out == said


def test_seeds_that_agree_do_not_make_a_figure_certain(tmp_path: Path) -> None:
    runs = [read_run(write(tmp_path / name, "1" * 10, weights=name)) for name in "abc"]
    (line,) = over_seeds([entry for run in runs for entry in run])
    assert "[100.0, 100.0] over seeds" in line and "[72.2, 100.0] over tasks" in line


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, "are of the same weights"),
        ({"weights": "n", "first": 5}, "wanted the same tasks"),
        ({"weights": "n", "planner": {"horizon": 3}}, "differ in planner.horizon"),
    ],
)
def test_other_runs_are_no_seeds(tmp_path: Path, other: dict, said: str) -> None:
    first, second = write(tmp_path / "a", "10"), write(tmp_path / "b", "11", **other)
    with pytest.raises(DataError, match=said):
        over_seeds([*read_run(first), *read_run(second)])
    with pytest.raises(DataError, match="wanted runs of two or more seeds"):
        over_seeds(read_run(first))


def test_a_run_that_is_not_whole_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    run = write(tmp_path / "a", "101")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no summary.json and no episodes.csv"):
        read_run(tmp_path / "empty")
    text = (run / "episodes.csv").read_text()
    (run / "episodes.csv").write_text("".join(text.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="has 2 episodes of mpc, summary.json says 3"):
        read_run(run)
    (run / "episodes.csv").write_text("a,b\n1,2\n")
    monkeypatch.setattr(sys, "argv", ["compare", str(run)])
    with pytest.raises(SystemExit, match="2"):
        compare.main()
    assert "not what evaluate writes" in capsys.readouterr().err
