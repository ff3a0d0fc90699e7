"""A checkpoint at work: physical observation in, chunk of physical actions out, by the contract of its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rql_core.acting import Acting, GuideMethod
from rql_core.checkpoint_files import (
    CONTRACT,
    MANIFEST,
    STATISTICS,
    VALUES,
    ConfigFields,
    Manifest,
    PolicyConfig,
    ValueDistribution,
    read_config,
    read_contract_text,
    read_model,
    read_statistics,
    sha256,
    verify_files,
)
from rql_core.contract import ActionScale, Contract, check_publishable, parse_contract
from rql_core.errors import CheckpointError, ConfigError, ContractError
from rql_core.runtime.critic_monitor import CriticMonitor, ValueRange
from rql_core.runtime.plan import Guide, Plan

Backend = Literal["onnx", "torch"]


class Sampler(Protocol):
    """What makes chunks in [-1, 1]: ``rql_core.training.policy.Policy``, or an ``OnnxPolicy``."""

    @property
    def name(self) -> str:
        """The algorithm's name."""

    @property
    def horizon(self) -> int:
        """Steps in a chunk."""

    @property
    def is_flow(self) -> bool:
        """Whether a flow makes the chunks, which can be guided."""

    @property
    def default_acting(self) -> Acting:
        """How the algorithm acts unless it is told otherwise."""

    def check_acting(self, acting: Acting) -> None:
        """Raise ConfigError where the algorithm cannot act like that."""

    def sample(
        self,
        observations: npt.NDArray[np.float32],
        generator: np.random.Generator,
        acting: Acting | None = None,
        **guide: Any,
    ) -> npt.NDArray[np.float32]:
        """Return chunks (batch, horizon, action_dim) in [-1, 1] for observations in physical units."""

    def action_value(
        self, observations: npt.NDArray[np.float32], chunks: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return each critic's value (batch, critics) of doing chunks there; (batch, 0) without critics."""


class DeployedPolicy:
    """Acts like the policy that was evaluated in training, on the same random numbers for the same seed.

    Owned by one thread. `algorithm` is the algorithm's name, `contract` what the checkpoint was trained under.
    `with_values`: whether plans carry the critics' values. `guide_method`: how chunks are held to a guide. `sha256`: of
    the checkpoint's manifest, which has those of all other files; empty where it was not loaded from one.
    """

    def __init__(self, policy: Sampler, contract: Contract, acting: Acting | None = None) -> None:
        """Take a policy; ``acting`` None: as its algorithm acts by itself.  Raises ConfigError where it cannot."""
        self.contract = contract
        self.algorithm = policy.name
        self.with_values = False
        self.guide_method: GuideMethod = "jacobian"
        self._policy = policy
        self._scale = ActionScale(contract)
        self._generator = np.random.default_rng()
        # What nobody sees is made of random numbers of its own.
        self._in_vain = np.random.default_rng(0)
        self._usual: ValueRange | None = None
        self.backend: Backend = "torch"
        self.sha256 = ""
        self.set_acting(acting or policy.default_acting)

    def set_acting(self, acting: Acting) -> None:
        """Act like that from the next chunk on; raises ConfigError where the algorithm cannot."""
        self._policy.check_acting(acting)
        self.acting = acting

    @classmethod
    def load(
        cls,
        directory: Path | str,
        *,
        backend: Backend = "torch",
        device: str = "cpu",
        threads: int | None = None,
        acting: Acting | None = None,
    ) -> DeployedPolicy:
        """Read and verify a checkpoint directory; raises CheckpointError that names file and field.

        ``backend`` "onnx" needs no torch and runs on a CPU: what `rql export` wrote.  ``threads`` None is one for onnx,
        and for torch as many as it takes by itself.
        """
        directory = Path(directory)
        policy: Sampler
        config: ConfigFields[Any]
        if backend == "torch":
            from rql_core.runtime.torch_policy import load_torch_policy

            policy, config = load_torch_policy(directory, device, threads)
        elif backend == "onnx":
            from rql_core.runtime.onnx_policy import OnnxPolicy

            if device != "cpu":
                raise ConfigError(f"device is {device!r}, but backend onnx runs on the cpu: choose backend torch")
            manifest = verify_files(directory)
            config = sizes = read_config(directory, PolicyConfig, manifest)
            read_statistics(directory / STATISTICS, sizes.observation_dim)
            policy = OnnxPolicy.load(directory, sizes, manifest, threads)
        else:
            raise ConfigError(f"backend is {backend!r}: expected 'onnx' or 'torch'")
        deployed = cls(policy, _contract_of(directory, config), acting)
        deployed.backend = backend
        deployed.sha256 = sha256((directory / MANIFEST).read_bytes())
        deployed._usual = _usual_values(directory)
        return deployed

    @property
    def default_acting(self) -> Acting:
        """How the algorithm acts unless it is told otherwise."""
        return self._policy.default_acting

    def check_acting(self, acting: Acting) -> None:
        """Raise ConfigError where the algorithm cannot act like that."""
        self._policy.check_acting(acting)

    def make_monitor(self) -> CriticMonitor | None:
        """A monitor of plans by the values over the training data; None where there are no critics or no values."""
        return None if self._usual is None else CriticMonitor(self._usual)

    @property
    def takes_guide(self) -> bool:
        """Whether chunks can be held to a guide."""
        return self._policy.is_flow

    @property
    def horizon(self) -> int:
        """Steps of a chunk."""
        return self._policy.horizon

    def reset(self, seed: int | None) -> None:
        """Start an episode; the same seed and observations give the same chunks."""
        self._generator = np.random.default_rng(seed)

    def act(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Observation (observation_dim,) float32 in physical units -> chunk (horizon, action_dim) in physical units."""
        return self._plan(observation, self._generator, None).actions

    def plan(self, observation: npt.NDArray[np.float32], guide: Guide | None = None) -> Plan:
        """Plan as ``act`` does, held to a guide if there is one; with the critics' values if ``with_values``."""
        return self._plan(observation, self._generator, guide)

    def values(
        self, observation: npt.NDArray[np.float32], actions: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float32] | None:
        """Return each critic's value (critics,) of a chunk (horizon, action_dim) in physical units; None without.

        What ``plan`` gives with ``with_values``, but it can be asked for once the chunk has left, and from another
        thread than the one that plans.
        """
        values = self._policy.action_value(observation[None], self._scale.normalise(actions)[None])[0]
        return values if len(values) else None

    def warm_up(self) -> None:
        """Act twice on a made-up observation, so that the first real one is not the slow one."""
        for _ in range(2):
            self.rehearse(np.zeros(self.contract.observation_dim, dtype=np.float32))

    def rehearse(self, observation: npt.NDArray[np.float32], guide: Guide | None = None) -> Plan:
        """Plan as ``plan`` does, in vain; takes none of the episode's random numbers."""
        return self._plan(observation, self._in_vain, guide)

    def _plan(self, observation: npt.NDArray[np.float32], generator: np.random.Generator, guide: Guide | None) -> Plan:
        held: dict[str, Any] = {}
        if guide is not None:
            held = {
                "guide_previous": self._scale.normalise(guide.previous)[None],
                "guide_weights": guide.weights,
                "guide_method": self.guide_method,
            }
        chunk = self._policy.sample(observation[None], generator, self.acting, **held)
        values = self._policy.action_value(observation[None], chunk)[0] if self.with_values else None
        return Plan(self._scale.physical(chunk[0]), values if values is not None and len(values) else None)


def _usual_values(directory: Path) -> ValueRange | None:
    """What the critics said over the training data, but for one in a thousand observations at either end."""
    if VALUES not in read_model(directory / MANIFEST, Manifest).files:
        return None
    values = read_model(directory / VALUES, ValueDistribution)
    return ValueRange(values.mean["0.001"], values.mean["0.999"], values.std["0.999"])


def _contract_of(directory: Path, config: ConfigFields[Any]) -> Contract:
    """Return the contract that a checkpoint can drive a robot by."""
    if not config.has_contract:
        raise CheckpointError(
            f"{directory / CONTRACT}: is missing, so nothing says which topics the numbers belong to; "
            "train from a converted dataset to get a checkpoint that can drive a robot"
        )
    try:
        contract = parse_contract(read_contract_text(directory), str(directory / CONTRACT))
    except ContractError as error:
        raise CheckpointError(str(error)) from None
    try:
        check_publishable(contract)
    except ContractError as error:
        raise CheckpointError(f"{directory / CONTRACT}: {error}") from None
    for name, found, expected in (
        ("observation_dim", config.observation_dim, contract.observation_dim),
        ("action_dim", config.action_dim, contract.action_dim),
    ):
        if found != expected:
            raise CheckpointError(
                f"{directory / 'config.json'}: {name} is {found}, but the contract in it makes it {expected}"
            )
    return contract


def check_contract(checkpoint: Path, trained: Contract, given: Contract, source: str) -> None:
    """Raise CheckpointError, naming the first field that differs, unless both contracts mean the same.

    Name and description may differ: they say nothing about numbers. So may quality of service, waiting time, what is
    demanded of rates and of converted data, and the safety limits: a robot may be held tighter than in training.
    """
    difference = _first_difference(_meaning(trained), _meaning(given), "")
    if difference is not None:
        field, was, now = difference
        raise CheckpointError(
            f"{checkpoint}: does not fit contract {source}: {field} is {now!r} there, but the checkpoint was trained "
            f"with {was!r}; use the robot's own checkpoint, or convert and train again"
        )


_SAYS_NOTHING_ABOUT_NUMBERS = {"name", "description", "reward", "episodes", "quality", "message_definitions", "safety"}


def _meaning(contract: Contract) -> object:
    ignored = {"name", "description", "qos", "max_wait", "min_rate"}

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in ignored}
        return [strip(item) for item in value] if isinstance(value, list) else value

    fields = contract.model_dump(mode="json", exclude=_SAYS_NOTHING_ABOUT_NUMBERS)
    fields["action"]["clock"] = contract.clock_of(contract.action)
    for topic, spec in zip(fields["observation"]["topics"], contract.observation.topics, strict=True):
        topic["clock"] = contract.clock_of(spec)
    # Features and joints are known by their names, which are not to be ignored as the contract's own name is.
    fields["observation_order"] = [list(item) for item in zip(contract.observation_names, strict=True)]
    fields["action_order"] = list(contract.action.names)
    return strip(fields)


def _first_difference(left: object, right: object, path: str) -> tuple[str, object, object] | None:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *(key for key in right if key not in left)]:
            found = _first_difference(left.get(key), right.get(key), f"{path}.{key}" if path else str(key))
            if found is not None:
                return found
        return None
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            found = _first_difference(one, other, f"{path}[{index}]")
            if found is not None:
                return found
        return None
    return None if left == right else (path, left, right)
