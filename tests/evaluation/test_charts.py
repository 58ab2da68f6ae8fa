"""Charts put what they show where it belongs."""

import numpy as np
import pytest

from vjepa_wm.evaluation.charts import (
    CAPTION,
    COLOURS,
    HIGH,
    LOW,
    MARGIN,
    SIZE,
    below,
    beside,
    curves,
    heat_map,
)


def test_low_cells_are_dark_and_row_zero_is_at_the_bottom() -> None:
    values = np.ones((4, 4))
    values[0, 1] = 0.0
    image = np.array(heat_map(values, "cost", cross=(3, 3), ring=(3, 0)))
    cell = SIZE // 4
    assert image[CAPTION + SIZE - 3, cell + 3].tolist() == LOW.tolist()
    assert image[CAPTION + SIZE - 3, 3].tolist() == HIGH.tolist()
    flat = np.array(heat_map(np.ones((4, 4)), "cost", cross=(0, 0), ring=(0, 0)))
    assert flat[CAPTION + 3, SIZE - 3].tolist() == LOW.tolist()


def test_marks_lie_in_their_cells() -> None:
    plain = np.array(heat_map(np.ones((5, 5)), "", cross=(0, 0), ring=(0, 0)))
    other = np.array(heat_map(np.ones((5, 5)), "", cross=(4, 2), ring=(0, 0)))
    rows, columns = np.nonzero((plain != other).any(axis=-1))
    upper = rows < CAPTION + SIZE // 2  # where the cross went; the rest is where it was
    cell = SIZE / 5
    assert rows[upper].min() >= CAPTION and rows[upper].max() < CAPTION + cell
    assert 2 * cell <= columns[upper].min() and columns[upper].max() < 3 * cell


@pytest.mark.parametrize("rows", [{"a": [0.0, 0.0]}, {"a": [1.0]}, {"a": [-1.0, 2.0], "b": [0.5]}])
def test_curves_take_any_numbers(rows) -> None:
    assert curves(rows, "error").height == SIZE + CAPTION


def test_names_and_ticks_are_written_where_they_can_be_read() -> None:
    """Curves that end together have names above each other; ticks stand for numbers."""
    one, two = (curves(rows, "") for rows in ({"a": [1.0, 0.0]}, {"a": [1.0, 0.0], "b": [0, 0.0]}))
    inks = [(np.array(chart) == COLOURS[0]).all(axis=-1).nonzero()[1].max() for chart in (one, two)]
    assert inks[0] == inks[1]  # the first name stays beside its curve's end
    names = [
        (np.array(two) == colour).all(axis=-1)[:, 2 * SIZE - 3 * MARGIN + 5 :] for colour in COLOURS
    ]
    rows = [set(name.any(axis=1).nonzero()[0].tolist()) for name in names[:2]]
    assert rows[0] and rows[1] and not rows[0] & rows[1]
    plain, ticked = (curves({"a": [1.0, 2.0]}, "", ticks=t) for t in (None, ["1 %", "100 %"]))
    changed = (np.array(plain) != np.array(ticked)).any(axis=-1).nonzero()[0]
    assert changed.min() >= CAPTION + SIZE - 20


def test_panels_are_joined_without_loss() -> None:
    first, second = (curves({"a": [1.0, value]}, "error") for value in (2.0, 3.0))
    row, column = beside([first, second]), below([first, second])
    assert row.height == first.height and column.width == first.width
    assert np.array_equal(np.array(row)[:, -second.width :], np.array(second))
    assert np.array_equal(np.array(column)[: first.height], np.array(first))


def test_steps_can_be_put_under_what_they_are_of() -> None:
    """The first and the last step are where they are wanted, in a panel as wide as wanted."""
    chart = np.array(curves({"": [1.0, 1.0]}, "", width=700, span=(50, 500)))
    assert chart.shape[1] == 700
    columns = (chart == COLOURS[0]).all(axis=-1).any(axis=0).nonzero()[0]
    assert abs(columns.min() - 50) <= 2 and abs(columns.max() - 500) <= 2
