"""The report of a checkpoint as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rql_core.evaluation import estimates_pictures as pictures
from rql_core.evaluation.checks import Check
from rql_core.evaluation.estimates import FIGURES, Estimates

_STYLE = """
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
  color: #1d2126; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem; }
p, li { max-width: 46rem; }
.soft { color: #5b636d; }
.verdict { padding: .8rem 1.1rem; margin: 1.2rem 0; border-left: 5px solid #009e73; background: #eef8f4; }
.verdict.wrong { border-color: #d55e00; background: #fdf2ea; }
.verdict p { margin: 0; } .verdict ul { margin: .5rem 0 0; padding-left: 1.2rem; } .verdict li { margin: .35rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid #d5d9de; vertical-align: top; }
thead th { font-size: .85rem; color: #5b636d; }
tbody th { font-weight: 600; white-space: nowrap; } tr.detail th { font-weight: 400; padding-left: 1.3rem; }
td.number { text-align: right; white-space: nowrap; padding-right: 1.6rem; }
td.mark { white-space: nowrap; font-weight: 600; color: #00795a; } td.mark.wrong { color: #b34700; }
.pair { display: grid; gap: 1.5rem 2.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.pair h2 { margin-top: 1.6rem; }
.wide { overflow-x: auto; } .wide img { min-width: 36rem; }
img { width: 100%; height: auto; } .pair img { max-width: 32rem; }
@media (max-width: 40rem) { tbody th { white-space: normal; } }
"""


@dataclass(frozen=True)
class Subject:
    """What the estimates are of, in words."""

    checkpoint: str
    step: int
    dataset: str
    episodes: int
    steps: int
    horizon: int
    action_names: tuple[str, ...]
    period: float | None
    """Seconds of a step, where a contract says it."""
    seed: int
    updates: int
    """Updates of fitted Q evaluation."""


def report_page(estimates: Estimates, checks: Sequence[Check], subject: Subject) -> str:
    """The whole page."""
    same = (
        " These are the data it was trained on: on logs that it has not seen, errors are larger."
        if estimates.same_data
        else ""
    )
    body = f"""
<h1>What the logs say of this checkpoint</h1>
<p><b>{escape(subject.checkpoint)}</b>: {escape(estimates.algorithm)} after {subject.step:,} updates, chunks of
{subject.horizon} steps. Estimated from <b>{escape(subject.dataset)}</b>: {subject.episodes:,} episodes,
{subject.steps:,} steps.{same} Nothing has moved.</p>
{_verdict(checks)}
<h2>Figures</h2>
{_figures(estimates)}
<p class="soft">Discount {estimates.gamma:g}; these rewards allow returns from {estimates.low:g} to {estimates.high:g}.
Seed {subject.seed}.</p>
{_value_pictures(estimates, subject)}
{_other_pictures(estimates, subject)}
<h2>Checks</h2>
{_checks(checks)}
<h2>How these numbers were made, and what they cannot say</h2>
{_explanation(estimates, subject)}"""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Report: {escape(subject.checkpoint)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>{_STYLE}</style></head><body>{body}
</body></html>
"""


def _verdict(checks: Sequence[Check]) -> str:
    failed = [check for check in checks if not check.holds]
    if not failed:
        return (
            f'<div class="verdict"><p><b>All {len(checks)} checks hold.</b> That is no promise: first runs belong into '
            "simulation, or behind a safety filter with a person near.</p></div>"
        )
    listed = "".join(
        f"<li><b>{escape(check.failure[0].upper() + check.failure[1:])}</b>: {escape(check.found)}, expected "
        f"{escape(check.limit)}. {escape(check.advice)}</li>"
        for check in failed
    )
    count = "One check fails" if len(failed) == 1 else f"{len(failed)} checks fail"
    return (
        f'<div class="verdict wrong"><p><b>{count}</b>, of {len(checks)}. Look at this before anything moves:</p>'
        f"<ul>{listed}</ul></div>"
    )


def _figures(estimates: Estimates) -> str:
    rows = ""
    for name, value in estimates.figures().items():
        figure = FIGURES[name]
        if value is not None:
            rows += (
                f'<tr class="{"detail" if figure.detail else ""}"><th scope="row">{escape(figure.label)}</th>'
                f'<td class="number">{figure.show(value)}</td>'
                f"<td>{escape(figure.meaning.format(noises=estimates.noises))}</td></tr>"
            )
    none = "" if estimates.own else "<p>This checkpoint has no critics of its own, so nothing is said of them.</p>"
    return f"<table><tbody>{rows}</tbody></table>{none}"


def _value_pictures(estimates: Estimates, subject: Subject) -> str:
    both = estimates.own is not None and estimates.comparable
    starts = (
        "Each dot is an episode's first observation. Above the dashed line, the checkpoint's critics promise more than "
        "critics that were fitted afresh to what the policy does."
        if both
        else "How many episodes start at an observation of such a value."
    )
    return f"""<div class="pair">
<section><h2>Has fitted Q evaluation converged?</h2>{_image(pictures.fitted_curve(estimates), "FQE over updates")}
<p class="soft">Mean value at the starts: thick, mean over critics; thin, each of them. Over the shaded last fifth it
must be flat; while it moves, it is not the policy's value.</p></section>
<section><h2>Value at episode starts</h2>{_image(pictures.start_values(estimates), "value at starts")}
<p class="soft">{starts}</p></section></div>
<h2>Value along logged episodes</h2>
<div class="wide">{_image(pictures.episodes(estimates, subject.period), "value along logged episodes")}</div>
<p class="soft">What the policy would still collect if it took over there; vertical lines are terminals in the log. The
log's own return is drawn where a terminal follows: whoever drove then had no goal in mind, or another one, may collect
less than the policy would.</p>"""


def _other_pictures(estimates: Estimates, subject: Subject) -> str:
    errors = ""
    if estimates.own is not None:
        errors = f"""<h2>Errors of the checkpoint's critics</h2>
<div class="pair">{_image(pictures.error_histogram(estimates.own), "histogram of TD errors")}
<p class="soft">For each chunk of the logs: what it collected, plus what the critics say of its end, minus what they had
said of the chunk. Critics that were trained to look at the better outcomes (kappa above .5) have errors below zero on
average, pessimistic ones (rho) above. Dashed: the mean. The outermost 0.2 % on either side are left out.</p></div>"""
    return f"""{errors}
<h2>Distance to the logged actions</h2>
<div class="wide">
{_image(pictures.distances(estimates, subject.action_names), "distance to the logged actions by dimension")}</div>
<p class="soft">At logged observations, in units of the actions' limits. The nearest sample tells whether the policy
still does what was logged there, among other things; if chunks logged anywhere else are nearer, it does not.</p>"""


def _checks(checks: Sequence[Check]) -> str:
    rows = "".join(
        f'<tr><td class="mark{"" if check.holds else " wrong"}">{"holds" if check.holds else "fails"}</td>'
        f"<td>{escape(check.name)}</td><td>{escape(check.found)}</td><td>{escape(check.limit)}</td></tr>"
        for check in checks
    )
    head = "<tr><th></th><th>What should be so</th><th>Found</th><th>Limit</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _explanation(estimates: Estimates, subject: Subject) -> str:
    own = (
        "<p><b>TD errors</b> and values of the checkpoint's own critics take its own discount, and means over its "
        "ensemble.</p>"
        if estimates.own
        else ""
    )
    return f"""<p><b>Fitted Q evaluation</b> (Le, Voloshin and Yue, 2019) trains {estimates.curve.shape[1]} fresh
critics for {subject.updates:,} updates on these logs, to say what the policy collects if it goes on from any chunk. The
policy itself is only asked what it would do. Targets are clipped to the returns that the rewards allow. The spread over
critics shows how much the first weights matter; it is no confidence interval.</p>{own}
<p><b>What no log can say:</b> where the policy does what nobody did, all critics extrapolate, fitted ones too.
Estimates rank checkpoints better than they predict success; the figure to trust is that of episodes, in simulation
first.</p>"""


def _image(svg: str, title: str) -> str:
    encoded = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(title)}" src="data:image/svg+xml;base64,{encoded}">'
