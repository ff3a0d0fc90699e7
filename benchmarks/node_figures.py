"""What is made of the times of `make bench-node`: quantiles with lost answers, and what the policy adds to an echo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, inf
from statistics import linear_regression, median
from typing import Any

# What is asked of the node: the 99th percentile that the policy adds, in ms, its start in s, and its memory in MB.
GOALS_ADDED_MS = {"4x256": 1.0, "4x512": 2.5}
GOAL_START_S = 1.5
GOAL_RSS_MB = 250.0
QUANTILES = (0.5, 0.95, 0.99)
ECHO = "echo"
# In a long run: an answer that comes after so many periods is a deadline missed; memory may move by so much, which is
# what the allocator keeps or gives back.
LATE_PERIODS = 2.0
GROWTH_MB = 1.0
SAID = ("deadlines missed", "worst delay of the control timer", "plans refused while planning", "starvations")


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` of all values do not exceed, so that infinite ones keep their meaning."""
    if not values:
        raise ValueError("a quantile of nothing was asked for")
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Turn:
    """One subject for some seconds: ms from the observation to its chunk, infinite where none came."""

    latencies_ms: tuple[float, ...]
    cpu_share: float
    """Of one core, by the process under test."""

    @property
    def lost(self) -> int:
        """Observations that no chunk answered."""
        return sum(latency == inf for latency in self.latencies_ms)


@dataclass(frozen=True)
class Summary:
    """A subject at a rate: medians over the rounds. A quantile is infinite where too many answers were lost."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_share: float
    observations: int
    lost: int
    p99_of_rounds_ms: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> Summary:
        """Of a subject's turns, one a round."""
        rounds = [[quantile(turn.latencies_ms, share) for turn in turns] for share in QUANTILES]
        p50, p95, p99 = (median(values) for values in rounds)
        return cls(
            p50,
            p95,
            p99,
            median(turn.cpu_share for turn in turns),
            sum(len(turn.latencies_ms) for turn in turns),
            sum(turn.lost for turn in turns),
            rounds[-1],
        )


def added_p99_ms(summaries: Mapping[str, Summary]) -> dict[str, float]:
    """What each policy adds to the echo's 99th percentile: the difference of the medians over the rounds."""
    echo = summaries[ECHO].p99_ms
    return {name: summary.p99_ms - echo for name, summary in summaries.items() if name != ECHO}


def figures(
    turns: Mapping[int, Mapping[str, Sequence[Turn]]], starts_s: Sequence[float], rss_mb: Mapping[str, float]
) -> dict[str, Any]:
    """All figures. Of several rates `added_p99_ms` and `p50_ms` are each policy's worst, and memory is the largest."""
    rates = {rate: {name: Summary.of(each) for name, each in subjects.items()} for rate, subjects in turns.items()}
    added = {rate: added_p99_ms(subjects) for rate, subjects in rates.items()}
    policies = [name for name in next(iter(rates.values())) if name != ECHO]
    return {
        "added_p99_ms": {name: max(each[name] for each in added.values()) for name in policies},
        "p50_ms": {name: max(subjects[name].p50_ms for subjects in rates.values()) for name in policies},
        "start_s": median(starts_s),
        "rss_mb": max(rss_mb.values()),
        "rates": {
            str(rate): {
                "added_p99_ms": added[rate],
                "subjects": {name: asdict(summary) for name, summary in subjects.items()},
            }
            for rate, subjects in rates.items()
        },
        "starts_s": list(starts_s),
        "rss_mb_of": dict(rss_mb),
    }


