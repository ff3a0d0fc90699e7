"""How long one training update takes: the product against plain PyTorch and against its own matrix products.

Before anything is timed, the product and plain PyTorch are shown to compute the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_update, update_profile
from benchmarks.gpu_update import gpu_figures
from benchmarks.update_figure import figure
from benchmarks.update_setting import SMALL, Setting, counted_flops, disagreement, flops, make_batch, make_product
from benchmarks.update_timing import (
    WARM_UPS,
    Timing,
    Work,
    alternate,
    as_milliseconds,
    bandwidth,
    machine,
    matrix_rates,
    part_subjects,
    plain_update,
    product_update,
    update_subjects,
)
from rql_core.progress import progress_bar

OUT = Path("build/bench")
PUBLISHED = Setting()
# Each size is varied around the published settings, which all rows have in common.
SWEEPS: dict[str, tuple[int, ...]] = {
    "batch": (64, 128, 256, 512),
    "critics": (2, 5, 10, 20),
    "flow_steps": (1, 5, 10, 20),
    "width": (128, 256, 512, 1024),
}
# A point of a sweep is there to show a slope; a third of the repeats keeps all of them within two minutes.
SWEEP_SHARE, MIN_SWEEP_REPEATS = 3, 3

# What the table calls each kind of update.
NAMES = {
    "product": "this project",
    "product_plain_form": "this project, networks in plain operations",
    "plain_eager": "plain PyTorch",
    "bf16": "this project, matrix products in bfloat16",
}
# On an idle machine the middle half of the product's times spans 1 to 6 % of their median. Where it is wider
# than this share, something else was running, which slows operations on several threads tenfold and the two unequally.
QUIET = 0.1

Sweeps = dict[str, list[dict[str, float]]]


def sweep_settings(setting: Setting, sweeps: Mapping[str, Sequence[int]]) -> dict[str, list[Setting]]:
    """Return the settings of every sweep's points."""
    return {size: [replace(setting, **{size: value}) for value in values] for size, values in sweeps.items()}


def measure_sweeps(
    settings: Mapping[str, Sequence[Setting]],
    known: Mapping[Setting, dict[str, Timing]],
    repeats: int,
    rate: float,
    tick: Work,
) -> Sweeps:
    """Time the product and the plain reference at every setting that is not yet known, once if in several sweeps."""
    measured = dict(known)
    for setting in (setting for points in settings.values() for setting in points):
        if setting not in measured:
            subjects = {"product": product_update(setting), "plain_eager": plain_update(setting)}
            measured[setting] = alternate(subjects, repeats, after_turn=tick)
    return {
        size: [
            {
                "value": getattr(setting, size),
                "product_ms": measured[setting]["product"].median,
                "plain_eager_ms": measured[setting]["plain_eager"].median,
                "floor_ms": 1e3 * flops(setting) / rate,
            }
            for setting in points
        ]
        for size, points in settings.items()
    }


def ratios(updates: Mapping[str, Timing], floor_ms: float) -> dict[str, float]:
    """Return how many times faster the first is than the second: medians of ``x_to_y`` are y / x."""
    product = updates["product"].median
    compared = {
        "cpu_to_plain_eager": updates["plain_eager"].median / product,
        "cpu_to_plain_form": updates["product_plain_form"].median / product,
        "floor_to_cpu": product / floor_ms,
    }
    if "bf16" in updates:
        compared["bf16_to_plain_eager"] = updates["plain_eager"].median / updates["bf16"].median
        compared["bf16_to_cpu"] = product / updates["bf16"].median
    return compared


