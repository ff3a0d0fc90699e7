"""Labels a dataset's episodes with another reward, without the bags that they came from.

Observations and actions stay as they are. Where the contract ends episodes at success, an episode ends where the new
rule is first met, and what only a time limit had cut off behind it is left out, as when bags are converted. One that
the old rule had ended cannot go on, and is then truncated instead of terminal. An end that the contract calls terminal
for another reason, such as a reset, is as terminal as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from rql_core.bags.episodes import TIME_LIMIT, Episode
from rql_core.bags.relabel_report import RelabelReport
from rql_core.bags.report import DroppedEpisode, Relabelling
from rql_core.bags.report_page import report_files
from rql_core.contract import Contract, RewardRule, parse_contract, read_contract_text
from rql_core.contract.reward_schema import Reward
from rql_core.contract.reward_signals import StepSignals
from rql_core.contract.rewrite import with_reward
from rql_core.contract.time import tick_at_or_after, tick_time
from rql_core.data.minari_io import DatasetWriter, dataset_directory, read_metadata
from rql_core.errors import ConfigError, ContractError, DatasetError
from rql_core.resources import config_file

# What of the old dataset says where its numbers come from, and stays true.
_KEPT = ("source_bags", "bad_bags", "skipped_bags", "inputs_sha256", "software", "fragments", "made_by", "settings")


@dataclass(frozen=True)
class Relabelled:
    """What became of a dataset: `changed_steps` have another reward or mask than before."""

    path: Path
    episodes: int
    steps: int
    changed_steps: int
    solved_steps: int
    episodes_with_success: int
    dropped_episodes: int
    dropped_steps: int
    lowest_return: float
    mean_return: float
    highest_return: float


def new_reward(contract: Contract, reward: str, success: str | None = None) -> Reward:
    """The reward that `reward` means for `contract`: that of a contract file, or an expression over features.

    An expression leaves success as the contract has it; `success`, an expression too, replaces it in either case. What
    the contract takes from a topic may stay as it is, but no topic can come in.
    Raises ContractError or ConfigError.
    """
    other = _contract_file(reward)
    if other is None:
        value: dict[str, Any] = {"value": {"rule": "expression", "expression": reward}}
        data = {"success": contract.reward.success.model_dump(exclude_unset=True), **value}
    else:
        theirs = parse_contract(read_contract_text(other), str(other))
        if theirs.observation_names != contract.observation_names:
            odd = sorted(set(theirs.observation_names) ^ set(contract.observation_names)) or ["their order"]
            raise ContractError(
                f"{other}: its features are not those of the dataset ({', '.join(odd[:4])}); "
                "relabelling needs the same ones: convert the bags by it instead"
            )
        data = theirs.reward.model_dump(exclude_unset=True)
    if success is not None:
        data["success"] = {"rule": "expression", "expression": success}
    try:
        made = Reward.model_validate(data)
        made.check([feature.name for feature in contract.features], contract.observation_names)
    except ValidationError as error:
        raise ContractError(f"reward: {error.errors(include_url=False)[0]['msg']}") from None
    except ValueError as error:
        raise ContractError(str(error)) from None
    for rule in made.topics:
        if rule not in contract.reward.topics:
            raise ContractError(
                f"reward: comes from topic {rule.topic}, which a dataset does not keep; "
                "convert the bags by this contract instead"
            )
    return made


def relabel(
    source: Path | str, reward: str, out: Path | str, *, success: str | None = None, overwrite: bool = False
) -> Relabelled:
    """Write dataset `source` with rewards and masks by `reward` (see new_reward) to the dataset `out`, with a report.

    Raises DatasetError, ContractError or ConfigError; then nothing is left at `out`.
    """
    path = dataset_directory(source)
    if dataset_directory(out) == path:
        raise ConfigError(f"{out}: is the dataset itself; give the new one another version number")
    metadata = read_metadata(path)
    old_text = metadata.get("contract")
    if not isinstance(old_text, str):
        raise DatasetError(f"{path}: metadata.json has no contract; make the dataset with rql convert")
    text = with_reward(old_text, new_reward(parse_contract(old_text, f"{path}: contract"), reward, success))
    contract = parse_contract(text)
    with DatasetWriter(out, text, overwrite=overwrite) as writer:
        counts = _Counts()
        report = RelabelReport(path, metadata, contract)
        for index, (episode, origin) in enumerate(_episodes(path)):
            _relabel_episode(f"{path}: episode {index}", episode, origin, contract, writer, counts, report)
        if not writer.episodes:
            raise DatasetError(f"{path}: no episode is left of min_steps {contract.episodes.min_steps} by this reward")
        parent = str(metadata.get("dataset_id", path.name))
        given = reward if success is None else f"{reward}; success {success}"
        label = {
            "parent": parent,
            "parent_content_sha256": metadata.get("content_sha256"),
            "parent_contract_sha256": hashlib.sha256(old_text.encode()).hexdigest(),
            "given": given,
            "reward": contract.reward.model_dump(mode="json", exclude_none=True),
            "dropped_episodes": counts.dropped,
            "dropped_steps": counts.dropped_steps,
        }
        kept = {key: metadata[key] for key in _KEPT if key in metadata}
        returns = counts.returns
        mean = sum(returns) / len(returns)
        made = report.report(
            writer.path.name,
            hashlib.sha256(text.encode()).hexdigest(),
            writer.content_sha256,
            Relabelling(
                parent=parent,
                parent_content_sha256=str(metadata.get("content_sha256", "")),
                given=given,
                changed_steps=counts.changed,
                mean_return_before=sum(counts.old_returns) / len(counts.old_returns),
                mean_return=mean,
                dropped_episodes=counts.dropped,
                dropped_steps=counts.dropped_steps,
            ),
        )
        writer.finish({**kept, "labels": [*metadata.get("labels", []), label]}, report_files(made))
        return Relabelled(
            path=writer.path,
            episodes=writer.episodes,
            steps=writer.steps,
            changed_steps=counts.changed,
            solved_steps=counts.solved,
            episodes_with_success=counts.successes,
            dropped_episodes=counts.dropped,
            dropped_steps=counts.dropped_steps,
            lowest_return=min(returns),
            mean_return=mean,
            highest_return=max(returns),
        )


class _Counts:
    def __init__(self) -> None:
        self.changed = self.solved = self.successes = self.dropped = self.dropped_steps = 0
        self.returns: list[float] = []
        self.old_returns: list[float] = []
        # Bag and time at which goes on, past a time limit, what the new rule has solved before.
        self.solved_until: tuple[str, int] | None = None


def _relabel_episode(
    where: str,
    episode: dict[str, Any],
    origin: dict[str, Any],
    contract: Contract,
    writer: DatasetWriter,
    counts: _Counts,
    report: RelabelReport,
) -> None:
    observations = np.ascontiguousarray(episode["observations"], dtype=np.float32)
    old_rewards = np.asarray(episode["rewards"], dtype=np.float64)
    infos = episode.get("infos") or {}
    old_masks = np.asarray(infos["mask"] if "mask" in infos else 1.0 - episode["terminations"], dtype=np.float32)
    counts.old_returns.append(float(old_rewards.sum()))
    bag, start = str(origin.get("bag", "")), int(origin.get("start_ns", 0))
    limited = None
    if origin.get("cut") == TIME_LIMIT and "end_ns" in origin:  # which a fragment does not have
        limited = bag, int(origin["end_ns"])
    after_success = counts.solved_until == (bag, start)
    counts.solved_until = limited if after_success else None
    if after_success:
        steps = len(old_masks)
        counts.dropped += 1
        counts.dropped_steps += steps
        why = "after a success, before the next boundary"
        report.drop(bag, DroppedEpisode(start, int(origin["end_ns"]), steps, str(origin["cut"]), why))
        return
    # The last mask is 0 then without a success, unless the step was one of those that solved the task.
    ended = bool(episode["terminations"][-1]) and not _ended_by_success(contract, origin)
    solved = old_masks == 0
    solved[-1] &= not ended or int(solved.sum()) <= int(origin.get("solved_steps", 0))
    try:
        # What topics had said is what the labels say now.
        rewards, masks = RewardRule(contract).label(observations, StepSignals(old_rewards, solved))
    except ContractError as error:
        raise DatasetError(f"{where}, {error}") from None
    steps, terminal = len(masks), ended
    if contract.episodes.at_success == "end" and not masks.all():
        steps, terminal = int(np.argmin(masks)) + 1, True
        counts.dropped_steps += len(masks) - steps
        counts.solved_until = limited
        if steps < len(masks) and "start_ns" in origin:
            first = tick_at_or_after(int(origin["start_ns"]), contract.rate_fraction)
            origin["end_ns"] = tick_time(first + steps, contract.rate_fraction)
        origin["cut"] = "success"
        if steps < contract.episodes.min_steps:
            counts.dropped += 1
            counts.dropped_steps += steps
            end = int(origin.get("end_ns", start + steps * contract.period_ns))
            why = f"shorter than min_steps {contract.episodes.min_steps}"
            report.drop(bag, DroppedEpisode(start, end, steps, "success", why))
            return
    origin["solved_steps"] = solved_steps = int((masks[:steps] == 0).sum())
    if terminal:
        masks[steps - 1] = 0.0
    same = (old_rewards[:steps] == rewards[:steps]) & (old_masks[:steps] == masks[:steps])
    counts.changed += int((~same).sum())
    counts.solved += solved_steps
    counts.successes += solved_steps > 0
    counts.returns.append(float(rewards[:steps].sum(dtype=np.float64)))
    kept = Episode(
        observations=observations[: steps + 1],
        actions=np.ascontiguousarray(episode["actions"][:steps]),
        rewards=rewards[:steps],
        masks=masks[:steps],
        terminal=terminal,
        start_ns=start,
        end_ns=int(origin.get("end_ns", start + steps * contract.period_ns)),
        cut=str(origin.get("cut", "end of episode")),
        solved_steps=solved_steps,
    )
    writer.add(kept.observations, kept.actions, kept.rewards, kept.masks, terminal=terminal, origin=origin)
    report.add(bag, kept)


def _ended_by_success(contract: Contract, origin: dict[str, Any]) -> bool:
    """Whether an episode that is terminal is so because the task was solved; parts of episodes do not say."""
    return contract.episodes.at_success == "end" and origin.get("cut", "success") == "success"


def _episodes(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each episode's arrays, and what its metadata says about where it comes from, one at a time."""
    from minari.dataset.minari_storage import MinariStorage

    try:
        storage = MinariStorage.read(path / "data")
        for index in range(storage.total_episodes):
            episode = next(iter(storage.get_episodes([index])))
            about = next(iter(storage.get_episode_metadata([index])))
            yield dict(episode), {key: _plain(value) for key, value in about.items() if key not in _MINARI_KEYS}
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        # What h5py and Minari raise on a file that is cut, or that has another layout.
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise DatasetError(f"{path}: data cannot be read ({detail}); copy or convert it again") from None


_MINARI_KEYS = frozenset({"id", "total_steps", "seed", "options"})


def _plain(value: Any) -> str | int:
    """HDF5 gives numpy's numbers back."""
    return int(value) if isinstance(value, np.integer) else str(value)


def _contract_file(reward: str) -> Path | None:
    try:
        return config_file("contracts", reward)
    except ConfigError:
        if reward.endswith((".yaml", ".yml")):
            raise
        return None
