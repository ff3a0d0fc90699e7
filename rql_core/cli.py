"""The command `rql`: one sub-command for each step from bags to a policy that was proven.

Errors that a user can act on are printed in one line and end with status 1; wrong usage ends with status 2.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import tyro
from tyro.conf import OmitSubcommandPrefixes

from rql_core.commands.compare import Compare
from rql_core.commands.contract import Contract
from rql_core.commands.convert import Convert
from rql_core.commands.demo import Demo
from rql_core.commands.evaluate import Evaluate
from rql_core.commands.export import Export
from rql_core.commands.fragment import Fragment
from rql_core.commands.generate import Generate
from rql_core.commands.inspect import Inspect
from rql_core.commands.recover import Recover
from rql_core.commands.relabel import Relabel
from rql_core.commands.report import Report
from rql_core.commands.train import Train
from rql_core.errors import RqlError

COMMANDS: dict[str, Callable[..., Any]] = {
    "inspect": Inspect,
    "convert": Convert,
    "recover": Recover,
    "relabel": Relabel,
    "generate": Generate,
    "fragment": Fragment,
    "train": Train,
    "export": Export,
    "evaluate": Evaluate,
    "compare": Compare,
    "report": Report,
    "contract": Contract,
    "demo": Demo,
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `rql`; returns the exit status."""
    try:
        try:
            return _run(arguments)
        finally:
            # What no reader takes any more is noticed here, and not when the interpreter ends.
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this, such as `head`, has had enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(arguments: list[str] | None) -> int:
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="rql",
        description="From recorded bags to a policy that is better than the data.",
        args=arguments,
        config=(OmitSubcommandPrefixes,),
    )
    try:
        command.run()
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: this command needs the package {error.name!r}; see requirements/", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
