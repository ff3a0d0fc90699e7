"""What a running node says of itself: a level, a sentence, and figures by name."""

from __future__ import annotations

from dataclasses import dataclass

from rql_core.runtime.runner import PolicyRunner


@dataclass(frozen=True)
class Health:
    """What the node says of itself: level is "ok", "warn" or "error"."""

    level: str
    summary: str
    values: dict[str, str]


def health_of(runner: PolicyRunner, now_ns: int) -> Health:
    """State, counts by cause, ages in s, inference in ms, seams and starvation, the critics, the comparison."""
    values = {name: str(count) for name, count in sorted({**runner.counts, **runner.assembler.counts}.items())}
    values |= {f"filter {cause}": str(count) for cause, count in sorted(runner.filter.counts.items())}
    if runner.filter.last_change is not None:
        values["last change"] = str(runner.filter.last_change)
    for topic, stamp in runner.assembler.newest_stamps().items():
        values[f"age {topic}"] = "none" if stamp is None else f"{(now_ns - stamp) / 1e9:.3f} s"
    values |= {f"inference {name}": f"{ms:.2f} ms" for name, ms in runner.latencies.milliseconds().items()}
    values |= {name.replace("_", " "): f"{figure:.4g}" for name, figure in runner.schedule.figures(now_ns).items()}
    judgement = None if runner.monitor is None else runner.monitor.last
    if runner.monitor is not None and judgement is not None:
        values |= {"value mean": f"{judgement.mean:.4g}", "value std": f"{judgement.std:.4g}"}
        values["unusual values"] = f"{runner.monitor.unusual} of {runner.monitor.judged}"
    if runner.comparison is not None:
        values |= {name.replace("_", " "): f"{figure:.4g}" for name, figure in runner.comparison.figures().items()}
        values["compared"] = str(runner.comparison.compared)
    if runner.last_error:
        values["last error"] = runner.last_error
    return Health(*_judged(runner, now_ns), values)


def _judged(runner: PolicyRunner, now_ns: int) -> tuple[str, str]:
    reason = runner.reason(now_ns)
    if runner.needs_rearm:
        return "error", str(reason)
    if reason == "waiting for run":
        return "ok", reason
    if reason is not None:
        return "warn", reason
    if runner.cannot_begin:
        return "warn", f"cannot begin: {runner.cannot_begin}"
    if not runner.options.lockstep and runner.commanding and runner.schedule.state_at(now_ns) == "starved":
        return "warn", "starved: what was planned is over, and no new plan has come"
    monitor = runner.monitor
    if monitor is not None and monitor.alarm and monitor.last is not None and runner.options.monitor != "off":
        return "warn", f"running, but {monitor.last.unusual or 'most plans were unusual'}"
    # Nothing is missing, but a recording of such topics would not become training data.
    if slow := runner.rates.complaints():
        return "warn", f"running on slow topics: {'; '.join(slow)}"
    if runner.comparison is not None:
        return "ok", "in the shadow: nothing is published"
    return "ok", "running"
