"""The contract between a robot's topics and the numbers a policy learns from and gives out."""

from rql_core.contract.alignment import Tick, TickAssembler
from rql_core.contract.chunk import ActionChunk, CommandSchedule, check_publishable, decode_chunk, encode_chunk
from rql_core.contract.load import definition_paths, load_contract, parse_contract, read_contract_text
from rql_core.contract.reward import RewardRule
from rql_core.contract.scale import ActionScale
from rql_core.contract.schema import Contract

__all__ = [
    "ActionChunk",
    "ActionScale",
    "CommandSchedule",
    "Contract",
    "RewardRule",
    "Tick",
    "TickAssembler",
    "check_publishable",
    "decode_chunk",
    "definition_paths",
    "encode_chunk",
    "load_contract",
    "parse_contract",
    "read_contract_text",
]
