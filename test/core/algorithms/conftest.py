"""Lets the tests of this folder import `small_algorithms` and `paper_oracle`, whichever import mode pytest runs in; and
runs those that ask for `form` in every form of the networks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rql_core.networks import Perceptrons

sys.path.insert(0, str(Path(__file__).parent))

# Networks this small are slower on two threads than on one, and much slower where cores are shared.
torch.set_num_threads(1)


@pytest.fixture(params=["plain", "blocked"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test once for each way in which networks compute."""
    monkeypatch.setattr(Perceptrons, "form", request.param)
    return str(request.param)
