"""One package for colcon and for pip: the nodes, the learning core, launch files and configuration."""

import sys
from glob import glob

from setuptools import Distribution, find_packages, setup

PACKAGE = "rql_ros"
NODES = ("policy_node", "mujoco_bridge_node", "demonstrator_node", "recorder_node", "evaluator_node")

data_files = [
    ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
    (f"share/{PACKAGE}", ["package.xml"]),
    (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
    (f"share/{PACKAGE}/config", glob("config/*.yaml")),
    (f"share/{PACKAGE}/config/contracts", glob("config/contracts/*.yaml")),
    (f"share/{PACKAGE}/config/security", glob("config/security/*.xml")),
    (f"share/{PACKAGE}/config/train", glob("config/train/*.yaml")),
]
# colcon puts the console scripts into lib/rql_ros (setup.cfg). pip puts them into bin/ and ignores setup.cfg for it, so
# wheels carry a small forwarder for each, which is what `ros2 run` and launch files find.
if {"bdist_wheel", "editable_wheel"} & set(sys.argv):
    data_files.append((f"lib/{PACKAGE}", glob("lib_scripts/*")))


class WithData(Distribution):
    """A distribution whose editable wheels have data files: setuptools asks for `has_data`, which it never defines."""

    has_data = Distribution.has_data_files


setup(
    distclass=WithData,
    name=PACKAGE,
    version="0.1.0",
    description="From recorded bags to a policy that is better than the data, as a ROS 2 node.",
    maintainer="The rql_ros developers",
    maintainer_email="maintainers@users.noreply.github.com",
    license="Apache-2.0",
    packages=find_packages(include=["rql_core*", "rql_ros*"]),
    package_data={"rql_core.sim": ["assets/*.xml"], "rql_core": ["py.typed"]},
    data_files=data_files,
    python_requires=">=3.10",
    install_requires=[
        "setuptools",
        "numpy",
        "torch>=2.6",
        "torchdiffeq",
        "pydantic>=2",
        "pyyaml",
        "simpleeval>=1.0.8",
        "safetensors",
        "onnx>=1.17",
        "onnxruntime>=1.20",
        "tqdm",
        "tyro",
    ],
    extras_require={
        "bags": ["rosbags>=0.11,<0.12", "minari[hdf5]", "h5py"],
        "sim": ["mujoco>=3.2", "gymnasium>=1.0", "scipy", "matplotlib", "pillow"],
        "ogbench": ["ogbench>=1.2"],
        "cluster": ["ray>=2.9"],
        "video": ["imageio-ffmpeg"],
        "test": ["pytest", "hypothesis"],
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [*(f"{node} = rql_ros.{node}:main" for node in NODES), "rql = rql_core.cli:main"],
    },
)
