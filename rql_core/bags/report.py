"""What a conversion says about the data: enough to see a slow topic, a stuck joint or a wrong limit before training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from rql_core.bags.timing import EpisodeTopic, TopicReport
from rql_core.contract.reward_signals import SignalUse

# Beside a dataset lies its report in this form, which is read again.
REPORT_FILE = "report.json"


@dataclass(frozen=True)
class DroppedEpisode:
    """What was cut from a bag like an episode and is not in the dataset: when it began and ended, and why it is not."""

    start_ns: int
    end_ns: int
    steps: int
    cut: str
    why: str


@dataclass(frozen=True)
class BagReport:
    """What became of one bag. `left_out` counts what was not used, `cuts` why episodes ended.

    `start_ns`: first stamp that was used. `episode_topics`: for each episode each of `topics`. `labels`: what came
    of the messages of each topic that reward or success comes from.
    """

    path: str
    sha256: dict[str, str]
    notes: list[str]
    messages: int
    seconds: float
    episodes: int
    steps: int
    left_out: dict[str, int]
    cuts: dict[str, int]
    topics: list[TopicReport]
    start_ns: int = 0
    episode_topics: list[list[EpisodeTopic]] = field(default_factory=list)
    dropped: list[DroppedEpisode] = field(default_factory=list)
    labels: list[SignalUse] = field(default_factory=list)


@dataclass(frozen=True)
class SkippedBag:
    """A bag that is not in the dataset, because it is damaged or does not keep to the contract: `error` says how.

    `sha256`: the hashes of its storage files when it was read.
    """

    path: str
    sha256: dict[str, str]
    error: str


@dataclass(frozen=True)
class Place:
    """A step of an episode, both counted from 0."""

    episode: int
    step: int


@dataclass(frozen=True)
class NumberReport:
    """One number of the observation or action vector over the whole dataset, in physical units.

    `quantiles` (1, 25, 50, 75, 99 %), `outliers` and `histogram` (between minimum and maximum, or for an action between
    its limits) are of an even sample of at most 40,000 steps; the rest is of every step. `stuck_episodes`: in these it
    never changes, though in others it does. Jumps are changes of an action from one step to the next.
    """

    name: str
    minimum: float
    maximum: float
    mean: float
    std: float
    share_at_limits: float | None = None
    share_outside_limits: float | None = None
    unit: str = ""
    quantiles: list[float] = field(default_factory=list)
    histogram: list[int] = field(default_factory=list)
    outliers: float = 0.0
    minimum_at: Place | None = None
    maximum_at: Place | None = None
    stuck_episodes: list[int] = field(default_factory=list)
    lower: float | None = None
    upper: float | None = None
    jump_p99: float | None = None
    largest_jump: float | None = None
    largest_jump_at: Place | None = None

    @property
    def dead(self) -> bool:
        """It has one value in the whole dataset."""
        return self.minimum == self.maximum


@dataclass(frozen=True)
class EpisodeReport:
    """An episode of the dataset: where it comes from, how it went, how its actions moved.

    `bag` counts the report's bags. `saturated`: share of steps with an action at a limit; `largest_jump`: the largest
    change of an action as a share of its range.
    """

    bag: int
    start_ns: int
    seconds: float
    steps: int
    total_reward: float
    solved_steps: int
    terminal: bool
    cut: str
    saturated: float
    largest_jump: float
    topics: list[EpisodeTopic] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """Something to look at: past a bound of the contract, or out of the ordinary."""

    kind: Literal["bound", "remark"]
    text: str
    episode: int | None = None


@dataclass(frozen=True)
class Bound:
    """A bound of the contract's `quality`, what the data came to, and where that was."""

    name: str
    bound: float
    value: float
    where: str
    kept: bool


