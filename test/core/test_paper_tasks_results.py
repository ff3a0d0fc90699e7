"""The paper's tasks in an archive and back, and as table and curves."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from paper_runs import CORRECTED, PAPER, SCENE, make_checkpoint, make_result

from benchmarks import paper_tasks_pack
from benchmarks.paper_tasks_pack import pack, unpack
from benchmarks.paper_tasks_plan import Group, Places, Plan
from benchmarks.paper_tasks_report import curves, not_done, read_scores, report_text, table_row
from benchmarks.paper_tasks_state import SETTINGS, plan_batches, publish_evaluations, reached_steps, saved_checkpoints
from rql_core.checkpoint_files import verify_files
from rql_core.errors import ConfigError, DatasetError
from rql_core.evaluation.runs import read_run
from rql_core.evaluation.statistics import SeedScore, mean_interval
from rql_core.training.run_directory import RunDirectory

PLAN = Plan((PAPER, CORRECTED), (0, 1), updates=100, checkpoint_every=20, episodes=4)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Seed 0 of the paper's form is finished, seed 1 is not; of the corrected form seed 0 has begun."""
    places = Places(tmp_path / "out", tmp_path / "data")
    for group, seed, steps in ((PAPER, 0, (80, 100)), (PAPER, 1, (20, 40)), (CORRECTED, 0, (20,))):
        run = places.run(group, seed)
        for step in steps:
            make_checkpoint(run, step, size=20_000)
            make_result(places, group, seed, step, seed + 1, 4)
        (run / "checkpoint").symlink_to(Path("checkpoints") / f"step-{steps[-1]:08d}")
        (run / "train.json").write_text(json.dumps({"seed": seed}))
        (run / "metrics.jsonl").write_text('{"step": 1}\n')
    places.logs.mkdir()
    machine = {"device": "Some GPU", "cpu": "Some CPU, 16 cores", "torch": "2.13", "data": "puzzle-3x3: 9 episodes"}
    places.machines(PAPER).write_text(json.dumps(machine) + "\n" + json.dumps(machine) + "\n" + '{"dev')
    (places.logs / f"{PAPER.name}.log").write_text("long\n")
    (places.out / SETTINGS).write_text("{}")
    places.data.mkdir()
    places.dataset("puzzle-3x3").write_bytes(bytes(1000))
    return places


def names_of(archive: Path) -> set[str]:
    with tarfile.open(archive) as content:
        return {member.name for member in content}


@pytest.mark.parametrize("ending", ["xz", "gz"])
def test_what_was_packed_goes_on_elsewhere(places: Places, tmp_path: Path, ending: str) -> None:
    archive = tmp_path / f"state.tar.{ending}"
    packed = pack(PLAN, places, archive)
    assert packed.size == archive.stat().st_size
    assert packed.resumable == ["puzzle-3x3-task1-paper-seed1", "puzzle-3x3-task1-corrected-seed0"]
    assert (packed.policies, packed.finished, packed.without) == ([], ["puzzle-3x3-task1-paper-seed0"], [])
    assert not any("data" in Path(name).parts or name.endswith(".log") for name in names_of(archive))

    there = Places(tmp_path / "there", tmp_path / "there" / "data")
    assert unpack(archive, there)
    assert read_scores(PLAN, there, PAPER, 1) == read_scores(PLAN, places, PAPER, 1)
    assert RunDirectory(there.run(PAPER, 1)).newest_step() == 40
    assert "training_state/state.json" in verify_files(there.run(PAPER, 1) / "checkpoint").files
    # What was packed without training state is whole all the same.
    assert set(verify_files(there.run(PAPER, 0) / "checkpoint").files) == {
        *("model.safetensors", "config.json", "stats.safetensors")
    }
    saved = {seed: saved_checkpoints(there.run(PAPER, seed)) for seed in PLAN.seeds}
    batches, lost = plan_batches(saved, reached_steps(there, PAPER, PLAN.seeds), PLAN)
    assert [batch.seeds for batch in batches] == [(1,)]
    assert lost == []
    assert not list(there.out.glob(".unpacking*"))


def test_what_does_not_fit_is_left_out_from_the_end_of_the_order_and_said(places: Places, tmp_path: Path) -> None:
    packed = pack(PLAN, places, tmp_path / "state.tar.gz", limit=30_000)
    assert packed.size <= 30_000
    assert packed.resumable == ["puzzle-3x3-task1-paper-seed1"]
    # Its policy is small enough where its training state is not.
    assert packed.policies == ["puzzle-3x3-task1-corrected-seed0"]
    assert packed.finished == ["puzzle-3x3-task1-paper-seed0"]
    text = packed.text()
    assert "can be resumed from it: puzzle-3x3-task1-paper-seed1\n" in text
    assert "not what to go on from: puzzle-3x3-task1-corrected-seed0" in text


