"""Figures, table and files of a report."""

import csv
import dataclasses
from pathlib import Path

import pytest

from vjepa_wm.evaluation.episodes import Episode
from vjepa_wm.evaluation.report import summarise, table, warnings, write_report
from vjepa_wm.files import read_json


def episode(is_success: bool, steps: int, distance: float, fault: str = "") -> Episode:
    return Episode(
        level="near",
        seed=2**32 + steps,
        is_success=is_success,
        is_touched=is_success or distance <= 0.1,
        steps=steps,
        final_distance={"block_position_m": distance, "block_angle_rad": 1.0},
        best_distance={"block_position_m": distance / 2, "block_angle_rad": 0.5},
        path_length=0.02 * steps,
        spl=0.5 * is_success,
        seconds_per_action=0.1 * steps,
        fault=fault,
        start_distance={"block_position_m": 0.3},
    )


EPISODES = [
    episode(True, 10, 0.01),
    episode(False, 50, 0.3, fault="action at step 50: not finite"),
    episode(True, 20, 0.02),
    episode(False, 50, 0.1),
]


def test_figures_are_those_of_the_episodes() -> None:
    row = summarise("mpc", EPISODES, seconds=7.0)
    assert (row.episodes, row.successes, row.success, row.faults) == (4, 2, 0.5, 1)
    assert row.interval == pytest.approx((0.150, 0.850), abs=1e-3)
    assert row.final_distance == {"block_position_m": pytest.approx(0.06), "block_angle_rad": 1.0}
    assert row.best_distance["block_position_m"] == pytest.approx(0.03)
    assert (row.touched, row.spl, row.path_length) == (0.75, 0.25, pytest.approx(0.7))
    assert row.steps == 15
    assert row.seconds_per_action == pytest.approx(3.25)


def test_episodes_that_never_began_do_not_make_an_agent_faster() -> None:
    lost = episode(False, 0, 0.3, fault="environment, reset: OSError: no device")
    assert summarise("mpc", [*EPISODES, lost], seconds=7.0).seconds_per_action == pytest.approx(
        3.25
    )
    assert summarise("mpc", [lost], seconds=7.0).seconds_per_action == 0.0


def test_table_has_a_line_per_agent_in_order() -> None:
    rows = [summarise(name, EPISODES, seconds=7.0) for name in ("random", "mpc")]
    lines = table(rows).split("\n")
    assert [line.split()[0] for line in lines] == ["agent", "random", "mpc"]
    assert len({len(line) for line in lines}) == 1
    for text in ("50 [15, 85]", "0.060 / 0.030", "1.000 / 0.500", "15.0", "3.2500", "7"):
        assert text in lines[1]


def test_a_path_nobody_measured_is_left_out() -> None:
    row = summarise(
        "mpc", [dataclasses.replace(EPISODES[0], path_length=None, spl=None)], seconds=1
    )
    assert (row.path_length, row.spl) == (None, None)
    assert table([row]).split("\n")[1].split()[-3] == "-"


def test_without_successes_there_are_no_steps_to_average() -> None:
    row = summarise("mpc", EPISODES[1:2], seconds=1.0)
    assert row.steps is None
    assert "  -  " in table([row])


@pytest.mark.parametrize(
    ("agent", "successes", "is_warned"),
    [("random", 3, False), ("random", 4, True), ("mpc", 4, False)],
)
def test_goals_that_random_actions_reach_are_too_easy(
    agent: str, successes: int, is_warned: bool
) -> None:
    """From more than 15 % on: 3 of 20 is not, 4 of 20 is."""
    episodes = [episode(index < successes, 10, 0.1) for index in range(20)]
    found = warnings([summarise(agent, episodes, seconds=1.0)])
    assert any("too easy" in warning for warning in found) == is_warned
    assert len(found) == is_warned


def test_stopped_episodes_are_pointed_out() -> None:
    (warning,) = warnings([summarise("mpc", EPISODES, seconds=1.0)])
    assert warning.startswith("1 of 4 episodes of mpc were stopped")
    assert "action at step 50: not finite" in warning
    whole = summarise("random", EPISODES[:1], seconds=1.0)
    lines = table([whole, summarise("mpc", EPISODES, seconds=1.0)]).split("\n")
    assert [line.split()[-1] for line in lines] == ["stopped", "0", "1"]
    assert "stopped" not in table([whole])


def test_files_hold_every_episode_and_the_figures(tmp_path: Path) -> None:
    row = summarise("mpc", EPISODES, seconds=7.0)
    write_report(
        tmp_path, {"random": EPISODES[:1], "mpc": EPISODES}, [row], about={"level": "near"}
    )
    with open(tmp_path / "episodes.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["agent"], line["episode"]) for line in lines[:3]] == [
        ("random", "0"),
        ("mpc", "0"),
        ("mpc", "1"),
    ]
    assert float(lines[2]["final_block_position_m"]) == 0.3
    assert float(lines[2]["best_block_position_m"]) == 0.15
    assert (lines[2]["is_success"], lines[2]["seed"]) == ("0", str(2**32 + 50))
    assert lines[2]["fault"] == "action at step 50: not finite"
    summary = read_json(tmp_path / "summary.json")
    assert summary["level"] == "near"
    assert summary["rows"][0]["success"] == 0.5
    assert summary["rows"][0]["interval"] == list(row.interval)
    assert summary["versions"]["torch"]
