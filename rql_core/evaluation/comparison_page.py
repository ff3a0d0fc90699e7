"""The comparison as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rql_core.evaluation.comparison import Comparison
from rql_core.evaluation.comparison_table import Table, tables
from rql_core.evaluation.curve_pictures import Picture, final_success, metric_curves, success_curves
from rql_core.evaluation.plots import style_sheet, swatch

# Columns whose numbers are read as one; the others give way where a row is too long.
_WHOLE = frozenset({"success", "difference", "time"})

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1d2126; --soft: #5b636d; --rule: #d5d9de; --box: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15181c; --text: #e4e7ea; --soft: #a4acb5; --rule: #3a4149; --box: #1e2329; }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
  color: var(--text); background: var(--back); overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; overflow-wrap: anywhere; }
p, li { max-width: 46rem; }
p.soft, .soft { color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: .45rem 0; margin: 0; list-style: none;
  position: sticky; top: 0; max-height: 25vh; overflow-y: auto;
  background: var(--back); border-bottom: 1px solid var(--rule); z-index: 1; }
.swatch { vertical-align: -1px; margin-right: .4rem; }
.plots { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
.plots > * { max-width: 32rem; margin: 0; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
figcaption { font-weight: 600; font-size: .9rem; margin-bottom: .3rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums;
  margin: .4rem 0 1rem; }
.cards td span { white-space: nowrap; }
.cards td[data-column=seeds] { min-width: 13.5em; }
.cards td[data-column=p] { min-width: 9em; }
.cards th:first-child { min-width: 10.5em; }
th, td { text-align: left; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
thead th { font-size: .85rem; color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; }
.wide { overflow-x: auto; }
.remarks { background: var(--box); border-left: 4px solid #e69f00; padding: .7rem 1rem .7rem 2.2rem; margin: 1rem 0; }
details > summary { cursor: pointer; font-weight: 600; margin: .8rem 0; overflow-wrap: anywhere; }
@media (max-width: 46rem) {
  .cards, .cards tbody, .cards tr, .cards td, .cards th { display: block; border: 0; padding: 0; }
  .cards thead { position: absolute; clip-path: inset(50%); }
  .cards tr { border-bottom: 1px solid var(--rule); padding: .6rem 0; }
  .cards td { display: grid; grid-template-columns: 6.5rem 1fr; }
  .cards td::before { content: attr(data-column); color: var(--soft); }
}
"""

_EXPLANATION = """
<p><b>Success</b> is the mean over seeds of the share of episodes that succeeded{tasks}. {counted}</p>
<p><b>Its interval</b> (95 %) answers: where might the mean be, had other seeds been trained and other episodes been
run? It is a bootstrap in two levels: seeds are drawn anew with replacement, within each task, and then episodes within
each drawn seed, 9,999 times; the interval is the middle 95 % of the means. With one seed, or where every episode ended
alike, it is Wilson's interval of the episodes: five seeds with 50 of 50 show no spread, but do not prove that failure
is impossible. Few seeds cannot show how badly a rare seed may fail, so with three to five seeds these intervals are
rather too short where seeds differ much.</p>
<p><b>IQM</b> is the interquartile mean: a quarter of the values, rounded down, is left out at each end, and the rest is
averaged. It is less moved by a single seed than the mean.</p>
{against}
<p><b>Bands</b> round learning curves are intervals of the same kind at each evaluation; the thick line ends where a
seed has no evaluation, thin lines are single seeds. In the plots of training metrics, lines are means over seeds and
bands go from the least to the most of them.</p>
"""
_AGAINST = """
<p><b>Difference</b> compares with {baseline} seed by seed: each pair has the same task and seed. Its interval is the
same bootstrap, with pairs drawn instead of seeds. <b>p</b> is from a sign-flip permutation test: how often would a
mean difference at least this large come about, if which of each pair is better were a matter of chance? All patterns
of signs are counted up to 16 pairs, and 9,999 random ones above. Few pairs cannot give a small p whatever they show:
five reach .0625 at best, six .031. {multiple}</p>
<p><b>Better</b> is the chance that a seed of the group beats one of {baseline}, ties counting half; .5 is no
difference.</p>
"""
_MULTIPLE = (
    "There are {others} such comparisons for each task, and p is not adjusted for their number: by chance alone one in "
    "twenty is below .05."
)


def comparison_page(comparison: Comparison) -> str:
    """The whole page."""
    legend = "".join(f"<li>{swatch(style)}{escape(group.name)}</li>" for style, group in enumerate(comparison.groups))
    parts = [
        f"<h1>Comparison of runs</h1><p>{escape(_lead(comparison))}</p>",
        f'<ul class="legend" aria-label="Groups">{legend}</ul>',
        _results(comparison),
        _remarks(comparison.remarks),
        _curves(comparison),
        _metrics(comparison),
        _settings(comparison),
        _explanation(comparison),
        _runs(comparison),
    ]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Comparison of runs</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>{_STYLE}{style_sheet(len(comparison.groups))}</style></head>
