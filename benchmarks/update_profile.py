"""Where the time of an update goes, by kind of operation, in the product and in the plain reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.update_setting import Setting
from benchmarks.update_timing import WARM_UPS, Work, plain_update, product_update

# Of so many profiled updates the fastest is shown: the profiler makes operations slower, a busy machine much slower.
PROFILED_UPDATES = 10

GROUPS = ("matrix products", "GELU", "LayerNorm", "elementwise and sums", "copies", "Adam and averages", "other")
MATRIX = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv"}
GELU = {"gelu", "gelu_backward", "tanh", "tanh_backward", "sigmoid"}
LAYER_NORM = {"native_layer_norm", "native_layer_norm_backward"}
COPIES = {"copy", "cat", "fill", "zero"}
ELEMENTWISE = {"add", "sub", "rsub", "mul", "div", "neg", "abs", "pow", "addcmul", "clamp", "clamp_min", "clamp_max"}
SUMS = {"sum", "mean", "std", "std_mean", "where", "lt", "gt", "ge", "le", "cummin", "minimum", "maximum"}


def group_of(event: Any, setting: Setting) -> str:
    """Return which of ``GROUPS`` a profiler's event belongs to."""
    ancestor = event
    while ancestor is not None:
        if ancestor.name.startswith("Optimizer.step"):
            return "Adam and averages"
        ancestor = ancestor.cpu_parent
    name = event.name.removeprefix("aten::").removesuffix("_")
    if name == "lerp":
        return "Adam and averages"
    if name in MATRIX:
        return "matrix products"
    if name in COPIES:
        return "copies"
    if name in ELEMENTWISE:
        # Where they are written out, GELU and LayerNorm are known by what they work on: an activation of one network,
        # and of all critics at once. Nothing else is as wide.
        shapes = {tuple(shape) for shape in event.input_shapes}
        if (setting.batch, setting.width) in shapes:
            return "GELU"
        return "LayerNorm" if (setting.critics, setting.batch, setting.width) in shapes else "elementwise and sums"
    if name in GELU:
        return "GELU"
    if name in LAYER_NORM:
        return "LayerNorm"
    return "elementwise and sums" if name in SUMS else "other"


def grouped(events: Iterable[Any], setting: Setting) -> dict[str, float]:
    """Return milliseconds of self CPU time by group."""
    milliseconds = dict.fromkeys(GROUPS, 0.0)
    for event in events:
        milliseconds[group_of(event, setting)] += event.self_cpu_time_total * 1e-3
    return milliseconds


def profiled(update: Work, setting: Setting) -> dict[str, float]:
    """Return the same of the fastest of several updates; ``other`` holds all Python in between."""
    for _ in range(WARM_UPS):
        update()
    profiles = []
    for _ in range(PROFILED_UPDATES):
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler, record_function("update"):
            update()
        profiles.append(grouped(profiler.events() or (), setting))
    return min(profiles, key=lambda groups: sum(groups.values()))


def profiles(setting: Setting) -> dict[str, dict[str, float]]:
    """Return the plain reference's and the product's profile."""
    return {
        "plain eager": profiled(plain_update(setting), setting),
        "product": profiled(product_update(setting), setting),
    }


def table(measured: Mapping[str, Mapping[str, float]]) -> str:
    """Return profiles as a Markdown table."""
    lines = [
        "| self CPU time of an update, ms | " + " | ".join(measured) + " |",
        "|---|" + "---:|" * len(measured),
    ]
    totals = [sum(groups.values()) for groups in measured.values()]
    for group in GROUPS:
        cells = [
            f"{groups[group]:.1f} ({groups[group] / total:.0%})"
            for groups, total in zip(measured.values(), totals, strict=True)
        ]
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    lines.append("| all | " + " | ".join(f"{total:.1f}" for total in totals) + " |")
    return "\n".join(lines)
