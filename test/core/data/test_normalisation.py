"""Statistics are exact, survive a round trip, and normalise one row as they normalise a million."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.data import Statistics, normalisation
from rql_core.errors import DatasetError


def observations(rows: int = 1000) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (generator.standard_normal((rows, 3)) * [1.0, 20.0, 0.01] + [0.0, 1000.0, -3.0]).astype(np.float32)


def test_statistics_equal_numpys_in_float64() -> None:
    rows = observations()
    statistics = Statistics.of(rows)
    np.testing.assert_array_equal(statistics.mean, rows.mean(axis=0, dtype=np.float64).astype(np.float32))
    np.testing.assert_allclose(statistics.std, rows.astype(np.float64).std(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(statistics.minimum, rows.min(axis=0))
    np.testing.assert_array_equal(statistics.maximum, rows.max(axis=0))
    assert int(statistics.count) == 1000


def test_statistics_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Statistics.of(observations())
    monkeypatch.setattr(normalisation, "BLOCK_ROWS", 7)
    blocks = Statistics.of(observations())
    np.testing.assert_allclose(blocks.mean, whole.mean, rtol=1e-7)
    np.testing.assert_allclose(blocks.std, whole.std, rtol=1e-7)


def test_a_constant_feature_is_only_centred() -> None:
    rows = observations()
    rows[:, 1] = 0.1
    statistics = Statistics.of(rows)
    assert statistics.std[1] == 1.0
    np.testing.assert_array_equal(statistics.normalise(rows)[:, 1], 0.0)


def test_a_feature_that_hardly_moves_is_not_blown_up() -> None:
    rows = observations()
    rows[:, 2] = 1e-6 * rows[:, 0]
    assert Statistics.of(rows).std[2] == np.float32(normalisation.STD_FLOOR)


def test_a_row_alone_is_normalised_to_the_last_bit_as_among_others() -> None:
    rows = observations()
    statistics = Statistics.of(rows)
    together = statistics.normalise(rows)
    assert together.dtype == np.float32
    for row in (0, 17, 999):
        np.testing.assert_array_equal(statistics.normalise(rows[row]), together[row])
        np.testing.assert_array_equal(statistics.normalise(rows[row : row + 1])[0], together[row])
    np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(together.std(axis=0), 1, atol=1e-3)


def test_stored_statistics_come_back_the_same() -> None:
    statistics = Statistics.of(observations())
    back = Statistics.from_tensors(statistics.to_tensors())
    for name, array in statistics.to_tensors().items():
        np.testing.assert_array_equal(getattr(back, name), array)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"std": np.zeros(3, np.float32)}, "'std' holds 0.0"),
        ({"mean": np.full(3, np.nan, np.float32)}, "'mean' holds a value that is not finite"),
        ({"maximum": np.zeros(2, np.float32)}, "'maximum' is float32"),
        ({"minimum": np.zeros(3)}, "'minimum' is float64"),
        ({"count": np.zeros(2, np.int64)}, "'count'"),
        ({"median": np.zeros(3, np.float32)}, "'median' is unknown"),
    ],
)
def test_wrong_statistics_are_named(change: dict[str, np.ndarray], words: str) -> None:
    tensors = Statistics.of(observations()).to_tensors() | change
    with pytest.raises(DatasetError, match=words):
        Statistics.from_tensors(tensors)


def test_a_missing_statistic_is_named() -> None:
    tensors = Statistics.of(observations()).to_tensors()
    del tensors["std"]
    with pytest.raises(DatasetError, match="'std' is missing"):
        Statistics.from_tensors(tensors)


def test_observations_of_another_kind_are_refused() -> None:
    statistics = Statistics.of(observations())
    with pytest.raises(DatasetError, match="expected float32 with 3 numbers"):
        statistics.normalise(np.zeros((4, 2), np.float32))
    with pytest.raises(DatasetError, match="float64"):
        statistics.normalise(np.zeros((4, 3)))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="no observations"):
        Statistics.of(np.zeros((0, 3), np.float32))
