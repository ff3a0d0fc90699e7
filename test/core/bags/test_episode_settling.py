"""Ticks are decided when one is added or a command comes; looking at them after every message changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from test_episode_ends import GAP, LIMIT, text_of, ticks

from rql_core.bags.episodes import EpisodeCutter
from rql_core.contract import parse_contract
from rql_core.contract.episode_schema import End

ARRAYS = ("observations", "actions", "rewards", "masks")


class LooksAlways(EpisodeCutter):
    """Looks at the ticks that wait after each message."""

    def push(self, topic: str, message: Any, receive_ns: int) -> None:
        super().push(topic, message, receive_ns)
        self._settle()


def what_is_cut(cutter: EpisodeCutter, messages: list[tuple[str, int, Any]]) -> list[Any]:
    for topic, stamp, message in messages:
        cutter.push(topic, message, stamp)
    cutter.finish()
    found: list[Any] = [cutter.counts, cutter.cuts, cutter.timing.topics(), cutter.timing.episodes()]
    for episode in cutter.take():
        found += [getattr(episode, name).tolist() for name in ARRAYS]
        found += [episode.cut, episode.terminal, episode.start_ns, episode.end_ns]
    return found


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    horizon=st.sampled_from([1, 1, 3]),
    latest_ms=st.sampled_from([0, 60, 300]),
    dropped=st.sampled_from([0.0, 0.05]),
    resets=st.lists(st.integers(0, 60), max_size=2),
    set_back=st.booleans(),
)
def test_episodes_are_the_same_when_waiting_ticks_are_looked_at_after_every_message(
    seed: int, horizon: int, latest_ms: int, dropped: float, resets: list[int], set_back: bool
) -> None:
    rng = np.random.default_rng(seed)
    messages = [m for m in synthetic.record(40, seed=seed, horizon=horizon).messages if m[0] != "/episode"]
    messages = [(t, at + int(rng.integers(0, latest_ms + 1)) * 1_000_000, m) for t, at, m in messages]
    messages = sorted((m for m in messages if rng.random() >= dropped), key=lambda m: m[1])
    if set_back:
        # After two seconds the whole robot begins again.
        messages += [(topic, at + ticks(40), message) for topic, at, message in messages]
    contract = parse_contract(text_of(GAP, LIMIT))
    ends: list[tuple[int, End]] = [(synthetic.START_NS + ticks(at), "terminal") for at in resets]
    quick = what_is_cut(EpisodeCutter(contract, (), ends), messages)
    assert quick == what_is_cut(LooksAlways(contract, (), ends), messages)
    assert len(quick) > 4 or latest_ms or dropped or resets
