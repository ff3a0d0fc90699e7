"""Plots as SVG: that things are where their numbers say, and that what comes out can be read by a machine."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from rql_core.evaluation.plots import (
    COLOURS,
    Bar,
    Curve,
    bar_plot,
    line_plot,
    short_number,
    style_sheet,
    swatch,
    ticks,
)


def parsed(svg: str) -> ElementTree.Element:
    """The picture as XML, which an escaping that was forgotten would break."""
    return ElementTree.fromstring(svg)


def points(path: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = path.attrib["d"].strip("Mz").split("L")
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs)]


def of_class(picture: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in picture.iter() if element.get("class") == name]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 10_000, [0, 2500, 5000, 7500, 10_000]),
        (-83.0, 2.0, [-75, -50, -25, 0]),
        (0.31, 0.39, [0.32, 0.34, 0.36, 0.38]),
        (0, 1_000_000, [0, 250_000, 500_000, 750_000, 1_000_000]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 4) == pytest.approx(expected)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (500, "500"), (2500, "2.5k"), (1e6, "1M"), (0.5, "0.5")])
def test_numbers_of_updates_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_a_line_goes_where_its_numbers_say() -> None:
    """The axis shows 0 to 1 over 0 to 1000 updates: the corners of the plot are its ends, and halves are halfway."""
    curve = Curve("rql", 0, [(0, 0.0), (500, 0.5), (1000, 1.0)], thin=[[(0, 1.0), (1000, 0.0)]])
    picture = parsed(line_plot([curve], "success", limits=(0, 1)))
    (line,), (thin,) = of_class(picture, "line"), of_class(picture, "thin")
    (left, bottom), middle, (right, top) = points(line)
    assert middle == pytest.approx(((left + right) / 2, (bottom + top) / 2), abs=0.1)
    assert left < right
    assert top < bottom
    assert points(thin) == [(left, top), (right, bottom)]
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    assert left > 0
    assert right < width
    assert top > 0
    assert bottom < height
    labels = {element.text: element for element in picture.iter("text")}
    assert float(labels["0.5"].attrib["y"]) == pytest.approx(middle[1] + 4, abs=0.1)
    assert float(labels["500"].attrib["x"]) == pytest.approx(middle[0], abs=0.1)


def test_a_band_runs_along_its_highs_and_back_along_its_lows() -> None:
    curve = Curve("rql", 3, [(0, 0.5), (10, 0.5)], band=[(0, 0.25, 0.75), (10, 0.0, 1.0)])
    picture = parsed(line_plot([curve], "success", limits=(0, 1)))
    (band,) = of_class(picture, "band")
    (x0, high0), (x1, high1), (x2, low1), (x3, low0) = points(band)
    assert (x0, x1) == (x3, x2)
    assert high1 < high0 < low0 < low1
    assert high0 - high1 == pytest.approx(low1 - low0, abs=0.2)
    assert of_class(picture, "s3")


def test_values_over_decades_have_a_logarithmic_axis_where_that_is_allowed() -> None:
    curve = Curve("rql", 0, [(0, 1000.0), (1, 10.0), (2, 0.1)])
    logarithmic, linear = (parsed(line_plot([curve], "loss", may_be_log=allowed)) for allowed in (True, False))
    ys = [y for _, y in points(of_class(logarithmic, "line")[0])]
    assert ys[1] == pytest.approx((ys[0] + ys[2]) / 2, abs=0.1)
    assert {"0.1", "1", "10", "100", "1000"} <= {element.text for element in logarithmic.iter("text")}
    assert "logarithmic" in {element.text for element in logarithmic.iter("text")}
    ys = [y for _, y in points(of_class(linear, "line")[0])]
    assert ys[2] - ys[1] < (ys[1] - ys[0]) / 50
    negative = Curve("rql", 0, [(0, -1000.0), (1, 10.0)])
    assert "logarithmic" not in line_plot([negative], "value", may_be_log=True)


@pytest.mark.parametrize("values", [[], [0.0], [5.0, 5.0], [-3.0], [1e-300, 1e300], [0.0, 1e-12]])
def test_whatever_there_is_to_show_can_be_drawn(values: list[float]) -> None:
    curve = Curve("rql", 0, [(float(step), value) for step, value in enumerate(values)])
    svg = line_plot([curve], "loss", may_be_log=True)
    parsed(svg)
    assert "nan" not in svg
    assert "inf" not in svg


def test_names_are_escaped() -> None:
    name = 'a<b>&"c"'
    picture = parsed(line_plot([Curve(name, 0, [(0, 0.5), (1, 0.5)])], name, limits=(0, 1), show=lambda y: f"{y:.2f}"))
    assert [element.text for element in picture.iter("title")] == [
        f"{name}: 0.50 after 0 updates",
        f"{name}: 0.50 after 1 updates",
    ]
    assert picture.attrib["aria-label"] == f"{name} over updates"
    assert name in {element.text for element in parsed(bar_plot([Bar(name, 0, 0.5, None, [])], name)).iter("text")}


def test_bars_show_interval_mean_and_each_value() -> None:
    picture = parsed(bar_plot([Bar("rql", 0, 0.5, (0.25, 0.75), [0.0, 1.0, 1.0]), Bar("qc", 1, 0.1, None, [0.1])], "x"))
    (bar,) = of_class(picture, "bar")
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in of_class(picture, "value")]
    (left, y), (right, _), again, _ = dots
    assert again[0] == right
    assert again[1] != y  # equal values stay apart
    quarter = (right - left) / 4
    assert float(bar.attrib["x1"]) == pytest.approx(left + quarter, abs=0.1)
    assert float(bar.attrib["x2"]) == pytest.approx(right - quarter, abs=0.1)
    assert float(bar.attrib["y1"]) == y


def test_every_style_has_a_colour_and_can_be_told_from_all_others() -> None:
    styles = len(COLOURS) * 3
    sheet = style_sheet(styles)
    looks = set()
    for style in range(styles):
        colour = sheet.split(f".s{style}{{--c:")[1].split("}")[0]
        dashes = sheet.split(f".s{style}{{--d:")[1].split("}")[0]
        looks.add((colour, dashes))
        parsed(swatch(style))
    assert len(looks) == styles
    assert sheet.count("{") == sheet.count("}")


def test_colours_stand_out_from_light_and_dark_pages() -> None:
    """WCAG 2.1, 1.4.11: graphics need a contrast of 3 with what is behind them; light ones have their marks besides."""

    def luminance(colour: str) -> float:
        channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(one), luminance(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    light, dark = style_sheet(len(COLOURS)).split("@media")
    for style in range(len(COLOURS)):
        on_white = light.split(f".s{style}{{--c:")[1].split("}")[0]
        on_dark = dark.split(f".s{style}{{--c:")[1].split("}")[0]
        if on_white != "currentColor":
            assert contrast(on_dark, "#15181c") >= 4
            assert contrast(on_white, "#ffffff") >= 2
    assert math.isclose(contrast("#000000", "#ffffff"), 21)
