"""`rql check-contract`: what a contract file means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from rql_core.contract import Contract


@dataclass(frozen=True)
class CheckContract:
    """Check a contract file and print what it means; `rql contract check` does that and looks into bags too."""

    file: Annotated[Positional[str], arg(metavar="CONTRACT")]
    """A contract file, or the name of one that comes with the project."""

    def run(self) -> None:
        """Print observation and action, number by number."""
        from rql_core.contract import load_contract
        from rql_core.resources import config_file

        print_contract(load_contract(config_file("contracts", self.file)))


def print_contract(contract: Contract) -> None:
    """Print observation and action, number by number."""
    print(f"{contract.name}: {contract.rate:g} Hz, clock {contract.clock}")
    for index, name in enumerate(contract.observation_names):
        print(f"  observation[{index}]  {name}")
    for index, feature in enumerate(contract.action.features):
        print(f"  action[{index}]  {feature.name}  {feature.lower} to {feature.upper} {contract.action.unit}")
