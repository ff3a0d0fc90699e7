"""The demonstration's result: result.json for programs and report.html for people, one file without outside assets."""

from __future__ import annotations

import base64
import html
import io
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rql_core.demo.pictures import learning_curves, tool_paths, video
from rql_core.errors import RqlError
from rql_core.evaluation.results import Evaluation, read_evaluation
from rql_core.resources import config_file
from rql_core.training.config_file import load_train_config
from rql_core.whole_files import write_whole

if TYPE_CHECKING:
    from rql_core.demo.stages import Demo

PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "minari", "rosbags", "rclpy", "ogbench")
NAMES = {"rql": "Reversal Q-Learning", "bc_flow": "BC flow (imitation)", "demonstrator": "Demonstrator (the data)"}


def write_report(demo: Demo) -> None:
    """Write result.json and report.html, each beside its place and then renamed."""
    evaluations = {name: read_evaluation(demo.evaluation(name)) for name in NAMES}
    result = _result(demo, evaluations)
    write_whole(demo.out / "result.json", json.dumps(result, indent=2))
    write_whole(demo.out / "report.html", _page(demo, result, evaluations))
    for name, evaluation in evaluations.items():
        print(evaluation.summary().replace(evaluation.controller, f"  {NAMES[name]}", 1), flush=True)


def _result(demo: Demo, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
    settings = demo.settings
    conversion = json.loads((demo.dataset / "report.json").read_text(encoding="utf-8"))
    return {
        **{name: evaluation.statistics() for name, evaluation in evaluations.items()},
        "seconds": demo.seconds(),
        "bags": [{"name": Path(bag["path"]).name, "steps": bag["steps"]} for bag in conversion["bags"]],
        "steps": sum(bag["steps"] for bag in conversion["bags"]),
        "robot": settings.robot,
        "seeds": {
            "data": settings.seed,
            "training": load_train_config(config_file("train", settings.rql_config)).seed,
            "evaluation": [settings.first_seed, settings.first_seed + settings.evaluation_episodes - 1],
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _page(demo: Demo, result: dict[str, Any], evaluations: dict[str, Evaluation]) -> str:
    paths = _image(tool_paths(demo, evaluations))
    curves = _image(learning_curves({name: demo.run(name) / "metrics.jsonl" for name in ("rql", "bc_flow")}))
    try:
        film = f'<img alt="An episode of the learned policy" src="data:image/gif;base64,{_base64(video(demo))}">'
    except RqlError as error:
        film = f"<p>No video on this machine: {html.escape(str(error))}</p>"
    rows = "".join(
        f"<tr><td>{NAMES[name]}</td><td>{stats['success']:.2f}</td><td>{stats['low']:.2f} to {stats['high']:.2f}</td>"
        f"<td>{stats['episodes']}</td><td>{stats['mean_steps']:.0f}</td></tr>"
        for name, stats in ((name, result[name]) for name in NAMES)
    )
    times = result["seconds"].items()
    seconds = "".join(f"<tr><td>{stage}</td><td>{value:.0f} s</td></tr>" for stage, value in times)
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    bags = "".join(f"<tr><td>{html.escape(bag['name'])}</td><td>{bag['steps']}</td></tr>" for bag in result["bags"])
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>rql_ros demonstration: {demo.settings.robot}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
td, th {{ border-bottom: 1px solid #ccc; padding: .3rem .9rem .3rem 0; text-align: left; }}
img {{ max-width: 100%; }}
.columns {{ display: flex; gap: 3rem; flex-wrap: wrap; }}
</style></head><body>
<h1>Better than its data</h1>
<p>A scripted demonstrator played a simulated {html.escape(demo.settings.robot)} over ROS 2 topics, walking from
way-point to way-point of a ring round a post in random directions. {result["steps"]:,} control steps were
recorded as rosbag2, converted to a dataset, and learned from offline. Each policy then drove the robot over ROS, from
the same {result["rql"]["episodes"]} starts, to the other side of the ring.</p>
<table><tr><th>Controller</th><th>Success</th><th>95 % interval (Wilson)</th><th>Episodes</th><th>Mean steps</th></tr>
{rows}</table>
{film}
<h2>Where the tool went</h2>{paths}
<h2>Learning curves</h2>{curves}
<div class="columns"><div><h2>Wall time</h2><table>{seconds}</table></div>
<div><h2>Bags</h2><table><tr><th>Bag</th><th>Steps</th></tr>{bags}</table></div></div>
<p>{html.escape(versions)}. Seeds: {html.escape(json.dumps(result["seeds"]))}.</p>
</body></html>
"""


def _image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img alt="" src="data:image/png;base64,{_base64(buffer.getvalue())}">'


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
