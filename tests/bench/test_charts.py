from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import charts, results

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*values: Any, **more: Any) -> Any:
    bars = tuple(results.Bar(f"<{place}>", value, place == 0) for place, value in enumerate(values))
    return ET.fromstring(charts.svg(results.Chart("c", "A & B", "ms", bars, **more)))


def widths(picture: Any) -> Any:
    return [float(bar.get("width")) for bar in picture.iter(f"{SVG}rect")]


def test_bars_are_as_long_as_their_values() -> None:
    first, second, third = widths(drawn(100.0, 50.0, 0.0001))
    assert first == pytest.approx(2 * second)
    assert third == charts.LENGTH_MIN


def test_a_logarithmic_scale_has_equal_steps() -> None:
    first, second, third = widths(drawn(1.0, 10.0, 100.0, is_log=True))
    assert second - first == pytest.approx(third - second, abs=0.2)


def test_nothing_reaches_beyond_the_picture() -> None:
    assert (
        max(widths(drawn(1.0, 99_999.0))) + charts.LABEL_WIDTH + charts.VALUE_WIDTH <= charts.WIDTH
    )


def test_ours_is_marked_and_every_bar_is_named_and_told() -> None:
    picture = drawn(3.0, 4.0)
    assert [bar.get("class") for bar in picture.iter(f"{SVG}rect")] == ["ours", "theirs"]
    assert {"<0>", "<1>", "3", "4"} <= {text.text for text in picture.iter(f"{SVG}text")}


def test_a_dark_page_has_its_own_colours() -> None:
    assert "prefers-color-scheme: dark" in charts.svg(results.Chart("c", "t", "ms", ()))


def test_a_chart_of_zeros_is_drawn() -> None:
    assert widths(drawn(0.0, 0.0)) == [charts.LENGTH_MIN] * 2
