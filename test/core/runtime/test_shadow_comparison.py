"""Shadow mode's comparison with the controller that drives the robot."""

from __future__ import annotations

import numpy as np
import pytest

from rql_core.contract import ActionChunk, Contract
from rql_core.runtime.comparison import ShadowComparison

START = 1_793_534_400 * 10**9


@pytest.fixture
def span(contract: Contract) -> np.ndarray:
    return np.array([feature.upper - feature.lower for feature in contract.action.features])


def test_the_distance_is_the_root_mean_square_in_shares_of_the_range(contract: Contract, span: np.ndarray) -> None:
    comparison = ShadowComparison(contract)
    comparison.commanded(ActionChunk.regular(contract, START, np.zeros((2, 2))))
    difference = comparison.compare(START, span * [0.03, 0.04])
    assert difference is not None
    assert difference.distance == pytest.approx(np.sqrt((0.03**2 + 0.04**2) / 2))
    assert difference.agrees
    apart = comparison.compare(START + contract.period_ns, span * [0.0, 0.06])
    assert apart is not None
    assert not apart.agrees
    assert comparison.figures()["agreement"] == 0.5
    assert comparison.figures()["distance_p50"] == pytest.approx((difference.distance + apart.distance) / 2)


def test_where_the_controller_commands_nothing_there_is_nothing_to_compare(contract: Contract) -> None:
    comparison = ShadowComparison(contract)
    assert comparison.compare(START, np.zeros(2)) is None
    comparison.commanded(ActionChunk.regular(contract, START, np.zeros((1, 2))))
    over = START + contract.period_ns + contract.action.max_age_ns
    assert comparison.compare(over, np.zeros(2)) is None
    assert (comparison.compared, comparison.uncommanded) == (0, 2)
    assert comparison.figures() == {}
    comparison.reset()
    assert comparison.compare(START, np.zeros(2)) is None


def test_commands_that_nothing_is_compared_with_are_not_kept(contract: Contract) -> None:
    """A robot under another controller, and a policy that sees nothing, for hours."""
    comparison = ShadowComparison(contract)
    for index in range(2000):
        comparison.commanded(ActionChunk.regular(contract, START + index * contract.period_ns, np.zeros((1, 2))))
    assert comparison._commanded.waiting()[0] < 2.5e9 / contract.period_ns