def measure(
    setting: Setting, repeats: int, sweeps: Mapping[str, Sequence[int]], gpu: torch.device | None = None
) -> dict[str, Any]:
    """Return everything that goes into the JSON file; a GPU's figures are of the published settings."""
    counted, expected = counted_flops(setting), flops(setting)
    if counted != expected:
        sys.exit(f"an update makes {counted:,} operations and not the {expected:,} of the formula: correct `flops`")
    points, sweep_repeats = sweep_settings(setting, sweeps), max(MIN_SWEEP_REPEATS, repeats // SWEEP_SHARE)
    others = {point for row in points.values() for point in row} - {setting}
    turns = 2 * (WARM_UPS + repeats) + len(others) * (WARM_UPS + sweep_repeats)
    with progress_bar(total=turns, unit="turn") as bar:
        bar.set_description("updates")
        updates = alternate(update_subjects(setting), repeats, after_turn=bar.update)
        bar.set_description("parts")
        algorithm, batch = make_product(setting), make_batch(setting)
        draws = algorithm.sample_draws(setting.batch, torch.Generator().manual_seed(0))
        parts = alternate(part_subjects(algorithm, batch, draws), repeats, after_turn=bar.update)
        bar.set_description("machine")
        rates = matrix_rates(setting)
        rate = max(rates.values())
        bytes_a_second = bandwidth()
        bar.set_description("sweeps")
        swept = measure_sweeps(points, {setting: updates}, sweep_repeats, rate, bar.update)
    floor_ms = 1e3 * expected / rate
    return {
        "ratios": ratios(updates, floor_ms),
        "ms": as_milliseconds(updates),
        "parts_ms": as_milliseconds(parts),
        "floor_ms": floor_ms,
        "flops": expected,
        "gflops_per_second": rate / 1e9,
        "matrix_gflops_per_second": {name: value / 1e9 for name, value in rates.items()},
        "copy_gigabytes_per_second": bytes_a_second / 1e9,
        "setting": asdict(setting),
        "repeats": repeats,
        "machine": machine(),
        "sweeps": swept,
        "gpu": None if gpu is None else gpu_figures(gpu),
    }


def disturbance(product: Mapping[str, float]) -> str | None:
    """Return a warning where the product's times are spread too widely to be told from other work's, or None."""
    share = product["interquartile_range"] / product["median"]
    if share <= QUIET:
        return None
    return (
        f"warning: the product's times have an interquartile range of {share:.0%} of their median: other work was "
        "running on this machine, and the ratios mean little; measure again when it is idle"
    )


def described(host: Mapping[str, Any]) -> str:
    """Return a machine's processor and how much of it was used."""
    return f"{host['cpu']}, {host['threads']} thread{'s' if host['threads'] > 1 else ''}"


def table(results: Mapping[str, Any]) -> str:
    """Return the figures of the published setting as Markdown."""
    host = results["machine"]
    product = results["ms"]["product"]["median"]
    lines = [
        f"{described(host)} of {host['cores']} cores, PyTorch {host['torch']}",
        "",
        "| one update | median, ms | least | interquartile range | times the product's |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, timing in results["ms"].items():
        lines.append(
            f"| {NAMES[name]} | {timing['median']:.1f} | {timing['minimum']:.1f} | "
            f"{timing['interquartile_range']:.1f} | {timing['median'] / product:.2f} |"
        )
    floor = results["floor_ms"]
    lines += [
        f"| floor: {results['flops'] / 1e9:.2f} GFLOP at {results['gflops_per_second']:.0f} GFLOP/s "
        f"| {floor:.1f} | | | {floor / product:.2f} |",
        "",
        "| part of the product's update | median, ms | share |",
        "|---|---:|---:|",
    ]
    parts = {name.replace("_", " "): timing["median"] for name, timing in results["parts_ms"].items()}
    lines += [f"| {name} | {value:.1f} | {value / product:.0%} |" for name, value in parts.items()]
    lines.append(f"| all parts | {sum(parts.values()):.1f} | {sum(parts.values()) / product:.0%} |")
    return "\n".join(lines)


def sweep_table(sweeps: Sweeps) -> str:
    """Return the sweeps as Markdown."""
    lines = ["| varied | value | this project, ms | plain PyTorch, ms | ratio | floor, ms |", "|---|" + "---:|" * 5]
    for size, rows in sweeps.items():
        for row in rows:
            product, plain = row["product_ms"], row["plain_eager_ms"]
            cells = f"{row['value']} | {product:.1f} | {plain:.1f} | {plain / product:.2f} | {row['floor_ms']:.1f}"
            lines.append(f"| {size.replace('_', ' ')} | {cells} |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_update",
        description=(
            "Time one RQL training update at the published sizes (4 x 512, 10 critics, 10 flow steps, batch 256, "
            "float32). First the product and a plain PyTorch update (benchmarks/plain_update.py) make the same updates "
            "in float64: where they differ, nothing is timed. Then both are timed in turns, beside the product's other "
            "forms and the time that its matrix products alone would take, and over four sizes."
        ),
        epilog=(
            "Examples: python -m benchmarks.bench_update                      # all of it, minutes on an idle machine\n"
            "          python -m benchmarks.bench_update --no-sweeps --repeats 5   # a quick look\n"
            "          python -m benchmarks.bench_update --profile            # where the time goes\n"
            "Other work on the machine shows as a large interquartile range: measure again, on an idle one."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, help="directory of update.json and update.png (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=30,
        help="timed turns of each subject; points of a sweep have a third as many (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, help="threads of PyTorch (default: what it chooses, mostly one a physical core)"
    )
    parser.add_argument(
        "--no-sweeps", action="store_true", help="the published sizes only: no sweeps in the file, and no picture"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="the CPU is always measured; `cuda` measures a GPU too, `auto` where there is one (default: %(default)s)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="print the time of an update by kind of operation, of both, instead of measuring and writing anything",
    )
    options = parser.parse_args(arguments)
    for name in ("repeats", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}, but at least 1 is needed")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but PyTorch sees no CUDA device: choose cpu or auto")
    return options


def main(
    arguments: Sequence[str] | None = None,
    setting: Setting = PUBLISHED,
    sweeps: Mapping[str, Sequence[int]] = SWEEPS,
    checked: Setting = SMALL,
) -> None:
    """Check, measure, print the tables, and write the file and the picture."""
    options = parse(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads or threads)
    try:
        _run(options, setting, {} if options.no_sweeps else sweeps, checked)
    finally:
        torch.set_num_threads(threads)


def _run(options: argparse.Namespace, setting: Setting, sweeps: Mapping[str, Sequence[int]], checked: Setting) -> None:
    difference = disagreement(checked)
    if difference is not None:
        sys.exit(f"nothing was timed: {difference}")
    if options.profile:
        print(update_profile.table(update_profile.profiles(setting)))
        return
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    results = measure(setting, options.repeats, sweeps, torch.device("cuda") if on_gpu else None)
    print(table(results))
    print(
        f"\n{gpu_update.table(results['gpu'])}"
        if on_gpu
        else "\nNo GPU was measured: PyTorch sees none, or --device cpu."
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "update.json").write_text(json.dumps(results, indent=2) + "\n")
    if sweeps:
        print(f"\n{sweep_table(results['sweeps'])}")
        picture = figure(results["sweeps"], asdict(setting), described(results["machine"]))
        picture.savefig(options.out / "update.png", dpi=150)
    print(f"\nWrote {options.out / 'update.json'}.", file=sys.stderr)
    warning = disturbance(results["ms"]["product"])
    if warning is not None:
        print(warning, file=sys.stderr)


if __name__ == "__main__":
    main()