def missed_goals(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each goal that was not reached, and for lost answers."""
    missed = [
        f"{name} adds {result['added_p99_ms'][name]:.2f} ms at the 99th percentile, the goal is {goal:g}"
        for name, goal in GOALS_ADDED_MS.items()
        if name in result["added_p99_ms"] and not result["added_p99_ms"][name] <= goal
    ]
    if result["start_s"] > GOAL_START_S:
        missed.append(f"start takes {result['start_s']:.2f} s, the goal is {GOAL_START_S:g}")
    if result["rss_mb"] > GOAL_RSS_MB:
        missed.append(f"memory is {result['rss_mb']:.0f} MB, the goal is {GOAL_RSS_MB:g}")
    for rate, each in result["rates"].items():
        for name, summary in each["subjects"].items():
            if summary["lost"]:
                missed.append(f"{name} at {rate} Hz: {summary['lost']} of {summary['observations']} were not answered")
    return missed


@dataclass(frozen=True)
class Endurance:
    """What is left of a long run. Memory is told by samples (s since its beginning, MB) and (s, threads)."""

    latencies_ms: tuple[float, ...]
    period_ms: float
    memory_mb: tuple[tuple[float, float], ...]
    threads: tuple[int, ...]
    robot_late_ms: float
    """By how much the robot itself came too late at the worst, which the node can do nothing about."""
    said: Mapping[str, str]
    """What the node said of itself at the end."""

    @property
    def late(self) -> int:
        """Answers that came more than two periods after their observation, or never."""
        return len(self.late_at_s)

    @property
    def late_at_s(self) -> list[float]:
        """When: s since the beginning. One stall of the machine shows as neighbours."""
        most, period = LATE_PERIODS * self.period_ms, self.period_ms / 1000
        return [round(at * period, 2) for at, latency in enumerate(self.latencies_ms) if latency > most]

    @property
    def settled_mb(self) -> list[tuple[float, float]]:
        """The samples after the first minute, or the first tenth of a shorter run."""
        last = self.memory_mb[-1][0]
        return [sample for sample in self.memory_mb if sample[0] >= min(60.0, last / 10)]

    @property
    def growth_mb_an_hour(self) -> float:
        """The slope of a straight line through the settled samples."""
        times, values = zip(*self.settled_mb, strict=True)
        return 3600.0 * linear_regression(times, values).slope if len(times) > 1 else 0.0

    def figures(self) -> dict[str, Any]:
        """All figures."""
        settled = self.settled_mb
        return {
            "observations": len(self.latencies_ms),
            "lost": sum(latency == inf for latency in self.latencies_ms),
            "late_by_more_than_two_periods": self.late,
            "late_at_s": self.late_at_s,
            "latency_ms": {f"p{100 * share:g}": quantile(self.latencies_ms, share) for share in (*QUANTILES, 0.999)}
            | {"max": max(self.latencies_ms)},
            "robot_late_ms": self.robot_late_ms,
            "node": {key: self.said.get(key, "not said") for key in SAID},
            "rss_mb": {"settled": settled[0][1], "end": settled[-1][1], "growth_an_hour": self.growth_mb_an_hour},
            "threads": {"least": min(self.threads), "most": max(self.threads)},
        }

    def missed(self) -> list[str]:
        """A sentence for everything that a long run must not show."""
        found = self.figures()
        missed = []
        if self.late:
            missed.append(f"{self.late} answers came more than two periods late or never")
        if found["node"]["deadlines missed"] != "0":
            missed.append(f"the node says of its deadlines missed: {found['node']['deadlines missed']}")
        grown = found["rss_mb"]["end"] - found["rss_mb"]["settled"]
        if grown > GROWTH_MB:
            missed.append(f"memory grew by {grown:.1f} MB")
        if found["threads"]["least"] != found["threads"]["most"]:
            missed.append(f"threads were {found['threads']['least']} to {found['threads']['most']}")
        return missed


def endurance_table(figures: Mapping[str, Any]) -> str:
    """The figures of a long run as Markdown."""
    latency, rss, threads, node = (figures[key] for key in ("latency_ms", "rss_mb", "threads", "node"))
    rows = {
        "observations, not answered": f"{figures['observations']}, {figures['lost']}",
        "answers later than two periods": figures["late_by_more_than_two_periods"],
        "observation to chunk, ms": ", ".join(f"{name} {value:.2f}" for name, value in latency.items()),
        "robot's own worst delay, ms": f"{figures['robot_late_ms']:.2f}",
        **{f"node: {key}": value for key, value in node.items()},
        "memory, MB": f"{rss['settled']:.2f} settled, {rss['end']:.2f} at end, {rss['growth_an_hour']:+.2f} an hour",
        "threads": f"{threads['least']} to {threads['most']}",
    }
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def table(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| rate | node | p50, ms | p95 | p99 | added p99 | CPU, share of a core | lost |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for rate, each in result["rates"].items():
        for name, summary in each["subjects"].items():
            added = each["added_p99_ms"].get(name)
            lines.append(
                f"| {rate} Hz | {name} | {summary['p50_ms']:.2f} | {summary['p95_ms']:.2f} | {summary['p99_ms']:.2f} | "
                f"{'' if added is None else f'{added:.2f}'} | {summary['cpu_share']:.0%} | "
                f"{summary['lost']} of {summary['observations']} |"
            )
    lines += ["", f"start to configured {result['start_s']:.2f} s, memory {result['rss_mb']:.0f} MB"]
    return "\n".join(lines)
