"""The requirement files: what a robot installs is small, and is a part of what everybody installs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "requirements"
# What learning, simulation and conversion need, and a robot does not.
HEAVY = {"torch", "torchdiffeq", "onnx", "mujoco", "gymnasium", "minari", "rosbags", "scipy", "matplotlib"}


def packages(name: str) -> dict[str, str]:
    """The lines of a requirement file and of those that it includes, by the package they name."""
    found: dict[str, str] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if line.startswith("-r "):
            found |= packages(line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            found[re.split(r"[=\[; ]", line)[0].lower()] = line
    return found


@pytest.mark.parametrize("name", ["robot.txt", "ros.txt"])
def test_a_robot_installs_neither_torch_nor_a_simulator(name: str) -> None:
    assert packages(name)
    assert not set(packages(name)) & HEAVY


def test_what_a_robot_installs_is_what_everybody_installs() -> None:
    everything = packages("ros-wheels.txt")
    assert packages("robot.txt").items() <= everything.items()
    assert packages("ros.txt").items() <= everything.items()
    assert set(everything) >= HEAVY


def test_every_line_names_an_exact_version() -> None:
    for path in FOLDER.glob("*.txt"):
        assert all("==" in line for line in packages(path.name).values()), path.name
