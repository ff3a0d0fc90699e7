"""What looks wrong in the estimates of a checkpoint: each check has a limit that is stated, and says what to do.

A check that fails says that something deserves a look before anything moves; that all hold promises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from rql_core.evaluation.estimates import Estimates, percent

# Of FQE's curve, so much at the end must be flat: a value that still creeps shows over a fifth of the updates.
FLAT_SHARE = 0.2
# A drift or disagreement below a tenth of the spread over states hides no difference between good and bad states ...
SMALL_SHARE = 0.1
# ... and where all states are worth the same, a hundredth of the value itself is small.
SMALL_VALUE = 0.01
# Different first weights gave .005 to .04 of the spread over states where FQE had converged.
DISAGREEMENT = 0.25
# Good checkpoints of the arms had up to .007, one that had hardly begun to learn .07.
OUTSIDE = 0.02
# Good checkpoints of the arms had .19 to .36; at 1 the critics are no better than a constant.
ERROR_SHARE = 0.5
# In spreads over states. Good checkpoints of the arms had .4 to .7, one that had hardly begun to learn 1.6.
PROMISE = 1.0
# Logs hold more than this only where somebody drove at the limits, and then the policy may do so twice as often.
SATURATION = 0.1
# Of observations; logs of the same robot and task have next to none beyond their range and a tenth.
UNFAMILIAR = 0.05


@dataclass(frozen=True)
class Check:
    """What should be so, what to call it when it is not, which it is, on what grounds, and what to do about it."""

    name: str
    failure: str
    holds: bool
    found: str
    limit: str
    advice: str

    def warning(self) -> str:
        """The failure in two sentences."""
        return f"{self.failure}: {self.found}, expected {self.limit}. {self.advice}"


def run_checks(estimates: Estimates) -> list[Check]:
    """All checks that apply: those of critics where there are critics."""
    return [*_of_data(estimates), *_of_fitted_q(estimates), *_of_critics(estimates), *_of_actions(estimates)]


def _of_data(estimates: Estimates) -> list[Check]:
    return [
        Check(
            "the logs hold different rewards",
            "the logs hold one reward alone",
            estimates.rewards_differ,
            "different ones" if estimates.rewards_differ else "every step has the same reward",
            "at least two",
            "Nothing in these logs tells good from bad, so no value means anything: take logs with successes in them.",
        ),
        Check(
            "the observations look like those it was trained on",
            "the observations do not look like those it was trained on",
            estimates.unfamiliar <= UNFAMILIAR,
            f"{percent(estimates.unfamiliar)} lie beyond",
            f"at most {percent(UNFAMILIAR)}",
            "All networks extrapolate there: check units, frames and sensors against the contract, or train on such "
            "logs.",
        ),
    ]


def _of_fitted_q(estimates: Estimates) -> list[Check]:
    curve = estimates.curve.mean(axis=1)
    before = max(int(len(curve) * (1.0 - FLAT_SHARE)), 1) - 1
    drift = abs(float(curve[-1] - curve[before]))
    value, spread = float(estimates.start_values.mean()), float(estimates.start_values.mean(axis=0).std())
    small = max(SMALL_SHARE * estimates.state_spread, SMALL_VALUE * abs(value))
    agreed = max(DISAGREEMENT * estimates.state_spread, SMALL_VALUE * abs(value))
    return [
        Check(
            "fitted Q evaluation has converged",
            "fitted Q evaluation has not converged",
            drift <= small and before < len(curve) - 1,
            f"it moved by {drift:.2g} over the last fifth of its updates",
            f"at most {small:.2g} (a tenth of the spread over states, or a hundredth of the value)",
            "Its value is not to be relied on yet: run it again with more --updates.",
        ),
        Check(
            "the critics of fitted Q evaluation agree on the value at the starts",
            "the critics of fitted Q evaluation disagree on the value at the starts",
            spread <= agreed,
            f"they differ by {spread:.2g}",
            f"at most {agreed:.2g} (a quarter of the spread over states, or a hundredth of the value)",
            "The value rests on the first weights as much as on the logs: there are too few logs of what the policy "
            "does.",
        ),
    ]


def _of_critics(estimates: Estimates) -> list[Check]:
    figures, own = estimates.figures(), estimates.own
    outside, share, promise = figures["outside"], figures["td_share"], figures["promise"]
    checks = []
    if own is not None and outside is not None:
        checks.append(
            Check(
                "the checkpoint's critics give values that returns can have",
                "the checkpoint's critics give values that no return can have",
                outside <= OUTSIDE,
                f"{percent(outside)} lie outside {own.low:g} to {own.high:g}, widened by a hundredth",
                f"at most {percent(OUTSIDE)}",
                "They have not been learned, or have run away: train longer, or with the correction target_range.",
            )
        )
    if share is not None:
        checks.append(
            Check(
                "the checkpoint's critics fit these logs",
                "the checkpoint's critics do not fit these logs",
                share <= ERROR_SHARE,
                f"the TD error is {share:.2f} of the targets' spread",
                f"at most {ERROR_SHARE:g}",
                "They contradict themselves on these logs: train longer, or on data that hold what these logs hold.",
            )
        )
    if promise is not None:
        limit = max(PROMISE * estimates.state_spread, SMALL_VALUE * abs(float(estimates.start_values.mean())))
        checks.append(
            Check(
                "the checkpoint's critics promise no more than the logs confirm",
                "the checkpoint's critics promise more than the logs confirm",
                promise <= limit,
                f"they promise {promise:.3g} more",
                f"at most {limit:.3g} (the spread over states)",
                "The policy may exploit errors of its critics: train longer, stay closer to the data (alpha), or be "
                "more pessimistic (rho).",
            )
        )
    return checks


def _of_actions(estimates: Estimates) -> list[Check]:
    distances = estimates.distances
    limit = max(SATURATION, 2.0 * distances.logged_saturation)
    nearest, random = float(distances.nearest.mean()), float(distances.random.mean())
    return [
        Check(
            "the actions keep clear of their limits",
            "the actions are often at their limits",
            distances.saturation <= limit,
            f"{percent(distances.saturation)} of the policy's action numbers are at a limit",
            f"at most {percent(limit)} (twice what is logged, or {percent(SATURATION)})",
            "The robot would be driven at its limits where the logs were not: look at the first runs with reduced "
            "limits, or stay closer to the data (alpha).",
        ),
        Check(
            "what was logged is among what the policy does",
            "what was logged is not among what the policy does",
            nearest <= random,
            f"the nearest of {estimates.noises} samples is {nearest:.2f} away",
            f"no more than the nearest of {estimates.noises} chunks logged elsewhere, {random:.2f}",
            "The policy has left the data, and what these estimates say of it is extrapolation: stay closer to the "
            "data (alpha), or test in simulation first.",
        ),
    ]
