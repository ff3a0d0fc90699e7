"""Films of episodes: they can be read, have the right size and length, and say what happened."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import corridor
import numpy as np
import pytest
from PIL import Image

from rql_core.algorithms import Acting
from rql_core.errors import ConfigError, SimulationError
from rql_core.evaluation import film
from rql_core.evaluation.episodes import EpisodeRunner, EpisodeSettings, EpisodeTask
from rql_core.evaluation.film import caption, check_film, film_episodes

SIZE = (62, 42 + 28)  # even sides, and the line of text
# Every second of 12 steps, and the one before the first.
PICTURES = 7


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSettings:
    run = corridor.write_run(tmp_path_factory.mktemp("run"))
    return EpisodeSettings(run / "checkpoint", Acting(), environment=corridor.NAME)


def test_a_gif_shows_the_episodes_that_were_evaluated(settings: EpisodeSettings, tmp_path: Path) -> None:
    path = tmp_path / "new" / "film.gif"
    records = film_episodes(settings, [3, 4], path)
    runner = EpisodeRunner()
    assert records == [runner(EpisodeTask(settings, seed)) for seed in (3, 4)]
    with Image.open(path) as gif:
        assert gif.size == SIZE
        durations = []
        for frame in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(frame)
            durations.append(gif.info["duration"])
    # Pictures that stay are stored as one; at 20 Hz every second step is 100 ms, and the last stays for 2 s.
    assert sum(durations) == 2 * ((PICTURES - 1) * 100 + 2000)
    assert [each.name for each in path.parent.iterdir()] == ["film.gif"]


def test_an_mp4_has_the_same_pictures(settings: EpisodeSettings, tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="writing MP4 needs imageio-ffmpeg (or av)")
    film_episodes(settings, [3], tmp_path / "film.mp4")
    reader = ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    meta = next(reader)
    assert (meta["size"], meta["fps"]) == (SIZE, 10.0)
    assert sum(1 for _ in reader) == PICTURES - 1 + 20


@pytest.mark.parametrize("solved", [True, False])
def test_the_outcome_is_drawn_below_the_last_picture(solved: bool) -> None:
    shown: list[tuple[str, tuple[int, int, int]]] = []
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    recorder = film._Film(10.0)
    recorder.seed = 5
    original, film.caption = (
        film.caption,
        lambda picture, text, colour: (  # type: ignore[assignment]
            shown.append((text, colour)) or original(picture, text, colour)
        ),
    )
    try:
        recorder.see(lambda: picture, 3, ended=False, solved=False)
        recorder.see(lambda: picture, 4, ended=True, solved=solved)
    finally:
        film.caption = original
    assert [text for text, _ in shown] == ["seed 5, step 3", f"seed 5, step 4: {'success' if solved else 'failure'}"]
    assert shown[1][1] == (film._SOLVED if solved else film._FAILED)


def test_a_caption_is_below_the_picture_and_the_picture_is_untouched() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (41, 61, 3), dtype=np.uint8)
    drawn = np.asarray(caption(picture, "seed 0", (255, 255, 255)))
    assert drawn.shape == (SIZE[1], SIZE[0], 3)
    np.testing.assert_array_equal(drawn[:41, :61], picture)
    assert drawn[42:].max() > 200
    assert not np.array_equal(drawn, np.asarray(caption(picture, "seed 1", (255, 255, 255))))


def test_an_environment_without_pictures_is_refused(settings: EpisodeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corridor.Corridor, "render", lambda self: None)
    with pytest.raises(SimulationError, match=r"no film: .* expected \(height, width, 3\) of uint8"):
        film_episodes(settings, [0], settings.checkpoint.parent / "film.gif")
    assert not (settings.checkpoint.parent / "film.gif").exists()


def test_a_world_is_filmed(tmp_path: Path, contract_text: str) -> None:
    pytest.importorskip("OpenGL", reason="pictures of a world need PyOpenGL")
    from rql_core.training.checkpoint import save_checkpoint

    policy = corridor.small_policy(observation_dim=7)
    save_checkpoint(tmp_path / "arm", policy, step=1, reward_range=corridor.REWARDS, contract_text=contract_text)
    arm = EpisodeSettings(tmp_path / "arm", Acting(), world="planar_arm", options={"max_episode_steps": 4})
    try:
        film_episodes(arm, [1], tmp_path / "arm.gif")
    except SimulationError as error:
        if "OpenGL" not in str(error):
            raise
        pytest.skip(f"no OpenGL here: {error}")
    with Image.open(tmp_path / "arm.gif") as gif:
        assert gif.size == (480, 360 + 28)
        assert gif.n_frames == 3  # type: ignore[attr-defined]
        assert len(gif.convert("RGB").getcolors(10**6) or []) > 20


# What cannot be filmed is said before the episodes are run


def test_kinds_of_files_and_numbers_are_checked(settings: EpisodeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    check_film(Path("film.GIF"), [settings], 1)
    with pytest.raises(ConfigError, match=r"video is film\.avi, expected a file that ends in \.gif or \.mp4"):
        check_film(Path("film.avi"), [settings], 1)
    with pytest.raises(ConfigError, match=r"video is of one run .* but 2 are evaluated"):
        check_film(Path("film.gif"), [settings, settings], 1)
    with pytest.raises(ConfigError, match="video_episodes is 0, expected at least 1"):
        check_film(Path("film.gif"), [settings], 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="nothing here writes MP4: `pip install imageio-ffmpeg`"):
        check_film(Path("film.mp4"), [settings], 1)


def test_a_place_that_cannot_be_written_is_named(settings: EpisodeSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/film\.gif: cannot be written"):
        film_episodes(settings, [0], tmp_path / "file" / "film.gif")
