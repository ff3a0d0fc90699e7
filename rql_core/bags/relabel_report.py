"""The report of a dataset that was labelled anew: its numbers are counted afresh, its bags are those of the original.

What was found when the bags were read (rates, gaps, what was not used) is taken from the original's report, if that is
there and is the one of the same data.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from rql_core.bags.episodes import Episode
from rql_core.bags.report import (
    REPORT_FILE,
    BagReport,
    ConversionReport,
    DroppedEpisode,
    EpisodeReport,
    Relabelling,
)
from rql_core.bags.statistics import DatasetStatistics
from rql_core.bags.timing import EpisodeTopic
from rql_core.contract import Contract
from rql_core.contract.time import NANOSECONDS


class RelabelReport:
    """Takes the episodes of a dataset in their order, kept or dropped, and makes the report of those that are kept."""

    def __init__(self, source: Path, metadata: Mapping[str, Any], contract: Contract) -> None:
        """`source`: the directory of the dataset that is labelled anew, `metadata` its metadata."""
        self._old = _report_of(source, metadata)
        self._software = {str(name): str(version) for name, version in dict(metadata.get("software") or {}).items()}
        self._statistics = DatasetStatistics(contract)
        self._label_topics = frozenset(rule.topic for rule in contract.reward.topics)
        self._bags: list[_BagOfEpisodes] = []
        self._seen = 0

    def add(self, bag: str, episode: Episode) -> None:
        """The next episode of the dataset is kept; `bag`: where it comes from."""
        of_bag, about = self._next(bag)
        self._statistics.add(episode)
        of_bag.add(episode, [] if about is None else about.topics)

    def drop(self, bag: str, dropped: DroppedEpisode) -> None:
        """The next episode of the dataset is not kept."""
        self._next(bag)[0].dropped.append(dropped)

    def report(
        self, dataset: str, contract_sha256: str, content_sha256: str, relabelled: Relabelling
    ) -> ConversionReport:
        """The report of at least one episode."""
        old = self._old
        others: dict[str, Any] = {} if old is None else {"bad_bags": old.bad_bags, "skipped": old.skipped}
        bags = [self._with_topics_in_use(each.report()) for each in self._bags]
        return self._statistics.report(
            dataset, contract_sha256, content_sha256, bags, self._software, relabelled=relabelled, **others
        )

    def _with_topics_in_use(self, bag: BagReport) -> BagReport:
        """Without the topics that labels came from and do so no more."""
        return dataclasses.replace(bag, labels=[use for use in bag.labels if use.topic in self._label_topics])

    def _next(self, bag: str) -> tuple[_BagOfEpisodes, EpisodeReport | None]:
        about = None if self._old is None else self._old.each_episode[self._seen]
        self._seen += 1
        known = None if about is None or self._old is None else self._old.bags[about.bag]
        name = bag if known is None else known.path
        if not self._bags or self._bags[-1].name != name:
            self._bags.append(_BagOfEpisodes(name, known))
        return self._bags[-1], about


class _BagOfEpisodes:
    """What became of a bag's episodes; `known` is what the original's report says about it."""

    def __init__(self, name: str, known: BagReport | None) -> None:
        self.name = name
        self._known = known
        self._steps: list[int] = []
        self._cuts: Counter[str] = Counter()
        self._topics: list[list[EpisodeTopic]] = []
        self._starts: list[int] = []
        self._seconds = 0.0
        self.dropped: list[DroppedEpisode] = []

    def add(self, episode: Episode, topics: list[EpisodeTopic]) -> None:
        self._steps.append(episode.steps)
        self._cuts[episode.cut] += 1
        self._topics.append(topics)
        self._starts.append(episode.start_ns)
        self._seconds += (episode.end_ns - episode.start_ns) / NANOSECONDS

    def report(self) -> BagReport:
        known = self._known or BagReport(
            path=self.name,
            sha256={},
            notes=["what was found in it is not known here"],
            messages=0,
            seconds=self._seconds,
            episodes=0,
            steps=0,
            left_out={},
            cuts={},
            topics=[],
            start_ns=min(self._starts, default=0),
        )
        return dataclasses.replace(
            known,
            episodes=len(self._steps),
            steps=sum(self._steps),
            cuts=dict(sorted(self._cuts.items())),
            episode_topics=self._topics,
            dropped=[*known.dropped, *self.dropped],
        )


def _report_of(source: Path, metadata: Mapping[str, Any]) -> ConversionReport | None:
    """The report beside the dataset; None where there is none, or one of other data."""
    try:
        report = TypeAdapter(ConversionReport).validate_json((source / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if report.content_sha256 == metadata.get("content_sha256") else None
