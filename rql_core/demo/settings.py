"""What the demonstration does, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoSettings:
    """One robot's demonstration."""

    robot: str
    world: str
    contract: str
    # 40,000 steps at 20 Hz are 33 minutes of robot time: fewer, and the learned way round is not reliable.
    episodes: int
    episode_steps: int
    episodes_per_bag: int
    rql_config: str
    bc_flow_config: str
    # 50 episodes give a 95 % interval of about +-.1 round a rate of .9.
    evaluation_episodes: int
    # Seeds of the evaluation's episodes; training data use others.
    first_seed: int = 1000
    seed: int = 0


SETTINGS = {
    "ur5e": DemoSettings(
        robot="ur5e",
        world="ur5e_ring",
        contract="ur5e",
        # Short episodes, because each starts off the circle: that is where data on coming back are.
        episodes=210,
        episode_steps=200,
        episodes_per_bag=35,
        rql_config="ur5e_rql",
        bc_flow_config="ur5e_bc_flow",
        evaluation_episodes=50,
    ),
    "planar_arm": DemoSettings(
        robot="planar_arm",
        world="planar_arm",
        contract="planar_arm",
        episodes=100,
        episode_steps=200,
        episodes_per_bag=50,
        rql_config="planar_arm_rql",
        bc_flow_config="planar_arm_bc_flow",
        evaluation_episodes=30,
    ),
}
