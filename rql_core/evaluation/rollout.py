"""Episodes in a simulated world, in this process: the same session, contract and runner as over ROS, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from rql_core.contract import Contract, TickAssembler
from rql_core.contract.time import ns_to_stamp
from rql_core.errors import SimulationError
from rql_core.evaluation.results import EpisodeRecord, Evaluation, check_episodes, training_scores
from rql_core.progress import progress_bar
from rql_core.runtime.options import Options
from rql_core.runtime.plan import Actor
from rql_core.runtime.policy import DeployedPolicy
from rql_core.runtime.runner import PolicyRunner
from rql_core.runtime.schedule import Mode
from rql_core.sim.session import Frame, Session
from rql_core.training.policy import Policy


def frame_messages(frame: Frame) -> dict[str, Any]:
    """What the bridge publishes of a frame, by topic, as plain objects with the fields of the ROS messages."""
    sec, nanosec = ns_to_stamp(frame.stamp_ns)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id="world")
    sample = frame.sample
    x, y, z = sample.tool_position.tolist()
    qx, qy, qz, qw = sample.tool_quaternion.tolist()
    return {
        "/joint_states": SimpleNamespace(
            header=header,
            name=sample.joint_names,
            position=sample.position,
            velocity=sample.velocity,
            effort=sample.effort,
        ),
        "/tool_pose": SimpleNamespace(
            header=header,
            pose=SimpleNamespace(
                position=SimpleNamespace(x=x, y=y, z=z), orientation=SimpleNamespace(x=qx, y=qy, z=qz, w=qw)
            ),
        ),
    }


class Rollout:
    """Runs a controller in a session as the bridge and the policy node do together in lockstep.

    `feature`: the observation feature whose path is kept in the records. `on_frame` sees every frame (for video).
    """

    def __init__(
        self,
        session: Session,
        actor: Actor,
        replan_every: int = 0,
        feature: str | None = None,
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        self._session = session
        mode: Mode = "receding" if replan_every else "open_loop"
        self._runner = PolicyRunner(session.contract, actor, Options(mode, replan_every))
        self._on_frame = on_frame
        self._slice = session.contract.present_slice(feature) if feature else None
        self._watcher = TickAssembler(session.contract)
        world = set(frame_messages(session.begin(seed=0)))
        topics = [spec.topic for spec in session.contract.observation.topics]
        self._topics = topics
        for topic in topics:
            if topic not in world:
                raise SimulationError(f"contract topic {topic} is not published by the world; it has {sorted(world)}")

    def run_episode(self, seed: int) -> EpisodeRecord:
        """One episode; world and controller get the same seed, as the evaluator node does it."""
        frame = self._session.begin(seed)
        self._runner.reset(seed, frame.stamp_ns)
        self._watcher.reset(frame.stamp_ns)
        path: list[list[float]] = []
        while True:
            self._see(frame, path)
            if frame.ended:
                break
            for chunk in self._runner.poll(None):
                self._session.command(chunk)
            if not self._session.can_step():
                raise SimulationError(
                    f"seed {seed}, step {frame.step}: the controller gave no action "
                    f"(last refused message: {self._runner.last_error or 'none'})"
                )
            frame = self._session.step()
        result = self._session.result()
        return EpisodeRecord(seed, result.steps, result.total_reward, result.success, path)

    def _see(self, frame: Frame, path: list[list[float]]) -> None:
        messages = frame_messages(frame)
        for topic in self._topics:
            self._runner.push(topic, messages[topic], frame.stamp_ns)
            self._watcher.push(topic, messages[topic], frame.stamp_ns)
        if self._on_frame is not None:
            self._on_frame(frame)
        for tick in self._watcher.take():
            if tick.observation is not None and self._slice is not None:
                path.append([round(float(value), 4) for value in tick.observation[self._slice]])


def evaluate(
    session: Session,
    actor: Actor,
    seeds: Iterable[int],
    *,
    controller: str,
    replan_every: int = 0,
    feature: str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Episodes with these seeds, one after the other; with `progress` a bar on standard error."""
    rollout = Rollout(session, actor, replan_every, feature)
    bar = progress_bar(seeds, unit="episode", desc="evaluating", disable=not progress)
    return Evaluation(controller, "in_process", [rollout.run_episode(seed) for seed in bar])


def training_evaluation(contract: Contract, world: str, episodes: int) -> Callable[[Policy], dict[str, float]]:
    """What the trainer calls every now and then: success rate and mean steps of a policy in a simulated world.

    Raises ConfigError where there are no episodes to run.
    """
    check_episodes(episodes)
    session = contract_session(contract, world)

    def evaluate_policy(policy: Policy) -> dict[str, float]:
        result = evaluate(session, DeployedPolicy(policy, contract), range(episodes), controller=policy.algorithm.name)
        return training_scores(result.records)

    return evaluate_policy


def contract_session(contract: Contract, world: str, *, execute_steps: int = 0, **options: Any) -> Session:
    """A session in the world called `world` ("planar_arm", "ur5e_ring"), for evaluation from the task's starts."""
    from rql_core.sim import make_world

    return Session(make_world(world, **options), contract, start="task", execute_steps=execute_steps)
