"""A dataset that is not whole, or does not fit its contract, is refused with its name."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import synthetic

from rql_core.data.minari_io import DatasetWriter, load_dataset
from rql_core.errors import DatasetError


def episode(steps: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "observations": rng.normal(size=(steps + 1, 7)).astype(np.float32),
        "actions": rng.uniform(-2, 2, (steps, 2)),
        "rewards": -np.ones(steps, dtype=np.float32),
        "masks": np.ones(steps, dtype=np.float32),
    }


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    with DatasetWriter(tmp_path / "arm-v0", synthetic.CONTRACT) as writer:
        for seed in range(3):
            writer.add(**episode(5 + seed, seed), terminal=False, origin={})
        writer.finish({}, {})
    return tmp_path / "arm-v0"


def test_what_was_written_is_loaded_with_normalised_actions(dataset: Path) -> None:
    data, text, metadata = load_dataset(dataset)
    assert text == synthetic.CONTRACT
    assert metadata["dataset_id"] == "arm-v0"
    assert data.lengths.tolist() == [5, 6, 7]
    parts = [episode(5 + seed, seed) for seed in range(3)]
    np.testing.assert_array_equal(data.observations, np.concatenate([part["observations"] for part in parts]))
    physical = np.concatenate([part["actions"] for part in parts])
    np.testing.assert_allclose(data.actions[:, 0], physical[:, 0] / 2, atol=2e-5)
    np.testing.assert_allclose(data.actions[:, 1], (physical[:, 1] - 1) / 3, atol=2e-5)


def test_a_dataset_of_actions_at_their_limits_loads(tmp_path: Path) -> None:
    part = episode(4, 0)
    part["actions"][:] = [[-2, -2], [2, 4], [-5, 9], [0, 1]]
    with DatasetWriter(tmp_path / "arm-v0", synthetic.CONTRACT) as writer:
        writer.add(**part, terminal=True, origin={})
        writer.finish({}, {})
    actions = load_dataset(tmp_path / "arm-v0")[0].actions
    np.testing.assert_allclose(actions, [[-1, -1], [1, 1], [-1, 1], [0, 0]], atol=2e-5)


def test_what_is_not_finished_is_thrown_away(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "arm-v0", synthetic.CONTRACT) as writer:
        writer.add(**episode(5, 0), terminal=False, origin={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["observations", "actions", "rewards", "masks"])
def test_the_writer_refuses_wrong_shapes_types_and_numbers(tmp_path: Path, field: str) -> None:
    with DatasetWriter(tmp_path / "arm-v0", synthetic.CONTRACT) as writer:
        for wrong in (
            lambda a: a[:-1] if field != "actions" else a[:, :-1],
            lambda a: a.astype(np.float32 if field == "actions" else np.float64),
            lambda a: np.where(np.arange(len(a)).reshape(-1, *[1] * (a.ndim - 1)) == 1, np.nan, a).astype(a.dtype),
        ):
            part = episode(5, 0)
            part[field] = wrong(part[field])
            with pytest.raises(DatasetError, match=rf"arm-v0: episode 0: {field}"):
                writer.add(**part, terminal=False, origin={})


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="arm-v7: no dataset there"):
        load_dataset(tmp_path / "arm-v7")


def test_a_truncated_file_is_named(dataset: Path) -> None:
    file = dataset / "data" / "main_data.hdf5"
    data = file.read_bytes()
    for share in (0.0, 0.3, 0.95):
        file.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DatasetError, match=f"{dataset}: data cannot be read"):
            load_dataset(dataset)


def test_missing_and_unreadable_metadata_and_a_missing_contract_are_named(dataset: Path) -> None:
    file = dataset / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    for changes, words in (
        ({"contract": None}, "has no contract"),
        ({"contract": "schema: 1"}, "key 'name' is missing"),
        ({"total_episodes": 9}, "cannot be read"),
        ({"total_episodes": 0}, "no episodes"),
    ):
        file.write_text(json.dumps({**metadata, **changes}))
        with pytest.raises(DatasetError, match=f"{dataset}.*{words}"):
            load_dataset(dataset)
    file.write_text("{")
    with pytest.raises(DatasetError, match="cannot be read as JSON"):
        load_dataset(dataset)
    shutil.rmtree(dataset / "data")
    with pytest.raises(DatasetError, match="no dataset there"):
        load_dataset(dataset)


@pytest.mark.parametrize(
    ("field", "array", "words"),
    [
        (
            "observations",
            np.zeros((7, 6), np.float32),
            r"episode 1: observations has shape \(7, 6\), expected \(7, 7\)",
        ),
        ("actions", np.zeros((5, 2)), r"episode 1: actions has shape \(5, 2\), expected \(6, 2\)"),
        ("actions", np.full((6, 2), np.nan), r"episode 1: actions\[0, 0\] is nan"),
        ("rewards", np.full(6, np.inf, np.float32), r"episode 1: rewards\[0\] is inf"),
        ("infos/mask", np.full(6, 0.5, np.float32), "masks"),
    ],
)
def test_data_that_does_not_fit_the_contract_is_named(dataset: Path, field: str, array: np.ndarray, words: str) -> None:
    with h5py.File(dataset / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_1/{field}"]
        file[f"episode_1/{field}"] = array
    with pytest.raises(DatasetError, match=words) as caught:
        load_dataset(dataset)
    assert str(dataset) in str(caught.value)


def test_without_a_mask_the_terminations_count(dataset: Path) -> None:
    with h5py.File(dataset / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/infos"]
        file["episode_1/terminations"][-1] = True
    assert np.flatnonzero(load_dataset(dataset)[0].masks == 0).tolist() == [10]


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DatasetWriter(Path("sets/arm-v0"), synthetic.CONTRACT) as writer:
        writer.add(**episode(5, 0), terminal=False, origin={})
        writer.finish({}, {})
    assert load_dataset(Path("sets/arm-v0"))[0].steps == 5


def test_a_replacement_that_was_killed_half_way_gives_the_old_dataset_back(dataset: Path) -> None:
    """Killed after the old one was taken away and before the new one was put in its place."""
    dataset.rename(dataset.parent / ".arm-v0.old")
    with pytest.raises(DatasetError, match="exists already"):
        DatasetWriter(dataset, synthetic.CONTRACT)
    assert load_dataset(dataset)[0].lengths.tolist() == [5, 6, 7]
