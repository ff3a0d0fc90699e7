"""Randomness that follows from a seed alone, although OGBench draws from three places.

Its environments use Gymnasium's `np_random`, which `reset(seed=)` sets. Its oracles draw their way-points, times and
noise from NumPy's global generator, and its task mode draws actions from an action space that is made anew at every
look. Play uses the first two; an episode's seeds are derived from the seed of the whole and the episode's place in it,
so which process plays it, and after what, does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EpisodeSeeds:
    """The seeds of one attempt at an episode: of the world's generator, of NumPy's global one, and of our own."""

    world: int
    oracle: int
    own: int

    @classmethod
    def of(cls, seed: int, *place: int) -> EpisodeSeeds:
        """Seeds that differ wherever `seed` or any number of `place` differs; all are 0 or more."""
        world, oracle, own = np.random.SeedSequence((seed, *place)).generate_state(3).tolist()
        return cls(world, oracle, own)


@contextmanager
def global_random(seed: int) -> Iterator[None]:
    """NumPy's global generator follows from `seed` (below 2^32) inside, and goes on afterwards as if nothing had been.

    The generator belongs to the whole process: not for use while another thread draws from it.
    """
    state = np.random.get_state()  # noqa: NPY002  (OGBench draws from it)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
