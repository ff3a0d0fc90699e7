"""A contract names the .msg files of types that its bags do not define, relative to itself."""

import sys
from pathlib import Path

import pytest

from rql_core.contract import definition_paths, load_contract
from rql_core.errors import ContractError

sys.path.insert(0, str(Path(__file__).parents[1] / "bags"))
import synthetic


def contract_with(folder: Path, paths: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "contract.yaml"
    file.write_text(f"{synthetic.CONTRACT}message_definitions: {paths}\n")
    return file


def test_paths_are_relative_to_the_contract(tmp_path: Path) -> None:
    (tmp_path / "msgs").mkdir()
    (tmp_path / "Gripper.msg").write_text("float64 grip\n")
    file = contract_with(tmp_path / "contracts", "[../msgs, ../Gripper.msg]")
    found = definition_paths(load_contract(file), file)
    assert [path.resolve() for path in found] == [tmp_path / "msgs", tmp_path / "Gripper.msg"]


def test_a_contract_without_them_has_none(tmp_path: Path) -> None:
    file = synthetic.contract_file(tmp_path)
    assert definition_paths(load_contract(file), file) == []


def test_a_missing_file_is_named_where_it_is_needed(tmp_path: Path) -> None:
    file = contract_with(tmp_path, "[msgs/my_robot]")
    contract = load_contract(file)  # a policy that runs needs no definitions
    with pytest.raises(ContractError, match=r"contract\.yaml: message_definitions: 'msgs/my_robot' is not there"):
        definition_paths(contract, file)


@pytest.mark.parametrize("path", ["/etc/msgs", "~/msgs", "''", '"a\\0b"'])
def test_a_path_that_is_not_relative_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ContractError, match="is no path relative to the contract file"):
        load_contract(contract_with(tmp_path, f"[{path}]"))