def test_results_go_before_everything_and_what_nothing_fits_into_is_refused(places: Places, tmp_path: Path) -> None:
    archive = tmp_path / "state.tar.gz"
    whole = pack(PLAN, places, archive).size
    packed = pack(PLAN, places, archive, limit=whole - 35_000)
    assert packed.resumable == []
    assert {name for name in names_of(archive) if name.startswith("results/")} == {
        path.relative_to(places.out).as_posix() for path in places.results.rglob("*.json")
    }
    before = archive.read_bytes()
    with pytest.raises(ConfigError, match="raise --pack-megabytes"):
        pack(PLAN, places, archive, limit=100)
    assert archive.read_bytes() == before


def test_a_finished_run_whose_checkpoint_did_not_fit_is_not_trained_again(places: Places, tmp_path: Path) -> None:
    archive, there = tmp_path / "state.tar.gz", Places(tmp_path / "there", tmp_path / "data")
    results_alone = pack(Plan((), ()), places, archive).size
    packed = pack(PLAN, places, archive, limit=results_alone + 10)
    assert (packed.resumable, packed.policies, packed.finished, len(packed.without)) == ([], [], [], 3)
    assert unpack(archive, there)
    saved = {seed: saved_checkpoints(there.run(PAPER, seed)) for seed in PLAN.seeds}
    reached = reached_steps(there, PAPER, PLAN.seeds)
    assert reached == {0: 100, 1: 40}
    assert plan_batches(saved, reached, PLAN) == ([], [1])


def test_a_policy_that_was_not_evaluated_goes_before_one_that_was(places: Places, tmp_path: Path) -> None:
    places.result(CORRECTED, 0, 20, 1).unlink()
    kinds = [(kind, piece.run) for kind, piece in paper_tasks_pack._checkpoints(PLAN, places)]
    assert kinds[2:] == [
        ("policies", "puzzle-3x3-task1-corrected-seed0"),
        ("finished", "puzzle-3x3-task1-paper-seed0"),
        ("policies", "puzzle-3x3-task1-paper-seed1"),
    ]


def test_an_archive_is_unpacked_once_and_never_over_something_else(places: Places, tmp_path: Path) -> None:
    archive, there = tmp_path / "state.tar.gz", Places(tmp_path / "there", tmp_path / "data")
    pack(PLAN, places, archive)
    assert unpack(archive, there)
    make_result(there, CORRECTED, 1, 20, 1, 4)
    assert not unpack(archive, there)
    assert there.result(CORRECTED, 1, 20, 1).exists()
    with pytest.raises(ConfigError, match="exists already; unpack to another place"):
        unpack(archive, places)


def archive_of(path: Path, *members: tarfile.TarInfo, content: bytes = b"x") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("/runs/absolute"),
        tarfile.TarInfo("runs/../../outside"),
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("runs\\..\\..\\outside"),
        tarfile.TarInfo("data/puzzle-3x3-play-v0.npz"),
        tarfile.TarInfo(".lock"),
        link("runs/link", "/etc", tarfile.SYMTYPE),
        link("runs/link", "settings.json", tarfile.LNKTYPE),
        link("runs/device", "", tarfile.CHRTYPE),
        link("runs/pipe", "", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_an_archive_that_reaches_outside_is_refused_and_nothing_is_left(
    tmp_path: Path, member: tarfile.TarInfo
) -> None:
    archive = archive_of(tmp_path / "bad.tar.gz", tarfile.TarInfo("results/fine.json"), member)
    there = Places(tmp_path / "there" / "out", tmp_path / "there" / "data")
    with pytest.raises(DatasetError, match="not unpacked"):
        unpack(archive, there)
    assert [path for path in (tmp_path / "there").rglob("*") if path.is_file()] == []


def test_an_archive_that_unpacks_to_far_more_than_it_should_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_tasks_pack, "MOST_UNPACKED_BYTES", 1000)
    members = [tarfile.TarInfo(f"results/{number}.json") for number in range(2)]
    archive = archive_of(tmp_path / "bomb.tar.gz", *members, content=bytes(600))
    with pytest.raises(DatasetError, match="more than 1000 bytes"):
        unpack(archive, Places(tmp_path / "there", tmp_path / "data"))


