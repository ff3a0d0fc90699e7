"""The errors a user can act on.

Each message is one line that names the file, topic, field and value, says what was expected, and what to do.
Command lines print it without a traceback and exit with a non-zero status.
"""

from __future__ import annotations


class RqlError(Exception):
    """Base of every error that this project raises on purpose."""


class ContractError(RqlError):
    """A contract is invalid, or a message or an action does not keep to it."""


class BagError(RqlError):
    """A bag cannot be read or written."""


class DatasetError(RqlError):
    """A dataset or an array of training data is unusable."""


class CheckpointError(RqlError):
    """A checkpoint is incomplete, damaged, or does not fit."""


class ConfigError(RqlError):
    """A configuration file or an option has a wrong value."""


class OutputError(RqlError):
    """A result cannot be written where it was asked for."""


class TrainingError(RqlError):
    """Training cannot go on, for example because a loss is not finite."""


class SimulationError(RqlError):
    """A simulated world cannot be made, or was given an impossible action."""
