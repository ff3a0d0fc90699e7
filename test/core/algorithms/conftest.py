"""Lets the tests of this folder import `small_algorithms` and `paper_oracle`, whichever import mode pytest runs in."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

# Networks this small are slower on two threads than on one, and much slower where cores are shared.
torch.set_num_threads(1)