def test_an_archive_that_was_cut_off_or_is_none_is_refused_in_one_line(places: Places, tmp_path: Path) -> None:
    archive, there = tmp_path / "state.tar.xz", Places(tmp_path / "there", tmp_path / "data")
    pack(PLAN, places, archive)
    archive.write_bytes(archive.read_bytes()[:-3000])
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpack(archive, there)
    assert not there.runs.exists()
    with pytest.raises(DatasetError, match="cannot be read"):
        unpack(tmp_path / "missing.tar.gz", there)


# The table


def test_a_line_is_of_the_last_updates_that_all_seeds_have() -> None:
    low, high = SeedScore(0.25, 4), SeedScore(1.0, 4)
    row = table_row(PAPER, 1, {0: {20: low, 40: high}, 1: {20: high}})
    assert row is not None
    assert (row.steps, row.scores) == ((20, 20), (low, high))
    row = table_row(PAPER, 1, {0: {40: high}, 1: {20: low}})
    assert row is not None
    assert (row.steps, row.scores) == ((20, 40), (high, low))
    assert table_row(PAPER, 1, {}) is None


def test_the_table_has_published_figures_and_ours_with_their_interval(places: Places) -> None:
    for seed, successes in ((0, 40), (1, 50)):
        make_result(places, Group(SCENE, "paper"), seed, 100, successes, 50)
        make_result(places, Group(SCENE, "paper"), seed, 100, 50, 50, samples=16)
    plan = Plan((Group(SCENE, "paper"), PAPER), (0, 1), updates=100, best_of=(16,))
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in report_text(plan, places, []).splitlines()
        if line.startswith("| scene")
    ]
    interval = mean_interval({"": [SeedScore(0.8, 50), SeedScore(1.0, 50)]})
    assert interval is not None
    expected = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    assert lines[0] == ["scene, task 1", "paper", "one sample", "89", "100", "90.0", expected, "2", "100", "100"]
    assert lines[1][2] == "best of 16"
    assert lines[1][5] == "100.0"


def test_the_report_says_what_its_numbers_are_not(places: Places) -> None:
    text = report_text(PLAN, places, not_done(PLAN, places, {PAPER: 2}))
    assert "not the official files" in text
    assert "puzzle-3x3: 9 episodes" in text
    assert "100 of the published 1,000,000" in text
    assert text.count("Some GPU (Some CPU, 16 cores, torch 2.13)") == 1
    assert "puzzle-3x3-task1-paper: of 100 updates only made: seed 1 40" in text
    assert "puzzle-3x3-task1-paper: 2 checkpoints not evaluated" in text
    assert "puzzle-3x3-task1-corrected: of 100 updates only made: seed 0 20, seed 1 0" in text
    scene = Plan((Group(SCENE, "paper"),), (0,))
    assert not_done(scene, places, {}) == ["scene-task1-paper: not trained"]
    assert "Nothing was evaluated yet" in report_text(scene, places, [])


def test_rql_compare_finds_each_runs_last_evaluation(places: Places) -> None:
    make_result(places, PAPER, 0, 120, 4, 4, samples=16)
    make_result(places, CORRECTED, 1, 20, 4, 4)  # its run directory is elsewhere
    publish_evaluations(PLAN, places)
    score = read_run(places.run(PAPER, 0)).score()
    assert score is not None
    assert (score.rate, score.episodes, score.step) == (0.25, 4, 100)
    assert not places.run(CORRECTED, 1).exists()


def test_the_curves_have_a_panel_a_task_and_a_line_a_form(places: Places) -> None:
    make_result(places, Group(SCENE, "paper"), 0, 50_000, 2, 4)
    figure = curves(Plan((PAPER, CORRECTED, Group(SCENE, "paper")), (0, 1), updates=100), places)
    puzzle, scene = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["puzzle-3x3, task 1", "scene, task 1"]
    labels = {line.get_label(): line for line in scene.lines if not line.get_label().startswith("_")}
    assert labels["published, this task"].get_ydata()[0] == 100
    assert labels["published, mean of 5 tasks"].get_ydata()[0] == 89
    assert list(labels["paper"].get_ydata()) == [50.0]
    # Of the paper's form no update was evaluated with both seeds, so there are points alone.
    points = next(line for line in puzzle.lines if line.get_label() == "paper")
    assert sorted(points.get_xdata()) == [20, 40, 80, 100]
    assert points.get_linestyle() == "None"
    assert curves(Plan((Group(SCENE, "corrected"),), (0,)), places) is None
