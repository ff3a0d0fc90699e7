"""Looks and standing words of a conversion's report."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1d2126; --soft: #5b636d; --rule: #d5d9de; --box: #f5f6f8;
  --bar: #3274a1; --look: #e08b00; --no: #b3261e; --ok: #1d7a3a; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15181c; --text: #e4e7ea; --soft: #a4acb5; --rule: #3a4149; --box: #1e2329;
    --bar: #6aaede; --look: #f0a93a; --no: #ff8a80; --ok: #7bd48f; }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
  color: var(--text); background: var(--back); overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, li, dd { max-width: 50rem; }
.soft { color: var(--soft); }
a { color: inherit; }
.verdict { border-left: 5px solid var(--soft); background: var(--box); padding: .6rem 1rem; }
.verdict ul { margin: .2rem 0; }
.verdict.broken { border-color: var(--no); }
.verdict.kept { border-color: var(--ok); }
.remarks { background: var(--box); border-left: 5px solid var(--look); padding: .7rem 1rem .7rem 2.2rem;
  margin: .6rem 0; }
.no { color: var(--no); font-weight: 600; }
.ok { color: var(--ok); font-weight: 600; }
.tiles { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); margin: 1.4rem 0; }
.tiles > div { background: var(--box); padding: .6rem .9rem; border-radius: .4rem; }
.tiles span { display: block; color: var(--soft); font-size: .85rem; }
.tiles b { font-size: 1.5rem; line-height: 1.3; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums;
  margin: .4rem 0 1rem; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: middle; }
thead th { font-size: .82rem; color: var(--soft); font-weight: 600; background: var(--back); }
.dense td, .dense th { padding: .15rem .8rem .15rem 0; white-space: nowrap; font-size: .8rem; }
.dense thead { position: sticky; top: 0; }
.dense thead th { white-space: normal; vertical-align: bottom; border-bottom: 0; }
.dense .topic { border-bottom: 1px solid var(--rule); }
tr { scroll-margin-top: 6rem; }
tr:target { background: var(--box); outline: 2px solid var(--look); }
.wide { overflow-x: auto; }
.tall { max-height: 34rem; overflow-y: auto; }
.plots { display: grid; gap: 1.2rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; max-width: 30rem; }
figcaption { font-weight: 600; font-size: .9rem; margin-bottom: .3rem; }
svg { max-width: 100%; height: auto; display: block; }
.wide-picture { width: 100%; min-width: 46rem; }
.histogram { width: 10.5rem; height: 1.9rem; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg .name { font-weight: 600; font-size: 13px; }
svg .small { font-size: 10.5px; }
svg text.soft { fill: var(--soft); }
svg .bar { fill: var(--bar); }
svg .bad { fill: var(--look); }
svg .rule { stroke: var(--rule); stroke-width: 1; }
svg .bound { stroke: var(--no); stroke-width: 1.2; stroke-dasharray: 4 3; }
svg .boundtext { fill: var(--no); }
svg .touch { fill: transparent; }
svg a:hover .touch { fill: var(--text); fill-opacity: .1; }
details > summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
dt { font-weight: 600; margin-top: .5rem; }
dd { margin: 0 0 0 1.2rem; }
@media print { details > * { display: block; } .tall { max-height: none; } }
"""

#: What the converter's counters mean.
LEFT_OUT = {
    "gap": "ticks at which an observation topic had no message, or only one that was too old",
    "duplicate": "messages with the stamp of the one before them",
    "out_of_order": "messages stamped before one that had come already",
    "before_start": "messages stamped before the start",
    "clock_jump": "times that a clock was set back; an episode ends there",
    "action_duplicate": "commands with the stamp of the one before them; the later one counts",
    "action_out_of_order": "commands stamped before one that had come already",
    "action_late": "commands that came after the ticks they were meant for had been decided",
    "ticks_without_action": "observations for which no command was in force",
    "short_episodes": "episodes with fewer steps than min_steps",
    "steps_in_short_episodes": "steps in the episodes with fewer steps than min_steps",
    "steps_after_success": "steps recorded after the task was solved, up to the next start",
    "steps_without_reward_message": "steps for which the reward's or the success's topic had no message",
}

EXPLANATION = """
<dl>
<dt>Tick, step, episode</dt><dd>A tick is a moment of the contract's clock at its rate. A step goes from one tick to
the next: observation, command, reward. An episode is a row of steps without a gap; it is terminal when it ends
because the task was solved, and truncated otherwise.</dd>
<dt>Age</dt><dd>How old a topic's newest message is at a tick; p50 is the median, p95 is passed by one tick in
twenty.</dd>
<dt>Pause, missing</dt><dd>A pause is the time from one message to the next. Messages are missing where a pause is
longer than one and a half of the topic's own median period: as many as would have fitted.</dd>
<dt>Clock offset</dt><dd>When messages were received minus the time in their headers, the median. Milliseconds are the
way through the network. More means that two clocks differ, and the topic is then joined to the wrong ticks of others.
Its spread is between the 5th and the 95th percentile.</dd>
<dt>Outliers</dt><dd>Share of the values that lie outside the quartiles by more than three times the quartiles'
distance (Tukey's outer fences). No motion is an outlier by itself; a spike of a sensor is.</dd>
<dt>Dead, stuck</dt><dd>A dead feature has one value in the whole dataset; a stuck one has one value in a whole
episode of ten steps or more, and moves in others.</dd>
<dt>At a limit</dt><dd>Within a thousandth of the range of a limit. Where that is often so, the limit shapes the data:
is it the robot's own?</dd>
<dt>Return</dt><dd>Sum of an episode's rewards, undiscounted.</dd>
</dl>
"""
