"""Films of episodes: a GIF by Pillow, which is always there, or an MP4 where a package that can write one is installed.

The episodes are run once more, in this process, with pictures: an episode follows from its seed, so it is the one that
was evaluated.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rql_core.errors import ConfigError, SimulationError
from rql_core.evaluation.environment import Environment, is_gymnasium_id, make_environment
from rql_core.evaluation.episodes import EpisodeSettings, environment_rollout, world_rollout
from rql_core.evaluation.results import EpisodeRecord

if TYPE_CHECKING:
    from PIL import Image

Picture = npt.NDArray[np.uint8]

# Width and height that are asked for, in pixels: small enough to be sent by mail, large enough to see a gripper.
SIZE = (480, 360)
# About so many pictures a second, of those that the environment shows: smooth enough to follow, small enough to keep.
PICTURES_PER_S = 10.0
# Environments that do not say how many of their steps are a second are taken for the usual 20 Hz.
_DEFAULT_RATE = 20.0
# The last picture, with the verdict, stays for two seconds.
_REST_S = 2.0
# More colours than a scene of plain materials shows; a GIF's limit is 256.
_GIF_COLOURS = 96
_CAPTION_HEIGHT = 28
_BACKGROUND, _RUNNING, _SOLVED, _FAILED = (24, 24, 24), (230, 230, 230), (90, 220, 110), (255, 110, 90)
_MP4_WRITERS = ("imageio_ffmpeg", "av")


def check_film(path: Path, settings: Sequence[EpisodeSettings], episodes: int) -> None:
    """Raise ConfigError where no film can come of it, before an hour of episodes is spent."""
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ConfigError(f"video is {path}, expected a file that ends in .gif or .mp4")
    if path.suffix.lower() == ".mp4" and not any(importlib.util.find_spec(name) for name in _MP4_WRITERS):
        raise ConfigError(
            f"video is {path}, but nothing here writes MP4: `pip install imageio-ffmpeg` (or av), or name a .gif"
        )
    if len(settings) != 1:
        raise ConfigError(f"video is of one run and one way of acting, but {len(settings)} are evaluated; name one")
    if episodes < 1:
        raise ConfigError(f"video_episodes is {episodes}, expected at least 1")


def film_episodes(settings: EpisodeSettings, seeds: Sequence[int], path: Path) -> list[EpisodeRecord]:
    """Run episodes and write a film of them, with seed, step and outcome below the picture; return their records.

    Raises SimulationError where the environment gives no pictures.
    """
    if settings.environment is None:
        return _film_world(settings, seeds, path)
    return _film_environment(settings, settings.environment, seeds, path)


def _film_world(settings: EpisodeSettings, seeds: Sequence[int], path: Path) -> list[EpisodeRecord]:
    width, height = SIZE
    rollout, world = world_rollout(
        settings,
        lambda frame: film.see(world.render, frame.step, frame.ended, frame.success),
        render_mode="rgb_array",
        width=width,
        height=height,
    )
    film = _Film(1e9 / world.control_period_ns)
    return _run(rollout.run_episode, seeds, film, path, world)


def _film_environment(settings: EpisodeSettings, name: str, seeds: Sequence[int], path: Path) -> list[EpisodeRecord]:
    # OGBench's own pictures are the size of a stamp; what other environments call their size nobody knows.
    size = {} if is_gymnasium_id(name) else dict(zip(("width", "height"), SIZE, strict=True))
    environment = make_environment(name, **(settings.options | {"render_mode": "rgb_array"} | size))
    film = _Film(float(environment.metadata.get("render_fps") or _DEFAULT_RATE))

    def see(step: int, ended: bool, solved: bool) -> None:
        if step == 0 and film.empty:
            _leave_out_shadows(environment)
        film.see(environment.render, step, ended, solved)

    rollout = environment_rollout(settings, environment, see)
    return _run(rollout.run_episode, seeds, film, path, environment)


def _run(
    run_episode: Callable[[int], EpisodeRecord], seeds: Sequence[int], film: _Film, path: Path, shown: Environment
) -> list[EpisodeRecord]:
    records = []
    try:
        for seed in seeds:
            film.seed = seed
            records.append(run_episode(seed))
    finally:
        shown.close()
    film.write(path)
    return records


def _leave_out_shadows(environment: Environment) -> None:
    """Before its first picture: without a graphics card, shadows and reflections make one ten times slower.

    MuJoCo's models can be told so; what is no MuJoCo environment is left as it is.
    """
    model: Any = getattr(environment.unwrapped, "model", None)
    if hasattr(model, "vis") and hasattr(model, "mat_reflectance"):
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        model.mat_reflectance[:] = 0


class _Film:
    """Keeps every so many-th picture, with its caption, as a palette image: a third of the memory."""

    def __init__(self, rate: float) -> None:
        self.seed = 0
        self._every = max(1, round(rate / PICTURES_PER_S))
        self._period_s = self._every / rate
        self._pictures: list[Image.Image] = []

    @property
    def empty(self) -> bool:
        """Whether it has seen nothing yet."""
        return not self._pictures

    def see(self, render: Callable[[], Any], step: int, ended: bool, solved: bool) -> None:
        """Look at a step; the picture is asked for only where it is kept."""
        if not ended and step % self._every:
            return
        picture = np.asarray(render())
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise SimulationError(
                f"no film: the environment's pictures have shape {picture.shape} and type {picture.dtype}, expected "
                "(height, width, 3) of uint8; does it have the render mode 'rgb_array'?"
            )
        verdict = (": success" if solved else ": failure") if ended else ""
        colour = (_SOLVED if solved else _FAILED) if ended else _RUNNING
        captioned = caption(picture, f"seed {self.seed}, step {step}{verdict}", colour)
        self._pictures += [captioned.quantize(_GIF_COLOURS)] * (round(_REST_S / self._period_s) if ended else 1)

    def write(self, path: Path) -> None:
        partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write(partial)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None

    def _write(self, path: Path) -> None:
        if path.suffix.lower() == ".mp4":
            write_mp4(path, self._pictures, 1 / self._period_s)
            return
        first, *others = self._pictures
        milliseconds = round(1000 * self._period_s)
        first.save(path, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)


def caption(picture: Picture, text: str, colour: tuple[int, int, int]) -> Image.Image:
    """The picture (height, width, 3) with a line of text below it; its sides are even numbers, as MP4 wants them."""
    from PIL import Image, ImageDraw

    height, width, _ = picture.shape
    canvas = Image.new("RGB", (width + width % 2, height + height % 2 + _CAPTION_HEIGHT), _BACKGROUND)
    canvas.paste(Image.fromarray(picture), (0, 0))
    ImageDraw.Draw(canvas).text((8, canvas.height - _CAPTION_HEIGHT + 7), text, fill=colour, font_size=14)
    return canvas


def write_mp4(path: Path, pictures: Sequence[Image.Image], rate: float) -> None:
    """Write an MP4 (H.264) by imageio-ffmpeg or av, whichever is installed."""
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        ffmpeg = importlib.import_module("imageio_ffmpeg")
        writer = ffmpeg.write_frames(
            str(path), pictures[0].size, fps=rate, macro_block_size=2, ffmpeg_log_level="error"
        )
        writer.send(None)
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture.convert("RGB")))
        writer.close()
        return
    av = importlib.import_module("av")
    from fractions import Fraction

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture.convert("RGB"))))
        container.mux(stream.encode(None))
