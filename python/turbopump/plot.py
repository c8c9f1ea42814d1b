"""Latency by percentile, or one figure against another, as an SVG, drawn by hand: that needs no library.

All axes are logarithmic. Of latencies, across: 1 / (1 - percentile), so that each further nine takes the same
room. Up: microseconds.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

SVG = "http://www.w3.org/2000/svg"
WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 50
COLORS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")
NANOSECOND = 0.001  # nothing is drawn below: clocks tell no less
LEAST = 0.001  # of other figures
TICKS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


class Curve(NamedTuple):
    """A line of the plot."""

    label: str
    points: Sequence[tuple[float, float]]  # percent, microseconds, or other pairs; ascending


class Axis(NamedTuple):
    """What a logarithmic axis shows."""

    title: str
    low: int  # decade of the lowest value, and below it nothing is told apart
    high: int  # decade of the highest

    def share(self, value: float) -> float:
        """How far along the axis a value lies, from 0 to 1."""
        return (math.log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)


class Decades(NamedTuple):
    """Where values come to lie between two logarithmic axes."""

    across: Axis
    up: Axis

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + self.across.share(value) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return HEIGHT - BOTTOM - self.up.share(value) * (HEIGHT - TOP - BOTTOM)


class Scale(NamedTuple):
    """Where percentiles and latencies come to lie."""

    nines: float  # decades across
    low: float  # decade of the lowest microseconds
    high: float  # decade of the highest

    def x(self, percent: float) -> float:
        """Pixels from the left; what lies beyond the last nine lies on the edge."""
        share = min(_nines(percent) / self.nines, 1.0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, microseconds: float) -> float:
        """Pixels from the top."""
        share = (math.log10(max(microseconds, 10**self.low)) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def percentile_plot(curves: Sequence[Curve], title: str) -> str:
    """An SVG document.

    Args:
        curves: At least one point each.
        title: Above the plot.

    Raises:
        ValueError: There is nothing to draw.
    """
    _check(curves)
    scale = _scale(curves)
    return _document(title, _grid(scale), curves, scale)


def decade_plot(curves: Sequence[Curve], title: str, across: str, up: str) -> str:
    """An SVG document of one figure against another; what is near 0 lies on the edge.

    Args:
        curves: At least one point each.
        title: Above the plot.
        across: What the first figure of a point is.
        up: What the second one is.

    Raises:
        ValueError: There is nothing to draw.
    """
    _check(curves)
    firsts, seconds = zip(*(point for curve in curves for point in curve.points), strict=True)
    scale = Decades(_axis(across, firsts), _axis(up, seconds))
    return _document(title, _decades(scale), curves, scale)


def _check(curves: Sequence[Curve]) -> None:
    if not curves or not all(curve.points for curve in curves):
        raise ValueError("a plot needs a curve, and a curve needs a point")


def _document(title: str, grid: Iterator[str], curves: Sequence[Curve], scale: Scale | Decades) -> str:
    parts = [
        f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
        *grid,
        *(part for index, curve in enumerate(curves) for part in _curve(curve, index, scale)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _nines(percent: float) -> float:
    """0 for 0%, 1 for 90%, 2 for 99%."""
    return -math.log10(max(1.0 - percent / 100.0, 1e-9))


def _scale(curves: Sequence[Curve]) -> Scale:
    values = [max(us, NANOSECOND) for curve in curves for _, us in curve.points]
    shown = [percent for curve in curves for percent, _ in curve.points if percent < 100.0] or [0.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return Scale(max(2.0, _nines(max(shown))), low, max(high, low + 1))


def _axis(title: str, values: Iterable[float]) -> Axis:
    shown = [value for value in values if value >= LEAST] or [1.0]
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
    return Axis(title, low, max(high, low + 1))


def _decades(scale: Decades) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for decade in range(scale.across.low, scale.across.high + 1):
        x = scale.x(10.0**decade)
        yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10.0**decade:,g}</text>'
    for decade in range(scale.up.low, scale.up.high + 1):
        y = scale.y(10.0**decade)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:,g}</text>'
    yield f'<text x="{right}" y="{bottom + 38}" text-anchor="end">{escape(scale.across.title)}</text>'
    yield f'<text x="{LEFT}" y="{TOP - 10}">{escape(scale.up.title)}</text>'


def _grid(scale: Scale) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for percent in TICKS:
        if _nines(percent) <= scale.nines:
            x = scale.x(percent)
            yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{percent:g}%</text>'
    for decade in range(int(scale.low), int(scale.high) + 1):
        y = scale.y(10.0**decade)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:,g} us</text>'


def _curve(curve: Curve, index: int, scale: Scale | Decades) -> Iterator[str]:
    color = COLORS[index % len(COLORS)]
    points = " ".join(f"{scale.x(first):.1f},{scale.y(second):.1f}" for first, second in curve.points)
    yield f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
    x, y = LEFT + 10, TOP + 16 + index * 18
    yield f'<text x="{x}" y="{y}" fill="{color}">{escape(curve.label)}</text>'
