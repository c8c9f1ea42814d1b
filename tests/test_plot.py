"""plot.py: the picture is an SVG that shows what it was given."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbopump.plot import HEIGHT, SVG, WIDTH, Curve, decade_plot, percentile_plot

POINTS = [(0.0, 10.0), (50.0, 20.0), (90.0, 40.0), (99.0, 80.0), (99.9, 300.0), (100.0, 1000.0)]


def parsed(document: str) -> ET.Element:
    """The picture's tree."""
    return ET.fromstring(document)  # noqa: S314 - written by the function under test


def lines(document: str) -> list[list[tuple[float, float]]]:
    """The pixels of each curve."""
    drawn = parsed(document).iter(f"{{{SVG}}}polyline")
    return [[_pair(point) for point in line.get("points", "").split()] for line in drawn]


def _pair(point: str) -> tuple[float, float]:
    x, y = point.split(",")
    return float(x), float(y)


def test_each_curve_is_a_line_with_its_label() -> None:
    """In a colour of its own."""
    document = percentile_plot([Curve("GET", POINTS), Curve("SET & more", POINTS)], "Latency <here>")

    assert len(lines(document)) == 2
    texts = [text.text for text in parsed(document).iter(f"{{{SVG}}}text")]
    assert {"GET", "SET & more", "Latency <here>", "99%", "100 us"} <= set(texts)
    colors = {line.get("stroke") for line in parsed(document).iter(f"{{{SVG}}}polyline")}
    assert len(colors) == 2


def test_a_further_nine_takes_the_same_room() -> None:
    """90, 99 and 99.9 percent are as far from each other."""
    [line] = lines(percentile_plot([Curve("a", POINTS)], ""))
    x = [point[0] for point in line]

    assert x[3] - x[2] == pytest.approx(x[4] - x[3], abs=0.2)
    assert x == sorted(x)


def test_slower_is_higher() -> None:
    """Ten times slower is a decade up."""
    [line] = lines(percentile_plot([Curve("a", POINTS)], ""))
    y = [point[1] for point in line]

    assert y == sorted(y, reverse=True)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e9)), min_size=1, max_size=20))
def test_nothing_is_drawn_outside(points: list[tuple[float, float]]) -> None:
    """Whatever was measured, zero and one point included."""
    [line] = lines(percentile_plot([Curve("a", sorted(points))], "t"))

    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)


@pytest.mark.parametrize("curves", [[], [Curve("a", [])]])
def test_nothing_to_draw_is_an_error(curves: list[Curve]) -> None:
    """An empty picture would look like a result."""
    with pytest.raises(ValueError, match="needs a"):
        percentile_plot(curves, "t")
    with pytest.raises(ValueError, match="needs a"):
        decade_plot(curves, "t", "x", "y")


def test_ten_times_as_much_is_as_far_in_both_directions() -> None:
    """Whatever the axes show, which is written beside them."""
    document = decade_plot([Curve("a", [(1, 3000), (10, 3000), (100, 30)])], "Cost", "keys & more", "bytes")
    [line] = lines(document)

    assert line[1][0] - line[0][0] == pytest.approx(line[2][0] - line[1][0], abs=0.2)
    assert line[0][1] == line[1][1] < line[2][1]
    texts = [text.text for text in parsed(document).iter(f"{{{SVG}}}text")]
    assert {"a", "Cost", "keys & more", "bytes", "1", "100", "10,000"} <= set(texts)


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0, 1e12)), min_size=1, max_size=20))
def test_no_decade_is_drawn_outside(points: list[tuple[float, float]]) -> None:
    """Whatever was measured, zero and one point included."""
    [line] = lines(decade_plot([Curve("a", sorted(points))], "t", "x", "y"))

    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)
