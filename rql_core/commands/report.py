"""`rql report`: what logs say of a checkpoint before anything moves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from rql_core.errors import ConfigError
from rql_core.whole_files import write_whole

if TYPE_CHECKING:
    from rql_core.algorithms import Acting
    from rql_core.contract import Contract
    from rql_core.data.trajectories import Trajectories
    from rql_core.evaluation.checks import Check
    from rql_core.evaluation.estimates import Estimates
    from rql_core.evaluation.estimates_page import Subject
    from rql_core.evaluation.off_policy import EstimateSettings
    from rql_core.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Report:
    """Say what logs tell of a checkpoint before anything moves: its value, its critics' errors, how far it strays.

    Prints each figure with what it means, warns where something looks wrong, and writes a page with pictures. The logs
    should be ones that it was not trained on.

    Example: rql report runs/rql/checkpoint datasets/ur5e-test-v0 --out report.html
    """

    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")]
    """Checkpoint directory."""
    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Dataset directory, or OGBench .npz file, as for `rql train`."""
    out: Path = Path("report.html")
    """HTML page to write; one file that needs nothing else."""
    json: Path | None = None
    """JSON file for the numbers and the checks."""
    updates: int = 4000
    """Updates of fitted Q evaluation; the page shows whether they were enough."""
    seed: int = 0
    """Determines every draw."""
    gamma: float | None = None
    """Discount of fitted Q evaluation. Default: the algorithm's own, or .99 where it has none."""
    samples: int | None = None
    """Let the policy act by the best of so many samples. Default: as the algorithm acts by itself."""
    rho: float | None = None
    """Samples are ranked by mean - rho * std over the critics."""
    flow_steps: int | None = None
    """Flow steps from noise to action. Default: as many as in training."""
    device: str = "cpu"
    """torch device."""
    threads: int | None = None
    """CPU threads of torch; default: torch's own choice."""

    def run(self) -> None:
        """Estimate, write, print."""
        import torch

        from rql_core.evaluation.checks import run_checks
        from rql_core.evaluation.estimates_page import report_page
        from rql_core.evaluation.logs import open_logs
        from rql_core.evaluation.off_policy import estimate

        if self.threads is not None:
            if self.threads < 1:
                raise ConfigError(f"threads is {self.threads}, expected at least 1")
            torch.set_num_threads(self.threads)
        for path in (self.out, self.json):
            _check_place(path)
        settings = self._settings()
        checkpoint = self._load()
        acting = self._acting(checkpoint)
        trajectories, contract = open_logs(checkpoint, self.dataset)
        estimates = estimate(
            checkpoint.policy, trajectories, checkpoint.config.reward_range, settings, acting=acting, progress=True
        )
        checks = run_checks(estimates)
        subject = self._subject(checkpoint, trajectories, contract)
        write_whole(self.out, report_page(estimates, checks, subject))
        if self.json is not None:
            write_whole(self.json, _as_json(estimates, checks, subject))
        print(_as_text(estimates, checks, subject))
        print(f"\nPictures and limits: {self.out}")

    def _settings(self) -> EstimateSettings:
        from rql_core.evaluation.fitted_q import FittedQSettings
        from rql_core.evaluation.off_policy import EstimateSettings

        return EstimateSettings(gamma=self.gamma, seed=self.seed, fitted_q=FittedQSettings(updates=self.updates))

    def _load(self) -> Checkpoint:
        from rql_core.errors import CheckpointError
        from rql_core.training.checkpoint import load_checkpoint

        try:
            return load_checkpoint(self.checkpoint, device=self.device)
        except (RuntimeError, AssertionError) as error:  # torch says both of a device that is not there
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{self.checkpoint}: cannot be loaded on device {self.device!r}: {reason}") from None

    def _acting(self, checkpoint: Checkpoint) -> Acting:
        from rql_core.acting import check_rho

        algorithm = checkpoint.policy.algorithm
        own: Acting = algorithm.default_acting
        acting = own.changed(samples=self.samples, rho=self.rho, flow_steps=self.flow_steps)
        if self.rho is not None:
            check_rho(self.rho, [acting])
        algorithm.check_acting(acting)
        return acting

    def _subject(self, checkpoint: Checkpoint, trajectories: Trajectories, contract: Contract | None) -> Subject:
        from rql_core.evaluation.estimates_page import Subject

        numbered = tuple(f"action[{index}]" for index in range(trajectories.action_dim))
        return Subject(
            checkpoint=str(self.checkpoint),
            step=checkpoint.manifest.step,
            dataset=str(self.dataset),
            episodes=trajectories.episodes,
            steps=trajectories.steps,
            horizon=checkpoint.policy.horizon,
            action_names=numbered if contract is None else tuple(contract.action.names),
            period=None if contract is None else contract.period_ns * 1e-9,
            seed=self.seed,
            updates=self.updates,
        )


def _as_text(estimates: Estimates, checks: Sequence[Check], subject: Subject) -> str:
    """A table of the figures, each with what it means, and what looks wrong."""
    from rql_core.evaluation.estimates import FIGURES

    lines = [
        f"{subject.checkpoint}: {estimates.algorithm} after {subject.step:,} updates",
        f"{subject.dataset}: {subject.episodes:,} episodes, {subject.steps:,} steps"
        + (", which it was trained on: new logs would show larger errors" if estimates.same_data else ""),
        f"discount {estimates.gamma:g}, possible returns {estimates.low:g} to {estimates.high:g}",
        "",
    ]
    for name, value in estimates.figures().items():
        figure = FIGURES[name]
        if value is not None:
            label = ("  " if figure.detail else "") + figure.label
            lines.append(f"{label:24}{figure.show(value):>9}  {figure.meaning.format(noises=estimates.noises)}")
    if estimates.own is None:
        lines.append("It has no critics of its own, so there are no figures of them.")
    failed = [check for check in checks if not check.holds]
    lines += ["", *(f"WARNING: {check.warning()}" for check in failed)]
    if not failed:
        lines.append(f"All {len(checks)} checks hold. That is no promise: run it in simulation first.")
    return "\n".join(lines)


def _as_json(estimates: Estimates, checks: Sequence[Check], subject: Subject) -> str:
    import json

    content: dict[str, Any] = {
        **asdict(subject),
        "algorithm": estimates.algorithm,
        "gamma": estimates.gamma,
        "possible_returns": [estimates.low, estimates.high],
        "trained_on_this": estimates.same_data,
        "figures": estimates.figures(),
        "curve": {"updates": estimates.curve_updates, "values": estimates.curve.tolist()},
        "checks": [asdict(check) for check in checks],
    }
    return json.dumps(content, indent=2)


def _check_place(path: Path | None) -> None:
    """Raise ConfigError for a place that no file can have, before anything is computed."""
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory; name the file to write")
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"{path}: cannot be written, as {parent} is no directory that may be written to")