@dataclass(frozen=True)
class Relabelling:
    """How a dataset was made of another one, without bags: by which reward, and what that changed.

    `given`: the reward as it was asked for. `changed_steps` have another reward or mask than before; returns are means
    over episodes. `dropped_steps` come after a success that now ends the episode, or lie in dropped episodes.
    """

    parent: str
    parent_content_sha256: str
    given: str
    changed_steps: int
    mean_return_before: float
    mean_return: float
    dropped_episodes: int
    dropped_steps: int


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion read, left out and wrote. Returns are undiscounted sums of an episode's rewards.

    `bags` are those that were converted, `skipped` the others, which there are only where `bad_bags` is "skip".
    """

    dataset: str
    contract: str
    contract_sha256: str
    content_sha256: str
    episodes: int
    steps: int
    shortest_episode: int
    longest_episode: int
    episodes_with_success: int
    terminal_episodes: int
    solved_steps: int
    mean_reward: float
    mean_return: float
    lowest_return: float
    highest_return: float
    observations: list[NumberReport]
    actions: list[NumberReport]
    bags: list[BagReport]
    software: dict[str, str]
    rate: float = 0.0
    rewards: dict[str, int] = field(default_factory=dict)
    each_episode: list[EpisodeReport] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    bad_bags: str = "stop"
    skipped: list[SkippedBag] = field(default_factory=list)
    relabelled: Relabelling | None = None

    @property
    def broken(self) -> list[Bound]:
        """The bounds of the contract that the data is past."""
        return [bound for bound in self.bounds if not bound.kept]

    @property
    def dropped_share(self) -> float:
        """Share of the steps that were cut into episodes and lie in dropped ones."""
        dropped = sum(episode.steps for bag in self.bags for episode in bag.dropped)
        return dropped / (dropped + self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, for JSON."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """A page to read."""
        share = 100 * self.episodes_with_success / self.episodes
        lines = [
            f"{self.dataset}: {self.episodes} episodes, {self.steps} steps (contract {self.contract})",
            f"episode length {self.shortest_episode} to {self.longest_episode} steps, "
            f"success in {self.episodes_with_success} episodes ({share:.1f} %), {self.solved_steps} steps solved",
            f"reward mean {self.mean_reward:.4g}, return mean {self.mean_return:.4g} "
            f"({self.lowest_return:.4g} to {self.highest_return:.4g})",
            "",
        ]
        if self.relabelled:
            made = self.relabelled
            lines += [f"relabelled from {made.parent} by {made.given}: {made.changed_steps} steps differ", ""]
        if self.skipped:
            lines += [
                f"SKIPPED {len(self.skipped)} of {len(self.skipped) + len(self.bags)} bags, which cannot be used:"
            ]
            lines += [*(f"  {each.error}" for each in self.skipped), ""]
        lines += [f"{'PAST BOUND' if each.kind == 'bound' else 'look at'}: {each.text}" for each in self.findings]
        lines += [""] if self.findings else []
        for bag in self.bags:
            lines += _bag_lines(bag)
        lines += ["", f"{'':44s}{'minimum':>12s}{'maximum':>12s}{'mean':>12s}{'std':>12s}  at limit  outside"]
        for number in [*self.observations, *self.actions]:
            row = f"{number.name:44s}{number.minimum:12.4g}{number.maximum:12.4g}{number.mean:12.4g}{number.std:12.4g}"
            if number.share_at_limits is not None and number.share_outside_limits is not None:
                row += f"{100 * number.share_at_limits:8.2f} %{100 * number.share_outside_limits:7.2f} %"
            lines.append(row)
        return "\n".join(lines) + "\n"


def _bag_lines(bag: BagReport) -> list[str]:
    lines = [f"{bag.path}: {bag.messages} messages, {bag.episodes} episodes, {bag.steps} steps"]
    lines += [f"  note: {note}" for note in bag.notes]
    for topic in bag.topics:
        parts = [f"{topic.messages_used} used"]
        if topic.rate_hz is not None and topic.longest_period_s is not None:
            parts.append(f"{topic.rate_hz:.2f} Hz, longest pause {topic.longest_period_s:.3f} s")
        if topic.median_age_s is not None and topic.longest_age_s is not None:
            parts.append(f"age at tick {topic.median_age_s:.4f} s (longest {topic.longest_age_s:.4f} s)")
        lines.append(f"  {topic.topic}: {', '.join(parts)}")
    for use in bag.labels:
        lines.append(f"  {use.topic}: {use.in_steps} of {use.messages} messages give steps their {use.says}")
    if bag.left_out:
        lines.append("  left out: " + ", ".join(f"{name} {count}" for name, count in bag.left_out.items()))
    lines.append("  episodes ended by: " + ", ".join(f"{why} {count}" for why, count in bag.cuts.items()))
    return lines
