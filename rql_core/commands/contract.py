"""`rql contract`: check a contract, alone or against bags; its schema for editors; its reference page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg, subcommand

if TYPE_CHECKING:
    from rql_core.contract import Contract as ContractModel


@dataclass(frozen=True)
class Check:
    """Check a contract and say what it means; with bags, also whether they have what it asks for.

    Example: rql contract check my_robot.yaml recordings/
    """

    file: Annotated[Positional[str], arg(metavar="CONTRACT")]
    """A contract file, or the name of one that comes with the project."""
    bags: Annotated[Positional[list[Path]], arg(metavar="BAG ...")] = field(default_factory=list)
    """Bags whose topics, types and first messages are compared with the contract."""

    def run(self) -> None:
        """Print what the contract means, then every fault; raises ContractError when there is one."""
        from rql_core.contract import load_contract
        from rql_core.errors import ContractError
        from rql_core.resources import config_file

        file = config_file("contracts", self.file)
        contract = load_contract(file)
        _print_meaning(contract)
        if not self.bags:
            return
        from rql_core.bags.fitness import check_bag
        from rql_core.bags.reader import find_bags
        from rql_core.contract.load import definition_paths

        definitions = definition_paths(contract, file)
        paths = find_bags(self.bags)
        faults = 0
        for path in paths:
            found = check_bag(path, contract, definitions)
            faults += len(found)
            print(f"{path}: {_faults(len(found)) if found else 'fits'}")
            for fault in found:
                print(f"  {fault.text}")
        if faults:
            raise ContractError(f"{self.file}: {_faults(faults)} in the bags; correct the contract or the bags")


@dataclass(frozen=True)
class Schema:
    """Print the JSON Schema of contracts, with which editors complete keys and mark mistakes.

    Example: rql contract schema --out contract.schema.json
    """

    out: Path | None = None
    """File to write instead."""

    def run(self) -> None:
        """Print or write it."""
        import json

        from rql_core.contract.json_schema import contract_schema

        _give(json.dumps(contract_schema(), indent=1) + "\n", self.out)


@dataclass(frozen=True)
class Docs:
    """Print the reference page of contracts in Markdown; docs/contract.md is this page.

    Example: rql contract docs --out docs/contract.md
    """

    out: Path | None = None
    """File to write instead."""

    def run(self) -> None:
        """Print or write it."""
        from rql_core.contract.reference import reference_page

        _give(reference_page(), self.out)


Part = (
    Annotated[Check, subcommand("check")]
    | Annotated[Schema, subcommand("schema")]
    | Annotated[Docs, subcommand("docs")]
)


@dataclass(frozen=True)
class Contract:
    """Check a contract, alone or against bags; print its JSON Schema or its reference page."""

    part: Part
    """What to do."""

    def run(self) -> None:
        """Do what was asked."""
        self.part.run()


def _print_meaning(contract: ContractModel) -> None:
    """Observation and action, number by number."""
    print(f"{contract.name}: {contract.rate:g} Hz, clock {contract.clock}")
    for index, name in enumerate(contract.observation_names):
        print(f"  observation[{index}]  {name}")
    for index, feature in enumerate(contract.action.features):
        print(f"  action[{index}]  {feature.name}  {feature.lower} to {feature.upper} {contract.action.unit}")


def _faults(count: int) -> str:
    return f"{count} fault" + ("" if count == 1 else "s")


def _give(text: str, out: Path | None) -> None:
    from rql_core.whole_files import write_whole

    if out is None:
        print(text, end="")
    else:
        write_whole(out, text)
