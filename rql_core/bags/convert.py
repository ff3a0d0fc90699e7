"""Bags to a Minari dataset: all of it or nothing, with a report.

Every bag becomes a part of its own beside the output, by as many workers as are given; then the parts are put together
in the order of the bags. What was finished when a conversion was killed is used by the next one of the same bags,
contract and software. Whoever converted which bag, and however often it was interrupted, the dataset is the same
(test/core/bags/test_convert_resume.py and test_convert_engines.py pin that).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from rql_core.bags.convert_bag import bag_files, bag_hashes
from rql_core.bags.engines import EngineName, make_engine
from rql_core.bags.parts import BadBag, PartFolder, PartTask, inputs_hash, part_key, skipped_key
from rql_core.bags.reader import find_bags
from rql_core.bags.report import REPORT_FILE, BagReport, ConversionReport, SkippedBag
from rql_core.bags.report_page import report_files
from rql_core.bags.software import software_versions
from rql_core.bags.statistics import DatasetStatistics
from rql_core.contract import Contract
from rql_core.contract.load import definition_paths, parse_contract, read_contract_text
from rql_core.contract.quality_schema import BadBags
from rql_core.data.minari_io import DatasetWriter, checked_directory, read_metadata
from rql_core.data.output_lock import OutputLock
from rql_core.errors import BagError, ConfigError, DatasetError, RqlError
from rql_core.progress import progress_bar

# An error line names so many bags where all are bad; one cause most often is behind them all.
_SHOWN = 3


def convert(
    bags: Path | str | Iterable[Path | str],
    contract_path: Path | str,
    output: Path | str,
    *,
    overwrite: bool = False,
    progress: bool = True,
    workers: int | None = None,
    engine: EngineName = "local",
    address: str | None = None,
    bad_bags: BadBags | None = None,
) -> ConversionReport:
    """Convert `bags` (see find_bags) by the contract to the Minari dataset `output`, and report.

    `output` is a directory `.../name-vN`, or a bare `name-vN` for a dataset below Minari's own root. The dataset holds
    physical float32 observations and float64 actions; report.json, .txt and .html lie in its directory beside `data/`.
    `workers`, `engine` and `address`: see `make_engine`. `bad_bags`: what becomes of a bag that is damaged or does not
    keep to the contract, where the contract's own word about it is not to count; the dataset's metadata says whose word
    it was. A dataset that is there already and was made of the same bags,
    contract and software is left as it is, and its report returned.

    Raises BagError, ContractError, ConfigError, DatasetError or WorkerError; then nothing new is at `output`, an older
    dataset there stays, and bags that were finished need not be read again by the same command.
    """
    text = read_contract_text(contract_path)
    contract = parse_contract(text, str(contract_path))
    definitions = definition_paths(contract, contract_path)
    rule = _BadBagRule.of(contract, bad_bags)
    path = checked_directory(output)
    paths = find_bags([bags] if isinstance(bags, str | Path) else bags)
    if engine == "ray":  # whose workers have another current directory
        paths = [found.absolute() for found in paths]
    if not paths:
        raise BagError("no bags were given; give at least one bag directory or file")
    with _Progress(paths, progress) as bar:
        run = make_engine(engine, workers, address, bar.share_done)
        with OutputLock(path):
            where = tuple(str(each.resolve()) for each in definitions)
            job = _Job(path, text, paths, software_versions(), overwrite, where, rule)
            finished = job.finished()
            if finished is not None:
                PartFolder(path).remove()
                return finished
            folder = PartFolder(path)
            folder.open()
            try:
                tasks = job.tasks(folder)
                for index, part in run(tasks):
                    folder.add(tasks[index].bag, part)
                    if isinstance(part, BadBag):
                        bar.say(f"skipped: {part.skipped.error}")
                    bar.share_done(index, 1.0)
                report = job.assemble(folder)
            except BaseException as error:
                raise _kept(error, folder, len(paths)) from error.__cause__
            folder.remove()
    return report


def _kept(error: BaseException, folder: PartFolder, bags: int) -> BaseException:
    """The error, which also says that work is kept where some is."""
    finished = len(folder.parts)
    if not finished:
        folder.remove()
        return error
    if not isinstance(error, RqlError):
        return error
    noted = type(error)(
        f"{error} ({finished} of {bags} bags are finished and kept in {folder.path}; "
        "the same command goes on from there)"
    )
    return noted.with_traceback(error.__traceback__)


@dataclass(frozen=True)
class _BadBagRule:
    """What becomes of bad bags, and who says so."""

    rule: BadBags
    said_by: Literal["default", "contract", "caller"]

    @classmethod
    def of(cls, contract: Contract, given: BadBags | None) -> _BadBagRule:
        """The caller's word counts before the contract's. Raises ConfigError for one that is none."""
        if given not in (None, *get_args(BadBags)):
            raise ConfigError(f"bad_bags is {given!r}, expected one of {', '.join(get_args(BadBags))}")
        if given is not None:
            return cls(given, "caller")
        quality = contract.quality
        if quality is None or "bad_bags" not in quality.model_fields_set:
            return cls("stop", "default")
        return cls(quality.bad_bags, "contract")


@dataclass(frozen=True)
class _Job:
    """What is to be made of what."""

    path: Path
    text: str
    bags: list[Path]
    software: dict[str, str]
    overwrite: bool
    definitions: tuple[str, ...]
    bad_bags: _BadBagRule

    @property
    def contract_sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def tasks(self, folder: PartFolder) -> list[PartTask]:
        where = str(folder.path)
        known = folder.parts.get
        skip = self.bad_bags.rule == "skip"
        return [
            PartTask(str(bag), self.text, where, self.software, known(str(bag)), self.definitions, skip)
            for bag in self.bags
        ]

    def finished(self) -> ConversionReport | None:
        """The report of the dataset that is there, if it is the one that this job would make again.

        Raises DatasetError when another one is there and is not to be replaced.
        """
        if self.overwrite or not self.path.exists():
            return None
        refusal = DatasetError(
            f"{self.path}: exists already, made of other bags, contract or software; "
            "give a new version number, or ask to overwrite it"
        )
        try:
            metadata = read_metadata(self.path)
            # What is cheap to compare first: hashing all the bags takes seconds a gigabyte.
            skipped = {source["path"] for source in metadata["skipped_bags"]}
            sources = [source["path"] for source in metadata["source_bags"]]
            same = sources == [str(bag) for bag in self.bags if str(bag) not in skipped]
            same = same and skipped <= {str(bag) for bag in self.bags} and metadata["software"] == self.software
            if skipped and self.bad_bags.rule != "skip":
                raise refusal
            if not same or metadata["contract_sha256"] != self.contract_sha256:
                raise refusal
            keys = [skipped_key(self._key(bag)) if str(bag) in skipped else self._key(bag) for bag in self.bags]
            if metadata["inputs_sha256"] != inputs_hash(keys):
                raise refusal
            text = (self.path / REPORT_FILE).read_text(encoding="utf-8")
            return TypeAdapter(ConversionReport).validate_json(text)
        except DatasetError as error:
            raise refusal from error
        except (OSError, KeyError, TypeError, ValueError):
            raise refusal from None

    def _key(self, bag: Path) -> str:
        return part_key(str(bag), bag_hashes(bag), self.text, self.software, self.definitions)

    def assemble(self, folder: PartFolder) -> ConversionReport:
        """Put the finished parts together, in the order of the bags. Raises BagError when there is none."""
        skipped = [folder.bad[str(bag)].skipped for bag in self.bags if str(bag) in folder.bad]
        if len(skipped) == len(self.bags):
            raise BagError(_none_is_good(skipped))
        statistics = DatasetStatistics(parse_contract(self.text))
        keys: list[str] = []
        reports: list[BagReport] = []
        sources: list[dict[str, Any]] = []
        with DatasetWriter(self.path, self.text, overwrite=self.overwrite) as writer:
            for bag in self.bags:
                if (bad := folder.bad.get(str(bag))) is not None:
                    keys.append(skipped_key(bad.key))
                    continue
                keys.append(folder.parts[str(bag)].key)
                part = folder.reader(str(bag))
                digest = "+".join(part.report.sha256.values())
                spans: list[int] = []
                for episode in part.episodes():
                    span = {"start_ns": episode.start_ns, "end_ns": episode.end_ns}
                    how: dict[str, str | int] = {"cut": episode.cut, "solved_steps": episode.solved_steps}
                    writer.add(
                        episode.observations,
                        episode.actions,
                        episode.rewards,
                        episode.masks,
                        terminal=episode.terminal,
                        origin={"bag": str(bag), "bag_sha256": digest, **how, **span},
                    )
                    statistics.add(episode)
                    spans += span.values()
                reports.append(part.report)
                times = {"start_ns": min(spans), "end_ns": max(spans)}
                counts = {"episodes": part.report.episodes, "steps": part.report.steps}
                sources.append({"path": str(bag), "sha256": part.report.sha256, **counts, **times})
            content = writer.content_sha256
            report = statistics.report(
                writer.path.name,
                self.contract_sha256,
                content,
                reports,
                self.software,
                bad_bags=self.bad_bags.rule,
                skipped=skipped,
            )
            writer.finish(
                {
                    "source_bags": sources,
                    "bad_bags": asdict(self.bad_bags),
                    "skipped_bags": [asdict(each) for each in skipped],
                    "software": self.software,
                    "inputs_sha256": inputs_hash(keys),
                },
                report_files(report),
            )
        return report


def _none_is_good(skipped: list[SkippedBag]) -> str:
    """All bags are bad: then it is the contract rather than the bags."""
    shown = "; ".join(each.error for each in skipped[:_SHOWN])
    more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
    return (
        f"none of {len(skipped)} bags can be used, so there is nothing to convert: {shown}{more}; "
        "compare bags and contract with rql contract check CONTRACT BAG..."
    )


class _Progress:
    """A bar over the bytes of all bags, with rate and time left."""

    def __init__(self, paths: list[Path], enabled: bool) -> None:
        self._sizes = [sum(file.stat().st_size for file in bag_files(path)) for path in paths]
        self._done = [0] * len(paths)
        self._enabled = enabled
        total = sum(self._sizes)
        self._bar = progress_bar(total=total, unit="B", unit_scale=True, disable=not enabled, desc="convert")

    def share_done(self, index: int, share: float) -> None:
        """This share of the bag at `index` is done."""
        done = int(share * self._sizes[index])
        self._bar.update(done - self._done[index])
        self._done[index] = done

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._enabled:
            self._bar.write(text, file=sys.stderr)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
