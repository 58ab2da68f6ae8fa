"""The table at the end of make demo, from the files the other verbs write."""

from pathlib import Path

import pytest

from demos import success_table
from vjepa_wm.evaluation.episodes import Episode
from vjepa_wm.evaluation.report import summarise, write_report
from vjepa_wm.files import read_json, write_json


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder in place of the package's weights and of the working directory."""
    monkeypatch.setattr(success_table, "shipped_folder", lambda name: tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def episodes(successes: int, total: int) -> list[Episode]:
    """Return episodes of which the first ones succeeded."""
    return [
        Episode(
            level="near",
            seed=index,
            is_success=index < successes,
            is_touched=index < successes,
            steps=9,
            final_distance={"arm_position_m": 0.1},
            best_distance={"arm_position_m": 0.1},
            path_length=None,
            spl=None,
            seconds_per_action=0.1,
            fault="",
            start_distance={"arm_position_m": 0.3},
        )
        for index in range(total)
    ]


def summary_of(folder: Path, level: str, successes: dict[str, int]) -> dict:
    """Write a report as evaluate does, and return its summary."""
    found = {agent: episodes(count, 20) for agent, count in successes.items()}
    rows = [summarise(agent, list_, seconds=1.0) for agent, list_ in found.items()]
    write_report(folder, found, rows, about={"env": "reacher", "level": level})
    return read_json(folder / "summary.json")


def test_demos_stand_beside_measured_rates_of_their_level(shipped: Path, capsys) -> None:
    write_json(
        shipped / "reacher" / "evaluation.json",
        [
            summary_of(shipped / "1", "near", {"random": 1, "mpc": 19, "simulator": 20}),
            summary_of(shipped / "2", "far", {"random": 0, "mpc": 10, "simulator": 20}),
        ],
    )
    write_json(
        shipped / "runs" / "demos" / "reacher.json", {"level": "far", "reached": 2, "episodes": 3}
    )
    success_table.main()
    head, near, far, foot = capsys.readouterr().out.rstrip("\n").split("\n")
    assert near.split()[:2] == ["reacher", "near"]
    assert "2 of 3" in far and "2 of 3" not in near
    # Wilson intervals of 1, 19, 20 and 10 of 20.
    cells = ["5 [1, 24] n=20", "95 [76, 99] n=20", "100 [84, 100] n=20"]
    assert [near.index(cell) for cell in cells] == sorted(near.index(cell) for cell in cells)
    assert "50 [30, 70] n=20" in far
    assert len(head) == len(near) == len(far)
    for title in ("random actions", "agent", "true simulator"):
        assert title in head


def test_without_shipped_figures_there_is_no_row(shipped: Path, capsys) -> None:
    success_table.main()
    head, foot = capsys.readouterr().out.rstrip("\n").split("\n")
    assert head.startswith("environment")
    assert "95 % interval" in foot
