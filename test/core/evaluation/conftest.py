"""Worker processes that the tests of this folder share: each takes seconds to import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from rql_core.evaluation.episodes import EpisodeTask, episode_pool
from rql_core.evaluation.results import EpisodeRecord
from rql_core.workers import WorkerPool

EpisodePool = WorkerPool[EpisodeTask, EpisodeRecord]


@pytest.fixture(scope="session")
def pools() -> Iterator[Callable[[int], EpisodePool]]:
    """A pool of so many workers, the same one at every call."""
    made: dict[int, EpisodePool] = {}
    with ExitStack() as stack:

        def pool(workers: int) -> EpisodePool:
            if workers not in made:
                made[workers] = stack.enter_context(episode_pool(workers))
            return made[workers]

        yield pool
