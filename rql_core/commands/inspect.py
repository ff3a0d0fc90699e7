"""`rql inspect`: what is in bags, and a contract proposed from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

if TYPE_CHECKING:
    from rql_core.bags.inspection import BagInspection

# Smaller bags are read before anybody would look at a bar.
_BYTES_WITH_A_BAR = 100_000_000


@dataclass(frozen=True)
class Inspect:
    """Show what is in bags: topics, types, rates, gaps, clocks, and what is peculiar; propose a contract from it.

    The proposal observes the topics that have numbers, takes the likeliest command topic for the action, and marks
    with `check` what only you can know.

    Examples: rql inspect recordings/
              rql inspect 'day_*/run_*' --contract-out my_robot.yaml
    """

    bags: Annotated[Positional[list[Path]], arg(metavar="BAG ...")]
    """Bag directories, directories of bags, .mcap, .db3 and .bag files, or patterns in quotes."""
    contract_out: Path | None = None
    """Contract to write, as a proposal from all these bags; a file that is there is not replaced."""
    action: str | None = None
    """Topic of the commands, for the proposal. Default: the one that looks most like it."""
    definitions: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="MSG")] = ()
    """.msg file, or directory of them, for types that the bags do not define; may be given again."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> None:
        """Read the bags, print, and write the proposal."""
        import json
        import sys

        from rql_core.bags.inspection_table import as_text
        from rql_core.bags.reader import find_bags
        from rql_core.errors import BagError, OutputError

        if self.contract_out is not None and self.contract_out.exists():
            raise OutputError(f"{self.contract_out}: exists already; name another file or remove it first")
        if not self.bags:
            raise BagError("no bags were given; give at least one bag directory or file")
        paths = find_bags(self.bags)
        inspections, failed = self._inspect(paths)
        if self.json:
            print(json.dumps({"bags": [bag.to_dict() for bag in inspections], "unreadable": failed}, indent=2))
        else:
            print("\n\n".join(map(as_text, inspections)))
        for error in failed:
            print(f"error: {error}", file=sys.stderr)
        if self.contract_out is not None and inspections:
            self._propose([path for path in paths if str(path) in {bag.path for bag in inspections}], inspections)
        if failed:
            raise BagError(f"{len(failed)} of {len(paths)} bags cannot be read to the end; see above")

    def _inspect(self, paths: list[Path]) -> tuple[list[BagInspection], list[str]]:
        from rql_core.bags.inspection import inspect_bag
        from rql_core.bags.recover import storage_files
        from rql_core.errors import BagError
        from rql_core.progress import progress_bar

        sizes = [sum(file.stat().st_size for file in storage_files(path, packed=True)) for path in paths]
        inspections, failed = [], []
        small = sum(sizes) < _BYTES_WITH_A_BAR
        with progress_bar(total=sum(sizes), unit="B", unit_scale=True, desc="inspect", disable=small) as bar:
            for index, path in enumerate(paths):
                start, size = sum(sizes[:index]), sizes[index]

                def show(share: float, start: int = start, size: int = size) -> None:
                    bar.update(start + round(share * size) - bar.n)

                try:
                    inspections.append(inspect_bag(path, self.definitions, show))
                except BagError as error:
                    failed.append(str(error))
                    show(1.0)
        return inspections, failed

    def _propose(self, paths: list[Path], inspections: list[BagInspection]) -> None:
        import os
        import shlex
        import sys

        from rql_core.bags.proposal import propose
        from rql_core.bags.proposal_action import command_topics
        from rql_core.bags.proposal_text import contract_text
        from rql_core.bags.reader import BagReader
        from rql_core.bags.samples import TopicSample, merge_samples, sample_topics
        from rql_core.contract import parse_contract
        from rql_core.errors import ContractError
        from rql_core.progress import progress_bar
        from rql_core.whole_files import write_whole

        assert self.contract_out is not None

        def sample(what: str, every: list[str]) -> dict[str, TopicSample]:
            samples = []
            big = sum(bag.size_bytes for bag in inspections) >= _BYTES_WITH_A_BAR
            for path in progress_bar(paths, unit="bag", desc=what, disable=not big):
                with BagReader(path, self.definitions) as bag:
                    samples.append(sample_topics(bag, every))
            return merge_samples(samples)

        samples = sample("sample", [])
        # Limits need every command, and only now it is known which topic has them.
        commands = [self.action] if self.action is not None else command_topics(samples)[:1]
        if commands:
            samples = sample("limits", commands)
        folder = self.contract_out.resolve().parent
        definitions = [os.path.relpath(path.resolve(), folder) for path in self.definitions]
        proposal = propose(inspections, samples, self.action)
        text = contract_text(proposal, self.contract_out.stem, definitions)
        write_whole(self.contract_out, text)
        places = sum("check" in line.partition("#")[2] for line in text.splitlines()[2:])
        print(f"\n{self.contract_out}: a proposal; look at the {places} lines that say check, then", file=sys.stderr)
        print(f"  rql contract check {shlex.join(map(str, (self.contract_out, *self.bags)))}", file=sys.stderr)
        try:
            parse_contract(text, str(self.contract_out))
        except ContractError as error:
            print(f"note: it is not accepted as it is: {error}", file=sys.stderr)
