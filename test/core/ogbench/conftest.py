"""Data of three OGBench domains, generated once; tests that need OGBench skip, and say what is missing, without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rql_core.errors import SimulationError
from rql_core.ogbench.environments import require_packages

sys.path.insert(0, str(Path(__file__).parent))  # lets these tests import `small_sets`, whichever mode pytest runs in

from small_sets import EPISODES, STEPS


@pytest.fixture(scope="session")
def ogbench() -> None:
    """OGBench is installed, with what its environments need."""
    try:
        require_packages()
    except SimulationError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=["cube-double", "scene", "puzzle-3x3"])
def family(request: pytest.FixtureRequest) -> str:
    """A domain, without the kind of its data."""
    return str(request.param)


@pytest.fixture(scope="session")
def generated(family: str, ogbench: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with a family's data, made with seed 7 by one worker."""
    from rql_core.ogbench.generate import generate

    directory = tmp_path_factory.mktemp("generated")
    generate(family, directory, episodes=EPISODES, steps=STEPS, seed=7, progress=False)
    return directory
