"""`rql compare`: runs with several seeds, told apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from rql_core.whole_files import write_whole

# Reading fewer takes no time that anybody would notice.
_RUNS_WITH_A_BAR = 20


@dataclass(frozen=True)
class Compare:
    """Compare runs over seeds: a table here, and a page with curves, intervals and what they mean.

    Runs that differ in seed and task alone are one group, named by the settings that tell groups apart. What counts is
    RUN/evaluation.json (`rql evaluate` writes it) or else the last evaluation during training.

    Examples: rql compare runs/* --baseline qc --out compare.html
              rql compare --group new='runs/rql-*' --group old='before/*' --baseline old --at 500000
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...")] = ()
    """Run directories, or directories of runs."""
    group: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=GLOB")] = ()
    """Runs to call NAME, e.g. --group qc='runs/qc-*'; may be given again for another group."""
    baseline: str | None = None
    """Group that all others are compared with, pair by pair of the same task and seed."""
    at: int | None = None
    """Compare the evaluations during training after so many updates, instead of each run's last one."""
    out: Path | None = None
    """HTML page to write; one file that needs nothing else."""
    json: Path | None = None
    """JSON file for the numbers."""
    markdown: Path | None = None
    """Markdown file for the table."""

    def run(self) -> None:
        """Print the table, say what to know of it, and write the files."""
        import json
        import sys

        from rql_core.errors import ConfigError
        from rql_core.evaluation.comparison import compare
        from rql_core.evaluation.comparison_page import comparison_page
        from rql_core.evaluation.comparison_table import as_markdown, as_text
        from rql_core.evaluation.grouping import find_named, make_groups
        from rql_core.evaluation.runs import find_runs, read_run
        from rql_core.progress import progress_bar

        if not self.runs and not self.group:
            raise ConfigError("no run is given: name run directories, or groups of them with --group NAME=GLOB")
        named = find_named(self.group)
        given = {run.resolve() for run in named}
        runs = [*named.items(), *((run, None) for run in find_runs(self.runs) if run.resolve() not in given)]
        bar = progress_bar(runs, unit="run", desc="reading", disable=len(runs) < _RUNS_WITH_A_BAR)
        comparison = compare(make_groups([(read_run(run), name) for run, name in bar]), self.baseline, self.at)
        if self.json is not None:
            write_whole(self.json, json.dumps(comparison.as_json(), indent=2))
        if self.markdown is not None:
            write_whole(self.markdown, as_markdown(comparison))
        if self.out is not None:
            write_whole(self.out, comparison_page(comparison))
        print(as_text(comparison))
        for remark in comparison.remarks:
            print(f"note: {remark}", file=sys.stderr)
