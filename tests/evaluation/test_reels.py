"""Pictures of episodes: which are kept, which frames of them, and what comes back from the file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.fake_env import Seeker
from vjepa_wm.errors import DataError
from vjepa_wm.evaluation.episodes import EpisodeRunner
from vjepa_wm.evaluation.reels import (
    BETWEEN,
    MAX_SIDE,
    Film,
    Reel,
    Strip,
    find_sheets,
    read_sheet,
    write_pictures,
)
from vjepa_wm.evaluation.tasks import TUNING_SEED, draw_tasks

POINT = "tests.evaluation.fake_env:fake/PointGoal-v0"


def frame(value: int, side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def filmed(steps: int) -> Strip:
    """An episode whose frame after step k is of brightness k."""
    film = Film(frame(255), frame(0))
    for step in range(1, steps + 1):
        film.add(frame(step))
    return film.strip(number=3, seed=7)


@pytest.mark.parametrize("steps", [0, 1, 2, 6, 7, 8, 25, 50, 200])
def test_a_strip_goes_from_start_to_end_in_order(steps: int) -> None:
    strip = filmed(steps)
    assert strip.frames[:, 0, 0, 0].tolist() == list(strip.steps)
    assert (strip.steps[0], strip.steps[-1]) == (0, steps)
    assert list(strip.steps) == sorted(set(strip.steps))
    assert len(strip.steps) == min(steps + 1, BETWEEN + 2)
    gaps = np.diff(strip.steps)
    assert steps < 8 or gaps.max() <= 3 * gaps.min() + 1
    assert (strip.goal == 255).all()


def test_a_film_holds_few_frames_and_copies_them() -> None:
    canvas = frame(0)
    film = Film(canvas, canvas)
    for step in range(1, 100):
        canvas[:] = step
        film.add(canvas)
    assert len(film._kept) <= 4 * BETWEEN
    assert film.strip(0, 0).frames[:, 0, 0, 0].tolist() == list(film.strip(0, 0).steps)


def test_large_pictures_are_made_smaller_with_their_proportions() -> None:
    wide = np.zeros((2 * MAX_SIDE, 4 * MAX_SIDE, 3), np.uint8)
    strip = Film(wide, wide).strip(0, 0)
    assert strip.goal.shape == (MAX_SIDE // 2, MAX_SIDE, 3)
    assert strip.frames.shape == (1, MAX_SIDE // 2, MAX_SIDE, 3)


def kept(count: int, outcomes: str) -> list[int]:
    """Numbers of the episodes kept of a run of failures (x) and successes (o)."""
    reel = Reel(count)
    for outcome in outcomes:
        reel.keep(reel.film(frame(0), frame(1)), place=0, seed=1, is_success=outcome == "o")
    return [strip.number for strip in reel.strips()]


@pytest.mark.parametrize(
    ("count", "outcomes", "numbers"),
    [
        (4, "oxoxx", [1, 3, 4, 0]),
        (4, "xxxxxxo", [0, 1, 2, 6]),
        (4, "xxxxxx", [0, 1, 2, 3]),
        (4, "oooooxo", [5, 0, 1, 2]),
        (1, "oox", [2]),
        (9, "ox", [1, 0]),
        (0, "ox", []),
    ],
)
def test_failures_come_first_and_successes_are_not_crowded_out(
    count: int, outcomes: str, numbers: list[int]
) -> None:
    assert kept(count, outcomes) == numbers


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(DataError, match="pictures: wanted 0 or more episodes, got -1"):
        Reel(-1)


def test_sheets_come_back_as_they_were_and_replace_older_ones(tmp_path: Path) -> None:
    tasks = draw_tasks(POINT, "far", 5, first_seed=TUNING_SEED)
    imagining = Reel(3, lambda place: frame(place + 100, side=4) if place else None)
    reels = {"seeker": imagining, "my.module:Agent": Reel(2), "none": Reel(0)}
    runner = EpisodeRunner(POINT, num_envs=2, image_size=8)
    plain = runner.run(Seeker(), tasks, max_steps=6)
    for reel in reels.values():
        assert len(runner.run(Seeker(), tasks, max_steps=6, reel=reel)) == len(plain)
    (tmp_path / "pictures_old.png").write_bytes(b"")
    write_pictures(tmp_path, reels, episodes_digest="0123")
    found = [read_sheet(path) for path in find_sheets(tmp_path)]
    assert [sheet.episodes_digest for sheet in found] == ["0123", "0123"]
    sheets = {sheet.agent: sheet.strips for sheet in found}
    assert set(sheets) == {"seeker", "my.module:Agent"}
    for agent, strips in sheets.items():
        wanted = reels[agent].strips()
        assert [(s.number, s.seed, s.steps) for s in strips] == [
            (s.number, s.seed, s.steps) for s in wanted
        ]
        for strip, other in zip(strips, wanted, strict=True):
            np.testing.assert_array_equal(strip.frames, other.frames)
            np.testing.assert_array_equal(strip.goal, other.goal)
            place = strip.number % 2  # two environments make batches of two
            if agent == "seeker" and place:
                assert strip.imagined.shape == strip.goal.shape
                assert (strip.imagined == 100 + place).all()
            else:
                assert strip.imagined is None
            episode = plain[strip.number]
            assert (strip.seed, strip.steps[-1]) == (episode.seed, episode.steps)


def test_what_is_no_sheet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pictures_mpc.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(DataError, match="cannot be read as pictures of episodes"):
        read_sheet(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read as pictures of episodes"):
        read_sheet(path)
