"""Rows that came one by one are the array that they make together."""

import numpy as np
import pytest

from rql_core.bags.rows import Rows


@pytest.mark.parametrize(("width", "dtype"), [(3, np.float32), (1, np.float64), (7, np.int64)])
def test_what_was_appended_is_taken_once(width: int, dtype: type) -> None:
    expected = np.arange(5 * width).reshape(5, width).astype(dtype)
    rows = Rows(width, dtype)
    for count, row in enumerate(expected):
        assert len(rows) == count
        rows.append(row)
    taken = rows.take()
    np.testing.assert_array_equal(taken, expected, strict=True)
    assert len(rows) == 0
    assert rows.take().shape == (0, width)
    rows.append(expected[2])
    np.testing.assert_array_equal(taken, expected)
    np.testing.assert_array_equal(rows.take(), expected[2:3])


def test_a_row_that_is_changed_later_stays_as_it_was() -> None:
    rows, row = Rows(2, np.float32), np.zeros(2, np.float32)
    rows.append(row)
    row += 1
    assert rows.take().tolist() == [[0, 0]]


@pytest.mark.parametrize("row", [np.zeros(3, np.float32), np.zeros(2), np.zeros((2, 1), np.float32)])
def test_a_row_of_another_kind_is_refused(row: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        Rows(2, np.float32).append(row)
