"""Does what a page of the docs says, block by block, in a directory of its own; what comes out has to be what it shows.

A block `console` has commands, each after `$ `, and below each what it prints; `diff` an edit of the file that was made
last, `yaml` a part of that file. In what is shown a line `...` stands for any lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# How large a file gets depends on the version of the compressor.
_SIZE = re.compile(r"\b\d+(\.\d+)? [kMG]?B\b")


class PageError(AssertionError):
    """The page says something that is not so."""


@dataclass
class Page:
    """A page, the directory in which it is done, and the file that its edits are about."""

    path: Path
    directory: Path
    edited: Path
    commands: list[str] = field(default_factory=list)
    edits: int = 0

    def run(self) -> None:
        """Do all of it in order; raises PageError where the page is wrong."""
        self._make_programs()
        page = self.path.read_text()
        if "```" in _BLOCK.sub("", page):
            raise PageError(f"{self.path.name} has a block without a beginning or an end")
        for kind, text in _BLOCK.findall(page):
            if kind == "console":
                for command, shown in commands(text):
                    self._run(command, shown)
            elif kind == "diff":
                self.edited.write_text(edit(self.edited.read_text(), text))
                self.edits += 1
            elif kind == "yaml" and text not in self.edited.read_text():
                raise PageError(f"{self.path.name} shows, and {self.edited.name} has not:\n{text}")

    def _make_programs(self) -> None:
        """`rql`, `python` and the checkout, as they are where the project is installed."""
        programs = self.directory / ".programs"
        programs.mkdir(parents=True)
        for name, call in (("rql", f"{sys.executable} -m rql_core.cli"), ("python", sys.executable)):
            (programs / name).write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" PYTHONUNBUFFERED=1 exec {call} "$@"\n')
            (programs / name).chmod(0o755)
        (self.directory / "rql_ros").symlink_to(ROOT)

    def _run(self, command: str, shown: list[str]) -> None:
        self.commands.append(command)
        search = f"{self.directory / '.programs'}:{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.directory,
            env=os.environ | {"PATH": search, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        # A progress bar writes over its line, and is gone when the command is done.
        printed = [line.rstrip() for line in done.stdout.decode().split("\n") if "\r" not in line]
        refused = any(line.startswith("error: ") for line in shown)
        if (done.returncode != 0) != refused:
            raise PageError(f"$ {command}\nexits with {done.returncode}:\n" + "\n".join(printed))
        if shown and not matches(shown, printed):
            raise PageError(f"$ {command}\nprints\n" + "\n".join(printed) + "\nthe page shows\n" + "\n".join(shown))


def commands(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a console, each with the lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0][:-1] + line.strip(), [])
        elif found:
            found[-1][1].append(line.rstrip())
        else:
            raise PageError(f"a console begins with {line!r}, expected a command")
    return found


def edit(text: str, diff: str) -> str:
    """`text` with the edit done; raises PageError unless its lines are in the text once."""
    lines = diff.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    places = [found.start() for found in re.finditer(f"(?m)^(?={re.escape(old)})", text)]
    if len(places) != 1 or old == new:
        raise PageError(f"the edit's lines are not in the file once:\n{old}")
    return text[: places[0]] + new + text[places[0] + len(old) :]


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether the lines are the same, but for sizes of files, empty lines at the ends, and what `...` stands for."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(f"{line}\n") for line in _plain(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _plain(printed))) is not None


def _plain(lines: list[str]) -> list[str]:
    return _SIZE.sub("SIZE", "\n".join(lines)).strip("\n").split("\n")