<body>{"".join(parts)}</body></html>
"""


def _lead(comparison: Comparison) -> str:
    """How much there is, in a sentence or two."""
    runs = [run for group in comparison.groups for run in group.runs]
    seeds = {len(group.on(task)) for group in comparison.groups for task in comparison.tasks if group.on(task)}
    span = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    tasks = f"on {comparison.tasks[0]}" if len(comparison.tasks) == 1 else f"on {len(comparison.tasks)} tasks"
    text = f"{_count(len(runs), 'run')} in {_count(len(comparison.groups), 'group')} {tasks}, {span} "
    text += "seed each" if seeds == {1} else "seeds each"
    text += f"; the baseline is {comparison.baseline}." if comparison.baseline else "."
    return text + (f" Compared after {comparison.at:,} updates." if comparison.at is not None else "")


def _results(comparison: Comparison) -> str:
    pictures = final_success(comparison)
    shown = "".join(_table(comparison, table, several=len(comparison.sections) > 1) for table in tables(comparison))
    caption = "<p class='soft'>Mark: mean over seeds; bar: 95 % interval; dots: single seeds.</p>" if pictures else ""
    return f"<h2>Success</h2>{caption}{_plots(pictures)}{shown}"


def _table(comparison: Comparison, table: Table, several: bool) -> str:
    styles = {group.name: style for style, group in enumerate(comparison.groups)}
    head = "".join(f'<th scope="col" role="columnheader">{escape(column)}</th>' for column in table.columns)
    body = ""
    for group, *cells in table.rows:
        body += f'<tr role="row"><th scope="row" role="rowheader">{swatch(styles[group])}{escape(group)}</th>'
        for column, cell in zip(table.columns[1:], cells, strict=True):
            shown = _unbroken(cell) if column in _WHOLE else escape(cell)
            body += f'<td role="cell" data-column="{escape(column)}"><div>{shown}</div></td>'
        body += "</tr>"
    title = f"<h3>{escape(table.title)}</h3>" if several else ""
    return (
        f'{title}<div class="wide" tabindex="0"><table class="cards" role="table">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _unbroken(cell: str) -> str:
    """A cell that may be broken before a bracket, and nowhere else."""
    number, bracket, rest = cell.partition(" (")
    return f"<span>{escape(number)}</span>" + (f" <span>({escape(rest)}</span>" if bracket else "")


def _remarks(remarks: Sequence[str]) -> str:
    if not remarks:
        return ""
    listed = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
    return f'<h2>To know before judging</h2><ul class="remarks">{listed}</ul>'


def _curves(comparison: Comparison) -> str:
    pictures = success_curves(comparison)
    if not pictures:
        return ""
    caption = "<p class='soft'>Thick: mean over seeds, with its 95 % interval; thin: single seeds.</p>"
    return f"<h2>Learning curves</h2>{caption}{_plots(pictures)}"


def _metrics(comparison: Comparison) -> str:
    sections = [(task, pictures) for task in comparison.tasks if (pictures := metric_curves(comparison, task))]
    if not sections:
        return ""
    folded = "".join(
        f"<details{'' if index else ' open'}><summary>{escape(task)}</summary>"
        f"{_plots(pictures, 'plots small')}</details>"
        for index, (task, pictures) in enumerate(sections)
    )
    caption = "<p class='soft'>Mean over seeds; the band goes from the least to the most of them.</p>"
    return f"<h2>Losses and values</h2>{caption}{folded}"


def _settings(comparison: Comparison) -> str:
    if not comparison.settings:
        return "<h2>Settings</h2><p>The runs differ in nothing but seed and task.</p>"
    head = "".join(
        f'<th scope="col">{swatch(style)}{escape(group.name)}</th>' for style, group in enumerate(comparison.groups)
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(setting.name)}</th>'
        + "".join(f"<td>{escape(value)}</td>" for value in setting.values)
        + "</tr>"
        for setting in comparison.settings
    )
    return (
        "<h2>Settings that differ</h2><p class='soft'>Of those that more than one group has; besides the seed.</p>"
        f'<div class="wide" tabindex="0"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _explanation(comparison: Comparison) -> str:
    against = ""
    if comparison.baseline is not None:
        others = len(comparison.groups) - 1
        multiple = _MULTIPLE.format(others=others) if others > 1 else ""
        against = _AGAINST.format(baseline=escape(comparison.baseline), multiple=multiple)
    counted = (
        "What counts is RUN/evaluation.json where there is one, else the last evaluation during training."
        if comparison.at is None
        else f"What counts is the evaluation during training after {comparison.at:,} updates."
    )
    tasks = "; for all tasks together, tasks count alike" if len(comparison.tasks) > 1 else ""
    text = _EXPLANATION.format(tasks=tasks, counted=counted, against=against)
    return f"<h2>How these numbers were made</h2>{text}"


def _runs(comparison: Comparison) -> str:
    rows = ""
    for group in comparison.groups:
        for run in group.runs:
            score = run.score(comparison.at)
            rate = "-" if score is None else f"{score.rate:.2f}"
            episodes = "-" if score is None or score.episodes is None else str(score.episodes)
            source = "-" if score is None else score.source
            made = f"{run.step:,}" + (f" of {run.planned:,}" if run.unfinished else "")
            cells = (run.path, group.name, run.task, run.seed, made, rate, episodes, source)
            rows += "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
    names = ("run", "group", "task", "seed", "updates", "success", "episodes", "from")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        f"<h2>Runs</h2><details><summary>Every run</summary>"
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</details>"
    )


def _plots(pictures: Sequence[Picture], kind: str = "plots") -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(picture.title)}</figcaption>{picture.svg}</figure>" for picture in pictures
    )
    return f'<div class="{kind}">{figures}</div>'


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
