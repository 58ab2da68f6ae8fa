"""Encoders side by side: every number is of its own run, and others are held against the first."""

from pathlib import Path

import pytest

from tests.evaluation.test_comparison import write
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.encoder_figures import Measured, encoder_rows, table
from vjepa_wm.files import write_json

DIAGNOSIS = "diagnosis/diagnostics.json"
ERRORS = {"h1_true": 0.1, "h1_copy": 0.2, "h2_true": 0.3, "h2_copy": 0.4, "rollout_error": 0.2}


def measured(folder: Path, solved: str, *, correlation: float) -> Path:
    """Write what compare_encoders leaves of an encoder, with two levels."""
    write(folder / "near", solved)
    write(folder / "far", solved[::-1], level="far")
    write_json(folder / "model" / "config.json", {"figures": {"predictor": ERRORS}})
    interval = [correlation - 0.1, correlation + 0.1]
    cost = {"correlation": correlation, "correlation_interval": interval}
    cost |= {"near": None, "near_interval": None}
    rate = {"rate": 0.75, "interval": [0.6, 0.9]}
    numbers = {"num_actions": 8, "steps": 6, "first": rate, "last": rate}
    figures = {
        "costs": {"numbers": {"rows": {"planning cost": cost, "l2": cost}}},
        "counterfactual": {"numbers": numbers},
        "probe": {"numbers": {"r2": {"block_angle_rad": 0.5}}},
    }
    write_json(folder / DIAGNOSIS, {"figures": figures})
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Two encoders; the second solves six more of twenty tasks."""
    return {
        "floor": measured(tmp_path / "floor", "1" * 8 + "0" * 12, correlation=0.2),
        "ours": measured(tmp_path / "ours", "1" * 14 + "0" * 6, correlation=0.8),
    }


def test_every_number_is_read(folders: dict[str, Path]) -> None:
    floor, ours = encoder_rows(folders, ["near", "far"], DIAGNOSIS)
    assert floor["near goals, %"].value == pytest.approx(0.4)
    assert str(ours["far goals, %"]) == "70 [48, 85]"
    assert ours["error / copy's, step 1"].value == pytest.approx(0.5)
    assert ours["error / copy's, step 2"].value == pytest.approx(0.75)
    assert str(ours["rank correlation of l2 with true distance"]) == "0.80 [0.70, 0.90]"
    assert "rank correlation of l2 with true distance near the goal" not in ours
    assert str(ours["own outcome nearest (chance 12 %), step 6, %"]) == "75 [60, 90]"
    assert ours["R2 of block_angle_rad"] == Measured(0.5)


def test_the_others_are_held_against_the_first(folders: dict[str, Path]) -> None:
    floor, ours = encoder_rows(folders, ["near"], DIAGNOSIS)
    label = "near goals, % more than the first"
    assert label not in floor
    assert ours[label].value == pytest.approx(0.3)
    assert 0 < ours[label].interval[0] < 0.3 < ours[label].interval[1]


def test_a_line_for_each_number(folders: dict[str, Path]) -> None:
    lines = table(["floor", "ours"], encoder_rows(folders, ["near"], DIAGNOSIS)).splitlines()
    assert lines[0].split() == ["floor", "ours"]
    assert lines[1].split() == ["near", "goals,", "%", "40", "[22,", "61]", "70", "[48,", "85]"]
    assert lines[2].startswith("near goals, % more than the first") and " - " in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_what_was_not_asked_for_is_left_out(folders: dict[str, Path]) -> None:
    write_json(folders["ours"] / DIAGNOSIS, {"figures": {}})
    floor, ours = encoder_rows(folders, ["near"], DIAGNOSIS)
    assert "R2 of block_angle_rad" in floor
    assert not any(label.startswith(("R2", "rank", "own")) for label in ours)


def test_what_is_missing_is_named(folders: dict[str, Path]) -> None:
    (folders["ours"] / DIAGNOSIS).unlink()
    with pytest.raises(DataError, match=r"ours.diagnosis.diagnostics\.json does not exist"):
        encoder_rows(folders, ["near"], DIAGNOSIS)
