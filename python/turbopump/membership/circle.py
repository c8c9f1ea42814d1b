"""The ring as a picture: the circle of slots, a band for each copy, a colour for each member, as SVG."""

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from turbopump.membership.topology import SLOTS, ranges

SVG = "http://www.w3.org/2000/svg"
SIZE = 480  # of the circle's square; the legend is beside it
LEGEND = 260
OUTER, BAND, BANDS_MAX = 215.0, 34.0, 5
SECTORS = 2048  # drawn round: more would be thinner than a pixel
LEGEND_MAX = 24  # members that have a line; the others are one line
COLORS: tuple[str, ...] = ("#1f6feb", "#d1242f", "#1a7f37", "#bf8700", "#8250df")
COLORS += ("#0b8a94", "#e16f24", "#bf3989", "#57606a", "#8c6d1f")


def ring_picture(
    table: Sequence[Sequence[str]], members: Sequence[tuple[str, str]], title: str, mark: int | None = None
) -> str:
    """An SVG document.

    Args:
        table: For each of the 16384 slots who keeps it, the primary first: the outermost band.
        members: Their names, each with what the legend says of it.
        title: Above the circle.
        mark: A slot to point at.

    Raises:
        ValueError: The table has another length.
    """
    if len(table) != SLOTS:
        raise ValueError(f"a ring has {SLOTS} slots, not {len(table)}")
    color = {name: _color(index) for index, (name, _) in enumerate(members)}
    bands = min(max(map(len, table)), BANDS_MAX)
    parts = [
        f'<svg xmlns="{SVG}" viewBox="0 0 {SIZE + LEGEND} {SIZE}" font-family="sans-serif" font-size="12">',
        f'<rect width="{SIZE + LEGEND}" height="{SIZE}" fill="white"/>',
        f'<text x="12" y="20" font-size="15">{escape(title)}</text>',
        *(path for band in range(bands) for path in _band(table, band, color)),
        *_ticks(),
        *_legend(members, color),
        *([] if mark is None else _pointer(mark, table[mark])),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _color(index: int) -> str:
    """Ten that are told apart; then the same ones lighter."""
    red, green, blue = (int(COLORS[index % len(COLORS)][place : place + 2], 16) for place in (1, 3, 5))
    light = min(index // len(COLORS) * 0.22, 0.66)
    return "#" + "".join(f"{round(part + (255 - part) * light):02x}" for part in (red, green, blue))


def _band(table: Sequence[Sequence[str]], band: int, color: dict[str, str]) -> Iterator[str]:
    """One path for each member: all its arcs at this distance."""
    step = SLOTS // SECTORS
    sectors = [names[band] if band < len(names) else "" for names in table[step // 2 :: step]]
    arcs: dict[str, list[str]] = {}
    for first, last in ranges(sectors):
        if sectors[first]:
            arcs.setdefault(sectors[first], []).append(_arc(first / SECTORS, (last + 1) / SECTORS, band))
    for name, found in arcs.items():
        yield f'<path d="{"".join(found)}" fill="{color[name]}"/>'


def _arc(start: float, end: float, band: int) -> str:
    """The outline of a part of a band; in halves, for a whole circle would begin where it ends."""
    if end - start > 0.5:
        middle = (start + end) / 2
        return _arc(start, middle, band) + _arc(middle, end, band)
    outer = OUTER - band * (BAND + 2)
    inner = outer - BAND
    return (
        f"M{_at(start, outer)}A{outer:g} {outer:g} 0 0 1 {_at(end, outer)}"
        f"L{_at(end, inner)}A{inner:g} {inner:g} 0 0 0 {_at(start, inner)}Z"
    )


def _at(turn: float, radius: float) -> str:
    """A point: slot 0 is at the top, and slots go round clockwise."""
    angle = 2 * math.pi * turn
    return f"{SIZE / 2 + radius * math.sin(angle):.1f} {SIZE / 2 + 10 - radius * math.cos(angle):.1f}"


def _ticks() -> Iterator[str]:
    for quarter in range(4):
        x, y = _at(quarter / 4, OUTER + 9).split()
        anchor = ("middle", "start", "middle", "end")[quarter]
        shift = 4 if quarter in {1, 3} else 0
        yield (
            f'<text x="{x}" y="{float(y) + shift:.1f}" text-anchor="{anchor}" font-size="10" fill="#57606a">'
            f"{quarter * SLOTS // 4}</text>"
        )


def _legend(members: Sequence[tuple[str, str]], color: dict[str, str]) -> Iterator[str]:
    for index, (name, about) in enumerate(members[:LEGEND_MAX]):
        y = 44 + index * 17
        yield f'<rect x="{SIZE + 16}" y="{y - 10}" width="12" height="12" fill="{color[name]}"/>'
        text = f'{escape(name)} <tspan fill="#57606a">{escape(about)}</tspan>'
        yield f'<text x="{SIZE + 34}" y="{y}">{text}</text>'
    if len(members) > LEGEND_MAX:
        yield f'<text x="{SIZE + 34}" y="{44 + LEGEND_MAX * 17}">and {len(members) - LEGEND_MAX} more</text>'


def _pointer(slot: int, owners: Sequence[str]) -> Iterator[str]:
    turn = (slot + 0.5) / SLOTS
    (x1, y1), (x2, y2) = _at(turn, OUTER + 6).split(), _at(turn, 26).split()
    yield f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="black" stroke-width="2"/>'
    x, y = SIZE / 2, SIZE / 2 + 10
    yield f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-weight="bold">slot {slot}</text>'
    yield f'<text x="{x:g}" y="{y + 15:g}" text-anchor="middle">{escape(", ".join(owners))}</text>'
