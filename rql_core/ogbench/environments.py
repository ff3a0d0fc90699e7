"""OGBench's environments by the names of its data sets, made offline, and which of them the published results are of.

A name is FAMILY-KIND-singletask-taskN-v0, such as puzzle-3x3-play-singletask-task1-v0: KIND is that of the data, and
without -taskN the family's default task is meant. cube-double-play-v0 and cube-double-v0 are the environment without a
single task. OGBench itself is imported when an environment is made.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rql_core.errors import ConfigError, SimulationError

if TYPE_CHECKING:
    import gymnasium

TASKS = (1, 2, 3, 4, 5)

# The ten domains of the published results (Reversal Q-Learning, arXiv 2606.17551), and cube-single, the easiest cube.
DOMAINS = (
    "antmaze-large-navigate",
    "antmaze-giant-navigate",
    "humanoidmaze-medium-navigate",
    "humanoidmaze-large-navigate",
    "scene-play",
    "puzzle-3x3-play",
    "puzzle-4x4-play",
    "cube-single-play",
    "cube-double-play",
    "cube-triple-play",
    "cube-quadruple-play",
)

# Import name -> what pip calls it; the versions are those of requirements/models.txt. Everything that these need is in
# the list itself or comes with mujoco, so they are installed without their dependencies: of those, labmaze has no wheel
# for Python 3.13 and is not used here.
WITHOUT_DEPENDENCIES = {
    "ogbench": "ogbench==1.2.2",
    "dm_control": "dm_control==1.0.50",
    "dm_env": "dm-env==1.6",
    "absl": "absl-py==2.5.1",
    "lxml": "lxml==6.1.3",
    "imageio": "imageio==2.37.0",
}
_WITH_DEPENDENCIES = {"mujoco": "mujoco", "gymnasium": "gymnasium", "scipy": "scipy", "packaging": "packaging"}

# Warnings about OGBench's own code, for nobody who uses it: dm_control tries GLFW without a screen when it is imported;
# the manipulation environments make an action space of float32 from float64 limits at every look.
_NOISE = (r"\(\d+\) b'X11", r".*Box (low|high)'s precision lowered")

_NAME = re.compile(
    r"(?P<family>[a-z0-9]+(?:-[a-z0-9]+)*?)(?:-(?P<kind>play|noisy|navigate|stitch|explore))?"
    r"(?P<single>-singletask(?:-task(?P<task>[1-5]))?)?-v0"
)


@dataclass(frozen=True)
class EnvironmentName:
    """An environment's name in its parts; `task` None in a single-task name means the family's default task."""

    family: str
    kind: str | None
    single_task: bool
    task: int | None

    @property
    def gymnasium_id(self) -> str:
        """What Gymnasium calls the environment: the name without the kind of data."""
        single = "-singletask" if self.single_task else ""
        return f"{self.family}{single}{'' if self.task is None else f'-task{self.task}'}-v0"


def parse_name(name: str) -> EnvironmentName:
    """Take a name apart. Raises ConfigError for what cannot be one."""
    found = _NAME.fullmatch(name)
    if found is None or "task" in found["family"]:
        raise _unknown(name)
    task = found["task"]
    return EnvironmentName(found["family"], found["kind"], found["single"] is not None, int(task) if task else None)


def environment_names(domain: str) -> tuple[str, ...]:
    """The names of a domain's five single tasks, task 1 first. Raises ConfigError that lists the domains."""
    if domain not in DOMAINS:
        raise ConfigError(f"domain is {domain!r}; expected one of {', '.join(DOMAINS)}")
    return tuple(f"{domain}-singletask-task{task}-v0" for task in TASKS)


def make_environment(name: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """The environment of that name, with its time limit; the options are those of OGBench's environment.

    Actions are in [-1, 1]. Observations are states; those of cubes, scene and puzzles are float64, and the data sets'
    are the same in float32. `info["success"]` says whether the task is solved, as a bool or as 0.0 and 1.0. In a
    single-task environment it is judged before the step's action, like the reward and the end of the episode: a step
    that arrives at the goal has info["success"] false and the next one, whatever it does, true.

    OGBench draws some numbers from NumPy's global generator and from action spaces that nobody seeds, so `reset(seed=)`
    does not fix an episode: `rql_core.evaluation.environment.seeded` does.

    Raises ConfigError for an unknown name, SimulationError with the pip command for what is not installed.
    """
    identifier = parse_name(name).gymnasium_id
    require_packages()
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    import gymnasium
    import ogbench  # noqa: F401  (registers the environments)

    if identifier not in gymnasium.registry:
        raise _unknown(name)
    # The checker complains of float64 observations, which are these environments' own.
    return gymnasium.make(identifier, **{"disable_env_checker": True, **options})


def require_packages() -> None:
    """Raise SimulationError with the pip commands that install what OGBench's environments need and is missing."""
    commands = []
    for options, packages in (("", _WITH_DEPENDENCIES), (" --no-deps", WITHOUT_DEPENDENCIES)):
        missing = [requirement for module, requirement in packages.items() if find_spec(module) is None]
        if missing:
            commands.append(f"pip install{options} {' '.join(missing)}")
    if commands:
        raise SimulationError(
            f"OGBench's environments need packages that are not installed; run `{' && '.join(commands)}`"
        )


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        f"environment is {name!r}; expected OGBench's DOMAIN-singletask-taskN-v0 with N from 1 to 5 and DOMAIN one of "
        f"{', '.join(DOMAINS)}"
    )
