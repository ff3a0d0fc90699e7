"""Offline reinforcement learning from robot logs, without ROS: contract, data, algorithms, simulation, evaluation."""

__version__ = "0.1.0"
