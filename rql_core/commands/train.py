"""`rql train`: data to a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from rql_core.errors import ConfigError

if TYPE_CHECKING:
    from rql_core.training import Policy, TrainConfig

# The published protocol; a simulated arm is evaluated more often, for its learning curve, by fewer.
ENVIRONMENT_EPISODES = 50
WORLD_EPISODES = 20


@dataclass(frozen=True)
class Train:
    """Train a policy from a dataset that `rql convert` or `rql generate` made, or from OGBench's files.

    Examples: rql train datasets/ur5e-v0 --config ur5e_rql --out runs/rql
              rql train --preset puzzle-3x3 --task 1 --seed 0
              rql train datasets/ur5e-v0 --config ur5e_rql --set algorithm.alpha=3 updates=8000 --out runs/alpha3
              rql train --preset puzzle-3x3 --task 1 --seeds 0-7 --cuda-graphs --precision tf32
    """

    config: Annotated[str, arg(aliases=["--preset"])]
    """A training configuration file, or the name of one that comes with the project (ur5e_rql, puzzle-3x3, ...)."""
    dataset: Annotated[Positional[Path | None], arg(metavar="[DATASET]")] = None
    """Dataset directory, OGBench .npz file, or directory of a 100M set's files. Default: the preset's data below
    ~/.ogbench/data."""
    out: Path | None = None
    """Run directory; the newest checkpoint is RUN/checkpoint. Default for a preset: runs/PRESET-taskT-FORM-seedS."""
    resume: bool = False
    """Go on with the run that is there, exactly where its newest checkpoint left off."""
    task: int | None = None
    """Task of the preset's environment, 1 to 5."""
    form: Literal["corrected", "paper"] | None = None
    """The published update, or the one with its mistakes put right; instead of the configuration's."""
    updates: int | None = None
    """Updates to make in all, instead of the configuration's."""
    seed: int | None = None
    """Seed, instead of the configuration's."""
    seeds: str | None = None
    """Several seeds (0-7, or 0,2,5) as one batched model on one device; the run of seed N goes to OUT-seedN, as if it
    had been trained alone."""
    device: str | None = None
    """torch device, instead of the configuration's; auto takes a GPU where there is one."""
    precision: Literal["float32", "tf32", "bf16"] | None = None
    """How matrix products are computed; weights and losses stay float32. tf32: GPUs; bf16: GPUs, CPUs with AMX."""
    compile: Annotated[bool, arg(name="compile")] = False
    """Let torch.compile make one program of an update; takes a minute to begin with."""
    cuda_graphs: bool = False
    """Capture whole updates on a GPU and launch several at a time."""
    settings: Annotated[tuple[str, ...], arg(name="set", metavar="KEY=VALUE ...")] = field(default=())
    """Other settings of the configuration to change, e.g. algorithm.alpha=3 evaluate_every=0."""
    threads: int | None = None
    """CPU threads of torch; default: torch's own choice."""
    world: Literal["planar_arm", "ur5e_ring"] | None = None
    """Simulated world to evaluate in during training, every `evaluate_every` updates of the configuration."""
    episodes: int | None = None
    """Episodes of such an evaluation; default 20, or 50 for a preset's environment (the published protocol)."""
    workers: int = 1
    """Processes that run an environment's episodes."""

    def run(self) -> None:
        """Train to the end and say where the checkpoint is."""
        import torch

        from rql_core.opening import open_data
        from rql_core.training import train_seeds

        if self.threads is not None:
            if self.threads < 1:
                raise ConfigError(f"threads is {self.threads}, expected at least 1")
            torch.set_num_threads(self.threads)
        config = self._config()
        data, contract_text = open_data(self.dataset, config.environment, config.dataset, config.rewards, progress=True)
        evaluation = self._evaluation(config, contract_text)
        results = train_seeds(data, config, self._runs(config), contract_text, evaluation, self.resume)
        for result in results.values():
            print(f"{config.algorithm.algorithm}: {result.step} updates, checkpoint {result.checkpoint}")

    def _config(self) -> TrainConfig:
        from rql_core.resources import config_file
        from rql_core.training.config_file import load_train_config, parse_settings

        overrides = {
            "updates": self.updates,
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
            "compile": self.compile or None,
            "cuda_graphs": self.cuda_graphs or None,
            "algorithm.form": self.form,
            **parse_settings(self.settings),
        }
        return load_train_config(config_file("train", self.config), overrides, task=self.task)

    def _runs(self, config: TrainConfig) -> dict[int, Path]:
        """The run directory of each seed."""
        if self.seeds is not None and self.seed is not None:
            raise ConfigError(f"seed is {self.seed} and seeds is {self.seeds}: give one of them")
        seeds = [config.seed] if self.seeds is None else parse_seeds(self.seeds)
        if self.out is not None:
            return {
                seed: self.out if self.seeds is None else self.out.with_name(f"{self.out.name}-seed{seed}")
                for seed in seeds
            }
        if config.environment is None:
            raise ConfigError("out is not given: say with --out where the run goes, e.g. --out runs/rql")
        task = "" if self.task is None else f"-task{self.task}"
        name = f"{Path(self.config).stem}{task}-{config.algorithm.form}"
        return {seed: Path("runs") / f"{name}-seed{seed}" for seed in seeds}

    def _evaluation(
        self, config: TrainConfig, contract_text: str | None
    ) -> Callable[[Policy], dict[str, float]] | None:
        if self.world is not None:
            if contract_text is None:
                raise ConfigError(f"world is {self.world}, but the dataset has no contract that says how to drive it")
            from rql_core.contract import parse_contract
            from rql_core.evaluation.rollout import training_evaluation

            contract = parse_contract(contract_text, str(self.dataset))
            return training_evaluation(contract, self.world, WORLD_EPISODES if self.episodes is None else self.episodes)
        if config.environment is None or contract_text is not None or config.evaluate_every == 0:
            return None
        from rql_core.evaluation.environment import training_evaluation_environment

        episodes = ENVIRONMENT_EPISODES if self.episodes is None else self.episodes
        return training_evaluation_environment(config.environment, episodes, workers=self.workers)


def parse_seeds(text: str) -> list[int]:
    """The seeds in `0-7` or `0,2,5-6`; raises ConfigError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ConfigError(f"seeds is {text!r}, expected such as 0-7 or 0,2,5")
        seeds.extend(range(int(first), int(last if dash else first) + 1))
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds is {text!r}, which names a seed twice")
    return seeds
