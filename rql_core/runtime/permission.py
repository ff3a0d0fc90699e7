"""Whether commands may leave, and what stands against it: an emergency stop, a latch, silence, a trigger, values."""

from __future__ import annotations

from rql_core.runtime.safety import SafetyFilter
from rql_core.runtime.watch import ObservationWatch


class Permission:
    """What a runner asks before anything leaves. Owned by one thread; reads no clock.

    `estopped`: why a person, or the node for one, ended commanding until `rearm`. `unusual`: whether the critics find
    plans so unusual that nothing may leave. `on_trigger`: whether commanding waits for `run`.
    """

    def __init__(self, watch: ObservationWatch, safety: SafetyFilter, *, on_trigger: bool) -> None:
        self.on_trigger = on_trigger
        self.estopped: str | None = None
        self.unusual = False
        self._watch, self._safety = watch, safety
        self._run_until_ns: int | None = None

    def reason(self, now_ns: int | None = None) -> str | None:
        """Why nothing is commanded; None where nothing stands against it."""
        refusal = self.refusal(now_ns)
        return "holding: the critics' values are unusual" if refusal is None and self.unusual else refusal

    def refusal(self, now_ns: int | None) -> str | None:
        """As `reason`, but for unusual values: these are planned on with, because only plans can tell that it is over.

        Nothing that is planned may leave meanwhile.
        """
        if self.estopped is not None:
            return f"emergency stop: {self.estopped}; call rearm to go on"
        if self._safety.latched is not None:
            return f"latched: {self._safety.latched}; call rearm to go on"
        if not self._watch.may_act:
            return self._watch.description
        if self.on_trigger and not self._running(now_ns):
            return "waiting for run"
        return None

    @property
    def needs_rearm(self) -> bool:
        """Whether commanding has ended until a person calls for it."""
        return self.estopped is not None or self._safety.latched is not None or self._watch.needs_rearm

    def run(self, now_ns: int, limit_ns: int) -> tuple[str | None, bool]:
        """Command for so long: what stands against it, and whether nothing was commanded before.

        What was refused is not made up for: otherwise re-arming would set the robot in motion.
        """
        was, self._run_until_ns = self._run_until_ns, now_ns + limit_ns
        reason = self.reason(now_ns)
        if reason is not None:
            self._run_until_ns = was
        return reason, was is None or now_ns >= was

    def end_run(self) -> None:
        """Wait for the next `run`."""
        self._run_until_ns = None

    def rearm(self) -> None:
        """Nothing that happened before stands against it."""
        self.estopped = None
        self.unusual = False
        self._watch.rearm()

    def _running(self, now_ns: int | None) -> bool:
        return self._run_until_ns is not None and (now_ns is None or now_ns < self._run_until_ns)
