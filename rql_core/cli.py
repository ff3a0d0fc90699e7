"""The command `rql`: one sub-command for each step from bags to a policy that was proven.

Errors that a user can act on are printed in one line and end with status 1; wrong usage ends with status 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitSubcommandPrefixes, Positional, arg

from rql_core.errors import ConfigError, RqlError


@dataclass(frozen=True)
class Convert:
    """Turn rosbag2 recordings into a Minari dataset, by a contract.

    Example: rql convert recordings/ --contract ur5e --out datasets/ur5e-v0
    """

    bags: Positional[list[Path]]
    """Bag directories, directories of bags, or loose .mcap and .db3 files."""
    contract: str
    """A contract file, or the name of one that comes with the project (ur5e, planar_arm)."""
    out: Path
    """Dataset directory to write; its name must end in -v0, -v1, ... as Minari's do."""
    overwrite: bool = False
    """Replace a dataset that is there."""

    def run(self) -> None:
        """Convert and print the report."""
        from rql_core.bags.convert import convert
        from rql_core.resources import config_file

        report = convert(self.bags, config_file("contracts", self.contract), self.out, overwrite=self.overwrite)
        print(report.text())


@dataclass(frozen=True)
class Recover:
    """Make a readable bag of one whose recorder was killed: whole messages are kept, the cut one is left out."""

    source: Positional[Path]
    """The unfinished bag."""
    destination: Positional[Path]
    """Where the readable copy goes."""

    def run(self) -> None:
        """Recover and say what was kept."""
        from rql_core.bags.recover import recover_bag

        print(recover_bag(self.source, self.destination))


@dataclass(frozen=True)
class Train:
    """Train a policy from a dataset that `rql convert` made.

    Example: rql train datasets/ur5e-v0 --config ur5e_rql --out runs/rql
    """

    dataset: Positional[Path]
    """Dataset directory."""
    config: str
    """A training configuration file, or the name of one that comes with the project (ur5e_rql, ur5e_bc_flow, ...)."""
    out: Path
    """Run directory; the newest checkpoint is RUN/checkpoint."""
    resume: bool = False
    """Go on with the run that is there, exactly where its newest checkpoint left off."""
    updates: int | None = None
    """Updates to make in all, instead of the configuration's."""
    seed: int | None = None
    """Seed, instead of the configuration's."""
    device: str | None = None
    """torch device, instead of the configuration's; auto takes a GPU where there is one."""
    threads: int | None = None
    """CPU threads of torch; default: torch's own choice."""
    world: Literal["planar_arm", "ur5e_ring"] | None = None
    """Simulated world to evaluate in during training, every `evaluate_every` updates of the configuration."""
    episodes: int = 20
    """Episodes of such an evaluation."""

    def run(self) -> None:
        """Train to the end and say where the checkpoint is."""
        import torch

        from rql_core.data.minari_io import load_dataset
        from rql_core.resources import config_file
        from rql_core.training import train
        from rql_core.training.config_file import load_train_config

        if self.threads is not None:
            if self.threads < 1:
                raise ConfigError(f"threads is {self.threads}, expected at least 1")
            torch.set_num_threads(self.threads)
        overrides = {"updates": self.updates, "seed": self.seed, "device": self.device}
        config = load_train_config(config_file("train", self.config), overrides)
        trajectories, contract_text, _ = load_dataset(self.dataset)
        evaluate = None
        if self.world is not None:
            from rql_core.contract import parse_contract
            from rql_core.evaluation.rollout import training_evaluation

            evaluate = training_evaluation(parse_contract(contract_text, str(self.dataset)), self.world, self.episodes)
        result = train(trajectories, config, self.out, contract_text, evaluate, self.resume)
        print(f"{config.algorithm.algorithm}: {result.step} updates, checkpoint {result.checkpoint}")


@dataclass(frozen=True)
class Evaluate:
    """Run episodes with a checkpoint in a simulated world, in this process, without ROS.

    Gives the same successes for the same seeds as the evaluator node does over ROS in lockstep.

    Example: rql evaluate runs/rql/checkpoint --world ur5e_ring --episodes 50
    """

    checkpoint: Positional[Path]
    """Checkpoint directory."""
    world: Literal["planar_arm", "ur5e_ring"]
    """Simulated world."""
    episodes: int = 50
    """Number of episodes."""
    first_seed: int = 0
    """Seed of the first episode; then counted up."""
    replan_every: int = 0
    """Steps between plans; 0: the whole chunk."""
    out: Path | None = None
    """JSON file for the results."""

    def run(self) -> None:
        """Evaluate, print one line, write the file."""
        from rql_core.evaluation.results import write_evaluation
        from rql_core.evaluation.rollout import check_episodes, contract_session, evaluate
        from rql_core.runtime.policy import DeployedPolicy

        check_episodes(self.episodes, self.first_seed)
        policy = DeployedPolicy.load(self.checkpoint, threads=1)
        session = contract_session(policy.contract, self.world, execute_steps=self.replan_every)
        result = evaluate(
            session,
            policy,
            range(self.first_seed, self.first_seed + self.episodes),
            controller=policy.algorithm,
            replan_every=self.replan_every,
            feature=policy.contract.reward.success.feature,
            progress=True,
        )
        print(result.summary())
        if self.out is not None:
            write_evaluation(result, self.out)


@dataclass(frozen=True)
class CheckContract:
    """Check a contract file and print what it means."""

    file: Positional[str]
    """A contract file, or the name of one that comes with the project."""

    def run(self) -> None:
        """Print observation and action, number by number."""
        from rql_core.contract import load_contract
        from rql_core.resources import config_file

        contract = load_contract(config_file("contracts", self.file))
        print(f"{contract.name}: {contract.rate:g} Hz, clock {contract.clock}")
        for index, name in enumerate(contract.observation_names):
            print(f"  observation[{index}]  {name}")
        for index, feature in enumerate(contract.action.features):
            print(f"  action[{index}]  {feature.name}  {feature.lower} to {feature.upper} {contract.action.unit}")


@dataclass(frozen=True)
class Demo:
    """The whole path on a simulated UR5e: record over ROS, convert, train, evaluate over ROS, report.

    Needs rclpy (the requirements install it). Stages that are done are skipped, and a killed demo goes on where it was.
    """

    out: Path = Path("build/demo")
    """Where everything goes."""
    start: Annotated[Literal["record", "convert", "train", "evaluate", "report"] | None, arg(name="from")] = None
    """Do this stage and those after it again."""
    fresh: bool = False
    """Start from nothing."""
    robot: Literal["ur5e", "planar_arm"] = "ur5e"
    """Which simulated robot; planar_arm is the small one of the tests."""

    def run(self) -> None:
        """Run the stages that are not done."""
        from rql_core.demo.stages import run_demo

        run_demo(self.out, self.robot, start=self.start, fresh=self.fresh)


COMMANDS: dict[str, Callable[..., Any]] = {
    "convert": Convert,
    "recover": Recover,
    "train": Train,
    "evaluate": Evaluate,
    "check-contract": CheckContract,
    "demo": Demo,
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `rql`; returns the exit status."""
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="rql",
        description="From recorded bags to a policy that is better than the data.",
        args=arguments,
        config=(OmitSubcommandPrefixes,),
    )
    try:
        command.run()
    except RqlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: this command needs the package {error.name!r}; see requirements/", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
